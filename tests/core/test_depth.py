import dataclasses

import pytest
import torch

from hi3d_core.depth import estimate_depth, shrink_for_depth, stretch, to_inverse_depth
from hi3d_core.networks.depth_network import build_depth_network

from .tiny_models import TINY_DEPTH, filled, tiny_model


def ramp(near=1.0, far=3.0):
    """(2, 4, 5) distances, the same in both frames but for their scale."""
    distances = torch.linspace(near, far, 20).reshape(1, 4, 5)
    return torch.cat([distances, 10 * distances])


def test_both_polarities_order_by_nearness():
    distances = ramp()
    from_distance = to_inverse_depth(distances, "near_is_small")
    from_inverse = to_inverse_depth(1 / distances, "near_is_large")
    assert torch.allclose(from_distance, from_inverse, atol=1e-6)
    assert torch.equal(from_distance.argmax(dim=2)[:, 0], torch.zeros(2, dtype=torch.int64))
    assert torch.allclose(from_distance[0], from_distance[1], atol=1e-6)
    assert float(from_distance.min()) == 0 and float(from_distance.max()) == 1


def test_unknown_distance_is_farthest():
    distances = ramp()
    distances[0, 0, 0] = 0
    distances[1, 0, 0] = torch.inf
    inverse = to_inverse_depth(distances, "near_is_small")
    assert float(inverse[0, 0, 0]) == 0 and float(inverse[1, 0, 0]) == 0


def test_a_flat_map_becomes_zero():
    assert torch.equal(stretch(torch.full((1, 3, 3), 7.0)), torch.zeros(1, 3, 3))


@pytest.mark.parametrize(("side", "seen"), [(1024, 384), (512, 192), (128, 32), (64, 32)])
def test_the_depth_network_sees_three_eighths(side, seen):
    assert shrink_for_depth(torch.zeros(1, 3, side, side)).shape[2:] == (seen, seen)


@pytest.mark.parametrize(
    ("maps", "polarity", "message"),
    [
        (torch.zeros(4, 4), "near_is_large", "frames, height, width"),
        (torch.zeros(1, 0, 4), "near_is_small", "frames, height, width"),
        (torch.full((1, 4, 4), torch.nan), "near_is_large", "NaN"),
        (torch.full((1, 4, 4), torch.inf), "near_is_large", "infinite"),
        (-torch.ones(1, 4, 4), "near_is_small", "near_is_large"),
        (torch.ones(1, 4, 4), "disparity", "polarity"),
    ],
)
def test_bad_maps_are_refused(maps, polarity, message):
    with pytest.raises(ValueError, match=message):
        to_inverse_depth(maps, polarity)


def test_estimated_depth_is_stretched_and_as_large_as_the_frames():
    depth = filled(build_depth_network(TINY_DEPTH), torch.Generator().manual_seed(3))
    model = dataclasses.replace(tiny_model("refiner"), depth=depth)
    frames = torch.rand(3, 96, 160, 3, generator=torch.Generator().manual_seed(4))
    told = []
    maps = estimate_depth(model, frames, on_step=lambda *step: told.append(step))
    assert maps.shape == (3, 96, 160)
    assert torch.equal(maps.amin((1, 2)), torch.zeros(3))
    assert torch.equal(maps.amax((1, 2)), torch.ones(3))
    assert told == [(1, 3), (2, 3), (3, 3)]
    alone = estimate_depth(model, frames[1:2])
    assert torch.allclose(alone[0], maps[1], atol=1e-5)
    with pytest.raises(ValueError, match=r"dpt_hybrid_384\.pt"):
        estimate_depth(dataclasses.replace(model, depth=None), frames)
