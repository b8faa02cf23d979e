"""Level the views' exposure and tint, so that no seam shows where one view hands over to another.

Each view gets a gain per channel. Where views i and j see the same points, the median of
log(colour_i / colour_j) should be log gain_j - log gain_i; all pairs together are a small linear
least-squares problem (as in Brown and Lowe 2007, "Automatic Panoramic Image Stitching", 6.1, in
logarithms and with medians). One of the views may be the anchor: its tone is the right one, so
its gain stays 1 and the others come to it.
"""

from __future__ import annotations

import numpy as np

_LEAST_SAMPLES = 50  # common points that a pair of views needs to be compared
_LEAST_WEIGHT = 0.05  # votes below are too grazing to compare
_DARKEST, _BRIGHTEST = 0.04, 0.97  # outside, a ratio says little
# Weight of a gain of 1, relative to a view's overlaps. Views that hand on an anchor's tone need
# hardly any: it would flatten a drift around the orbit.
_PULL_TO_ONE, _PULL_BESIDE_ANCHOR = 0.02, 0.001
_LARGEST = 0.4  # of log gains
_GATE = 0.01  # gains that all lie within this of 1 are noise: left at exactly 1


def solve_gains(votes: np.ndarray, anchor: int | None = None) -> np.ndarray:
    """Gains (V, 3) float32 that make the views agree best, exactly 1 if they agree already.

    votes: (P, V, 4 or more) colour in [0, 1] and weight of each view's vote for sample points,
    weight 0 for none. anchor: the view that keeps its tone; without one the gains' mean is near 1.
    """
    views = votes.shape[1]
    gains = np.ones((views, 3), dtype=np.float32)
    bright = (votes[..., :3] > _DARKEST).all(axis=2) & (votes[..., :3] < _BRIGHTEST).all(axis=2)
    usable = bright & (votes[..., 3] > _LEAST_WEIGHT)
    logs = np.log(np.maximum(votes[..., :3], _DARKEST))
    matrix, target = np.zeros((views, views)), np.zeros((views, 3))
    for i in range(views):
        for j in range(i + 1, views):
            both = usable[:, i] & usable[:, j]
            count = int(both.sum())
            if count < _LEAST_SAMPLES:
                continue
            ratio = np.median(logs[both, i] - logs[both, j], axis=0)
            weight = np.sqrt(count)
            matrix[[i, j], [i, j]] += weight
            matrix[[i, j], [j, i]] -= weight
            target[i] -= weight * ratio
            target[j] += weight * ratio
    overlap = np.diag(matrix).copy()
    if not overlap.any():
        return gains
    is_anchored = anchor is not None and overlap[anchor] > 0
    pull = _PULL_BESIDE_ANCHOR if is_anchored else _PULL_TO_ONE
    matrix[np.diag_indices(views)] += np.where(overlap > 0, pull * overlap, 1)
    if is_anchored:
        matrix[anchor], target[anchor] = 0, 0
        matrix[anchor, anchor] = 1
    solution = np.clip(np.linalg.solve(matrix, target), -_LARGEST, _LARGEST)
    if np.abs(solution).max() < _GATE:
        return gains
    return np.exp(solution).astype(np.float32)
