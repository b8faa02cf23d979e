"""Resizing of pictures held as arrays: floats smoothly, bytes exactly as OpenCV does it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

_ONE = 2048  # OpenCV's fixed point: weights have 11 bits after the point


def resize_array(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize (H, W) or (H, W, C) floats with an antialiasing triangle filter."""
    if values.ndim == 3:
        channels = [resize_array(values[..., c], width, height) for c in range(values.shape[2])]
        return np.stack(channels, axis=2)
    resized = Image.fromarray(values.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return np.asarray(resized)


class Window(NamedTuple):
    """A part of a picture, in pixels from its top left."""

    left: int
    top: int
    width: int
    height: int


def resize_linear_8bit(
    pixels: np.ndarray, width: int, height: int, window: Window | None = None
) -> np.ndarray:
    """Resize bytes linearly, bit for bit as `cv2.resize(pixels, (width, height))` does.

    The diffusion networks were fed such pictures. Nothing is antialiased.

    pixels: uint8 (H, W) or (H, W, C). window: only this part of the result is computed.
    Returns uint8 of the same number of axes. Raises ValueError for other arrays, sizes below 1 and
    a window that is not inside the result.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise ValueError(
            f"pixels is {pixels.dtype} {pixels.shape}, expected uint8 (H, W) or (H, W, C)"
        )
    window = window or Window(0, 0, width, height)
    _check_window(window, width, height)
    if pixels.ndim == 2:
        return resize_linear_8bit(pixels[..., None], width, height, window)[..., 0]
    columns = slice(window.left, window.left + window.width)
    rows = slice(window.top, window.top + window.height)
    source_height, source_width = pixels.shape[:2]
    if (source_width, source_height) == (width, height):
        return pixels[rows, columns].copy()
    across = [each[columns] for each in _axis(source_width, width)]
    down = [each[rows] for each in _axis(source_height, height)]
    return _interpolate(pixels, across, down)


def _check_window(window: Window, width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"the new size is {width} x {height} pixels, expected at least 1 x 1")
    if not (
        0 <= window.left < window.left + window.width <= width
        and 0 <= window.top < window.top + window.height <= height
    ):
        raise ValueError(f"{window} is not inside the result of {width} x {height} pixels")


def _axis(source: int, target: int) -> list[np.ndarray]:
    """For each target pixel its two source pixels and their weights in 1/2048, all int32.

    Beyond the outermost pixels' centres both are that pixel.
    """
    scale = 1 / (target / source)  # two roundings, as OpenCV has them
    positions = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(positions).astype(np.int32)
    fraction = positions - first.astype(np.float32)
    near = np.rint((np.float32(1) - fraction) * _ONE).astype(np.int32)
    far = np.rint(fraction * _ONE).astype(np.int32)
    last = source - 1
    return [first.clip(0, last), (first + 1).clip(0, last), near, far]


def _interpolate(
    pixels: np.ndarray, across: list[np.ndarray], down: list[np.ndarray]
) -> np.ndarray:
    left, right, left_weight, right_weight = across
    upper, lower, upper_weight, lower_weight = (each[:, None, None] for each in down)

    def stretched(rows: np.ndarray) -> np.ndarray:
        lines = pixels[rows[:, 0, 0]]
        return (
            lines[:, left].astype(np.int32) * left_weight[:, None]
            + lines[:, right].astype(np.int32) * right_weight[:, None]
        )

    # The shifts are OpenCV's: 22 bits after the point are dropped in three steps.
    above = (upper_weight * (stretched(upper) >> 4)) >> 16
    below = (lower_weight * (stretched(lower) >> 4)) >> 16
    return ((above + below + 2) >> 2).clip(0, 255).astype(np.uint8)
