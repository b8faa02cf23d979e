"""Mesh files (GLB, glTF, OBJ, PLY, STL, OFF) into our meshes, through trimesh.

What differs from file to file is settled here: transforms of scenes are applied, texture
coordinates start at the top left, and glTF's linear colour factors become sRGB.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datatypes import Mesh
from ..normals import weld_indices
from ..srgb import linear_to_srgb, srgb_to_linear

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
_LINEAR_COLOR_SUFFIXES = (".glb", ".gltf")  # the others store colours as they are shown

logger = logging.getLogger(__name__)


def read_meshes(path: str | Path) -> list[Mesh]:
    """Read a mesh file; one `Mesh` for each part with a material of its own.

    Textures are multiplied with the material's base colour; a part without a texture gets it as
    vertex colours, or none if the file names no colour. Opacity, other maps, points and lines
    are left out. An STL's loose triangles are joined where their corners are equal.

    Raises ValueError naming the file if it is missing, of an unknown type, damaged, or holds no
    triangles.
    """
    import trimesh

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{path} is no mesh file that is known here: expected one of {', '.join(SUFFIXES)}"
        )
    if not path.is_file():
        raise ValueError(f"{path} does not exist or is no file")
    try:
        scene: Any = trimesh.load(path, force="scene", process=False)
        meshes = [
            _placed(_to_mesh(scene.geometry[name], suffix), transform)
            # Not scene.dump(): its copies lose the vertex colours of parts with a material.
            for transform, name in map(scene.graph.get, scene.graph.nodes_geometry)
            if isinstance(scene.geometry[name], trimesh.Trimesh) and len(scene.geometry[name].faces)
        ]
    except Exception as error:  # a damaged file makes trimesh raise nearly anything
        raise ValueError(
            f"{path} can't be read as a mesh, it may be damaged or cut off "
            f"({type(error).__name__}: {error})"
        ) from error
    if not meshes:
        raise ValueError(f"{path} holds no triangles")
    return meshes


def _placed(mesh: Mesh, transform: np.ndarray) -> Mesh:
    """The mesh in the world, by its node's (4, 4) matrix; a mirroring one keeps faces outward."""
    if np.array_equal(transform, np.eye(4)):
        return mesh
    matrix = torch.from_numpy(np.asarray(transform, np.float64).copy())
    vertices = (mesh.vertices.double() @ matrix[:3, :3].T + matrix[:3, 3]).float()
    is_mirrored = float(torch.linalg.det(matrix[:3, :3])) < 0
    return replace(mesh, vertices=vertices, faces=mesh.faces.flip(1) if is_mirrored else mesh.faces)


def _to_mesh(part: Any, suffix: str) -> Mesh:
    vertices = torch.tensor(np.asarray(part.vertices), dtype=torch.float32)
    faces = torch.tensor(np.asarray(part.faces), dtype=torch.int64)
    is_linear = suffix in _LINEAR_COLOR_SUFFIXES
    visual = part.visual
    if visual.kind == "texture":
        return _with_material(vertices, faces, visual, is_linear)
    if visual.kind == "vertex":
        colors = _rgb(visual.vertex_colors)
        return Mesh(vertices, faces, vertex_colors=linear_to_srgb(colors) if is_linear else colors)
    if visual.kind == "face":
        apart = torch.arange(faces.numel()).reshape(-1, 3)
        colors = _rgb(visual.face_colors).repeat_interleave(3, dim=0)
        return Mesh(vertices[faces.reshape(-1)], apart, vertex_colors=colors)
    if suffix == ".stl":
        vertices, faces = _join(vertices, faces)
    return Mesh(vertices, faces)


def _with_material(vertices: Tensor, faces: Tensor, visual: Any, is_linear: bool) -> Mesh:
    material = visual.material
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    factor = getattr(material, "baseColorFactor", None)
    if factor is None:
        factor = getattr(material, "diffuse", None)
    base = torch.ones(3) if factor is None else _rgb(np.atleast_2d(factor))[0]
    if picture is None or visual.uv is None:
        if picture is not None:
            logger.warning("a part has a texture but no texture coordinates: it is left out")
        own = visual.vertex_attributes.get("color")  # glTF's, beside a material
        colors = base.expand(len(vertices), 3).contiguous()
        if own is not None and len(own) == len(vertices):
            colors = colors * _rgb(own)
        return Mesh(vertices, faces, vertex_colors=linear_to_srgb(colors) if is_linear else colors)
    # .copy(): a picture decoded by Pillow is read-only memory.
    texture = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).float() / 255
    if bool((base < 1).any()):
        shaded = linear_to_srgb(srgb_to_linear(texture) * base)
        texture = shaded if is_linear else texture * base
    uvs = torch.tensor(np.asarray(visual.uv)[:, :2], dtype=torch.float32)
    uvs[:, 1] = 1 - uvs[:, 1]  # trimesh counts from the bottom
    return Mesh(vertices, faces, uvs=uvs, texture=texture)


def _rgb(colors: Any) -> Tensor:
    """(N, 3) floats in [0, 1] of trimesh's colours: RGB or RGBA, integers or floats."""
    array = np.asarray(colors)
    full = float(np.iinfo(array.dtype).max) if array.dtype.kind == "u" else 255.0
    values = array[:, :3] / full if array.dtype.kind in "ui" else array[:, :3]
    return torch.tensor(values, dtype=torch.float32).clamp(0, 1)


def _join(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Join vertices whose positions are exactly equal."""
    numbers, count = weld_indices(vertices.numpy())
    number_of = torch.from_numpy(numbers)
    joined = torch.empty(count, 3)
    joined[number_of] = vertices
    return joined, number_of[faces]
