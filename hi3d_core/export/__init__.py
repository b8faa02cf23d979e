"""Meshes and splats out to files."""

from __future__ import annotations

from pathlib import Path

from ..datatypes import Mesh
from .glb import write_glb
from .obj import write_obj
from .ply import write_ply
from .stl import write_stl

__all__ = [
    "MESH_WRITERS",
    "check_mesh_suffix",
    "write_glb",
    "write_mesh",
    "write_obj",
    "write_ply",
    "write_stl",
]

MESH_WRITERS = {".glb": write_glb, ".obj": write_obj, ".ply": write_ply, ".stl": write_stl}


def write_mesh(mesh: Mesh, path: str | Path) -> None:
    """Write a mesh in the format that the path's suffix names: .glb, .obj, .ply or .stl.

    GLB and OBJ keep texture and vertex colours, PLY has vertex colours only (taken from the
    texture if there are no others), STL bare triangles. The file's frame is our world.

    Raises ValueError for another suffix, a mesh without faces or a place that can't be written.
    """
    check_mesh_suffix(path)
    MESH_WRITERS[Path(path).suffix.lower()](mesh, path)


def check_mesh_suffix(path: str | Path) -> None:
    """Refuse a path whose suffix names no mesh format; ValueError lists those there are."""
    if Path(path).suffix.lower() not in MESH_WRITERS:
        raise ValueError(
            f"{path} does not end in a mesh format that can be written: "
            f"expected {', '.join(MESH_WRITERS)}"
        )
