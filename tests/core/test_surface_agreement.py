from dataclasses import replace

import pytest
import torch

from hi3d_core.cameras import Cameras
from hi3d_core.surface.agreement import doubt, silhouette_agreement, suited_to
from hi3d_core.surface.fit import SurfaceConfig
from hi3d_core.surface.hull import locate

from .synthetic import sphere_views


def _agreement(views) -> float:
    placement = locate(views)
    cameras = views.cameras.in_frame(placement.center, placement.scale)
    return silhouette_agreement(replace(views, cameras=cameras), placement)


def test_exact_views_agree():
    assert _agreement(sphere_views(Cameras.orbit(12, 10, width=256, height=256))) > 0.999


def test_each_view_shifted_its_own_way_disagrees_by_about_the_shift():
    views = sphere_views(Cameras.orbit(12, 10, width=256, height=256))
    generator = torch.Generator().manual_seed(0)
    shifts = torch.randint(-3, 4, (12, 2), generator=generator).tolist()
    alphas = torch.stack([a.roll(s, (0, 1)) for a, s in zip(views.alphas, shifts, strict=True)])
    images = torch.stack([i.roll(s, (0, 1)) for i, s in zip(views.images, shifts, strict=True)])
    # A ball 150 pixels wide loses a rim of a pixel or two: between half and six per cent.
    assert 0.94 < _agreement(replace(views, images=images, alphas=alphas)) < 0.995


def test_exact_views_keep_their_settings_and_doubt_only_ever_softens():
    config = SurfaceConfig()
    assert suited_to(config, 0.9995) == config
    # Aligned renders, generated orbits once aligned and as they came, a wrong elevation.
    levels = [suited_to(config, a) for a in (0.9995, 0.9975, 0.9965, 0.985, 0.82)]
    weights = [level.smoothness_weight for level in levels]
    assert weights == sorted(weights)
    assert weights[-1] == pytest.approx(50 * config.smoothness_weight)
    slacks = [level.slack_pixels for level in levels]
    assert slacks == sorted(slacks)
    assert 0 == slacks[0] < slacks[1] < slacks[2] < slacks[3] == 1.5
    continued = [level.continued for level in levels]
    assert continued == sorted(continued, reverse=True)
    assert continued[-1] == pytest.approx(0.125)
    tolerances = [level.huber for level in levels]
    assert tolerances == sorted(tolerances)
    assert tolerances[-1] == pytest.approx(0.05)
    assert [level.cavity_rounds for level in levels] == [3, 2, 1, 0, 0]
    assert all(level.vessels for level in levels)
    assert [level.sweeps for level in levels] == [2, 0, 0, 0, 0]


def test_aligned_views_are_doubted_sooner_and_open_no_vessels():
    config = SurfaceConfig()
    assert suited_to(config, 0.9996, aligned=True) == replace(config, vessels=False)
    assert suited_to(config, 0.999) == config
    less = suited_to(config, 0.999, aligned=True)
    assert (less.cavity_rounds, less.vessels, less.sweeps) == (0, False, 0)
    assert config.smoothness_weight < less.smoothness_weight < 2 * config.smoothness_weight
    assert doubt(0.999) == 0 < doubt(0.999, aligned=True) < doubt(0.9965, aligned=True) < 1
    assert doubt(0.996) == doubt(0.996, aligned=True) == 1
