"""The Gaussians a fit starts from."""

import pytest
import torch

from hi3d_core.cameras import Cameras, pixel_rays
from hi3d_core.datatypes import OrbitViews
from hi3d_core.splat.initialize import initial_gaussians, seen_colors
from hi3d_core.splat.rotations import matrices_from_quaternions

RADIUS = 0.45


def color_of(points):
    """Smooth, and different on every side."""
    return 0.5 + 0.5 * points / RADIUS


def ball_views(views=8, size=96, elevation=0.0):
    """An analytic ball, coloured by where it is hit: 16 rays a pixel."""
    cameras = Cameras.orbit(views, elevation, width=size, height=size)
    origins, directions = pixel_rays(cameras.resized(4 * size, 4 * size))
    directions = torch.nn.functional.normalize(directions, dim=-1)
    origins = origins[:, None, None].expand_as(directions)
    along = -(origins * directions).sum(-1)
    inside = along**2 - (origins**2).sum(-1) + RADIUS**2
    hits = origins + (along - inside.clamp_min(0).sqrt())[..., None] * directions
    images = torch.where(inside[..., None] > 0, color_of(hits), torch.ones(())).clamp(0, 1)
    fine = torch.cat([images, (inside > 0).float()[..., None]], dim=-1)
    coarse = fine.reshape(views, size, 4, size, 4, 4).mean(dim=(2, 4))
    return OrbitViews(coarse[..., :3], coarse[..., 3], cameras)


def ball_points(count=3000, seed=0):
    g = torch.Generator().manual_seed(seed)
    return RADIUS * torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)


def test_gaussians_lie_along_the_surface_and_cover_it():
    points = ball_points()
    start = initial_gaussians(points, ball_views())
    assert torch.equal(start.means, points)
    across = matrices_from_quaternions(start.quaternions)[:, :, 2]
    cosine = (across * points / RADIUS).sum(dim=1).abs()
    assert float(cosine.quantile(0.05)) > 0.97, "the thin axis is the normal"
    assert (start.scales[:, 2] < 0.5 * start.scales[:, 0]).all()
    # Together they cover the ball's area about as often as a closed layer does.
    coverage = float((start.scales[:, 0] * start.scales[:, 1]).sum()) / (4 * RADIUS**2)
    assert 0.2 < coverage < 2


def test_colours_are_those_of_the_side_that_is_seen():
    points = ball_points()
    start = initial_gaussians(points, ball_views())
    colors = 0.5 + 0.28209479177387814 * start.sh[:, 0]
    error = (colors - color_of(points)).abs().amax(dim=1)
    seen = points[:, 1].abs() < 0.8 * RADIUS  # the poles are hidden from an orbit at elevation 0
    assert float(error[seen].max()) < 0.08
    assert float(error.max()) < 0.5


def test_one_view_that_lies_does_not_win():
    views = ball_views(16)
    images = views.images.clone()
    images[3] = 1 - images[3]
    points = ball_points()
    surface = initial_gaussians(points, views)
    colors = seen_colors(surface, OrbitViews(images, views.alphas, views.cameras))
    seen = points[:, 1].abs() < 0.6 * RADIUS
    assert float((colors - color_of(points)).abs().amax(dim=1)[seen].quantile(0.99)) < 0.12


def test_points_that_coincide_and_one_far_away_stay_usable():
    points = torch.cat([ball_points(200), torch.zeros(20, 3), torch.full((1, 3), 50.0)])
    start = initial_gaussians(points, ball_views(4, 48))
    assert float(start.scales.max() / start.scales.min()) < 200


@pytest.mark.parametrize(
    "points", [torch.zeros(3, 3), torch.zeros(5, 2), torch.full((9, 3), torch.nan)]
)
def test_bad_points_are_refused(points):
    with pytest.raises(ValueError, match="points"):
        initial_gaussians(points, ball_views(4, 16))
