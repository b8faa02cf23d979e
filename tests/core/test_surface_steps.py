"""One step of the optimizer, by its formula."""

from __future__ import annotations

import numpy as np
import pytest

from hi3d_core.surface.optimize import LEAST_GRADIENT, step_band
from hi3d_core.surface.render import COLUMNS, RED, SDF


def _stepped(slopes: np.ndarray, hidden: np.ndarray, spreading: int = 0) -> np.ndarray:
    """Distances (X, Y, Z), all 0 before, after a first step at a rate of .1 on all but two layers.

    slopes: (X - 4, Y - 4, Z - 4) of the loss by the distances.
    """
    nodes = (np.argwhere(np.ones(slopes.shape)) + 2).astype(np.int32)
    sdf = np.zeros(np.add(slopes.shape, 4), np.float32)
    slot = np.full(sdf.shape, -1, np.int32)
    slot[tuple(nodes.T)] = np.arange(len(nodes))
    gradients = np.zeros((1, len(nodes), COLUMNS), np.float32)
    gradients[0, :, SDF] = slopes.ravel()
    moments = [np.zeros((len(nodes), 4), np.float32) for _ in range(2)]
    colors, seen = np.zeros((*sdf.shape, 3), np.float32), np.zeros(sdf.shape, np.float32)
    step_band(
        gradients, nodes, hidden.ravel(), slot, sdf, colors, seen, *moments, 1, 0.1, 0, 0, 0, 0.5,
        spreading,
    )  # fmt: skip
    return sdf


def test_a_first_step_is_the_whole_rate_but_where_gradients_are_next_to_nothing():
    slopes = np.array([100.0, -50.0, LEAST_GRADIENT, -LEAST_GRADIENT / 9, 0.0], np.float32)
    count = len(slopes)
    sdf = np.zeros((count + 4, 5, 5), np.float32)
    colors = np.full((*sdf.shape, 3), 0.5, np.float32)
    nodes = np.array([[2 + n, 2, 2] for n in range(count)], np.int32)
    gradients = np.zeros((2, count, COLUMNS), np.float32)
    gradients[0, :, SDF] = 0.25 * slopes
    gradients[1, :, SDF] = 0.75 * slopes
    gradients[0, :, RED] = slopes
    moments = [np.zeros((count, 4), np.float32) for _ in range(2)]
    seen = np.zeros(sdf.shape, np.float32)
    hidden = np.zeros(count, bool)
    slot = np.full(sdf.shape, -1, np.int32)
    step_band(
        gradients, nodes, hidden, slot, sdf, colors, seen, *moments, 1, 0.1, 0.05, 0, 0, 0.5, 0
    )
    expected = [-0.1, 0.1, -0.05, 0.01, 0]
    assert sdf[2:-2, 2, 2] == pytest.approx(np.array(expected), abs=1e-3)
    # Colours take the whole rate: a wrong one costs nothing but itself.
    assert colors[2:-2, 2, 2, 0] == pytest.approx(np.array([0.45, 0.55, 0.45, 0.55, 0.5]), abs=1e-4)
    assert not gradients.any()
    assert (np.delete(sdf[:, 2, 2], range(2, count + 2)) == 0).all()


def test_steps_are_spread_over_neighbours_in_the_band_that_are_seen():
    slopes = np.zeros((3, 3, 3))
    slopes[1, 1, 1] = -1
    seen = np.zeros(slopes.shape, bool)
    once = _stepped(slopes, seen, 1)[2:-2, 2:-2, 2:-2]
    expected = np.zeros(slopes.shape)
    expected[1, 1, 1] = 0.1 / 2
    # Each of the six has five neighbours in the band, of which one steps.
    for axis in range(3):
        for side in (0, 2):
            place = [1, 1, 1]
            place[axis] = side
            expected[tuple(place)] = 0.1 / 2 / 5
    assert once == pytest.approx(expected, rel=2e-2, abs=1e-6)

    hidden = seen.copy()
    hidden[0, :2, 1] = True
    beside = _stepped(slopes, hidden, 1)[2:-2, 2:-2, 2:-2]
    expected[0, 1, 1] = 0  # takes none
    expected[1, 0, 1] = 0.1 / 2 / 4  # one of its five is hidden, and not asked
    assert beside == pytest.approx(expected, rel=2e-2, abs=1e-6)


def test_what_all_nodes_step_alike_is_left_and_what_alternates_goes():
    alike, seen = np.full((6, 6, 6), -1.0), np.zeros((6, 6, 6), bool)
    assert _stepped(alike, seen, 4)[2:-2, 2:-2, 2:-2] == pytest.approx(0.1, rel=2e-2)
    alternating = np.where(np.indices(alike.shape).sum(axis=0) % 2, -1.0, 1.0)
    assert np.abs(_stepped(alternating, seen)[2:-2, 2:-2, 2:-2]) == pytest.approx(0.1, rel=2e-2)
    assert np.abs(_stepped(alternating, seen, 1)).max() < 1e-6
