"""One step of the band's nodes: regularisers, Adam, and the prior on surface no view sees.

Regularisers, in voxels, as means over the band:
    eikonal     (|grad f| - 1)^2, central differences                    (Gropp et al. 2020)
    smoothness  sum over axes of the squared second difference
Adam gives every node a step of about the same size, whatever its gradient says, and so embosses
pictures' noise and grain on the surface. So a step is spread over the node's neighbours before it
is taken, which lets whole places move fast and single nodes hardly (after Nicolet et al. 2021,
"Large steps in inverse rendering of geometry", which solves for such steps).
Nodes whose nearest surface no view sees get no image gradient at all. They follow
    f <- f + rate / 6 * (sum of the six neighbours - 6 f),
which moves the zero level by its mean curvature: held at the rim of what is seen, it relaxes to
the surface of least area, so an unseen underside becomes flat and not the hull's cone.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ..jit import njit
from .field import IndexArray
from .hull import FloatArray
from .render import COLUMNS, RED, SDF, SEEN

# Added to the root mean square of a node's gradients, summed over rays, that Adam divides by. Where
# the pictures say next to nothing, as in a white bowl, noise would else move surface at full rate.
LEAST_GRADIENT = 0.015


@njit(inline="always")
def _gradient(sdf, i, j, k):  # type: ignore[no-untyped-def]
    half = np.float32(0.5)
    return (
        half * (sdf[i + 1, j, k] - sdf[i - 1, j, k]),
        half * (sdf[i, j + 1, k] - sdf[i, j - 1, k]),
        half * (sdf[i, j, k + 1] - sdf[i, j, k - 1]),
    )


@njit(inline="always")
def _eikonal_pull(sdf, i, j, k, axis):  # type: ignore[no-untyped-def]
    """(1 - 1 / |g|) * g[axis]: half the derivative of (|g| - 1)^2 by g[axis]."""
    g = _gradient(sdf, i, j, k)
    norm = np.sqrt(g[0] * g[0] + g[1] * g[1] + g[2] * g[2])
    return (1 - 1 / max(norm, np.float32(0.05))) * g[axis]


@njit(inline="always")
def _second(sdf, i, j, k, axis):  # type: ignore[no-untyped-def]
    if axis == 0:
        return sdf[i + 1, j, k] - 2 * sdf[i, j, k] + sdf[i - 1, j, k]
    if axis == 1:
        return sdf[i, j + 1, k] - 2 * sdf[i, j, k] + sdf[i, j - 1, k]
    return sdf[i, j, k + 1] - 2 * sdf[i, j, k] + sdf[i, j, k - 1]


@njit(inline="always")
def regularizer_gradient(sdf, i, j, k, eikonal, smoothness):  # type: ignore[no-untyped-def]
    """Derivative by one node of the two regularisers summed over all nodes."""
    total = np.float32(0)
    for axis in range(3):
        di, dj, dk = int(axis == 0), int(axis == 1), int(axis == 2)
        total += eikonal * (
            _eikonal_pull(sdf, i - di, j - dj, k - dk, axis)
            - _eikonal_pull(sdf, i + di, j + dj, k + dk, axis)
        )
        total += (
            smoothness
            * 2
            * (
                _second(sdf, i - di, j - dj, k - dk, axis)
                - 2 * _second(sdf, i, j, k, axis)
                + _second(sdf, i + di, j + dj, k + dk, axis)
            )
        )
    return total


@njit(parallel=True, cache=True, fastmath=True)
def step_band(
    gradients: FloatArray,  # (C, B, COLUMNS); zeroed
    nodes: IndexArray,  # (B, 3)
    hidden: NDArray[np.bool_],  # (B,)
    slot: IndexArray,  # (X, Y, Z) a node's place in the band, or -1
    sdf: FloatArray,  # (X, Y, Z) changed
    colors: FloatArray,  # (X, Y, Z, 3) changed
    seen: FloatArray,  # (X, Y, Z) changed
    first_moment: FloatArray,  # (B, 4) changed
    second_moment: FloatArray,  # (B, 4) changed
    step: int,
    sdf_rate: float,
    color_rate: float,
    eikonal: float,
    smoothness: float,
    curvature_rate: float,
    spreading: int,
) -> None:
    """One Adam step (Kingma and Ba 2015; beta 0.9, 0.95). Rates in voxels and colour units.

    `eikonal` and `smoothness` weigh sums over the band. `spreading`: rounds of `_spread`.
    """
    beta1, beta2 = np.float32(0.9), np.float32(0.95)
    correct1 = np.float32(1 / (1 - 0.9**step))
    correct2 = np.float32(1 / (1 - 0.95**step))
    count = len(nodes)
    chunks = len(gradients)
    steps = np.empty(count, np.float32)
    for n in prange(count):
        i, j, k = nodes[n]
        gathered = np.zeros(COLUMNS, np.float32)
        for chunk in range(chunks):
            for c in range(COLUMNS):
                gathered[c] += gradients[chunk, n, c]
                gradients[chunk, n, c] = 0
        seen[i, j, k] = np.float32(0.9) * seen[i, j, k] + gathered[SEEN]
        f = sdf[i, j, k]
        if hidden[n]:
            neighbours = (
                sdf[i + 1, j, k]
                + sdf[i - 1, j, k]
                + sdf[i, j + 1, k]
                + sdf[i, j - 1, k]
                + sdf[i, j, k + 1]
                + sdf[i, j, k - 1]
            )
            steps[n] = np.float32(curvature_rate) * (neighbours / 6 - f)
        else:
            g = gathered[SDF] + regularizer_gradient(
                sdf, i, j, k, np.float32(eikonal), np.float32(smoothness)
            )
            m = beta1 * first_moment[n, 0] + (1 - beta1) * g
            v = beta2 * second_moment[n, 0] + (1 - beta2) * g * g
            first_moment[n, 0], second_moment[n, 0] = m, v
            steps[n] = (
                -np.float32(sdf_rate)
                * m
                * correct1
                / (np.sqrt(v * correct2) + np.float32(LEAST_GRADIENT))
            )
        for c in range(3):
            g = gathered[RED + c]
            m = beta1 * first_moment[n, 1 + c] + (1 - beta1) * g
            v = beta2 * second_moment[n, 1 + c] + (1 - beta2) * g * g
            first_moment[n, 1 + c], second_moment[n, 1 + c] = m, v
            color = colors[i, j, k, c] - np.float32(color_rate) * m * correct1 / (
                np.sqrt(v * correct2) + np.float32(1e-8)
            )
            colors[i, j, k, c] = min(max(color, np.float32(0)), np.float32(1))
    for _ in range(spreading):
        steps = _spread(steps, nodes, hidden, slot)
    for n in prange(count):
        i, j, k = nodes[n]
        sdf[i, j, k] += steps[n]


@njit(parallel=True, cache=True, fastmath=True)
def _spread(
    steps: FloatArray,  # (B,)
    nodes: IndexArray,  # (B, 3)
    hidden: NDArray[np.bool_],  # (B,)
    slot: IndexArray,  # (X, Y, Z)
) -> FloatArray:
    """(B,) the mean of each node's step and the mean of its neighbours' steps.

    Hidden nodes keep theirs, and no one takes it from them.
    """
    spread = np.empty_like(steps)
    for n in prange(len(nodes)):
        i, j, k = nodes[n]
        total, found = np.float32(0), 0
        if not hidden[n]:
            for neighbour in (
                slot[i + 1, j, k],
                slot[i - 1, j, k],
                slot[i, j + 1, k],
                slot[i, j - 1, k],
                slot[i, j, k + 1],
                slot[i, j, k - 1],
            ):
                if neighbour >= 0 and not hidden[neighbour]:
                    total += steps[neighbour]
                    found += 1
        own = steps[n]
        spread[n] = own if found == 0 else np.float32(0.5) * (own + total / found)
    return spread
