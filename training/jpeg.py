"""JPEG's loss, for pictures held as floats: what the degradation compresses with.

It is the codec of the recorded runs (DiffJPEG with plain rounding), which differs from files in
three ways: quality is not rounded to a whole table, the luminance table lies on its side, and
pictures are filled up with black to multiples of 16 pixels. kornia's codec softens the rounding and
floors the tables, and so gives other pictures. Letters: N pictures, H and W their pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_BLOCK = 8
_UNIT = 16  # two blocks, as colour is kept at half the resolution

# The example tables of the standard (ITU-T T.81, annex K), the first one transposed.
_LUMINANCE = (
    (16, 12, 14, 14, 18, 24, 49, 72),
    (11, 12, 13, 17, 22, 35, 64, 92),
    (10, 14, 16, 22, 37, 55, 78, 95),
    (16, 19, 24, 29, 56, 64, 87, 98),
    (24, 26, 40, 51, 68, 81, 103, 112),
    (40, 58, 57, 87, 109, 104, 121, 100),
    (51, 60, 69, 80, 103, 113, 120, 103),
    (61, 55, 56, 62, 77, 92, 101, 99),
)
_CHROMINANCE_CORNER = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))

_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def compress(images: Tensor, quality: Tensor) -> Tensor:
    """Pictures as they come back from JPEG.

    images: (N, 3, H, W) in [0, 1]. quality: (N,), above 0 to 100. Returns the like of `images`.
    Raises ValueError for other shapes.
    """
    if images.ndim != 4 or images.shape[1] != 3 or quality.shape != (len(images),):
        raise ValueError(
            f"images is {tuple(images.shape)} and quality {tuple(quality.shape)}, expected "
            "(N, 3, height, width) and (N,)"
        )
    height, width = images.shape[2:]
    filled = functional.pad(images * 255, (0, -width % _UNIT, 0, -height % _UNIT))
    factors = _factors(quality.to(images))
    offset = images.new_tensor([0.0, 128.0, 128.0])[:, None, None]
    ycbcr = _mixed(filled, _TO_YCBCR) + offset
    luminance = _quantised(ycbcr[:, :1], _LUMINANCE, factors)
    half = functional.avg_pool2d(ycbcr[:, 1:], 2)
    color = _quantised(half, _chrominance(), factors)
    color = functional.interpolate(color, scale_factor=2, mode="nearest")
    restored = _mixed(torch.cat([luminance, color], dim=1) - offset, _TO_RGB)
    return restored[..., :height, :width].clamp(0, 255) / 255


def _factors(quality: Tensor) -> Tensor:
    """How much coarser than the standard's tables, (N,)."""
    return torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100


def _mixed(images: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Channels mixed by a matrix whose rows make the new ones."""
    return torch.einsum("dc,nchw->ndhw", images.new_tensor(matrix), images)


def _quantised(channels: Tensor, table: tuple[tuple[int, ...], ...], factors: Tensor) -> Tensor:
    """(N, C, H, W) in [0, 255], its blocks' cosine coefficients rounded to the table's steps."""
    transform = _cosines(channels)
    count, depth, height, width = channels.shape
    blocks = channels.reshape(count, depth, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    blocks = blocks.transpose(3, 4) - 128
    steps = channels.new_tensor(table) * factors[:, None, None, None, None, None]
    coefficients = transform @ blocks @ transform.T
    blocks = transform.T @ ((coefficients / steps).round() * steps) @ transform + 128
    return blocks.transpose(3, 4).reshape(channels.shape)


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal cosine transform of a block's line, (8, 8)."""
    line = torch.arange(_BLOCK, dtype=torch.float64)
    matrix = torch.cos((2 * line + 1) * line[:, None] * math.pi / (2 * _BLOCK)) / 2
    matrix[0] /= math.sqrt(2)
    return matrix.to(like)


def _chrominance() -> tuple[tuple[int, ...], ...]:
    rows = [(*row, 99, 99, 99, 99) for row in _CHROMINANCE_CORNER]
    return (*rows, *[(99,) * _BLOCK] * 4)
