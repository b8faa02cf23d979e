"""Noise levels: EDM's formula, the published optimized levels, and EDM's formula turned round."""

import numpy as np
import pytest
import torch

from hi3d_core.diffusion.schedule import align_your_steps_sigmas, edm_position, edm_sigmas

PUBLISHED = [700, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034]


@pytest.mark.parametrize("schedule", [edm_sigmas, align_your_steps_sigmas])
@pytest.mark.parametrize("steps", [1, 2, 10, 25, 1000])
def test_levels_fall_from_all_noise_to_none(schedule, steps):
    sigmas = schedule(steps)
    assert sigmas.shape == (steps + 1,)
    assert sigmas.dtype == torch.float32
    assert sigmas[0] == pytest.approx(700, rel=1e-6)
    assert (sigmas[:-1] > sigmas[1:]).all()
    assert sigmas[-1] == 0


def test_edm_is_straight_in_the_seventh_root():
    roots = edm_sigmas(25)[:-1].double() ** (1 / 7)
    assert torch.allclose(roots.diff(), roots.diff().mean(), rtol=1e-4)
    assert edm_sigmas(25)[-2] == pytest.approx(0.002, rel=1e-5)
    assert edm_sigmas(4, sigma_min=0.5, sigma_max=8, rho=1).tolist() == pytest.approx(
        [8, 5.5, 3, 0.5, 0]
    )


def test_ten_optimized_steps_are_the_published_ones():
    assert align_your_steps_sigmas(10).tolist() == pytest.approx([*PUBLISHED, 0], rel=1e-6)


@pytest.mark.parametrize("steps", [5, 7, 12, 20, 33])
def test_other_counts_lie_on_straight_lines_in_log_sigma(steps):
    knots = np.log([*PUBLISHED, 0.002])
    expected = np.exp(np.interp(np.arange(steps) * 10 / steps, np.arange(11), knots))
    assert align_your_steps_sigmas(steps)[:-1].tolist() == pytest.approx(expected, rel=1e-5)


def test_positions_undo_the_formula():
    sigmas = edm_sigmas(25)[:-1]
    assert torch.allclose(edm_position(sigmas), torch.linspace(0, 1, 25).double(), atol=2e-7)


@pytest.mark.parametrize("schedule", [edm_sigmas, align_your_steps_sigmas])
@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_silly_counts_are_refused(schedule, steps):
    with pytest.raises(ValueError, match=rf"steps is {steps}, expected 1 to 1000"):
        schedule(steps)


@pytest.mark.parametrize(
    "levels", [(0, 700), (700, 0.002), (0.002, float("nan")), (1, float("inf"))]
)
def test_levels_that_do_not_fall_are_refused(levels):
    with pytest.raises(ValueError, match="expected 0 < sigma_min < sigma_max"):
        edm_sigmas(5, *levels)
