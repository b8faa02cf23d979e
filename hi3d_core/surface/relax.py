"""Surface that no view sees, relaxed to the least area over the rim of what they do see.

Silhouettes leave a cone under an object that is photographed from above. Nothing is known there
but the rim, so the plainest surface over it is the best guess: mean curvature flow
    f <- f + (mean of the six neighbours - f)
run until it hardly moves (Sethian 1999, "Level Set Methods", ch. 2; Desbrun et al. 1999). A step
moves a bulge of radius R by 1 / (3 R) voxels, far too little beside an image fit's few hundred
iterations, so it runs here on its own, on a coarse grid, where thousands of steps take a second.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import prange

from ..jit import njit
from .field import Field, IndexArray, find_band, redistance, unseen_below
from .hull import FloatArray

_STEPS_A_ROUND = 12  # between looking for the band anew; nodes move less than a voxel in it
_ROUNDS = 40


def relax_hidden(
    field: Field, half_width: float, on_round: Callable[[], None] | None = None
) -> None:
    """Relax a field's hidden surface, in place; what is seen stays as it is.

    half_width: of the band that follows the surface, voxels. on_round: called between rounds; it
    may raise to cancel.
    """
    threshold = unseen_below(field)
    given = field.sdf.copy()
    first = find_band(field, half_width, threshold)
    if not first.hidden.any():
        return
    for _ in range(_ROUNDS):
        if on_round is not None:
            on_round()
        band = find_band(field, half_width, threshold)
        nodes = band.nodes[band.hidden]
        if len(nodes) == 0:
            break
        i, j, k = nodes.T
        means = np.empty(len(nodes), np.float32)
        for _ in range(_STEPS_A_ROUND):
            _means(field.sdf, nodes, means)
            field.sdf[i, j, k] = means
        field.sdf = redistance(field.sdf)
    # Finding distances anew wears sharp edges a little each time. Not done in the rounds: specks
    # that count as seen on an underside's cone would hold it up.
    i, j, k = first.nodes[~first.hidden].T
    near = np.abs(field.sdf[i, j, k] - given[i, j, k]) < 1
    i, j, k = i[near], j[near], k[near]
    field.sdf[i, j, k] = given[i, j, k]


@njit(parallel=True, cache=True, fastmath=True)
def _means(sdf: FloatArray, nodes: IndexArray, means: FloatArray) -> None:
    """Mean of each node's six neighbours. Written back apart, so that none reads a new value."""
    for n in prange(len(nodes)):
        i, j, k = nodes[n]
        means[n] = (
            sdf[i + 1, j, k]
            + sdf[i - 1, j, k]
            + sdf[i, j + 1, k]
            + sdf[i, j - 1, k]
            + sdf[i, j, k + 1]
            + sdf[i, j, k - 1]
        ) / np.float32(6)
