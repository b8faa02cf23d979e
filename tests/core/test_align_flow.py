"""Flow between pictures whose warp is known exactly."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hi3d_core.align.flow import FlowConfig, optical_flow
from hi3d_core.align.warp import warp

_SIZE = 160


def _texture(seed: int = 0) -> np.ndarray:
    """Smooth noise, so that reading it between pixels is exact to well below a pixel."""
    noise = np.random.default_rng(seed).normal(size=(_SIZE, _SIZE, 3))
    smooth = gaussian_filter(noise, (2.5, 2.5, 0), mode="wrap")
    return (0.5 + 0.12 * smooth / smooth.std()).clip(0, 1).astype(np.float32)


def _bend(pixels: float) -> np.ndarray:
    """A displacement that turns and stretches gently, `pixels` rms."""
    y, x = np.mgrid[:_SIZE, :_SIZE] / _SIZE
    field = np.stack([np.sin(3 * y + 2 * x), np.cos(2 * y - 3 * x)], axis=2)
    return (pixels * field / np.sqrt((field**2).sum(axis=2).mean())).astype(np.float32)


def _errors(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.linalg.norm(found - true, axis=2)[8:-8, 8:-8]


@pytest.mark.parametrize("pixels", [0.5, 2.0, 5.0])
def test_finds_a_smooth_warp_to_a_fraction_of_a_pixel(pixels):
    moving, true = _texture(), _bend(pixels)
    flow = optical_flow(warp(moving, true).clip(0, 1), moving)
    errors = _errors(flow.displacement, true)
    assert errors.mean() < 0.01 + 0.03 * pixels
    assert flow.confidence[8:-8, 8:-8].mean() > 0.8
    assert abs(flow.rms - pixels) < 0.1 * pixels


def test_finds_shifts_wider_than_its_finest_texture():
    coarse = np.kron(_texture(3)[::4, ::4], np.ones((4, 4, 1)))
    moving = (0.5 * _texture() + 0.5 * gaussian_filter(coarse, (4, 4, 0))).astype(np.float32)
    shift = np.full((_SIZE, _SIZE, 2), (8.0, -6.0), np.float32)
    flow = optical_flow(warp(moving, shift), moving)
    assert np.abs(flow.displacement[32:-32, 32:-32] - (8, -6)).max() < 0.5


def test_stripes_tell_nothing_along_themselves():
    stripes = _texture()[:1].repeat(_SIZE, axis=0)
    shift = np.full((_SIZE, _SIZE, 2), (1.5, 0.0), np.float32)
    flow = optical_flow(warp(stripes, shift), stripes)
    assert np.abs(flow.displacement[8:-8, 8:-8] - (1.5, 0)).max() < 0.3
    assert flow.confidence.max() < 0.1


def test_gain_and_tint_do_not_move_anything():
    moving, true = _texture(), _bend(2.0)
    seen = warp(moving, true)
    toned = (seen * np.array([0.8, 1.0, 0.9], np.float32) + 0.03).clip(0, 1)
    plain = optical_flow(seen.clip(0, 1), moving).displacement
    assert _errors(optical_flow(toned, moving).displacement, plain).max() < 0.1


def test_equal_pictures_do_not_move_at_all():
    picture = _texture()
    flow = optical_flow(picture, picture)
    assert np.abs(flow.displacement).max() == 0
    assert flow.rms == 0


def test_flow_spreads_into_what_has_no_texture_without_confidence():
    moving = _texture()
    moving[50:110, 50:110] = 0.5
    shift = np.full((_SIZE, _SIZE, 2), (2.0, -1.5), np.float32)
    flow = optical_flow(warp(moving, shift), moving)
    middle = (slice(70, 90), slice(70, 90))
    assert _errors(flow.displacement, shift).max() < 0.35
    assert np.abs(flow.displacement[middle] - (2.0, -1.5)).max() < 0.25
    assert flow.confidence[middle].max() < 0.2
    assert flow.confidence[20:40, 20:140].mean() > 0.8


def test_what_has_no_weight_does_not_pull():
    """A textured background that stays while the object moves."""
    object_, still = _texture(1), _texture(2)
    y, x = np.mgrid[:_SIZE, :_SIZE]
    disc = gaussian_filter(((x - 80) ** 2 + (y - 80) ** 2 < 50**2).astype(np.float32), 0.7)
    shift = np.full((_SIZE, _SIZE, 2), (3.0, 2.0), np.float32)
    mask = warp(disc[..., None], shift)[..., 0].clip(0, 1)
    fixed = warp(object_, shift) * mask[..., None] + still * (1 - mask[..., None])
    moving = object_ * disc[..., None] + still * (1 - disc[..., None])
    inside = mask > 0.9
    found = optical_flow(fixed.clip(0, 1), moving.clip(0, 1), mask, disc)
    errors = np.linalg.norm(found.displacement - shift, axis=2)[inside]
    assert errors.max() < 0.5
    assert errors.mean() < 0.1
    assert found.confidence[mask < 0.01].max() < 0.02


def test_pictures_of_different_things_are_not_trusted():
    flow = optical_flow(_texture(1), _texture(2))
    assert flow.confidence.mean() < 0.1


def test_outlines_alone_tell_a_shift_across_them():
    y, x = np.mgrid[:_SIZE, :_SIZE]
    disc = gaussian_filter(((x - 80) ** 2 + (y - 80) ** 2 < 45**2).astype(np.float32), 0.7)
    white = np.full((_SIZE, _SIZE, 3), 0.6, np.float32)
    shift = np.full((_SIZE, _SIZE, 2), (2.0, 1.0), np.float32)
    moved = warp(disc[..., None], shift)[..., 0].clip(0, 1)
    flow = optical_flow(white, white, moved, disc, FlowConfig(outline=1.0))
    assert np.linalg.norm(flow.displacement - shift, axis=2)[moved > 0.5].mean() < 0.3


def test_pictures_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="resize"):
        optical_flow(_texture(), _texture()[:100])
    with pytest.raises(ValueError, match="weight"):
        optical_flow(_texture(), _texture(), np.ones((3, 3), np.float32))


def test_odd_sizes_and_few_channels():
    picture = _texture()[:101, :93, :1]
    shift = np.full((*picture.shape[:2], 2), 1.0, np.float32)
    flow = optical_flow(warp(picture, shift), picture)
    assert flow.displacement.shape == (101, 93, 2)
    assert np.abs(flow.displacement[8:-8, 8:-8] - 1).max() < 0.25


def test_warping_by_nothing_and_by_whole_pixels_is_exact():
    picture = _texture()
    still = np.zeros((_SIZE, _SIZE, 2), np.float32)
    assert np.array_equal(warp(picture, still), picture)
    still[...] = (3, -2)
    assert np.array_equal(warp(picture, still)[2:, :-3], picture[:-2, 3:])
