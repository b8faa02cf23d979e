"""Files in, `OrbitViews` out."""

from .source import read_views

__all__ = ["read_views"]
