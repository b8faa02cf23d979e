"""The signed distance field: hull, volume rendering, fit and surface extraction."""
