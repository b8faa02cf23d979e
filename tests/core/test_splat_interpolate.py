"""Cameras in between, and views rendered from them."""

import math

import pytest
import torch

from hi3d_core.cameras import Cameras, look_at
from hi3d_core.datatypes import Gaussians
from hi3d_core.splat.interpolate import in_between_cameras, looked_at_point, render_views


def cameras_at(eyes, target=(0.0, 0.0, 0.0)):
    eyes = torch.tensor(eyes, dtype=torch.float64)
    intrinsics = Cameras.orbit(1, width=32, height=32).intrinsics.expand(len(eyes), 3, 3)
    return Cameras(look_at(eyes, target).float(), intrinsics.contiguous(), 32, 32)


def assert_same_poses(ours, theirs):
    torch.testing.assert_close(ours.camera_to_world, theirs.camera_to_world, atol=2e-6, rtol=0)
    torch.testing.assert_close(ours.intrinsics, theirs.intrinsics)


@pytest.mark.parametrize("elevation", [0.0, 15.0, -40.0, 80.0])
@pytest.mark.parametrize(("views", "start"), [(16, 0.0), (5, 77.0), (3, 10.0), (2, 0.0)])
def test_one_a_gap_doubles_an_orbit(views, start, elevation):
    orbit = Cameras.orbit(views, elevation, 1.7, 40.0, start_azimuth_degrees=start)
    twice = Cameras.orbit(2 * views, elevation, 1.7, 40.0, start_azimuth_degrees=start)
    assert_same_poses(in_between_cameras(orbit, views), twice[slice(1, None, 2)])


def test_two_a_gap_treble_an_orbit():
    thrice = Cameras.orbit(48, 20.0)
    new = [i for i in range(48) if i % 3]
    assert_same_poses(in_between_cameras(Cameras.orbit(16, 20.0), 32), thrice[new])


def test_an_orbit_the_other_way_round_and_moved():
    orbit = Cameras.orbit(16, 20.0)[list(range(15, -1, -1))]
    shift = torch.tensor([3.0, -1.0, 2.0])
    middle = in_between_cameras(orbit.in_frame(-shift, 1.0), 16)
    twice = Cameras.orbit(32, 20.0).in_frame(-shift, 1.0)
    assert_same_poses(middle, twice[[29 - 2 * k if k < 15 else 31 for k in range(16)]])


@pytest.mark.parametrize("count", [0, 1, 5, 8, 17, 24, 50])
def test_any_count_is_spread_evenly(count):
    middle = in_between_cameras(Cameras.orbit(16, 10.0), count)
    assert len(middle) == count
    azimuth = torch.atan2(middle.positions[:, 0], middle.positions[:, 2])
    gap = torch.floor(torch.remainder(azimuth, 2 * math.pi) / (2 * math.pi / 16)).long()
    shares = torch.bincount(gap, minlength=16)
    assert int(shares.max() - shares.min()) <= 1
    # And those with one more are not side by side, unless most have it.
    halves = shares.reshape(2, 8).sum(dim=1)
    assert abs(int(halves[0] - halves[1])) <= 1


def test_an_open_arc_is_not_closed_through_what_nothing_saw():
    arc = Cameras.orbit(16, 10.0)[list(range(7))]
    middle = in_between_cameras(arc, 6)
    assert_same_poses(middle, Cameras.orbit(32, 10.0)[[1, 3, 5, 7, 9, 11]])


def test_cameras_never_come_nearer_than_their_neighbours():
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(12, 3, generator=g), dim=1)
    distances = torch.linspace(1.2, 2.5, 12)
    cameras = cameras_at((directions * distances[:, None]).tolist())
    middle = in_between_cameras(cameras, 40)
    assert float(middle.positions.norm(dim=1).min()) >= 1.2 - 1e-5
    # Every one still looks at the object: within a few degrees of its centre.
    toward = -torch.nn.functional.normalize(middle.positions, dim=1)
    assert float((toward * middle.forwards).sum(dim=1).min()) > math.cos(math.radians(12))


def test_opposite_cameras_go_round_not_through():
    middle = in_between_cameras(cameras_at([[0, 0, 1.5], [0, 0, -1.5]]), 2)
    torch.testing.assert_close(middle.positions.norm(dim=1), torch.full((2,), 1.5))
    assert float((middle.positions[0] - middle.positions[1]).norm()) > 2.9


def test_cameras_at_one_place_give_that_place():
    top = Cameras.orbit(4, 90.0)
    assert_same_poses(in_between_cameras(top, 4), top)


def test_looked_at_point():
    target = (0.3, -0.2, 0.5)
    cameras = cameras_at([[2, 0, 0], [0, 1, 2], [-1, 1, -2]], target)
    torch.testing.assert_close(
        looked_at_point(cameras), torch.tensor(target).double(), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("views", "count"), [(1, 4), (4, -1)])
def test_refusals(views, count):
    with pytest.raises(ValueError, match="got"):
        in_between_cameras(Cameras.orbit(views), count)


def a_red_ball(radius=0.2):
    return Gaussians(
        means=torch.zeros(1, 3),
        scales=torch.full((1, 3), radius),
        quaternions=torch.tensor([[1.0, 0, 0, 0]]),
        opacities=torch.tensor([0.95]),
        sh=(torch.tensor([[[1.0, 0.0, 0.0]]]) - 0.5) / 0.28209479177387814,
    )


def test_views_of_a_red_ball():
    views = render_views(a_red_ball(), Cameras.orbit(3, 20.0, 1.5, width=31, height=31))
    for image, alpha, depth in zip(views.images, views.alphas, views.depths, strict=True):
        assert float(alpha[15, 15]) == pytest.approx(0.95, abs=1e-5)
        # Over white: red, with what shows through it.
        torch.testing.assert_close(
            image[15, 15], torch.tensor([1.0, 0.05, 0.05]), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(image[0, 0], torch.ones(3))
        assert float(depth[15, 15]) == pytest.approx(1.5, abs=1e-5)
        assert (depth[alpha <= 0.5] == 0).all()
        torch.testing.assert_close(depth[alpha > 0.5], torch.full_like(depth[alpha > 0.5], 1.5))


def test_colour_may_depend_on_the_direction():
    ball = a_red_ball()
    sh = torch.cat([ball.sh, torch.zeros(1, 3, 3)], dim=1)
    sh[0, 2, 1] = 0.5  # green, growing with z of the viewing direction
    ball = Gaussians(ball.means, ball.scales, ball.quaternions, ball.opacities, sh)
    views = render_views(ball, Cameras.orbit(2, 0.0, 1.5, width=31, height=31))
    assert float(views.images[1, 15, 15, 1] - views.images[0, 15, 15, 1]) > 0.2


def test_no_cameras_are_refused():
    with pytest.raises(ValueError, match="no cameras"):
        render_views(a_red_ball(), Cameras.orbit(2)[[]])


def test_rendering_reports_and_can_be_cancelled():
    steps = []
    cameras = Cameras.orbit(3, width=8, height=8)
    render_views(a_red_ball(), cameras, on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
