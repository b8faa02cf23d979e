"""Guidance whose scale grows along the orbit."""

import pytest
import torch

from hi3d_core.diffusion.guidance import frame_scales, guide

FRAMES = 4


def pair(*batch):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, *batch, FRAMES, 3, 5, 6, generator=generator)


def test_scales_go_evenly_from_first_to_last():
    assert frame_scales(1, 2.5, 4).tolist() == [1, 1.5, 2, 2.5]
    assert frame_scales(2, 2, 3).tolist() == [2, 2, 2]
    assert frame_scales(1, 3, 1).tolist() == [1]
    assert frame_scales(1, 2.5, 16).dtype == torch.float32


@pytest.mark.parametrize("batch", [(), (2,)])
def test_each_frame_has_its_own_scale(batch):
    without, given = pair(*batch)
    guided = guide(without, given, frame_scales(0, 3, FRAMES))
    assert guided.shape == without.shape
    assert torch.equal(guided[..., 0, :, :, :], without[..., 0, :, :, :])
    assert torch.allclose(guided[..., 1, :, :, :], given[..., 1, :, :, :], atol=1e-6)
    third = 3 * given[..., 3, :, :, :] - 2 * without[..., 3, :, :, :]
    assert torch.allclose(guided[..., 3, :, :, :], third, atol=1e-5)


def test_inputs_are_left_alone():
    without, given = pair()
    before = without.clone(), given.clone()
    guide(without, given, frame_scales(1, 2, FRAMES))
    assert torch.equal(without, before[0])
    assert torch.equal(given, before[1])


def test_bad_scales_are_refused():
    with pytest.raises(ValueError, match="the guidance goes from 1 to nan"):
        frame_scales(1, float("nan"), 16)
    with pytest.raises(ValueError, match="frames is 0"):
        frame_scales(1, 2, 0)
