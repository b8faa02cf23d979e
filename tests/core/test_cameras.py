import math

import pytest
import torch

from hi3d_core.cameras import (
    Cameras,
    intrinsics_from_fov,
    look_at,
    opengl_to_opencv,
    pixel_rays,
    project,
)


def test_orbit_defaults_are_hi3ds():
    cameras = Cameras.orbit()
    assert len(cameras) == 16
    assert (cameras.width, cameras.height) == (512, 512)
    assert torch.allclose(cameras.positions.norm(dim=1), torch.tensor(1.5))
    # fov 49.134 degrees over 512 pixels
    focal = 256 / math.tan(math.radians(49.134 / 2))
    assert cameras.intrinsics[0, 0, 0] == pytest.approx(focal)


@pytest.mark.parametrize("elevation", [-90, -30, 0, 12.5, 90])
def test_every_orbit_camera_looks_at_the_centre_upright(elevation):
    cameras = Cameras.orbit(9, elevation, 2.0, 40, width=64, height=48)
    pixels, depths = project(torch.tensor([[0.0, 0, 0], [0.0, 0.2, 0]]), cameras)
    assert torch.allclose(pixels[:, 0], torch.tensor([32.0, 24.0]), atol=1e-3)
    assert torch.allclose(depths[:, 0], torch.tensor(2.0), atol=1e-5)
    if abs(elevation) < 90:  # up in the world is up in the picture
        assert (pixels[:, 1, 1] < 24).all()


def test_orbit_goes_from_the_front_counter_clockwise_seen_from_above():
    positions = Cameras.orbit(4, 0, 1.0).positions
    expected = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 0, -1], [-1, 0, 0]])
    assert torch.allclose(positions, expected, atol=1e-6)
    assert Cameras.orbit(1, 30, 2.0).positions[0, 1] == pytest.approx(1.0)


def test_front_camera_sees_plus_x_to_the_right():
    pixels, _ = project(torch.tensor([[0.1, 0.0, 0.0]]), Cameras.orbit(1))
    assert pixels[0, 0, 0] > 256


def test_pixel_rays_invert_projection():
    cameras = Cameras.orbit(5, 20, 1.7, 35, width=7, height=5)
    origins, directions = pixel_rays(cameras)
    for view in range(5):
        points = (origins[view] + 1.3 * directions[view]).reshape(-1, 3)
        pixels, depths = project(points, cameras[[view]])
        rows, columns = torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij")
        centres = torch.stack([columns, rows], dim=-1).reshape(-1, 2) + 0.5
        assert torch.allclose(pixels[0], centres, atol=1e-4)
        assert torch.allclose(depths[0], torch.tensor(1.3), atol=1e-5)


def test_resizing_keeps_what_a_pixel_sees():
    cameras = Cameras.orbit(3, 10)
    point = torch.tensor([[0.1, -0.2, 0.3]])
    before, _ = project(point, cameras)
    after, _ = project(point, cameras.resized(256, 128))
    assert torch.allclose(after, before * torch.tensor([0.5, 0.25]), atol=1e-4)


def test_moving_the_frame_keeps_what_a_pixel_sees():
    cameras = Cameras.orbit(3, 10)
    center = torch.tensor([0.3, 0.1, -0.2])
    points = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)) * 0.2
    before, depths = project(points, cameras)
    after, local_depths = project((points - center) / 2.5, cameras.in_frame(center, 2.5))
    assert torch.allclose(after, before, atol=2e-3)
    assert torch.allclose(local_depths * 2.5, depths, atol=1e-5)


def test_world_to_camera_is_the_inverse():
    cameras = Cameras.orbit(6, 33)
    product = cameras.world_to_camera @ cameras.camera_to_world
    assert torch.allclose(product, torch.eye(4).expand(6, 4, 4), atol=1e-6)


def test_opengl_conversion_flips_the_cameras_axes_only():
    pose = look_at(torch.tensor([[0.3, 0.5, 1.0]], dtype=torch.float64))
    flipped = opengl_to_opencv(pose)
    assert torch.equal(flipped[0, :3, 3], pose[0, :3, 3])
    assert torch.equal(flipped[0, :3, 0], pose[0, :3, 0])
    assert torch.equal(flipped[0, :3, 1:3], -pose[0, :3, 1:3])
    assert torch.equal(opengl_to_opencv(flipped), pose)


@pytest.mark.parametrize("elevation", [-90.1, 91, math.nan, math.inf])
def test_orbit_refuses_impossible_elevations(elevation):
    with pytest.raises(ValueError, match="elevation"):
        Cameras.orbit(16, elevation)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"n": 0}, "at least one"),
        ({"radius": 0}, "radius"),
        ({"radius": math.nan}, "radius"),
        ({"fov_degrees": 180}, "field of view"),
        ({"fov_degrees": 0}, "field of view"),
    ],
)
def test_orbit_refuses_bad_settings(settings, word):
    with pytest.raises(ValueError, match=word):
        Cameras.orbit(**settings)


def _pose() -> torch.Tensor:
    return look_at(torch.tensor([[0.2, 0.1, 1.0]]))


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda m: m * torch.tensor([-1.0, 1, 1, 1]), "mirrored"),
        (lambda m: m * torch.tensor([0.0, 1, 1, 1]), "singular"),
        (lambda m: m * torch.tensor([2.0, 2, 2, 1]), "scales or shears"),
        (lambda m: m * math.nan, "not finite"),
        (lambda m: m.transpose(1, 2), "last row"),
    ],
)
def test_cameras_refuse_matrices_that_are_no_pose(damage, word):
    intrinsics = intrinsics_from_fov(40, 32, 32).float()[None]
    with pytest.raises(ValueError, match=word):
        Cameras(damage(_pose()).contiguous(), intrinsics, 32, 32)


def test_cameras_refuse_zero_focal_length():
    intrinsics = intrinsics_from_fov(40, 32, 32).float()[None].clone()
    intrinsics[0, 1, 1] = 0
    with pytest.raises(ValueError, match="focal"):
        Cameras(_pose(), intrinsics, 32, 32)


@pytest.mark.parametrize("entry", [(0, 1), (1, 0), (2, 0), (2, 2)])
def test_cameras_refuse_what_is_no_pinhole(entry):
    intrinsics = intrinsics_from_fov(40, 32, 32).float()[None].clone()
    intrinsics[0, entry[0], entry[1]] += 0.5
    with pytest.raises(ValueError, match="rectified"):
        Cameras(_pose(), intrinsics, 32, 32)


def test_cameras_refuse_a_count_mismatch():
    with pytest.raises(ValueError, match="one matrix for each"):
        Cameras(_pose(), Cameras.orbit(2).intrinsics, 32, 32)
