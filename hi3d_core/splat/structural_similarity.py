# mypy: allow-untyped-defs
"""Structural similarity (SSIM, Wang et al. 2004), differentiable and cheap.

The usual window: a Gaussian of 11 taps and sigma 1.5, zeros outside the picture; C1 = 0.01²,
C2 = 0.03² for colours in [0, 1].

On the CPU, numba kernels filter along rows, then columns, with the picture's channels left
interleaved, and the derivative is written by hand: a filter is its own adjoint, so the way back
is three more filters. `torch`'s convolutions cost about ten times as much.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ..jit import njit

_RADIUS = 5
_C1, _C2 = 0.01**2, 0.03**2
_window = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / 1.5) ** 2)
_WINDOW = (_window / _window.sum()).astype(np.float64)
_FAST = {"reassoc", "contract", "nsz", "arcp"}


def structural_similarity(image: Tensor, target: Tensor) -> Tensor:
    """Mean SSIM of two pictures (H, W, 3) with colours in [0, 1], differentiable in `image`.

    Returns a scalar, at most 1.
    """
    if image.device.type == "cpu":
        return _MeanOnCpu.apply(image, target)
    return mean_by_convolution(image, target)


def mean_by_convolution(image: Tensor, target: Tensor) -> Tensor:
    """The same number from torch's convolutions, for any device."""
    x, y = image.permute(2, 0, 1)[None], target.permute(2, 0, 1)[None]
    maps = torch.cat([x, y, x * x, y * y, x * y])
    window = torch.from_numpy(_WINDOW).to(image)
    down = window.view(1, 1, -1, 1).expand(3, 1, -1, 1)
    across = window.view(1, 1, 1, -1).expand(3, 1, 1, -1)
    maps = torch.nn.functional.conv2d(maps, across, padding=(0, _RADIUS), groups=3)
    maps = torch.nn.functional.conv2d(maps, down, padding=(_RADIUS, 0), groups=3)
    mean_x, mean_y, xx, yy, xy = maps
    xx, yy, xy = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + _C1) * (2 * xy + _C2)
    return (likeness / ((mean_x**2 + mean_y**2 + _C1) * (xx + yy + _C2))).mean()


class _MeanOnCpu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor) -> Tensor:
        height, width, channels = image.shape
        flat = [
            t.detach().contiguous().numpy().reshape(height, width * channels)
            for t in (image, target)
        ]
        window = _WINDOW.astype(flat[0].dtype)
        row_sums, gradient = _mean_and_gradient(flat[0], flat[1], channels, window)
        ctx.gradient = torch.from_numpy(gradient).view(image.shape)
        return image.new_tensor(row_sums.sum() / image.numel())

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient * d_outputs[0], None


@njit(cache=True, fastmath=_FAST)
def _filter_row(padded, window, step, out):
    """out[i] = sum of window[k] padded[i + k step]: a row that is padded by RADIUS * step."""
    length = len(out)
    for i in range(length):
        out[i] = padded[i] * window[0]
    for k in range(1, len(window)):
        shifted = padded[k * step : k * step + length]
        weight = window[k]
        for i in range(length):
            out[i] += weight * shifted[i]


@njit(cache=True, fastmath=_FAST)
def _filter_column(maps, y, window, out):
    """out: row y of `maps` (H, L) filtered along the columns."""
    length = len(out)
    out.fill(0)
    first, last = max(0, y - _RADIUS), min(len(maps), y + _RADIUS + 1)
    for source in range(first, last):
        weight = window[source - y + _RADIUS]
        row = maps[source]
        for i in range(length):
            out[i] += weight * row[i]


# The rows' work is kept out of the parallel function, which compiles slowly.


@njit(cache=True, fastmath=_FAST)
def _filter_products(x, y, row, channels, window, filtered):
    """Filter x, y, x², y² and xy along a row."""
    length = x.shape[1]
    pad = _RADIUS * channels
    padded = np.zeros((5, length + 2 * pad), x.dtype)
    for i in range(length):
        a, b = x[row, i], y[row, i]
        padded[0, pad + i] = a
        padded[1, pad + i] = b
        padded[2, pad + i] = a * a
        padded[3, pad + i] = b * b
        padded[4, pad + i] = a * b
    for m in range(5):
        _filter_row(padded[m], window, channels, filtered[m, row])


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _similarity_of_row(filtered, row, channels, window, derivative):
    """The row's sum of SSIM; its derivatives with respect to the filtered x, x² and xy.

    The derivatives are those of the picture's mean, filtered along the row.
    """
    _, height, length = filtered.shape
    real = filtered.dtype.type
    c1, c2, two, one = real(_C1), real(_C2), real(2), real(1)
    scale = one / real(height * length)
    pad = _RADIUS * channels
    maps = np.empty((5, length), filtered.dtype)
    for m in range(5):
        _filter_column(filtered[m], row, window, maps[m])
    padded = np.zeros((3, length + 2 * pad), filtered.dtype)
    total = 0.0
    for i in range(length):
        mean_x, mean_y = maps[0, i], maps[1, i]
        variances = maps[2, i] + maps[3, i] - mean_x * mean_x - mean_y * mean_y + c2
        means = mean_x * mean_x + mean_y * mean_y + c1
        covariance = two * (maps[4, i] - mean_x * mean_y) + c2
        product = two * mean_x * mean_y + c1
        inverse = one / (means * variances)
        value = product * covariance * inverse
        total += value
        d_mean = (
            two * mean_y * (covariance - product) * inverse
            + two * mean_x * value * (one / variances - one / means)
        )  # fmt: skip
        padded[0, pad + i] = d_mean * scale
        padded[1, pad + i] = -value / variances * scale
        padded[2, pad + i] = two * product * inverse * scale
    for m in range(3):
        _filter_row(padded[m], window, channels, derivative[m, row])
    return total


@njit(cache=True, fastmath=_FAST)
def _gradient_of_row(x, y, row, derivative, window, gradient):
    """Filter the derivatives along the columns too, and take them to the pixels of x."""
    length = x.shape[1]
    maps = np.empty((3, length), x.dtype)
    for m in range(3):
        _filter_column(derivative[m], row, window, maps[m])
    two = x.dtype.type(2)
    for i in range(length):
        gradient[row, i] = maps[0, i] + two * x[row, i] * maps[1, i] + y[row, i] * maps[2, i]


@njit(cache=True, parallel=True)
def _mean_and_gradient(x, y, channels, window):
    """SSIM summed over each row (H,), and the gradient of its mean, of x's shape (H, W * C)."""
    height, length = x.shape
    filtered = np.empty((5, height, length), x.dtype)
    derivative = np.empty((3, height, length), x.dtype)
    gradient = np.empty((height, length), x.dtype)
    sums = np.empty(height, np.float64)
    for row in numba.prange(height):
        _filter_products(x, y, row, channels, window, filtered)
    for row in numba.prange(height):
        sums[row] = _similarity_of_row(filtered, row, channels, window, derivative)
    for row in numba.prange(height):
        _gradient_of_row(x, y, row, derivative, window, gradient)
    return sums, gradient
