"""Views that were bent and toned by hand, brought back to the pictures they came from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from hi3d_core.align.align import AlignConfig, align_views
from hi3d_core.align.warp import warp
from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import OrbitViews

_SIZE, _COUNT = 128, 4


def _exact() -> OrbitViews:
    """Textured discs, one a view."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:_SIZE, :_SIZE] + 0.5
    disc = ((x - 64) ** 2 + (y - 64) ** 2 < 45**2).astype(np.float32)
    alphas = np.stack([gaussian_filter(disc, 0.6)] * _COUNT)
    noise = gaussian_filter(rng.normal(size=(_COUNT, _SIZE, _SIZE, 3)), (0, 2, 2, 0))
    colors = (0.5 + 0.12 * noise / noise.std()).clip(0.1, 0.9)
    images = colors * alphas[..., None] + 1 - alphas[..., None]
    return OrbitViews(
        torch.from_numpy(images.astype(np.float32)),
        torch.from_numpy(alphas),
        Cameras.orbit(_COUNT, width=_SIZE, height=_SIZE),
    )


_GAINS = np.array([[1, 1, 1], [0.9, 0.95, 1], [1.05, 0.9, 0.95], [0.95, 0.92, 0.9]], np.float32)


def _disagreeing(exact: OrbitViews, pixels: float, gains: np.ndarray) -> OrbitViews:
    """Each view but the first bent by `pixels` rms and toned."""
    y, x = np.mgrid[:_SIZE, :_SIZE] / _SIZE
    images, alphas = [exact.images[0]], [exact.alphas[0]]
    for view in range(1, _COUNT):
        bend = np.stack([np.sin(3 * y + x + view), np.cos(2 * x - 2 * y + view)], axis=2)
        bend *= pixels / np.sqrt((bend**2).sum(axis=2).mean())
        four = np.concatenate([exact.images[view].numpy(), exact.alphas[view, ..., None]], axis=2)
        seen = warp(four, bend).clip(0, 1)
        alpha = seen[..., 3:]
        toned = seen[..., :3] * gains[view] + (1 - alpha) * (1 - gains[view])
        images.append(torch.from_numpy(toned))
        alphas.append(torch.from_numpy(alpha[..., 0]))
    return OrbitViews(torch.stack(images).clamp(0, 1), torch.stack(alphas), exact.cameras)


def _errors(one: OrbitViews, two: OrbitViews) -> torch.Tensor:
    return (one.images - two.images).abs().mean(dim=(1, 2, 3))


def test_bent_and_toned_views_come_back():
    exact = _exact()
    views = _disagreeing(exact, 1.5, _GAINS)
    result = align_views(views, exact)
    assert (_errors(result.views, exact)[1:] < 0.2 * _errors(views, exact)[1:]).all()
    before, after = ((v.alphas - exact.alphas).abs().sum() for v in (views, result.views))
    assert after < 0.3 * before
    assert np.abs(result.gains * _GAINS - 1).max() < 0.02
    assert np.abs(result.shifts[1:] - 1.5).max() < 0.3
    assert result.views.cameras is views.cameras


def test_the_reference_stays_bitwise():
    exact = _exact()
    views = _disagreeing(exact, 1.5, _GAINS)
    result = align_views(views, exact)
    assert result.shifts[0] == 0
    assert torch.equal(result.views.images[0], views.images[0])
    # Asked to move, it does: here views 0 and 1 change places.
    turned = views[[1, 0, 2, 3]]
    held = align_views(turned, exact[[1, 0, 2, 3]])
    assert held.shifts[0] == 0
    assert torch.equal(held.views.alphas[0], turned.alphas[0])
    free = align_views(turned, exact[[1, 0, 2, 3]], AlignConfig(reference_moves=1.0))
    assert free.shifts[0] > 1
    assert align_views(turned, exact[[1, 0, 2, 3]], reference=None).shifts[0] > 1


def test_views_that_agree_come_back_bitwise_with_their_depths():
    exact = _exact()
    # A fit is softer than the views, and some way off.
    soft = _disagreeing(exact, 0.03, np.ones((_COUNT, 3), np.float32))
    blurred = gaussian_filter(soft.images.numpy(), (0, 0.5, 0.5, 0))
    fit = replace(soft, images=torch.from_numpy(blurred))
    views = replace(exact, depths=torch.ones_like(exact.alphas))
    result = align_views(views, fit)
    assert torch.equal(result.views.images, views.images)
    assert torch.equal(result.views.alphas, views.alphas)
    assert result.views.depths is not None
    assert not result.shifts.any()
    assert (result.gains == 1).all()


def test_inputs_are_not_changed_and_results_repeat():
    exact = _exact()
    views = _disagreeing(exact, 1.5, _GAINS)
    before = views.images.clone()
    one, two = align_views(views, exact), align_views(views, exact)
    assert torch.equal(views.images, before)
    assert torch.equal(one.views.images, two.views.images)


def test_a_smaller_fit_does_nearly_as_well():
    exact = _exact()
    views = _disagreeing(exact, 1.5, _GAINS)
    half = torch.nn.functional.avg_pool2d

    def shrink(pictures: torch.Tensor) -> torch.Tensor:
        return half(pictures.movedim(-1, 1), 2).movedim(1, -1)

    size = _SIZE // 2
    small = OrbitViews(
        shrink(exact.images),
        shrink(exact.alphas[..., None])[..., 0],
        exact.cameras.resized(size, size),
    )
    result = align_views(views, small)
    assert result.views.images.shape == views.images.shape
    assert (_errors(result.views, exact)[1:] < 0.4 * _errors(views, exact)[1:]).all()
    assert np.abs(result.shifts[1:] - 1.5).max() < 0.35


def test_trust_is_low_where_a_view_shows_something_else():
    exact = _exact()
    images = exact.images.clone()
    images[2, 50:80, 50:80] = torch.tensor([0.9, 0.1, 0.1])
    result = align_views(replace(exact, images=images), exact)
    assert result.trust[2, 55:75, 55:75].max() < 0.4
    assert result.trust[1].min() > 0.99
    assert result.trust.shape == exact.alphas.shape


def test_pixels_that_show_a_part_which_the_fit_has_lost_are_trusted():
    exact = _exact()
    lost = exact.alphas.clone()
    lost[:, :, : _SIZE // 2] = 0
    without = replace(
        exact, images=torch.where(lost[..., None] > 0, exact.images, 1.0), alphas=lost
    )
    deep = exact.alphas[1] > 0.99
    deep[:, _SIZE // 2 - 8 :] = False
    assert deep.sum() > 500
    # The view shows it, the fit doesn't; and the other way about.
    assert align_views(exact, without).trust[1][deep].min() == 1
    assert align_views(without, exact).trust[1][deep].max() < 0.2


def test_it_can_be_cancelled_and_refuses_what_does_not_belong_together():
    exact = _exact()

    def stop(done: int, total: int) -> None:
        assert total == 2 * _COUNT
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        align_views(exact, exact, on_step=stop)
    with pytest.raises(ValueError, match="pictures of the fit"):
        align_views(exact, exact[:2])
    with pytest.raises(ValueError, match="reference"):
        align_views(exact, exact, reference=4)


def test_light_that_differs_within_a_view_is_followed_but_not_its_texture():
    exact = _exact()
    ramp = np.linspace(0.8, 1.2, _SIZE, dtype=np.float32)[None, :, None]
    bent = _disagreeing(exact, 1.5, np.ones((_COUNT, 3), np.float32))
    white = 1 - bent.alphas[..., None]
    lit = (bent.images * torch.from_numpy(ramp) + white * torch.from_numpy(1 - ramp)).clamp(0, 1)
    lit[0] = bent.images[0]
    views = replace(bent, images=lit)
    with_, without = (
        align_views(views, exact, AlignConfig(shading=sigma)).views for sigma in (24.0, 0.0)
    )
    assert (_errors(with_, exact)[1:] < 0.6 * _errors(without, exact)[1:]).all()
    # A spot that only one view shows stays in it.
    lit[2, 60:66, 60:66] *= 0.5
    spot = align_views(replace(views, images=lit), exact).views.images[2, 56:70, 56:70]
    assert (spot - with_.images[2, 56:70, 56:70]).min() < -0.15
