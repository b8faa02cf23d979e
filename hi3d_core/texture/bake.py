"""Bake a texture from posed views of a mesh."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..datatypes import Mesh, OnStep, OrbitViews
from ..mesh import measure_area
from ..normals import vertex_normals
from ..progress import Progress
from .config import TextureConfig
from .fill import FILL_STEPS, fill_around_charts
from .surface_colors import Picked, Witnesses, color_places, color_steps
from .texels import find_texels, surface_normals, surface_points

SURELY_SEEN = 0.5  # certainty from which a texel counts as seen


@dataclass(frozen=True, eq=False)
class BakedTexture:
    """A coloured mesh, and how its colours came about.

    mesh: textured; or with vertex colours, then the maps below are empty (0, 0).
    covered: (S, S) bool texels that stand for a place on the surface (with a rim of one texel).
    certainties: (S, S) float in [0, 1]: 1 where a view surely saw that place, 0 where none did
    and the colour is a guess from around it.
    gains: (V, 3) what the views' colours were multiplied with.
    """

    mesh: Mesh
    covered: Tensor
    certainties: Tensor
    gains: Tensor

    @property
    def unseen(self) -> Tensor:
        """(S, S) bool texels of the surface that no view saw surely: there is room to paint."""
        return self.covered & (self.certainties < SURELY_SEEN)

    def from_frame(self, center: Tensor, scale: float) -> BakedTexture:
        """Back to the world that `Cameras.in_frame(center, scale)` left."""
        return replace(self, mesh=self.mesh.from_frame(center, scale))


def bake_texture(
    mesh: Mesh,
    views: OrbitViews,
    config: TextureConfig | None = None,
    *,
    reference: OrbitViews | None = None,
    weights: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Mesh:
    """Texture a mesh from views: `bake` without the diagnostics."""
    baked = bake(mesh, views, config, reference=reference, weights=weights, on_step=on_step)
    return baked.mesh


def bake(
    mesh: Mesh,
    views: OrbitViews,
    config: TextureConfig | None = None,
    *,
    reference: OrbitViews | None = None,
    weights: Tensor | None = None,
    on_step: OnStep | None = None,
) -> BakedTexture:
    """Texture a mesh from views of it.

    Each texel takes a blend of what the views show at its place on the surface (`votes.py`), after
    their exposures are levelled (`levelling.py`). Where none shows it, or only next to a
    silhouette, colours spread over the surface from what is seen (`fill.py`).

    mesh: with uvs (`unwrap`), in the cameras' world, normals outward.
    reference: one picture of any size that decides where it sees the surface well (`lock.py`), and
    whose tone the views are levelled to; its camera must fit (`register_reference`).
    weights: (V, H, W) in [0, 1], how much each pixel's vote counts beside other views' votes; a
    place that only pixels of low weight show is still coloured by them.
    on_step: called with (done, total) several times a second; may raise to cancel.

    The result's texture is (size, size, 3) float32 in [0, 1], without gaps between charts.
    Raises ValueError for a mesh without faces or uvs, a size of 0, a reference of several views,
    weights of a wrong shape, and an anchor view that is not there.
    """
    config = config or TextureConfig()
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no faces: there is nothing to texture")
    if mesh.uvs is None:
        raise ValueError("the mesh has no texture coordinates: unwrap it first")
    if config.size == 0:
        raise ValueError("the texture size is 0: use bake_or_color for colours of the vertices")
    check_anchor(config, views)
    size = config.size
    progress = Progress(on_step, 1)
    progress.alive()
    texels = SurfaceTexels(mesh, size, progress)
    count = len(texels.texels)
    pictures = len(views) + (0 if reference is None else 1)
    progress = Progress(on_step, pictures + color_steps(count, len(views)) + FILL_STEPS)
    # Half of it covered by charts, so a texel stands for about this length.
    spacing = (measure_area(mesh) / max(count, 1)) ** 0.5
    witnesses = Witnesses.prepare(
        mesh, views, reference, weights, config, progress, spacing=spacing
    )
    colors, certainties, gains = color_places(texels.place, count, witnesses, config, progress)
    texture, covered, certainty_map = texels.as_maps(colors, certainties)
    fill_around_charts(texture, covered, progress)
    progress.finish()
    device = mesh.vertices.device
    return BakedTexture(
        replace(mesh, texture=torch.from_numpy(texture).to(device), vertex_colors=None),
        torch.from_numpy(covered).to(device),
        torch.from_numpy(certainty_map).to(device),
        torch.from_numpy(gains).to(device),
    )


def check_anchor(config: TextureConfig, views: OrbitViews) -> None:
    """Refuse an anchor that is none of the views. Raises ValueError."""
    if config.anchor_view is not None and config.anchor_view >= len(views):
        raise ValueError(
            f"anchor_view is {config.anchor_view}, but there are {len(views)} views: expected 0 to "
            f"{len(views) - 1}, or None for the mean of all"
        )


class SurfaceTexels:
    """The texels (T,) of a mesh's texture, of side S, that stand for places on its surface."""

    def __init__(self, mesh: Mesh, size: int, progress: Progress) -> None:
        if mesh.uvs is None:
            raise ValueError("the mesh has no texture coordinates: unwrap it first")
        self._size = size
        self._uvs = mesh.uvs.detach().cpu().double().numpy()
        self._faces = mesh.faces.cpu().numpy()
        self._vertices = mesh.vertices.detach().cpu().double().numpy()
        self._normals = vertex_normals(mesh.vertices, mesh.faces).cpu().double().numpy()
        self.texels, self._owners = find_texels(self._uvs, self._faces, size, progress)

    def place(self, picked: Picked) -> tuple[np.ndarray, np.ndarray]:
        """Points and normals (P, 3) of some of the texels."""
        some = (self.texels[picked], self._owners[picked], self._size, self._uvs)
        return (
            surface_points(*some, self._vertices, self._faces),
            surface_normals(*some, self._normals, self._faces),
        )

    def as_maps(
        self, colors: np.ndarray, certainties: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Texture (S, S, 3), coverage (S, S) bool and certainties (S, S); 0 beside the texels."""
        size = self._size
        texture = np.zeros((size, size, 3), dtype=np.float32)
        texture.reshape(-1, 3)[self.texels] = colors
        covered = np.zeros((size, size), dtype=bool)
        covered.reshape(-1)[self.texels] = True
        certainty_map = np.zeros((size, size), dtype=np.float32)
        certainty_map.reshape(-1)[self.texels] = certainties
        return texture, covered, certainty_map
