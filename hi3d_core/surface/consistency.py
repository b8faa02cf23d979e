"""How far the views agree on the colour of a surface, place by place.

A surface that is in the right place shows every view the same colour. One that is not, such as
the lid that the visual hull puts on a bowl, shows each view another spot of what lies behind. So
the spread of the views' colours at a surface node tells whether the surface belongs there
(photo-consistency; Seitz and Dyer 1997, "Photorealistic scene reconstruction by voxel coloring").

Lengths in voxels, positions in node coordinates. Letters: V views, R rays, B surface nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import prange
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from ..jit import njit
from .field import IndexArray
from .hull import FloatArray
from .rays import Rays
from .render import clip_to_grid, trilinear

_REACH = 1.8  # nodes this near to the surface are judged, voxels
_OPAQUE = 0.98  # pixels with less coverage show something of the background
_LEAST_COSINE = 0.1  # of a ray to the normal; a glance says little about colour
_LEAST_WEIGHT = 0.3  # of a view's rays around a node, for its word to count
_FULL_WEIGHT = 4.0  # of a node; more rays make its word no stronger
_LEAST_VIEWS = 3  # that see a node, for a verdict

# Columns of the sums: colour, contrast, weight.
_CONTRAST, _WEIGHT, _COLUMNS = 3, 4, 5


@dataclass(frozen=True, eq=False)
class Sightings:
    """All rays of the views with what they show, a view after the other.

    starts: (V + 1,) where each view's rays begin. origins, directions, colors: (R, 3).
    alphas: (R,). trust: (R,) how much each counts. contrasts: (R,) how much the colour changes to
    the neighbouring pixels.
    """

    starts: NDArray[np.int64]
    origins: FloatArray
    directions: FloatArray
    colors: FloatArray
    alphas: FloatArray
    trust: FloatArray
    contrasts: FloatArray

    @staticmethod
    def of(rays: Rays) -> Sightings:
        """Those of rays in node coordinates (`Rays.in_grid`), whole views in their order."""
        everything = np.arange(len(rays.view))
        origins, directions, colors, alphas, trust = rays.pick(everything)
        starts = np.searchsorted(rays.view, np.arange(len(rays.origins) + 1)).astype(np.int64)
        return Sightings(starts, origins, directions, colors, alphas, trust, _contrasts(rays))

    def chosen(self, rays: NDArray[np.bool_]) -> Sightings:
        """Some of the rays, (R,) true for those."""
        starts = np.concatenate([[0], np.cumsum(rays)])[self.starts].astype(np.int64)
        return Sightings(
            starts,
            self.origins[rays],
            self.directions[rays],
            self.colors[rays],
            self.alphas[rays],
            self.trust[rays],
            self.contrasts[rays],
        )


def _contrasts(rays: Rays) -> FloatArray:
    """(R,) root mean square over channels of the colour's gradient, per pixel."""
    columns, rows = rays.column.astype(np.int64), rays.row.astype(np.int64)
    shape = (len(rays.origins), rows.max() + 2, columns.max() + 2, 3)
    pictures = np.ones(shape, np.float32)
    pictures[rays.view, rows, columns] = rays.colors
    along_row, along_column = np.gradient(pictures, axis=2), np.gradient(pictures, axis=1)
    gradient = np.sqrt((along_row**2 + along_column**2).sum(axis=-1) / 3)
    return gradient[rays.view, rows, columns].astype(np.float32)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the views say of the nodes next to a surface.

    nodes: (B, 3) int32. judged: (B,) whether enough views see a node. weights: (B,) rays that end
    there, up to one a view. spreads: (B,) standard
    deviation of the colour between views. contrasts: (B,) of the pictures there. colors: (B, 3)
    mean over views; only where `seen` (B,).
    """

    nodes: IndexArray
    judged: NDArray[np.bool_]
    weights: FloatArray
    spreads: FloatArray
    contrasts: FloatArray
    colors: FloatArray
    seen: NDArray[np.bool_]


def judge(sdf: FloatArray, sightings: Sightings) -> Verdict:
    """Ask the views about the zero level of a distance in voxels (X, Y, Z)."""
    hits = trace(sightings.origins, sightings.directions, sdf)
    nodes, _, sums = _gathered(sdf, sightings, hits)
    spreads, views = _spread_between_views(sums)
    weights = np.minimum(np.minimum(sums[..., _WEIGHT], 1).sum(axis=0), _FULL_WEIGHT)
    total = sums.sum(axis=0)
    weight = np.maximum(total[:, _WEIGHT], 1e-6)
    return Verdict(
        nodes,
        views >= _LEAST_VIEWS,
        weights,
        spreads,
        total[:, _CONTRAST] / weight,
        total[:, :3] / weight[:, None],
        total[:, _WEIGHT] > 0.2,
    )


def held_out_errors(sdf: FloatArray, sightings: Sightings, hits: FloatArray) -> FloatArray:
    """Each ray's colour against what the other views show of the place where it ends.

    hits: (R,) as `trace` finds them. A view's own rays are left out of what it is compared with,
    so surface that few views see gains nothing by it. Returns (R,) mean absolute differences of
    the channels, NaN where a ray ends nowhere or no other view sees the place.
    """
    _, slot, sums = _gathered(sdf, sightings, hits)
    errors = np.empty(len(hits), np.float32)
    _compare(
        sightings.starts,
        sightings.origins,
        sightings.directions,
        sightings.colors,
        hits,
        slot,
        sums,
        sums.sum(axis=0),
        errors,
    )
    return errors


def _gathered(
    sdf: FloatArray, sightings: Sightings, hits: FloatArray
) -> tuple[IndexArray, IndexArray, FloatArray]:
    """Nodes (B, 3) near the zero level, their slots (X, Y, Z), sums (V, B, _COLUMNS) of rays."""
    near = np.abs(sdf) < _REACH
    for axis in range(3):
        border = [slice(None)] * 3
        for side in (slice(0, 2), slice(-2, None)):
            border[axis] = side
            near[tuple(border)] = False
    nodes = np.argwhere(near).astype(np.int32)
    slot = np.full(sdf.shape, -1, np.int32)
    slot[near] = np.arange(len(nodes), dtype=np.int32)
    sums = np.zeros((len(sightings.starts) - 1, len(nodes), _COLUMNS), np.float32)
    _gather(
        sightings.starts,
        sightings.origins,
        sightings.directions,
        sightings.colors,
        sightings.contrasts,
        sightings.alphas,
        hits,
        sdf,
        slot,
        sums,
    )
    return nodes, slot, sums


def projected_colors(sdf: FloatArray, sightings: Sightings) -> FloatArray:
    """(X, Y, Z, 3) colours for a grid: the views' mean at the surface, the nearest elsewhere."""
    verdict = judge(sdf, sightings)
    colors = np.full((*sdf.shape, 3), 0.5, np.float32)
    if not verdict.seen.any():
        return colors
    unknown = np.ones(sdf.shape, bool)
    i, j, k = verdict.nodes[verdict.seen].T
    unknown[i, j, k] = False
    colors[i, j, k] = verdict.colors[verdict.seen]
    nearest = distance_transform_edt(unknown, return_distances=False, return_indices=True)
    return np.ascontiguousarray(colors[tuple(nearest)])


@njit(parallel=True, cache=True, fastmath=True)
def trace(origins: FloatArray, directions: FloatArray, sdf: FloatArray) -> FloatArray:
    """(R,) how far along each ray the surface lies, or -1 for rays that miss it."""
    hits = np.empty(len(origins), np.float32)
    for r in prange(len(origins)):
        o, d = origins[r], directions[r]
        t, leave = clip_to_grid(o, d, sdf.shape)
        hits[r] = -1
        last_t, last_f = t, np.float32(-1)
        while t < leave:
            f = trilinear(sdf, o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
            if f < 0.02:
                # Between a place outside and one inside, where the straight line crosses.
                crosses = f < 0 and last_f > 0
                hits[r] = last_t + (t - last_t) * last_f / (last_f - f) if crosses else t
                break
            last_t, last_f = t, f
            t += max(f * np.float32(0.9), np.float32(0.1))
    return hits


@njit(parallel=True, cache=True, fastmath=True)
def _gather(
    starts: NDArray[np.int64],
    origins: FloatArray,
    directions: FloatArray,
    colors: FloatArray,
    contrasts: FloatArray,
    alphas: FloatArray,
    hits: FloatArray,
    sdf: FloatArray,
    slot: IndexArray,
    sums: FloatArray,  # (V, B, _COLUMNS), added to
) -> None:
    """Share what each ray shows among the eight nodes around the place where it ends."""
    for v in prange(len(starts) - 1):
        out = sums[v]
        for r in range(starts[v], starts[v + 1]):
            if hits[r] < 0 or alphas[r] <= _OPAQUE:
                continue
            o, d = origins[r], directions[r]
            x, y, z = o[0] + hits[r] * d[0], o[1] + hits[r] * d[1], o[2] + hits[r] * d[2]
            i, j, k = int(x), int(y), int(z)
            a, b, c = x - i, y - j, z - k
            gx = gy = gz = np.float32(0)
            for corner in range(8):
                di, dj, dk = corner >> 2, (corner >> 1) & 1, corner & 1
                f = sdf[i + di, j + dj, k + dk]
                gx += f if di else -f
                gy += f if dj else -f
                gz += f if dk else -f
            norm = np.sqrt(gx * gx + gy * gy + gz * gz) + np.float32(1e-6)
            cosine = -(gx * d[0] + gy * d[1] + gz * d[2]) / norm
            if cosine < _LEAST_COSINE:
                continue
            for corner in range(8):
                di, dj, dk = corner >> 2, (corner >> 1) & 1, corner & 1
                n = slot[i + di, j + dj, k + dk]
                if n >= 0:
                    share = (
                        cosine * (a if di else 1 - a) * (b if dj else 1 - b) * (c if dk else 1 - c)
                    )
                    for channel in range(3):
                        out[n, channel] += share * colors[r, channel]
                    out[n, _CONTRAST] += share * contrasts[r]
                    out[n, _WEIGHT] += share


@njit(parallel=True, cache=True, fastmath=True)
def _spread_between_views(sums: FloatArray) -> tuple[FloatArray, IndexArray]:
    """Weighted standard deviation of the views' mean colours (B,), and how many views (B,)."""
    views, nodes, _ = sums.shape
    spreads = np.zeros(nodes, np.float32)
    counts = np.zeros(nodes, np.int32)
    for n in prange(nodes):
        total = np.float32(0)
        mean = np.zeros(3, np.float32)
        for v in range(views):
            weight = sums[v, n, _WEIGHT]
            if weight > _LEAST_WEIGHT:
                counts[n] += 1
                share = min(weight, np.float32(1))
                total += share
                for channel in range(3):
                    mean[channel] += share * sums[v, n, channel] / weight
        if counts[n] < 2:
            continue
        squares = np.float32(0)
        for v in range(views):
            weight = sums[v, n, _WEIGHT]
            if weight > _LEAST_WEIGHT:
                share = min(weight, np.float32(1))
                for channel in range(3):
                    off = sums[v, n, channel] / weight - mean[channel] / total
                    squares += share * off * off / 3
        spreads[n] = np.sqrt(squares / total * counts[n] / (counts[n] - 1))
    return spreads, counts


@njit(parallel=True, cache=True, fastmath=True)
def _compare(
    starts: NDArray[np.int64],
    origins: FloatArray,
    directions: FloatArray,
    colors: FloatArray,
    hits: FloatArray,
    slot: IndexArray,
    sums: FloatArray,  # (V, B, _COLUMNS)
    total: FloatArray,  # (B, _COLUMNS) over views
    errors: FloatArray,  # (R,) out
) -> None:
    """Mean absolute difference of each ray's colour and the other views' around its end."""
    for v in prange(len(starts) - 1):
        for r in range(starts[v], starts[v + 1]):
            errors[r] = np.nan
            if hits[r] < 0:
                continue
            o, d = origins[r], directions[r]
            x, y, z = o[0] + hits[r] * d[0], o[1] + hits[r] * d[1], o[2] + hits[r] * d[2]
            i, j, k = int(x), int(y), int(z)
            a, b, c = x - i, y - j, z - k
            weight = np.float32(0)
            mean = np.zeros(3, np.float32)
            for corner in range(8):
                di, dj, dk = corner >> 2, (corner >> 1) & 1, corner & 1
                n = slot[i + di, j + dj, k + dk]
                if n >= 0:
                    share = (a if di else 1 - a) * (b if dj else 1 - b) * (c if dk else 1 - c)
                    weight += share * (total[n, _WEIGHT] - sums[v, n, _WEIGHT])
                    for channel in range(3):
                        mean[channel] += share * (total[n, channel] - sums[v, n, channel])
            if weight > _LEAST_WEIGHT:
                error = np.float32(0)
                for channel in range(3):
                    error += abs(colors[r, channel] - mean[channel] / weight)
                errors[r] = error / 3
