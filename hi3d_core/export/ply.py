"""PLY: positions, normals and vertex colours, binary (Turk 1994)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..atomic_file import check_writable, replacing
from ..datatypes import Mesh
from ..mipmaps import sample_texture
from ..normals import vertex_normals, weld_indices
from .checks import GENERATOR, faces_to_write, to_bytes


def write_ply(mesh: Mesh, path: str | Path) -> None:
    """Write a mesh as binary PLY with vertex colours (8 bits, sRGB), if it has any colour.

    A mesh that has a texture only is given the texture's colour at every vertex. Its vertices
    are then joined where a UV seam repeats them, with their mean colour, as nothing is left to
    keep them apart. Texture detail finer than the triangles is lost: GLB and OBJ keep it.

    Raises ValueError for a mesh without faces or a place that can't be written.
    """
    check_writable(path)
    faces = faces_to_write(mesh, path)
    vertices = mesh.vertices.detach().cpu().float()
    colors = None if mesh.vertex_colors is None else mesh.vertex_colors.detach().cpu().float()
    if colors is None and mesh.texture is not None and mesh.uvs is not None:
        vertices, faces, colors = _join(vertices, faces, sample_texture(mesh.texture, mesh.uvs))
    fields = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    if colors is not None:
        fields += [(name, "u1") for name in ("red", "green", "blue")]
    rows = np.empty(len(vertices), fields)
    values = torch.cat([vertices, vertex_normals(vertices, faces)], dim=1).numpy()
    for column, name in enumerate(("x", "y", "z", "nx", "ny", "nz")):
        rows[name] = values[:, column]
    if colors is not None:
        for column, name in enumerate(("red", "green", "blue")):
            rows[name] = to_bytes(colors[:, column])
    triangles = np.empty(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
    triangles["count"] = 3
    triangles["corners"] = faces.numpy()
    with replacing(path) as temporary:
        temporary.write_bytes(
            _header(fields, len(rows), len(triangles)) + rows.tobytes() + triangles.tobytes()
        )


def _join(vertices: Tensor, faces: Tensor, colors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One vertex for each position, with the mean of the colours there."""
    numbers, count = weld_indices(vertices.numpy())
    number_of = torch.from_numpy(numbers)
    positions = torch.empty(count, 3)
    positions[number_of] = vertices
    sums = torch.zeros(count, 3).index_add_(0, number_of, colors)
    amounts = torch.bincount(number_of, minlength=count)
    return positions, number_of[faces], sums / amounts[:, None]


def _header(fields: list[tuple[str, str]], vertex_count: int, face_count: int) -> bytes:
    kinds = {"<f4": "float", "u1": "uchar"}
    lines = ["ply", "format binary_little_endian 1.0", f"comment {GENERATOR}"]
    lines.append(f"element vertex {vertex_count}")
    lines += [f"property {kinds[kind]} {name}" for name, kind in fields]
    lines += [f"element face {face_count}", "property list uchar int vertex_indices", "end_header"]
    return ("\n".join(lines) + "\n").encode("ascii")
