"""Gaussian splats: start, draw, fit, and render the views in between."""
