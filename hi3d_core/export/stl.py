"""STL: bare triangles, binary (3D Systems 1989)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..atomic_file import check_writable, replacing
from ..datatypes import Mesh
from .checks import GENERATOR, faces_to_write

_TRIANGLE = [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]


def write_stl(mesh: Mesh, path: str | Path) -> None:
    """Write a mesh's triangles as binary STL, Y up, in world units; colours are left out.

    Raises ValueError for a mesh without faces or a place that can't be written.
    """
    check_writable(path)
    faces = faces_to_write(mesh, path).numpy()
    triangles = np.zeros(len(faces), _TRIANGLE)
    corners = mesh.vertices.detach().cpu().float().numpy()[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    triangles["normal"] = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    triangles["corners"] = corners
    # The header is free text, but readers take one that starts with "solid" for an ASCII file.
    header = GENERATOR.encode("ascii").ljust(80, b" ")
    count = np.array([len(triangles)], "<u4")
    with replacing(path) as temporary:
        temporary.write_bytes(header + count.tobytes() + triangles.tobytes())
