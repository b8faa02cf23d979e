"""Read a picture at places between its pixels.

A displacement field D (H, W, 2), in pixels (x, y), says that pixel p of the result shows what the
picture shows at p + D[p].
"""

from __future__ import annotations

import numpy as np
from numba import prange

from ..jit import njit
from ..surface.hull import FloatArray


def warp(picture: FloatArray, displacement: FloatArray) -> FloatArray:
    """The picture as seen through a displacement field, by Catmull-Rom's cubic.

    picture: (H, W, C) float32. displacement: (h, w, 2) float32 in pixels (x, y). Beyond its
    border the picture goes on as its outermost pixels. The cubic may overshoot the picture's
    range; a displacement of zero returns the pixel itself.

    Returns (h, w, C).
    """
    return _warp(
        np.ascontiguousarray(picture, np.float32), np.ascontiguousarray(displacement, np.float32)
    )


@njit(inline="always")
def cubic_weights(t):  # type: ignore[no-untyped-def]
    """Catmull-Rom weights of the four samples around a place `t` behind the second one."""
    half = np.float32(0.5)
    two, three, four, five = np.float32(2), np.float32(3), np.float32(4), np.float32(5)
    t2, t3 = t * t, t * t * t
    return (
        half * (-t + two * t2 - t3),
        half * (two - five * t2 + three * t3),
        half * (t + four * t2 - three * t3),
        half * (t3 - t2),
    )


@njit(parallel=True, cache=True)
def _warp(picture: FloatArray, displacement: FloatArray) -> FloatArray:
    height, width, channels = picture.shape
    rows, columns = displacement.shape[:2]
    out = np.empty((rows, columns, channels), np.float32)
    for row in prange(rows):
        for column in range(columns):
            x = np.float32(column) + displacement[row, column, 0]
            y = np.float32(row) + displacement[row, column, 1]
            x = min(max(x, np.float32(0)), np.float32(width - 1))
            y = min(max(y, np.float32(0)), np.float32(height - 1))
            i, j = int(x), int(y)
            across = cubic_weights(x - np.float32(i))
            down = cubic_weights(y - np.float32(j))
            for c in range(channels):
                total = np.float32(0)
                for b in range(4):
                    r = min(max(j + b - 1, 0), height - 1)
                    line = np.float32(0)
                    for a in range(4):
                        line += across[a] * picture[r, min(max(i + a - 1, 0), width - 1), c]
                    total += down[b] * line
                out[row, column, c] = total
    return out
