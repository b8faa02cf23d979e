"""Offsets for all places of a surface together: where the views agree, and bent least.

Point by point the views' answers are full of false ones: a weave looks alike a thread further,
plain paint everywhere. So a data term, searched point by point over all offsets, is coupled more
and more tightly to a quadratic one, solved as a whole (DTAM: Newcombe et al. 2011, "DTAM: Dense
tracking and mapping in real-time", sections 2.2.3 and 2.2.4):
    minimise  sum_n  C(n, d_n) + w_n(d_n) coupling / 2 |u_n - d_n|
              + bending / 2 |L (x + u n)|^2 + area / 2 (x + u n) . -L (x + u n)
over offsets d and moves u of the vertices x along their normals n. L is the mesh's Laplacian: the
two last terms are the thin plate and the membrane of fairing (Desbrun et al. 1999, "Implicit
fairing of irregular meshes"). w tells how clear a place's answer is. Where nothing is clear it is
small, and the answer is to stay: a plain patch is spanned from what is clear around it, a thing of
one colour keeps its shape. Silhouettes are held up by whichever vertex on their rays sank least.

Lengths in voxels, positions in node coordinates. Letters: N vertices, K offsets, E pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import cg

from .hull import FloatArray

DoubleArray = NDArray[np.float64]

# The cost that counts as 1 is that at a vertex's best offset, within these limits.
_LEAST_COST, _MOST_COST = 0.1, 0.4
_ENOUGH = 1.0  # more than this above the best is no worse
_EMPTY = 20.0  # what an offset costs where a view shows that there is nothing
_BESIDE = 1.0  # voxels; an answer is as clear as this far from it the costs have risen
_ROUNDS = 10
_COUPLING = (0.1, 4.0)  # in the first and in the last round
_BENDING, _AREA = 1.0, 0.1
_UNKNOWN = 0.03  # clearness of the offset 0 where fewer than two views look
_LEAST_CLEAR = 0.002  # holds what the views say nothing of where it is, weakly
_STRAY = 0.5  # beyond this the coupling grows linearly, so that false answers pull no harder
_HOLD = 5.0  # weight of the move 0 for a vertex that holds up a silhouette
_RIM = 0.6  # voxels between a vertex and a silhouette's edge, in a picture, that it may hold up


@dataclass(frozen=True, eq=False)
class Offers:
    """What the views say of each vertex at each offset.

    offsets: (K,) evenly spaced, 0 in their middle. costs: (N, K) how much the views differ. empty:
    (N, K) whether some view shows that there is nothing. known: (N,) whether two views look.
    """

    offsets: FloatArray
    costs: FloatArray
    empty: NDArray[np.bool_]
    known: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Rims:
    """Which vertices lie on which rays along the silhouettes' edges.

    vertices, rays: (E,) int64 pairs.
    """

    vertices: NDArray[np.int64]
    rays: NDArray[np.int64]

    @staticmethod
    def of(
        vertices: FloatArray, projections: FloatArray, insides: FloatArray, pixel: float
    ) -> Rims:
        """Those of vertices (N, 3) in views, with rays a voxel apart.

        projections: (V, 3, 4) to pixels. insides: (V, H, W) signed distances to the silhouettes,
        in pixels. pixel: the size of one at the object, voxels.
        """
        _, height, width = insides.shape
        found, cells = [], []
        for view, projection in enumerate(projections):
            x, y, depth = projection[:, :3] @ vertices.T + projection[:, 3:]
            with np.errstate(divide="ignore", invalid="ignore"):
                x, y = x / depth, y / depth
            shown = np.flatnonzero((depth > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height))
            row, column = y[shown].astype(int), x[shown].astype(int)
            on_edge = np.abs(insides[view, row, column]) < _RIM / pixel
            found.append(shown[on_edge])
            cell = np.floor(np.stack([row, column], axis=1)[on_edge] * pixel).astype(np.int64)
            cells.append(np.column_stack([np.full(len(cell), view), cell]))
        _, rays = np.unique(np.concatenate(cells), axis=0, return_inverse=True)
        return Rims(np.concatenate(found), rays.ravel())

    def held(self, moves: DoubleArray) -> NDArray[np.bool_]:
        """(N,) vertices that hold up a silhouette: of each ray's, the one that sank least."""
        order = np.lexsort((-moves[self.vertices], self.rays))
        is_first = np.ones(len(order), bool)
        is_first[1:] = np.diff(self.rays[order]) > 0
        held = np.zeros(len(moves), bool)
        held[self.vertices[order[is_first]]] = True
        return held


def fair_moves(
    vertices: FloatArray,
    faces: NDArray[np.int32],
    normals: FloatArray,
    offers: Offers,
    rims: Rims,
    alive: Callable[[], None],
) -> FloatArray:
    """(N,) how far each vertex goes along its normal, within the offsets.

    alive: called between rounds; it may raise to cancel.
    """
    offsets = offers.offsets.astype(float)
    least = offers.costs.min(axis=1, keepdims=True)
    shown = offers.costs / np.clip(least, _LEAST_COST, _MOST_COST)
    shown = np.minimum(shown - shown.min(axis=1, keepdims=True), _ENOUGH)
    costs = shown + np.where(offers.empty, np.float32(_EMPTY), np.float32(0))
    stiffness, pull = _stiffness(vertices.astype(float), faces, normals.astype(float))

    moves = np.zeros(len(vertices))
    for coupling in np.geomspace(*_COUPLING, _ROUNDS):
        alive()
        away = (offsets - moves[:, None]) ** 2
        chosen = (costs + coupling / 2 * away).argmin(axis=1)
        clear = np.maximum(_clear(shown, chosen, offsets), _LEAST_CLEAR)
        # Where all offsets are alike the chosen one is but the nearest to where it is by now.
        goals = np.where(clear > _LEAST_CLEAR, offsets[chosen], 0.0)
        clear[~offers.known], goals[~offers.known] = _UNKNOWN, 0.0
        weights = coupling * clear / np.maximum(np.abs(moves - goals), _STRAY)
        held = np.where(rims.held(moves) & (moves < 0), _HOLD, 0.0)
        matrix = (stiffness + sparse.diags(weights + held)).tocsr()
        moves, _ = cg(
            matrix,
            pull + weights * goals,
            x0=moves,
            rtol=1e-5,
            maxiter=1000,
            M=sparse.diags(1 / matrix.diagonal()),
        )
        moves = np.clip(moves, offsets[0], offsets[-1])
    return moves.astype(np.float32)


def _clear(shown: FloatArray, chosen: NDArray[np.int64], offsets: DoubleArray) -> DoubleArray:
    """(N,) how much the costs rise on both sides of the chosen offset, in [0, 1]."""
    beside = round(_BESIDE / (offsets[1] - offsets[0]))
    every, last = np.arange(len(shown)), len(offsets) - 1
    sides = [np.clip(chosen + step, 0, last) for step in (-beside, beside)]
    rise = sum(shown[every, side] for side in sides) / 2 - shown[every, chosen]
    return np.clip(rise, 0, 1).astype(float)


def _stiffness(
    vertices: DoubleArray, faces: NDArray[np.int32], normals: DoubleArray
) -> tuple[sparse.csr_array, DoubleArray]:
    """The plate's and membrane's matrix (N, N) for moves along normals, and its right side (N,)."""
    count = len(vertices)
    starts, ends = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()
    edges = sparse.coo_array((np.ones(len(starts)), (starts, ends)), (count, count)).tocsr()
    edges = ((edges + edges.T) > 0).astype(float)
    # As many neighbours as a regular mesh's vertex has, and not its own, so that it's symmetric.
    laplacian = (edges - sparse.diags_array(edges.sum(axis=1))) / 6
    stiffness, pull = sparse.csr_array((count, count)), np.zeros(count)
    for axis in range(3):
        along = sparse.diags_array(normals[:, axis])
        bent, curved = laplacian @ along, laplacian @ vertices[:, axis]
        stiffness = stiffness + _BENDING * (bent.T @ bent) - _AREA * (along @ bent)
        pull -= _BENDING * (bent.T @ curved) - _AREA * (along @ curved)
    return sparse.csr_array(stiffness), pull
