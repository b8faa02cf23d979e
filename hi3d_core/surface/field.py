"""The explicit field that is fitted: a signed distance and a colour at a grid's nodes.

Distances are in voxels here, negative inside, so that steps and thresholds mean the same on
every grid. Only nodes near the zero level (the band) are ever optimised; the rest of the grid
tells rays how far they may jump.

Letters: (X, Y, Z) grid nodes, B band nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import prange
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from ..jit import njit
from .hull import FloatArray, Grid

IndexArray = NDArray[np.int32]


def _go_on() -> None:
    """What those call between steps whom no one may cancel."""


@dataclass
class Field:
    """A fit in progress; owned and changed by `fit_surface` alone.

    sdf: (X, Y, Z) float32 signed distance in voxels. colors: (X, Y, Z, 3) float32 in [0, 1].
    seen: (X, Y, Z) float32, how much any view's rays ended here lately.
    """

    grid: Grid
    sdf: FloatArray
    colors: FloatArray
    seen: FloatArray

    @staticmethod
    def from_distance(grid: Grid, distance: FloatArray) -> Field:
        """Start from a distance in world units (X, Y, Z), of unknown colour."""
        sdf = close_border((distance / grid.voxel).astype(np.float32))
        colors = np.full((*grid.shape, 3), 0.5, np.float32)
        return Field(grid, redistance(sdf), colors, np.zeros(grid.shape, np.float32))

    def resampled(self, grid: Grid, alive: Callable[[], None] = _go_on) -> Field:
        """The same field on another grid over the same box. alive: as for `redistance`."""
        axes = [
            (grid.origin[a] + grid.voxel * np.arange(grid.shape[a]) - self.grid.origin[a])
            / self.grid.voxel
            for a in range(3)
        ]
        where = np.stack(np.meshgrid(*axes, indexing="ij"))

        def sample(values: FloatArray, order: int) -> FloatArray:
            alive()
            return map_coordinates(values, where, order=order, mode="nearest", output=np.float32)

        # Cubic interpolation: linear leaves creases at the old cells' faces.
        sdf = sample(self.sdf, 3) * np.float32(self.grid.voxel / grid.voxel)
        colors = np.stack([sample(self.colors[..., c], 1) for c in range(3)], axis=-1)
        return Field(grid, redistance(close_border(sdf), alive), colors, sample(self.seen, 1))

    def colors_at(self, points: FloatArray) -> FloatArray:
        """(P, 3) colours at points (P, 3) in the grid's frame."""
        where = ((points - self.grid.origin) / self.grid.voxel).T
        channels = np.moveaxis(self.colors, -1, 0)
        return np.stack([map_coordinates(c, where, order=1, mode="nearest") for c in channels], -1)


def close_border(sdf: FloatArray) -> FloatArray:
    """Make the grid's outermost two layers outside, so that every surface is closed."""
    closed = sdf.copy()
    for axis in range(3):
        for layer in (0, 1, -1, -2):
            index = [slice(None)] * 3
            index[axis] = slice(layer, layer + 1) if layer != -1 else slice(layer, None)
            closed[tuple(index)] = np.maximum(closed[tuple(index)], 1.0)
    return closed


def redistance(sdf: FloatArray, alive: Callable[[], None] = _go_on) -> FloatArray:
    """Turn a field into the distance to its own zero level, which stays where it is.

    Nodes beside the zero level get f / |grad f|; the rest follow by the fast sweeping method
    (Zhao 2005, "A fast sweeping method for eikonal equations", eq. 2.4). In voxels. alive: called
    between sweeps, of which large grids take a second's worth; it may raise to cancel.
    """
    distance, fixed = _near_distance(sdf.astype(np.float32))
    for _ in range(2):
        alive()
        _sweep(distance, fixed)
    return np.where(sdf < 0, -distance, distance)


@njit(parallel=True, cache=True, fastmath=True)
def _near_distance(sdf: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    nx, ny, nz = sdf.shape
    distance = np.full(sdf.shape, np.float32(1e6))
    fixed = np.zeros(sdf.shape, np.bool_)
    for plane in prange(nx):
        i = np.int64(plane)  # prange counts unsigned, and unsigned + signed is a float in numba
        for j in range(ny):
            for k in range(nz):
                f = sdf[i, j, k]
                inside = f < 0
                crosses = False
                total = np.float32(0)
                for axis in range(3):
                    # The steeper of the two one-sided differences towards a sign change.
                    slope = np.float32(0)
                    for side in (-1, 1):
                        a = i + side if axis == 0 else i
                        b = j + side if axis == 1 else j
                        c = k + side if axis == 2 else k
                        if a < 0 or b < 0 or c < 0 or a >= nx or b >= ny or c >= nz:
                            continue
                        g = sdf[a, b, c]
                        if (g < 0) != inside:
                            crosses = True
                            # 1 / (distance to the crossing along this axis)
                            slope = max(slope, abs(f - g) / max(abs(f), np.float32(1e-6)))
                    total += slope * slope
                if crosses:
                    # Plane through the axis crossings: 1 / d^2 is the sum of 1 / d_axis^2.
                    distance[i, j, k] = 1 / np.sqrt(total)
                    fixed[i, j, k] = True
    return distance, fixed


@njit(cache=True, fastmath=True)
def _sweep(distance: FloatArray, fixed: NDArray[np.bool_]) -> None:
    limit = np.float32(1e6)
    nx, ny, nz = distance.shape
    for direction in range(8):
        sx = 1 if direction & 1 else -1
        sy = 1 if direction & 2 else -1
        sz = 1 if direction & 4 else -1
        for ii in range(nx):
            i = ii if sx > 0 else nx - 1 - ii
            for jj in range(ny):
                j = jj if sy > 0 else ny - 1 - jj
                for kk in range(nz):
                    k = kk if sz > 0 else nz - 1 - kk
                    if fixed[i, j, k]:
                        continue
                    a = limit
                    if i > 0:
                        a = min(a, distance[i - 1, j, k])
                    if i < nx - 1:
                        a = min(a, distance[i + 1, j, k])
                    b = limit
                    if j > 0:
                        b = min(b, distance[i, j - 1, k])
                    if j < ny - 1:
                        b = min(b, distance[i, j + 1, k])
                    c = limit
                    if k > 0:
                        c = min(c, distance[i, j, k - 1])
                    if k < nz - 1:
                        c = min(c, distance[i, j, k + 1])
                    low = min(a, b, c)
                    high = max(a, b, c)
                    middle = a + b + c - low - high
                    d = low + 1
                    if d > middle:
                        d = (low + middle + np.sqrt(max(2 - (low - middle) ** 2, 0))) / 2
                        if d > high:
                            total = low + middle + high
                            squares = low * low + middle * middle + high * high
                            d = (total + np.sqrt(max(total * total - 3 * (squares - 1), 0))) / 3
                    distance[i, j, k] = min(distance[i, j, k], d)


@dataclass(frozen=True, eq=False)
class Band:
    """The nodes near the zero level, in memory order.

    nodes: (B, 3) int32. slot: (X, Y, Z) int32, a node's place in the band, or -1.
    hidden: (B,) whether the surface nearest to the node is seen by no view.
    """

    nodes: IndexArray
    slot: IndexArray
    hidden: NDArray[np.bool_]


# Share of what rays leave at an average surface node, below which surface counts as unseen.
# Measured: an underside's cone gets less than a hundredth, what two of 16 views see over a tenth.
UNSEEN_SHARE = 0.02


def unseen_below(field: Field) -> float:
    """The threshold of `Field.seen` for `find_band`.

    Before the first rays nothing is known of visibility, and all counts as seen.
    """
    if not field.seen.any():
        return -1.0
    return UNSEEN_SHARE * float(field.seen[np.abs(field.sdf) < 1].mean())


def find_band(field: Field, half_width: float, seen_threshold: float) -> Band:
    """Collect the nodes within `half_width` voxels of the surface."""
    near = np.abs(field.sdf) < half_width
    # Stencils reach two nodes out.
    near[:2], near[-2:], near[:, :2], near[:, -2:] = False, False, False, False
    near[:, :, :2], near[:, :, -2:] = False, False
    nodes = np.argwhere(near).astype(np.int32)
    slot = np.full(field.grid.shape, -1, np.int32)
    slot[near] = np.arange(len(nodes), dtype=np.int32)
    hidden = _hidden(field.sdf, field.seen, nodes, np.float32(seen_threshold))
    return Band(nodes, slot, hidden)


@njit(parallel=True, cache=True, fastmath=True)
def _hidden(
    sdf: FloatArray, seen: FloatArray, nodes: IndexArray, threshold: np.float32
) -> NDArray[np.bool_]:
    nx, ny, nz = sdf.shape
    hidden = np.empty(len(nodes), np.bool_)
    for n in prange(len(nodes)):
        i, j, k = nodes[n]
        # Follow the gradient to the surface and look at the cell it ends in.
        gx = (sdf[i + 1, j, k] - sdf[i - 1, j, k]) * np.float32(0.5)
        gy = (sdf[i, j + 1, k] - sdf[i, j - 1, k]) * np.float32(0.5)
        gz = (sdf[i, j, k + 1] - sdf[i, j, k - 1]) * np.float32(0.5)
        scale = sdf[i, j, k] / max(gx * gx + gy * gy + gz * gz, np.float32(0.1))
        a = min(max(int(i - gx * scale), 0), nx - 2)
        b = min(max(int(j - gy * scale), 0), ny - 2)
        c = min(max(int(k - gz * scale), 0), nz - 2)
        most = np.float32(0)
        for di in range(2):
            for dj in range(2):
                for dk in range(2):
                    most = max(most, seen[a + di, b + dj, c + dk])
        hidden[n] = most < threshold
    return hidden
