"""Texels and the surface points they stand for.

A texel (x, y) has its centre at uv = ((x + .5) / S, (y + .5) / S), S the texture's side. Rows of
a texel list are y * S + x. Texels one step outside a chart, which bilinear look-ups at its border
reach, stand for the nearest point of the chart's edge: so both sides of a seam agree.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from ..jit import njit
from ..progress import Progress

_BAND_ROWS = 32


def find_texels(
    uvs: np.ndarray, faces: np.ndarray, size: int, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The texels that charts cover, and those one step around them.

    uvs: (N, 2), origin top left. faces: (M, 3). progress: asked in between whether to go on.
    Returns texels (T,) int64, ascending, and the face (T,) int32 of each.
    """
    progress = progress or Progress(None, 0)
    owner = np.full((size, size), -1, dtype=np.int32)
    corners = np.ascontiguousarray(uvs[faces], dtype=np.float64) * size
    low = np.floor(corners[:, :, 1].min(axis=1)).astype(np.int64)
    high = np.ceil(corners[:, :, 1].max(axis=1)).astype(np.int64)
    progress.alive()
    _rasterize(corners, low, high, owner)
    progress.alive()
    grown = owner.copy()
    _grow(owner, grown)
    progress.alive()
    texels = np.flatnonzero(grown.reshape(-1) >= 0)
    return texels, grown.reshape(-1)[texels]


@njit(cache=True, parallel=True)
def _rasterize(corners, low, high, owner):  # type: ignore[no-untyped-def]
    """Write the face at each texel's centre; of faces that share an edge the last one wins."""
    size = len(owner)
    for band in prange((size + _BAND_ROWS - 1) // _BAND_ROWS):
        first, last = band * _BAND_ROWS, min(size, (band + 1) * _BAND_ROWS)
        for face in range(len(corners)):
            if high[face] < first or low[face] > last:
                continue
            ax, ay = corners[face, 0]
            bx, by = corners[face, 1]
            cx, cy = corners[face, 2]
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if area == 0:
                continue
            sign = 1.0 if area > 0 else -1.0
            x0 = max(0, int(np.floor(min(ax, bx, cx) - 0.5)))
            x1 = min(size - 1, int(np.ceil(max(ax, bx, cx) - 0.5)))
            for y in range(max(first, low[face] - 1), min(last, high[face] + 1)):
                py = y + 0.5
                for x in range(x0, x1 + 1):
                    px = x + 0.5
                    if (
                        sign * ((bx - ax) * (py - ay) - (by - ay) * (px - ax)) >= 0
                        and sign * ((cx - bx) * (py - by) - (cy - by) * (px - bx)) >= 0
                        and sign * ((ax - cx) * (py - cy) - (ay - cy) * (px - cx)) >= 0
                    ):
                        owner[y, x] = face


@njit(cache=True, parallel=True)
def _grow(owner, grown):  # type: ignore[no-untyped-def]
    """Give free texels beside a chart the face of a neighbour (sides before corners)."""
    size = len(owner)
    for y in prange(size):
        for x in range(size):
            if owner[y, x] >= 0:
                continue
            best = 3
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    away = dx * dx + dy * dy
                    if away < best and 0 <= y + dy < size and 0 <= x + dx < size:
                        face = owner[y + dy, x + dx]
                        if face >= 0:
                            best = away
                            grown[y, x] = face


@njit(cache=True, inline="always")
def barycentrics(texel, size, a, b, c):  # type: ignore[no-untyped-def]
    """Weights of a face's corners at a texel, or at the face's nearest point if it is outside.

    a, b, c: the corners' uvs, not scaled.
    """
    px, py = (texel % size + 0.5) / size, (texel // size + 0.5) / size
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    if area == 0.0:
        return 1.0 / 3, 1.0 / 3, 1.0 / 3
    v = ((px - a[0]) * (c[1] - a[1]) - (py - a[1]) * (c[0] - a[0])) / area
    w = ((b[0] - a[0]) * (py - a[1]) - (b[1] - a[1]) * (px - a[0])) / area
    u = 1.0 - v - w
    if u >= 0 and v >= 0 and w >= 0:
        return u, v, w
    along_ab, away_ab = _on_segment(px, py, a, b)
    along_bc, away_bc = _on_segment(px, py, b, c)
    along_ca, away_ca = _on_segment(px, py, c, a)
    if away_ab <= away_bc and away_ab <= away_ca:
        return 1.0 - along_ab, along_ab, 0.0
    if away_bc <= away_ca:
        return 0.0, 1.0 - along_bc, along_bc
    return along_ca, 0.0, 1.0 - along_ca


@njit(cache=True, inline="always")
def _on_segment(px, py, a, b):  # type: ignore[no-untyped-def]
    """Where on the segment from a to b (0 to 1) a point is nearest, and the squared distance."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    along = ((px - a[0]) * dx + (py - a[1]) * dy) / max(dx * dx + dy * dy, 1e-300)
    along = min(max(along, 0.0), 1.0)
    return along, (px - a[0] - along * dx) ** 2 + (py - a[1] - along * dy) ** 2


@njit(cache=True, parallel=True)
def surface_points(texels, texel_faces, size, uvs, vertices, faces):  # type: ignore[no-untyped-def]
    """(T, 3) float32 places on the surface that the texels stand for."""
    points = np.empty((len(texels), 3), dtype=np.float32)
    for i in prange(len(texels)):
        i0, i1, i2 = faces[texel_faces[i]]
        u, v, w = barycentrics(texels[i], size, uvs[i0], uvs[i1], uvs[i2])
        for k in range(3):
            points[i, k] = u * vertices[i0, k] + v * vertices[i1, k] + w * vertices[i2, k]
    return points


@njit(cache=True, parallel=True)
def surface_normals(texels, texel_faces, size, uvs, normals, faces):  # type: ignore[no-untyped-def]
    """(T, 3) float32 unit normals at the texels, interpolated between the vertices' normals."""
    result = np.empty((len(texels), 3), dtype=np.float32)
    for i in prange(len(texels)):
        i0, i1, i2 = faces[texel_faces[i]]
        u, v, w = barycentrics(texels[i], size, uvs[i0], uvs[i1], uvs[i2])
        x = u * normals[i0, 0] + v * normals[i1, 0] + w * normals[i2, 0]
        y = u * normals[i0, 1] + v * normals[i1, 1] + w * normals[i2, 1]
        z = u * normals[i0, 2] + v * normals[i1, 2] + w * normals[i2, 2]
        length = max(np.sqrt(x * x + y * y + z * z), 1e-12)
        result[i, 0], result[i, 1], result[i, 2] = x / length, y / length, z / length
    return result
