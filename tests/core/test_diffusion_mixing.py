"""How firmly the refiner holds on to the coarse frames."""

import math

import pytest
import torch

from hi3d_core.diffusion.mixing import mixing_weights, mixing_weights_at
from hi3d_core.diffusion.schedule import align_your_steps_sigmas, edm_sigmas


def test_official_weights_follow_their_formula():
    weights = mixing_weights(25, strength=0.5, sharpness=10)
    assert weights.dtype == torch.float32
    for i, weight in enumerate(weights.tolist()):
        assert weight == pytest.approx(0.5 * ((1 + math.cos(i / 25)) / 2) ** 10, rel=1e-6)
    assert mixing_weights(25)[0] == 1
    assert mixing_weights(25)[-1] < 1e-4


@pytest.mark.parametrize("steps", [1, 2, 5, 25, 60])
@pytest.mark.parametrize(("strength", "sharpness"), [(1, 40), (0.6, 40), (1, 7), (1, 0), (0, 40)])
def test_on_edm_levels_any_schedule_means_the_official(steps, strength, sharpness):
    official = mixing_weights(steps, strength, sharpness)
    ours = mixing_weights_at(edm_sigmas(steps), strength, sharpness)
    assert ours.tolist() == pytest.approx(official.tolist(), rel=1e-6)


def kept(weights):
    """The share that a sample keeps of itself through all mixings."""
    return float(torch.prod(1 - weights.double()))


def test_steps_over_several_official_ones_mix_as_much_at_once():
    levels = edm_sigmas(24)
    merged = torch.cat([levels[:6], levels[6:24:3], levels[24:]])
    ours = mixing_weights_at(merged, official_steps=24)
    official = mixing_weights(24)
    assert torch.allclose(ours[:5], official[:5])
    for step, weight in zip(range(6, 24, 3), ours[6:], strict=True):
        assert 1 - weight == pytest.approx(float(1 - official[step]) ** 3, rel=1e-5)


def test_another_schedule_has_the_official_pull_below_any_level():
    for steps in (10, 12, 20):
        sigmas = align_your_steps_sigmas(steps)
        ours = mixing_weights_at(sigmas, official_steps=25)
        assert ours[0] == 1
        official = mixing_weights(25)
        for i in (1, 2, 4):
            after = official[edm_sigmas(25)[:-1] <= sigmas[i]]
            assert kept(ours[i:]) == pytest.approx(kept(after), abs=0.15)
    # One mixing for each of the few steps, as if steps were alike, would pull far less.
    sigmas = align_your_steps_sigmas(10)
    ours = mixing_weights_at(sigmas, official_steps=25)
    assert kept(mixing_weights_at(sigmas)[1:]) > 2 * kept(ours[1:])
