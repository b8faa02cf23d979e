"""One step of the optimizer, by its formula."""

import numpy as np
import pytest

from hi3d_core.surface.optimize import LEAST_GRADIENT, step_band
from hi3d_core.surface.render import COLUMNS, RED, SDF


def test_a_first_step_is_the_whole_rate_but_where_gradients_are_next_to_nothing():
    slopes = np.array([1.0, -0.5, LEAST_GRADIENT, -LEAST_GRADIENT / 9, 0.0], np.float32)
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
    step_band(gradients, nodes, hidden, sdf, colors, seen, *moments, 1, 0.1, 0.05, 0, 0, 0.5)
    expected = [-0.1, 0.1, -0.05, 0.01, 0]
    assert sdf[2:-2, 2, 2] == pytest.approx(np.array(expected), abs=1e-3)
    # Colours take the whole rate: a wrong one costs nothing but itself.
    assert colors[2:-2, 2, 2, 0] == pytest.approx(np.array([0.45, 0.55, 0.45, 0.55, 0.5]), abs=1e-4)
    assert not gradients.any()
    assert (np.delete(sdf[:, 2, 2], range(2, count + 2)) == 0).all()
