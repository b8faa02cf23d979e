"""The pixels that the surface is fitted to, as rays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from skimage.transform import downscale_local_mean

from ..datatypes import OrbitViews
from .hull import FloatArray, Grid
from .outlines import crisp_outlines

RayBatch = tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]
"""Origins (R, 3), unit directions (R, 3), colours over white (R, 3), alphas (R,), trust (R,)."""


@dataclass(frozen=True, eq=False)
class Rays:
    """All pixels on or near the object: (R,) view, and per ray what was seen there."""

    origins: FloatArray  # (V, 3)
    rotations: FloatArray  # (V, 3, 3) camera to world
    focals: FloatArray  # (V, 4) fx, fy, cx, cy
    view: NDArray[np.int32]
    column: FloatArray  # pixel centre
    row: FloatArray
    colors: FloatArray  # (R, 3)
    alphas: FloatArray  # (R,)
    trust: FloatArray  # (R,) how much each counts, in [0, 1]

    @staticmethod
    def from_views(views: OrbitViews, picture: int, trust: FloatArray | None = None) -> Rays:
        """Rays of the views scaled down to about `picture` pixels wide, soft outlines made steeper.

        trust: (V, H, W) in [0, 1], how much each pixel counts; all alike without it.
        """
        factor = max(1, round(views.cameras.width / picture))
        images = views.images.cpu().numpy()
        alphas = views.alphas.cpu().numpy()
        if trust is None:
            trust = np.ones_like(alphas)
        if factor > 1:
            height = alphas.shape[1] // factor * factor
            width = alphas.shape[2] // factor * factor
            images = downscale_local_mean(images[:, :height, :width], (1, factor, factor, 1))
            alphas = downscale_local_mean(alphas[:, :height, :width], (1, factor, factor))
            trust = downscale_local_mean(trust[:, :height, :width], (1, factor, factor))
        images, alphas = crisp_outlines(images, alphas)
        poses = views.cameras.camera_to_world.cpu().numpy().astype(np.float32)
        k = views.cameras.intrinsics.cpu().numpy().astype(np.float32) / factor
        # Empty pixels teach something only beside the silhouette, where the surface may grow.
        ring = np.ones((1, 9, 9), bool)
        near = binary_dilation(alphas > 0.02, ring)
        view, row, column = np.nonzero(near)
        return Rays(
            poses[:, :3, 3],
            poses[:, :3, :3],
            np.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], axis=1),
            view.astype(np.int32),
            column.astype(np.float32) + 0.5,
            row.astype(np.float32) + 0.5,
            images[near].astype(np.float32),
            alphas[near].astype(np.float32),
            trust[near].astype(np.float32),
        )

    def in_grid(self, grid: Grid) -> Rays:
        """The same rays with origins in node coordinates."""
        origins = (self.origins - grid.origin) / grid.voxel
        return replace(self, origins=origins.astype(np.float32))

    def thinned(self, share: float, rng: np.random.Generator) -> Rays:
        """A random share of these rays."""
        kept = rng.random(len(self.view)) < share
        return replace(
            self,
            view=self.view[kept],
            column=self.column[kept],
            row=self.row[kept],
            colors=self.colors[kept],
            alphas=self.alphas[kept],
            trust=self.trust[kept],
        )

    def joined(self, other: Rays) -> Rays:
        """These rays and the other's."""
        views = len(self.origins)
        return Rays(
            np.concatenate([self.origins, other.origins]),
            np.concatenate([self.rotations, other.rotations]),
            np.concatenate([self.focals, other.focals]),
            np.concatenate([self.view, other.view + np.int32(views)]),
            np.concatenate([self.column, other.column]),
            np.concatenate([self.row, other.row]),
            np.concatenate([self.colors, other.colors]),
            np.concatenate([self.alphas, other.alphas]),
            np.concatenate([self.trust, other.trust]),
        )

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Endless batches of rays' numbers, every ray once before any comes again."""
        size = min(size, len(self.view))
        while True:
            order = rng.permutation(len(self.view))
            for start in range(0, len(order) - size + 1, size):
                # In memory order, neighbouring rays share the grid's cache lines.
                yield np.sort(order[start : start + size])

    def pick(self, batch: NDArray[np.int64]) -> RayBatch:
        """Origins, unit directions, colours, alphas and trust of some rays."""
        view = self.view[batch]
        focal = self.focals[view]
        local = np.stack(
            [
                (self.column[batch] - focal[:, 2]) / focal[:, 0],
                (self.row[batch] - focal[:, 3]) / focal[:, 1],
                np.ones(len(batch), np.float32),
            ],
            axis=1,
        )
        directions = np.einsum("rij,rj->ri", self.rotations[view], local)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return (
            self.origins[view],
            directions.astype(np.float32),
            self.colors[batch],
            self.alphas[batch],
            self.trust[batch],
        )
