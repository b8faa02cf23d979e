"""Colours for a mesh's vertices, for meshes that have no texture or can't get one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..datatypes import Mesh, OnStep, OrbitViews
from ..mesh import measure_area
from ..normals import vertex_normals
from ..progress import Progress
from .bake import BakedTexture, bake, check_anchor
from .config import TextureConfig
from .surface_colors import Picked, Witnesses, color_places, color_steps

_log = logging.getLogger(__name__)

_FAILURES = (ImportError, RuntimeError, ValueError, MemoryError, OSError)


def bake_or_color(
    mesh: Mesh,
    views: OrbitViews,
    config: TextureConfig | None = None,
    *,
    reference: OrbitViews | None = None,
    weights: Tensor | None = None,
    unwrap: Callable[[Mesh, int], Mesh] | None = None,
    on_step: OnStep | None = None,
) -> BakedTexture:
    """Unwrap and texture a mesh; where that can't be done colour its vertices, and log why.

    Vertices are coloured for a texture size of 0, and where the unwrapping fails: no xatlas for
    this machine, or a mesh that it refuses.

    mesh: with or without uvs; those it has are kept. unwrap: by default `hi3d_core.unwrap`'s.
    The rest as for `bake`. Raises ValueError for a mesh without faces, and as `bake`.
    """
    config = config or TextureConfig()
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no faces: there is nothing to colour")
    unwrapped = None
    if config.size == 0:
        _log.info("texture size 0: the mesh's vertices are coloured")
    elif mesh.uvs is not None:
        unwrapped = mesh
    else:
        unwrapped = _unwrapped(mesh, config.size, unwrap, on_step)
    if unwrapped is not None:
        return bake(unwrapped, views, config, reference=reference, weights=weights, on_step=on_step)
    colors, gains = _color_vertices(mesh, views, config, reference, weights, on_step)
    empty = torch.zeros(0, 0, device=mesh.vertices.device)
    colored = replace(mesh, uvs=None, texture=None, vertex_colors=colors)
    return BakedTexture(colored, empty.bool(), empty, gains)


def project_vertex_colors(
    mesh: Mesh,
    views: OrbitViews,
    config: TextureConfig | None = None,
    *,
    reference: OrbitViews | None = None,
    weights: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Mesh:
    """Colour a mesh's vertices from views of it, by the same votes as `bake`.

    For meshes without texture coordinates; as fine as the vertices are dense. The config's size
    is not used. Returns the mesh with `vertex_colors` and without texture. Raises ValueError for
    a mesh without faces, and as `bake`.
    """
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no faces: there is nothing to colour")
    config = config or TextureConfig()
    colors, _ = _color_vertices(mesh, views, config, reference, weights, on_step)
    return replace(mesh, texture=None, vertex_colors=colors)


def _unwrapped(
    mesh: Mesh,
    size: int,
    unwrap: Callable[[Mesh, int], Mesh] | None,
    on_step: OnStep | None,
) -> Mesh | None:
    """The mesh with uvs, or None if it can't get any; the log says why."""
    try:
        if unwrap is None:
            # Imported here: without xatlas its module can't be.
            from ..unwrap import unwrap as by_xatlas

            waiting = Progress(on_step, 1)
            unwrap = partial(by_xatlas, on_step=lambda done, total: waiting.alive())
        unwrapped = unwrap(mesh, size)
    except _FAILURES as error:
        _log.warning(
            "the mesh can't be unwrapped (%s: %s): its %d vertices are coloured instead of a "
            "texture",
            type(error).__name__,
            error,
            len(mesh.vertices),
        )
        return None
    if unwrapped.uvs is None or len(unwrapped.faces) != len(mesh.faces):
        _log.warning(
            "unwrapping left %d of %d faces: the mesh's vertices are coloured instead of a texture",
            len(unwrapped.faces),
            len(mesh.faces),
        )
        return None
    return unwrapped


def _color_vertices(
    mesh: Mesh,
    views: OrbitViews,
    config: TextureConfig,
    reference: OrbitViews | None,
    weights: Tensor | None,
    on_step: OnStep | None,
) -> tuple[Tensor, Tensor]:
    """Colours (N, 3) and the views' gains (V, 3)."""
    check_anchor(config, views)
    points = np.ascontiguousarray(mesh.vertices.detach().cpu().float().numpy())
    normals = vertex_normals(mesh.vertices, mesh.faces).cpu().float().numpy()
    count = len(points)

    def place(picked: Picked) -> tuple[np.ndarray, np.ndarray]:
        return np.ascontiguousarray(points[picked]), np.ascontiguousarray(normals[picked])

    pictures = len(views) + (0 if reference is None else 1)
    progress = Progress(on_step, pictures + color_steps(count, len(views)))
    spacing = (measure_area(mesh) / count) ** 0.5
    witnesses = Witnesses.prepare(
        mesh, views, reference, weights, config, progress, spacing=spacing
    )
    colors, _, gains = color_places(place, count, witnesses, config, progress)
    progress.finish()
    device = mesh.vertices.device
    return (
        torch.from_numpy(colors.astype(np.float32)).to(device),
        torch.from_numpy(gains).to(device),
    )
