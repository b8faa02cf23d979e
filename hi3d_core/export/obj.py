"""Wavefront OBJ, with its material (.mtl) and texture (.png) beside it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ..atomic_file import check_writable, replacing
from ..datatypes import Mesh
from ..normals import vertex_normals, weld_indices
from .checks import GENERATOR, encode_picture, faces_to_write


def write_obj(mesh: Mesh, path: str | Path) -> None:
    """Write a mesh as OBJ; with a texture also NAME.mtl and NAME.png in the same folder.

    OBJ counts positions and texture coordinates apart, so vertices that a UV seam repeats are
    written once and a closed mesh is closed in the file. Numbers have nine digits, which keeps
    float32 exact. Vertex colours, if there is no texture, follow the positions as most programs
    read them. The OBJ is put in place last: a reader never finds it without its texture.

    Raises ValueError for a mesh without faces or a place that can't be written.
    """
    path = Path(path)
    # Programs disagree on names with blanks in an OBJ, so its companions have none.
    stem = "_".join(path.stem.split())
    material_path, texture_path = path.with_name(f"{stem}.mtl"), path.with_name(f"{stem}.png")
    has_texture = mesh.texture is not None and mesh.uvs is not None
    companions = [material_path, texture_path] if has_texture else []
    for target in (path, *companions):
        check_writable(target)
    text = _obj_text(mesh, path, stem if has_texture else None)
    with ExitStack() as stack:
        # Left in the opposite order: the texture is in place first, the OBJ last.
        stack.enter_context(replacing(path)).write_text(text, encoding="utf-8")
        if mesh.texture is not None and has_texture:
            material = stack.enter_context(replacing(material_path))
            material.write_text(_mtl_text(stem), encoding="utf-8")
            picture = stack.enter_context(replacing(texture_path))
            picture.write_bytes(encode_picture(mesh.texture, None))


def _obj_text(mesh: Mesh, path: Path, material: str | None) -> str:
    faces = faces_to_write(mesh, path).numpy()
    points = mesh.vertices.detach().cpu().float().numpy()
    normals = vertex_normals(mesh.vertices, mesh.faces).cpu().numpy()
    if material is None and mesh.vertex_colors is not None:
        points = np.hstack([points, mesh.vertex_colors.detach().cpu().float().numpy()])
    numbers, count = weld_indices(points)
    first_of = np.empty(count, np.int64)
    first_of[numbers[::-1]] = np.arange(len(numbers))[::-1]
    lines = [f"# {GENERATOR}"]
    if material is not None:
        lines += [f"mtllib {material}.mtl", f"usemtl {material}"]
    lines += _rows("v", points[first_of])
    lines += _rows("vn", normals[first_of])
    at = numbers[faces] + 1
    if material is not None and mesh.uvs is not None:
        uvs = mesh.uvs.detach().cpu().double().numpy()
        lines += _rows("vt", np.stack([uvs[:, 0], 1 - uvs[:, 1]], axis=1))  # OBJ counts upwards
        corners = np.stack([at, faces + 1, at], axis=-1).reshape(-1, 9)
        lines += ["f {}/{}/{} {}/{}/{} {}/{}/{}".format(*row) for row in corners.tolist()]
    else:
        corners = np.stack([at, at], axis=-1).reshape(-1, 6)
        lines += ["f {}//{} {}//{} {}//{}".format(*row) for row in corners.tolist()]
    return "\n".join(lines) + "\n"


def _rows(keyword: str, rows: np.ndarray) -> list[str]:
    pattern = " ".join([keyword, *["{:.9g}"] * rows.shape[1]])
    return [pattern.format(*row) for row in rows.tolist()]


def _mtl_text(stem: str) -> str:
    return (
        f"# {GENERATOR}\nnewmtl {stem}\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {stem}.png\n"
    )
