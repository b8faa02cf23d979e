"""Cut a surface into charts and lay them out in a square: texture coordinates by xatlas."""

from __future__ import annotations

import numpy as np
import torch
import xatlas

from .datatypes import Mesh, OnStep
from .mesh import measure_area
from .progress import Progress

# A chart covers at most this share of the surface, or this many faces' worth of it. xatlas grows
# charts in more than linear time: on 50,000 faces the limit makes it several times faster and
# costs about a tenth of the atlas.
_LARGEST_CHART = 1 / 120
_LARGEST_CHART_FACES = 400


# Neither of xatlas's two steps can be cancelled, and charts take most of the time: they are made a
# part of the surface after the other, of at most this many faces.
_PART_FACES = 7000
_EXPECTED_USE = 0.5  # of the atlas by charts; it decides how large they are drawn


def unwrap(mesh: Mesh, texture_size: int = 2048, *, on_step: OnStep | None = None) -> Mesh:
    """Give a mesh texture coordinates for a square texture.

    Vertices on chart borders are repeated, at bitwise equal positions, so that a reader that
    merges them finds the same closed surface. Charts lie about `padding_pixels(texture_size)`
    texels apart. Faces keep their order and direction.

    mesh: without texture; vertex colours are carried along.
    texture_size: the side in texels that the charts are packed for.
    on_step: called between parts; it may raise to cancel.

    Returns a mesh with `uvs` (N, 2) in [0, 1], origin top left. Raises ValueError for a mesh
    without faces or a size below 64.
    """
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no faces: there is nothing to unwrap")
    if texture_size < 64:
        raise ValueError(f"the texture size is {texture_size}, expected at least 64 texels")
    vertices = mesh.vertices.detach().cpu().float().numpy()
    faces = mesh.faces.cpu().numpy()
    parts = _parts(vertices[faces].mean(axis=1))
    progress = Progress(on_step, len(parts) + 1)
    area = measure_area(mesh)
    charts = xatlas.ChartOptions()
    charts.max_chart_area = max(_LARGEST_CHART, _LARGEST_CHART_FACES / len(faces)) * area
    packing = xatlas.PackOptions()
    packing.padding = padding_pixels(texture_size)
    packing.bilinear = True
    packing.texels_per_unit = texture_size * (_EXPECTED_USE / max(area, 1e-30)) ** 0.5
    atlas = xatlas.Atlas()
    # xatlas takes a part whose arrays have an earlier one's sizes and addresses for a copy of it:
    # so none may be freed, and its memory used again, before all are added.
    sources, kept = [], []
    for part in parts:
        progress.alive()
        source, corners, plane = _charts_of(vertices, faces[part], charts)
        atlas.add_uv_mesh(plane, corners)
        sources.append(source)
        kept.append((plane, corners))
        progress.step()
    atlas.generate(xatlas.ChartOptions(), packing)
    progress.finish()
    return _joined(mesh, parts, sources, atlas)


def _parts(centres: np.ndarray) -> list[np.ndarray]:
    """Faces (F,) by their middles (F, 3), halved along the longest side until they are few."""
    whole, small = [np.arange(len(centres))], []
    while whole:
        part = whole.pop()
        if len(part) <= _PART_FACES:
            small.append(part)
            continue
        axis = np.ptp(centres[part], axis=0).argmax()
        order = np.argsort(centres[part, axis], kind="stable")
        half = len(order) // 2
        whole += [np.sort(part[order[half:]]), np.sort(part[order[:half]])]
    return small


def _charts_of(
    vertices: np.ndarray, faces: np.ndarray, charts: xatlas.ChartOptions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A part's vertices repeated at chart borders: which each was (P,), the faces (F, 3), and its
    place in the plane (P, 2), in units of the surface."""
    used, local = np.unique(faces, return_inverse=True)
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices[used], local.reshape(-1, 3).astype(np.uint32))
    atlas.generate(charts, xatlas.PackOptions())
    source, corners, uvs = atlas.get_mesh(0)
    size = np.array([atlas.width, atlas.height]) / max(atlas.texels_per_unit, 1e-30)
    return used[source], corners, (uvs * size).astype(np.float32)


def _joined(
    mesh: Mesh, parts: list[np.ndarray], sources: list[np.ndarray], atlas: xatlas.Atlas
) -> Mesh:
    """The parts as they were packed, with their faces in the mesh's order."""
    faces = np.empty((len(mesh.faces), 3), np.int64)
    origins, uvs, count = [], [], 0
    for number, (part, source) in enumerate(zip(parts, sources, strict=True)):
        own, corners, places = atlas.get_mesh(number)
        faces[part] = corners + count
        count += len(own)
        origins.append(source[own])
        uvs.append(places)
    device = mesh.vertices.device
    origin = torch.from_numpy(np.concatenate(origins)).to(device)
    colors = None if mesh.vertex_colors is None else mesh.vertex_colors[origin]
    return Mesh(
        mesh.vertices[origin],
        torch.from_numpy(faces).to(device),
        uvs=torch.from_numpy(np.clip(np.concatenate(uvs), 0, 1).astype(np.float32)).to(device),
        vertex_colors=colors,
    )


def padding_pixels(texture_size: int) -> int:
    """Texels between charts: enough for two mip levels (4 texels at 2048)."""
    return max(2, texture_size // 512)
