import numpy as np
import pytest
import torch

from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import OrbitViews
from hi3d_core.surface.hull import (
    Grid,
    hull_distance,
    hull_points,
    locate,
    silhouette_distances,
)

from .synthetic import node_radii, sphere_views


def _all_round(size: int = 96) -> Cameras:
    """Cameras that see a sphere from many sides, above and below too."""
    rings = [Cameras.orbit(12, e, width=size, height=size) for e in (-60, -20, 20, 60)]
    return Cameras(
        torch.cat([r.camera_to_world for r in rings]),
        torch.cat([r.intrinsics for r in rings]),
        size,
        size,
    )


def test_silhouette_distance_is_exact_to_a_fraction_of_a_pixel():
    # A straight edge at x = 20.3: pixel 20 is covered by 0.3.
    alphas = torch.zeros(1, 40, 40)
    alphas[:, :, :20] = 1
    alphas[:, :, 20] = 0.3
    centres = torch.arange(40) + 0.5
    found = silhouette_distances(alphas)[0, 7]
    assert np.abs(found - (20.3 - centres.numpy())).max() < 0.31
    assert found[20] == pytest.approx(-0.2)


def test_hull_of_a_sphere_is_the_sphere():
    views = sphere_views(_all_round())
    grid = Grid.covering(np.full(3, -0.6), np.full(3, 0.6), 61)
    distance = hull_distance(views, grid)
    true = node_radii(grid) - 0.4
    near = np.abs(true) < 0.03
    pixel = 1.5 / float(views.cameras.intrinsics[0, 0, 0])
    assert np.abs(distance - true)[near].mean() < 0.5 * pixel
    assert ((distance < 0) == (true < 0))[np.abs(true) > 2 * pixel].mean() > 0.995


def test_hull_never_cuts_into_the_object():
    views = sphere_views(Cameras.orbit(6, 15, width=96, height=96))
    grid = Grid.covering(np.full(3, -0.6), np.full(3, 0.6), 49)
    inside = node_radii(grid) < 0.4 - 0.02
    assert (hull_distance(views, grid)[inside] < 0).all()


def test_slack_grows_the_hull_by_that_many_pixels():
    views = sphere_views(_all_round())
    grid = Grid.covering(np.full(3, -0.6), np.full(3, 0.6), 41)
    pixel = 1.5 / float(views.cameras.intrinsics[0, 0, 0])
    grown = hull_distance(views, grid) - hull_distance(views, grid, slack_pixels=2.0)
    near = np.abs(node_radii(grid) - 0.4) < 0.03
    assert grown[near].mean() == pytest.approx(2 * pixel, rel=0.3)


@pytest.mark.parametrize(
    ("center", "radius"), [((0.0, 0.0, 0.0), 0.4), ((0.2, -0.15, 0.1), 0.15), ((0, 0.3, 0), 0.05)]
)
def test_locate_finds_the_box_wherever_it_is(center, radius):
    views = sphere_views(_all_round(160), radius, center)
    placement = locate(views)
    assert torch.allclose(placement.center, torch.tensor(center), atol=0.1 * radius)
    assert placement.scale == pytest.approx(2 * radius, rel=0.12)
    assert max(placement.half_extent) == pytest.approx(0.5)


def test_locate_works_in_any_unit():
    views = sphere_views(_all_round(), 0.3)
    poses = views.cameras.camera_to_world.clone()
    poses[:, :3, 3] = poses[:, :3, 3] * 250 + torch.tensor([1000.0, 0, -500])
    moved = OrbitViews(views.images, views.alphas, Cameras(poses, views.cameras.intrinsics, 96, 96))
    placement = locate(moved)
    assert placement.scale == pytest.approx(2 * 0.3 * 250, rel=0.1)
    assert torch.allclose(placement.center, torch.tensor([1000.0, 0, -500]), atol=8)


def test_locate_refuses_silhouettes_that_do_not_meet():
    left = sphere_views(Cameras.orbit(8, 0, width=64, height=64), 0.1, (-0.4, 0, 0))
    right = sphere_views(Cameras.orbit(8, 0, width=64, height=64), 0.1, (0.4, 0.4, 0))
    mixed = OrbitViews(
        torch.cat([left.images[:4], right.images[4:]]),
        torch.cat([left.alphas[:4], right.alphas[4:]]),
        left.cameras,
    )
    with pytest.raises(ValueError, match="no point in common"):
        locate(mixed)


def test_hull_points_lie_on_the_surface_and_cover_it():
    points = hull_points(sphere_views(_all_round()), 4000, seed=3)
    assert points.shape == (4000, 3)
    assert ((points.norm(dim=1) - 0.4).abs() < 0.012).float().mean() > 0.98
    # As many in each octant, up to chance.
    octant = (points > 0).long() @ torch.tensor([1, 2, 4])
    assert torch.bincount(octant, minlength=8).min() > 350
    assert torch.equal(points, hull_points(sphere_views(_all_round()), 4000, seed=3))
