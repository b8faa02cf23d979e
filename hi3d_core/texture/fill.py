"""Colours for what no view saw: spread over the surface, then past the charts' borders.

On the surface: points are gathered into cells of a grid, split by the direction they face (so
that the two sides of a thin wall stay apart). Cells that views saw keep their mean colour; the
others take the smoothest colours in between (Laplace's equation on the graph of neighbouring
cells). In the picture: texels outside charts repeat the chart's border, so that filtering and
mip-maps show no fringe.

Letters: P points, C cells, S the texture's side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import prange
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.linalg import cg
from scipy.spatial import cKDTree

from ..jit import njit
from ..progress import Progress
from .votes import beyond_doubt, eased

_GRID = 96  # cells along the longest side
_SIDES = 6  # +x -x +y -y +z -z
_BORDER = 8  # texels that a chart's border is repeated, before coarser levels take over
FILL_STEPS = _BORDER + 1  # that `fill_around_charts` tells of
_LEAST_SHARE = 0.25  # of a cell that must be seen
_DOUBTFUL_CELLS = 16  # so near to cells beyond doubt the others keep quiet
_TIE_TO_SEEN = 1e-3  # pull of an unseen cell to the nearest seen one, relative to a neighbour's


@dataclass(frozen=True, eq=False)
class SurfaceColors:
    """Colours (C, 3) of the cells of a surface, and how to find them.

    table (n, n, n, 6) int32: the cell at a grid place that faces a side, -1 for none.
    """

    table: np.ndarray
    low: np.ndarray
    cell: float
    colors: np.ndarray

    def at(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """(P, 3) float32 colours, blended between the cells around each point that face alike."""
        return _interpolate(points, normals, self.table, self.low, self.cell, self.colors)


def spread_colors(
    points: np.ndarray,
    normals: np.ndarray,
    colors: np.ndarray,
    certainties: np.ndarray,
    progress: Progress | None = None,
    *,
    exact_edges: bool = False,
) -> SurfaceColors:
    """Colours for all cells of a surface from those of the points that were seen.

    Colours spread from cells that are beyond doubt (`votes.beyond_doubt`), and from others that
    were seen (`votes.eased`) only where none of the former is near: in parts so thin that they are
    all edge.

    points, normals, colors: (P, 3); certainties: (P,) of the votes, 0 for points that no view
    saw. If none was seen every cell is mid grey. progress: asked in between whether to go on.
    exact_edges: nothing that was seen is in doubt.
    """
    progress = progress or Progress(None, 0)
    low = points.min(axis=0).astype(np.float64) - 1e-6
    cell = max(float((points.max(axis=0) - low).max()), 1e-12) * (1 + 1e-6) / (_GRID - 2)
    low = low - cell / 2
    table, places, members = _find_cells(points, normals, low, cell, _GRID)
    count = len(places)
    progress.alive()
    amount = np.bincount(members, minlength=count)
    middles, facing = (
        np.stack([np.bincount(members, array[:, k], count) for k in range(3)], 1) / amount[:, None]
        for array in (points, normals)
    )
    seen, seen_colors = _cell_means(members, eased(certainties), colors, amount)
    sure, sure_colors = seen, seen_colors
    if not exact_edges:
        sure, sure_colors = _cell_means(members, beyond_doubt(certainties), colors, amount)
    progress.alive()
    is_known = _known_cells(sure, seen, middles, cell)
    if not is_known.any():
        return SurfaceColors(table, low, cell, np.full((count, 3), 0.5, dtype=np.float32))
    mean = np.where((sure > _LEAST_SHARE)[:, None], sure_colors, seen_colors)
    if not is_known.all():
        graph = _cell_graph(table, places, middles, facing, cell)
        progress.alive()
        mean = _solve_laplace(graph, middles, mean, is_known, progress)
    return SurfaceColors(table, low, cell, np.clip(mean, 0, 1).astype(np.float32))


def _cell_means(
    members: np.ndarray, weights: np.ndarray, colors: np.ndarray, amount: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each cell's mean weight (C,), and its colour (C, 3) by these weights."""
    count = len(amount)
    total = np.bincount(members, weights, count)
    sums = [np.bincount(members, weights * colors[:, k], count) for k in range(3)]
    return total / amount, np.stack(sums, axis=1) / np.maximum(total, 1e-12)[:, None]


def _known_cells(
    sure: np.ndarray, seen: np.ndarray, middles: np.ndarray, cell: float
) -> np.ndarray:
    """(C,) bool whether colours spread from a cell, of how sure (C,) and how seen (C,) it is."""
    is_sure, is_seen = sure > _LEAST_SHARE, seen > _LEAST_SHARE
    if not is_seen.any():
        return seen > 0
    doubtful = np.flatnonzero(is_seen & ~is_sure)
    if not is_sure.any() or len(doubtful) == 0:
        return is_sure | is_seen
    away = cKDTree(middles[is_sure]).query(
        middles[doubtful], distance_upper_bound=_DOUBTFUL_CELLS * cell
    )[0]
    is_sure[doubtful[np.isinf(away)]] = True
    return is_sure


def _cell_graph(
    table: np.ndarray, places: np.ndarray, middles: np.ndarray, facing: np.ndarray, cell: float
) -> csr_matrix:
    count = len(places)
    capacity = 24 * count
    while True:
        pairs, weights = np.empty((capacity, 2), dtype=np.int32), np.empty(capacity)
        found = _join_cells(table, places, middles, facing, cell, pairs, weights)
        if found <= capacity:
            break
        capacity = found
    ends = (pairs[:found, 0], pairs[:found, 1])
    graph = coo_matrix((weights[:found], ends), shape=(count, count)).tocsr()
    return graph + graph.T


def _solve_laplace(
    graph: csr_matrix,
    middles: np.ndarray,
    colors: np.ndarray,
    is_seen: np.ndarray,
    progress: Progress,
) -> np.ndarray:
    """Colours (C, 3): those of seen cells as they are, the others each the mean of their
    neighbours, weighted; cells that no seen one reaches take the nearest seen one's."""
    hidden = np.flatnonzero(~is_seen)
    nearest = np.flatnonzero(is_seen)[cKDTree(middles[is_seen]).query(middles[hidden])[1]]
    rows = graph[hidden]
    degree = np.asarray(rows.sum(axis=1)).reshape(-1)
    tie = _TIE_TO_SEEN * np.maximum(degree, 1e-3)
    system = (diags(degree + tie) - rows[:, hidden]).tocsr()
    known = rows[:, is_seen] @ colors[is_seen] + tie[:, None] * colors[nearest]
    scale = diags(1 / (degree + tie))
    progress.alive()
    result = colors.copy()
    for k in range(3):
        solution, _ = cg(
            system,
            known[:, k],
            x0=colors[nearest, k],
            rtol=1e-3,
            maxiter=300,
            M=scale,
            callback=lambda _: progress.alive(),
        )
        result[hidden, k] = solution
    return result


@njit(cache=True, inline="always")
def _side(normal):  # type: ignore[no-untyped-def]
    """The number in 0 to 5 of the axis direction nearest to a normal."""
    axis = 0
    if abs(normal[1]) > abs(normal[axis]):
        axis = 1
    if abs(normal[2]) > abs(normal[axis]):
        axis = 2
    return 2 * axis + (1 if normal[axis] < 0 else 0)


@njit(cache=True)
def _find_cells(points, normals, low, cell, grid):  # type: ignore[no-untyped-def]
    """The table, each cell's grid place (C, 3) and each point's cell (P,)."""
    table = np.full((grid, grid, grid, _SIDES), -1, dtype=np.int32)
    members = np.empty(len(points), dtype=np.int32)
    places = np.empty((len(points), 3), dtype=np.int32)
    count = 0
    for i in range(len(points)):
        x = int((points[i, 0] - low[0]) / cell)
        y = int((points[i, 1] - low[1]) / cell)
        z = int((points[i, 2] - low[2]) / cell)
        side = _side(normals[i])
        if table[x, y, z, side] < 0:
            table[x, y, z, side] = count
            places[count, 0], places[count, 1], places[count, 2] = x, y, z
            count += 1
        members[i] = table[x, y, z, side]
    return table, places[:count].copy(), members


@njit(cache=True)
def _join_cells(table, places, middles, facing, cell, pairs, weights):  # type: ignore[no-untyped-def]
    """Pairs of cells in touching grid places; they weigh more the nearer and the more alike
    they face. Returns how many there are; only as many as fit are written."""
    count = 0
    for i in range(len(places)):
        x, y, z = places[i]
        for step in range(27 * _SIDES):
            side, rest = step % _SIDES, step // _SIDES
            dx, dy, dz = rest % 3 - 1, rest // 3 % 3 - 1, rest // 9 - 1
            j = table[x + dx, y + dy, z + dz, side]
            if j <= i:  # none, or met from the other end
                continue
            if count < len(pairs):
                alike, squared = 0.0, 0.0
                for k in range(3):
                    alike += facing[i, k] * facing[j, k]
                    squared += (middles[i, k] - middles[j, k]) ** 2
                pairs[count, 0], pairs[count, 1] = i, j
                weights[count] = max(alike, 0.02) / (np.sqrt(squared) / cell + 0.2)
            count += 1
    return count


@njit(cache=True, parallel=True)
def _interpolate(points, normals, table, low, cell, colors):  # type: ignore[no-untyped-def]
    result = np.zeros((len(points), 3), dtype=np.float32)
    grid = len(table)
    for i in prange(len(points)):
        # Cells count as if in the middle of their grid place.
        fx = (points[i, 0] - low[0]) / cell - 0.5
        fy = (points[i, 1] - low[1]) / cell - 0.5
        fz = (points[i, 2] - low[2]) / cell - 0.5
        x0, y0, z0 = int(np.floor(fx)), int(np.floor(fy)), int(np.floor(fz))
        total, red, green, blue = 0.0, 0.0, 0.0, 0.0
        for corner in range(8):
            x, y, z = x0 + corner % 2, y0 + corner // 2 % 2, z0 + corner // 4
            if x < 0 or y < 0 or z < 0 or x >= grid or y >= grid or z >= grid:
                continue
            near = max(1 - abs(fx - x), 1e-3) * max(1 - abs(fy - y), 1e-3)
            near *= max(1 - abs(fz - z), 1e-3)
            for side in range(_SIDES):
                j = table[x, y, z, side]
                if j < 0:
                    continue
                alike = normals[i, side // 2] * (1.0 if side % 2 == 0 else -1.0)
                weight = near * (max(alike, 0.0) ** 2 + 1e-4)
                total += weight
                red += weight * colors[j, 0]
                green += weight * colors[j, 1]
                blue += weight * colors[j, 2]
        if total > 0:
            result[i, 0], result[i, 1], result[i, 2] = red / total, green / total, blue / total
    return result


def fill_around_charts(
    texture: np.ndarray, covered: np.ndarray, progress: Progress | None = None
) -> None:
    """Repeat the charts' borders outward, in place, until the whole picture has colours.

    texture: (S, S, 3) float32. covered: (S, S) bool, where the texture has colours already.
    progress: stepped `FILL_STEPS` times.
    """
    progress = progress or Progress(None, 0)
    known = covered.copy()
    for _ in range(_BORDER):
        known = _grow_colors(texture, known)
        progress.step()
    _fill_coarsely(texture, known, progress)
    progress.step()


@njit(cache=True, parallel=True)
def _grow_colors(texture, known):  # type: ignore[no-untyped-def]
    """Give texels beside known ones their mean; returns what is known then."""
    size = len(known)
    grown = known.copy()
    for y in prange(size):
        for x in range(size):
            if known[y, x]:
                continue
            count, red, green, blue = 0, 0.0, 0.0, 0.0
            for j in range(max(y - 1, 0), min(y + 2, size)):
                for i in range(max(x - 1, 0), min(x + 2, size)):
                    if known[j, i]:
                        count += 1
                        red += texture[j, i, 0]
                        green += texture[j, i, 1]
                        blue += texture[j, i, 2]
            if count:
                texture[y, x, 0] = red / count
                texture[y, x, 1] = green / count
                texture[y, x, 2] = blue / count
                grown[y, x] = True
    return grown


def _fill_coarsely(texture: np.ndarray, known: np.ndarray, progress: Progress) -> None:
    """Take what is missing from the next coarser level, which is filled in the same way."""
    if len(known) == 1 or known.all() or not known.any():
        return
    coarse, coarse_known = _halve(texture, known)
    progress.alive()
    _fill_coarsely(coarse, coarse_known, progress)
    _take_missing(texture, known, coarse)


@njit(cache=True, parallel=True)
def _halve(texture, known):  # type: ignore[no-untyped-def]
    """The mean of what is known in each block of 2 x 2, and whether anything is."""
    size = len(known)
    half = (size + 1) // 2
    coarse = np.zeros((half, half, 3), dtype=np.float32)
    coarse_known = np.zeros((half, half), dtype=np.bool_)
    for y in prange(half):
        for x in range(half):
            count, red, green, blue = 0, 0.0, 0.0, 0.0
            for j in range(2 * y, min(2 * y + 2, size)):
                for i in range(2 * x, min(2 * x + 2, size)):
                    if known[j, i]:
                        count += 1
                        red += texture[j, i, 0]
                        green += texture[j, i, 1]
                        blue += texture[j, i, 2]
            if count:
                coarse[y, x, 0] = red / count
                coarse[y, x, 1] = green / count
                coarse[y, x, 2] = blue / count
                coarse_known[y, x] = True
    return coarse, coarse_known


@njit(cache=True, parallel=True)
def _take_missing(texture, known, coarse):  # type: ignore[no-untyped-def]
    """Write the coarser level's colours where none are known, in place."""
    for y in prange(len(known)):
        for x in range(len(known)):
            if not known[y, x]:
                for k in range(3):
                    texture[y, x, k] = coarse[y // 2, x // 2, k]
