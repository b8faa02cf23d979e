"""Files in, `OrbitViews` out."""

from .source import MAX_VIEWS, read_views

__all__ = ["MAX_VIEWS", "read_views"]
