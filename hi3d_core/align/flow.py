"""Dense optical flow between two pictures of one object: sub-pixel, smooth, blind to lighting.

Lucas and Kanade 1981 ("An iterative image registration technique"), coarse to fine, on pictures
that are levelled first: each channel less its local mean, over the local contrast, so that gain,
tint and shading don't count (as correlation coefficients do it). The equations of all pixels are
gathered in square cells and blurred by a row of windows, each twice as wide as the one before and
of much less weight: where there is texture the narrowest decides, elsewhere the flow of the
nearest texture spreads. The equations are for the whole displacement, not for its change, so a
cell without texture inherits its neighbours' flow instead of keeping its own.

Letters: H, W the picture, h, w its cells, C channels. Displacements are (x, y) in pixels:
moving[p + displacement[p]] shows what fixed[p] shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import prange
from scipy.ndimage import gaussian_filter, map_coordinates

from ..jit import njit
from ..surface.hull import FloatArray
from .warp import warp


@dataclass(frozen=True)
class FlowConfig:
    """Settings of `optical_flow`; lengths in pixels of the full pictures."""

    window: float = 8.0  # sigma of the narrowest window; details of the flow below it are lost
    windows: int = 4  # each twice as wide as the one before
    wider: float = 0.05  # weight of each window against the one before
    cell: int = 4  # side of the cells that share one displacement's equations
    coarsest: int = 48  # pictures are halved while their shorter side is above this
    iterations: int = 5  # a level of the pyramid
    levelling: float = 6.0  # sigma of the window of local mean and contrast, pixels of each level
    contrast: float = 0.02  # of colours in [0, 1]: texture weaker than this counts as noise
    outlier: float = 0.7  # difference, in local contrasts, from which pixels lose weight
    outline: float = 0.0  # weight of the two weights' own outlines (masks), against the colours'
    ridge: float = 1e-3  # pull to no displacement, as a share of the mean texture


@dataclass(frozen=True, eq=False)
class Flow:
    """displacement: (H, W, 2) float32, pixels (x, y). confidence: (H, W) float32 in [0, 1]."""

    displacement: FloatArray
    confidence: FloatArray

    @property
    def rms(self) -> float:
        """Root mean square displacement in pixels, weighted by confidence; 0 if there is none."""
        weight = float(self.confidence.sum())
        squares = (self.displacement**2).sum(axis=2)
        return float(np.sqrt((squares * self.confidence).sum() / weight)) if weight > 0 else 0.0


def optical_flow(
    fixed: FloatArray,
    moving: FloatArray,
    fixed_weight: FloatArray | None = None,
    moving_weight: FloatArray | None = None,
    config: FlowConfig | None = None,
) -> Flow:
    """Where `moving` shows what `fixed` shows.

    fixed, moving: (H, W, C) float32 in [0, 1]. The weights, (H, W) in [0, 1], say where the
    pictures mean anything (masks); elsewhere flow spreads in from what does. None is 1.

    Confidence is the product of three: texture enough to fix both directions, flow there and
    back that meet again, and pictures that look alike once warped; it is 0 where the fixed
    picture has no weight. Raises ValueError for pictures that differ in size.
    """
    config = config or FlowConfig()
    first = _Picture.of(fixed, fixed_weight, "fixed")
    second = _Picture.of(moving, moving_weight, "moving")
    if first.colors.shape != second.colors.shape:
        raise ValueError(
            f"the moving picture is {second.colors.shape}, the fixed one {first.colors.shape}: "
            "resize one of them"
        )
    one, two = _pyramid(first, config), _pyramid(second, config)
    forward, texture = _coarse_to_fine(one, two, config)
    backward, _ = _coarse_to_fine(two, one, config)

    height, width = first.weight.shape
    there = _per_pixel(forward, config.cell, height, width)
    back = _per_pixel(backward, config.cell, height, width)
    missed = np.hypot(*np.moveaxis(there + warp(back, there), 2, 0))
    alike = _likeness(one[0], two[0], there, config)
    certain = _per_pixel(texture[..., None], config.cell, height, width)[..., 0]
    confidence = first.weight * certain * alike * np.exp(-((missed / _MISS) ** 2))
    return Flow(there, np.clip(confidence, 0, 1).astype(np.float32))


_MISS = 0.7  # pixels between there and back at which confidence has fallen to 1 / e
_TEXTURE = 2e-3  # squared slope in contrasts a pixel, of the worse direction, for half confidence
_UNLIKE, _ALIKE = 0.3, 0.8  # correlation of warped pictures for no and for full confidence


@dataclass(frozen=True, eq=False)
class _Picture:
    """Colours (H, W, C) and how much each pixel means (H, W)."""

    colors: FloatArray
    weight: FloatArray

    @staticmethod
    def of(colors: FloatArray, weight: FloatArray | None, name: str) -> _Picture:
        if colors.ndim != 3 or min(colors.shape) < 1:
            raise ValueError(f"the {name} picture is {colors.shape}, expected (H, W, C)")
        if weight is None:
            weight = np.ones(colors.shape[:2], np.float32)
        if weight.shape != colors.shape[:2]:
            raise ValueError(
                f"the {name} weight is {weight.shape}, expected {colors.shape[:2]} as the picture"
            )
        return _Picture(
            np.ascontiguousarray(colors, np.float32), np.ascontiguousarray(weight, np.float32)
        )

    def halved(self) -> _Picture:
        """Half as large; colours by weight, so that what means nothing doesn't bleed in."""
        weight = _halve(self.weight[..., None])
        colors = _halve(self.colors * self.weight[..., None]) / np.maximum(weight, 1e-6)
        plain = _halve(self.colors)
        return _Picture(np.where(weight > 1e-4, colors, plain), weight[..., 0])

    def levelled(self, config: FlowConfig) -> _Picture:
        """Local mean 0 and contrast 1 in each channel, and the outline as a last channel."""

        def blur(values: FloatArray) -> FloatArray:
            return gaussian_filter(values, (config.levelling, config.levelling, 0), truncate=3)

        weight = self.weight[..., None]
        total = np.maximum(blur(weight), 1e-4)
        centred = self.colors - blur(self.colors * weight) / total
        # The contrast of all channels together: a grey picture's tint is not blown up.
        power = blur((centred**2).mean(axis=2, keepdims=True) * weight) / total
        colors = centred / np.sqrt(power + config.contrast**2)
        outline = gaussian_filter(self.weight, 1.0)[..., None]
        return _Picture(np.concatenate([colors, outline], axis=2), self.weight)


def _halve(values: FloatArray) -> FloatArray:
    """Means of two by two pixels; an odd row or column is doubled first."""
    height, width = values.shape[:2]
    values = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return (
        values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]
    ) * np.float32(0.25)


def _pyramid(picture: _Picture, config: FlowConfig) -> list[_Picture]:
    """Levelled pictures, the finest first."""
    levels = [picture]
    while min(levels[-1].weight.shape) > config.coarsest:
        levels.append(levels[-1].halved())
    return [level.levelled(config) for level in levels]


def _coarse_to_fine(
    fixed: list[_Picture], moving: list[_Picture], config: FlowConfig
) -> tuple[FloatArray, FloatArray]:
    """Displacements of the finest level's cells (h, w, 2) and how certain texture makes them."""
    flow: FloatArray | None = None
    certain: FloatArray | None = None
    for level in range(len(fixed) - 1, -1, -1):
        height, width = fixed[level].weight.shape
        cells = (-(-height // config.cell), -(-width // config.cell))
        # A cell of this level is half as wide as one of the level before.
        flow = np.zeros((*cells, 2), np.float32) if flow is None else _finer(flow, cells)
        window = max(config.window / 2**level / config.cell, 0.7)
        for _ in range(config.iterations):
            flow, certain = _improved(fixed[level], moving[level], flow, window, config)
    assert flow is not None and certain is not None
    return flow, certain


def _finer(flow: FloatArray, cells: tuple[int, int]) -> FloatArray:
    where = np.asarray(np.mgrid[: cells[0], : cells[1]], np.float32) / 2 - 0.25
    finer = np.empty((*cells, 2), np.float32)
    for axis in range(2):
        map_coordinates(flow[..., axis], where, finer[..., axis], order=1, mode="nearest")
    return 2 * finer


def _improved(
    fixed: _Picture, moving: _Picture, flow: FloatArray, window: float, config: FlowConfig
) -> tuple[FloatArray, FloatArray]:
    """One step of Gauss and Newton for all cells; `window` is in cells."""
    height, width = fixed.weight.shape
    dense = _per_pixel(flow, config.cell, height, width)
    seen = np.concatenate([moving.colors, moving.weight[..., None]], axis=2)
    warped = warp(seen, dense)
    sums = _normal_equations(
        fixed.colors,
        fixed.weight,
        warped,
        dense,
        config.cell,
        np.float32(config.outlier),
        np.float32(config.outline),
        *flow.shape[:2],
    )
    local = sums
    sums = np.zeros_like(local)
    weight = 1.0
    for index in range(config.windows):
        sigma = window * 2**index
        sums += np.float32(weight) * gaussian_filter(
            local, (sigma, sigma, 0), mode="constant", truncate=2.5
        )
        weight *= config.wider
    a, b, c, p, q = np.moveaxis(sums, 2, 0)
    ridge = config.ridge * max(float((local[..., 0] + local[..., 2]).mean()), 1e-12)
    a, c = a + ridge, c + ridge
    determinant = np.maximum(a * c - b * b, 1e-30)
    solved = np.stack([(c * p - b * q) / determinant, (a * q - b * p) / determinant], axis=2)
    least = (a + c) / 2 - np.sqrt(((a - c) / 2) ** 2 + b * b)
    # Sums are over a cell's pixels: compare a mean.
    least = np.maximum(least, 0) / config.cell**2
    return solved.astype(np.float32), (least / (least + _TEXTURE)).astype(np.float32)


@njit(parallel=True, cache=True)
def _normal_equations(
    fixed: FloatArray,  # (H, W, C + 1) levelled, and the outline
    fixed_weight: FloatArray,  # (H, W)
    warped: FloatArray,  # (H, W, C + 2) likewise, and its weight
    displacement: FloatArray,  # (H, W, 2) by which it was warped
    cell: int,
    outlier: np.float32,
    outline: np.float32,
    rows: int,
    columns: int,
) -> FloatArray:
    """Sums over each cell of [gx gx, gx gy, gy gy, gx t, gy t], (h, w, 5).

    (gx, gy): slope, the mean of both pictures'. t: what slope times displacement should be.
    """
    height, width, channels = fixed.shape
    colors = channels - 1
    out = np.zeros((rows, columns, 5), np.float32)
    half, one = np.float32(0.5), np.float32(1)
    for row in prange(rows):
        for y in range(row * cell, min((row + 1) * cell, height)):
            above, below = max(y - 1, 0), min(y + 1, height - 1)
            for x in range(width):
                left, right = max(x - 1, 0), min(x + 1, width - 1)
                column = x // cell
                shown = fixed_weight[y, x] * min(max(warped[y, x, channels], np.float32(0)), one)
                if shown <= 0 and outline == 0:
                    continue
                off = np.float32(0)
                for c in range(colors):
                    difference = warped[y, x, c] - fixed[y, x, c]
                    off += difference * difference
                off /= colors
                shown /= colors * np.sqrt(one + off / (outlier * outlier))
                u, v = displacement[y, x, 0], displacement[y, x, 1]
                for c in range(channels):
                    weight = shown if c < colors else outline
                    if weight <= 0:
                        continue
                    gx = (
                        half
                        * half
                        * (
                            fixed[y, right, c]
                            - fixed[y, left, c]
                            + warped[y, right, c]
                            - warped[y, left, c]
                        )
                    )
                    gy = (
                        half
                        * half
                        * (
                            fixed[below, x, c]
                            - fixed[above, x, c]
                            + warped[below, x, c]
                            - warped[above, x, c]
                        )
                    )
                    t = gx * u + gy * v - (warped[y, x, c] - fixed[y, x, c])
                    out[row, column, 0] += weight * gx * gx
                    out[row, column, 1] += weight * gx * gy
                    out[row, column, 2] += weight * gy * gy
                    out[row, column, 3] += weight * gx * t
                    out[row, column, 4] += weight * gy * t
    return out


def _per_pixel(values: FloatArray, cell: int, height: int, width: int) -> FloatArray:
    """Cells' values (h, w, K) between their centres, (height, width, K)."""
    return _spread(np.ascontiguousarray(values), cell, height, width)


@njit(parallel=True, cache=True)
def _spread(values: FloatArray, cell: int, height: int, width: int) -> FloatArray:
    rows, columns, kinds = values.shape
    out = np.empty((height, width, kinds), np.float32)
    for y in prange(height):
        fy = (np.float32(y) + np.float32(0.5)) / np.float32(cell) - np.float32(0.5)
        fy = min(max(fy, np.float32(0)), np.float32(rows - 1))
        j = min(int(fy), max(rows - 2, 0))
        below = min(j + 1, rows - 1)
        t = fy - np.float32(j)
        for x in range(width):
            fx = (np.float32(x) + np.float32(0.5)) / np.float32(cell) - np.float32(0.5)
            fx = min(max(fx, np.float32(0)), np.float32(columns - 1))
            i = min(int(fx), max(columns - 2, 0))
            right = min(i + 1, columns - 1)
            s = fx - np.float32(i)
            for k in range(kinds):
                upper = values[j, i, k] * (1 - s) + values[j, right, k] * s
                lower = values[below, i, k] * (1 - s) + values[below, right, k] * s
                out[y, x, k] = upper * (1 - t) + lower * t
    return out


def _likeness(
    fixed: _Picture, moving: _Picture, displacement: FloatArray, config: FlowConfig
) -> FloatArray:
    """1 where the pictures correlate once warped, 0 where they don't, (H, W)."""
    colors = fixed.colors[..., :-1]
    warped = warp(moving.colors[..., :-1], displacement)
    weight = fixed.weight * np.clip(warp(moving.weight[..., None], displacement)[..., 0], 0, 1)

    def blur(values: FloatArray) -> FloatArray:
        return gaussian_filter(values * weight, config.window / 2, truncate=3)

    # Of levelled pictures, so that means are 0 already. Weak texture must correlate no less.
    both = blur((colors * warped).mean(axis=2))
    floor = 0.05 * blur(np.ones_like(weight)) + 1e-6
    power = np.sqrt(
        (blur((colors**2).mean(axis=2)) + floor) * (blur((warped**2).mean(axis=2)) + floor)
    )
    return np.clip((both / power - _UNLIKE) / (_ALIKE - _UNLIKE), 0, 1).astype(np.float32)
