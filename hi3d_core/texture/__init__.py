"""Colours for a mesh out of posed views."""

from __future__ import annotations

from .bake import BakedTexture, TextureConfig, bake, bake_texture, project_vertex_colors

__all__ = ["BakedTexture", "TextureConfig", "bake", "bake_texture", "project_vertex_colors"]
