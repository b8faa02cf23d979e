"""Moving dead Gaussians must not change what is drawn."""

import pytest
import torch

from hi3d_core.splat.densify import choose_targets, relocated


def test_one_copy_changes_nothing():
    opacities = torch.tensor([0.1, 0.6, 0.99]).double()
    scales = torch.rand(3, 3, generator=torch.Generator().manual_seed(0)).double()
    same_opacities, same_scales = relocated(opacities, scales, torch.ones(3, dtype=torch.int64))
    torch.testing.assert_close(same_opacities, opacities)
    torch.testing.assert_close(same_scales, scales)


@pytest.mark.parametrize("copies", [2, 3, 5])
def test_copies_together_draw_what_the_one_did(copies):
    """At the centre exactly, and in total along a line through it (the paper's condition)."""
    for opacity in (0.05, 0.4, 0.9):
        old = torch.tensor([opacity]).double()
        new, scales = relocated(old, torch.ones(1, 3).double(), torch.tensor([copies]))
        assert float(1 - (1 - new) ** copies) == pytest.approx(opacity)
        x = torch.linspace(-12, 12, 20001, dtype=torch.float64)
        one = old * torch.exp(-0.5 * x**2)
        blend = 1 - (1 - new * torch.exp(-0.5 * (x / scales[0, 0]) ** 2)) ** copies
        assert float(blend.sum()) == pytest.approx(float(one.sum()), rel=1e-6)


def test_targets_live_and_are_drawn_by_weight():
    n = 4000
    dead = torch.arange(n) < 2000
    weights = torch.where(torch.arange(n) < 3000, 1.0, 3.0)
    indices, targets = choose_targets(dead, weights, torch.Generator().manual_seed(0))
    assert torch.equal(indices, torch.arange(2000))
    assert not dead[targets].any()
    assert 0.7 < float((targets >= 3000).float().mean()) < 0.8
    again = choose_targets(dead, weights, torch.Generator().manual_seed(0))[1]
    assert torch.equal(targets, again)


def test_a_last_one_that_cannot_be_chosen_is_not():
    weights = torch.tensor([1.0, 0.0])
    _, targets = choose_targets(
        torch.tensor([False, True]), weights, torch.Generator().manual_seed(0)
    )
    assert targets.tolist() == [0]


@pytest.mark.parametrize(
    "dead", [torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)]
)
def test_none_dead_or_none_alive_gives_nothing(dead):
    indices, targets = choose_targets(dead, torch.ones(5), torch.Generator())
    assert len(indices) == len(targets) == 0
