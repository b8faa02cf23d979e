"""Colours for a mesh out of posed views."""

from __future__ import annotations

from .bake import BakedTexture, bake, bake_texture
from .config import TextureConfig, suited_to_doubt
from .reference import reference_picture, register_reference
from .unseen import paint_unseen, unseen_in_views
from .vertex_colors import bake_or_color, project_vertex_colors

__all__ = [
    "BakedTexture",
    "TextureConfig",
    "bake",
    "bake_or_color",
    "bake_texture",
    "paint_unseen",
    "project_vertex_colors",
    "reference_picture",
    "register_reference",
    "suited_to_doubt",
    "unseen_in_views",
]
