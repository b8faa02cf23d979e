"""A textured ball, drawn by arithmetic from true cameras, and cameras that are a little off."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hi3d_core.align.bundle import Spreads, Tracks, adjust
from hi3d_core.align.refine_cameras import (
    CameraRoundsConfig,
    at_size,
    held_as_a_whole,
    pixels_moved,
    refine_cameras,
    refined_cameras,
)
from hi3d_core.cameras import Cameras, pixel_rays, project
from hi3d_core.splat.fit import SplatConfig

from .synthetic import sphere_views

SPREADS = Spreads(pixel=0.5, point=0.015, turn=0.03, shift=0.02, focal=0.05)


def _off(cameras: Cameras, degrees: float, shift: float, focal: float, seed: int = 0) -> Cameras:
    rng = np.random.default_rng(seed)
    turns = Rotation.from_rotvec(np.radians(degrees) * rng.normal(size=(len(cameras), 3)))
    poses = cameras.camera_to_world.double().numpy().copy()
    poses[:, :3, :3] = poses[:, :3, :3] @ turns.as_matrix()
    poses[:, :3, 3] += shift * rng.normal(size=(len(cameras), 3))
    intrinsics = cameras.intrinsics.clone()
    intrinsics[:, [0, 1], [0, 1]] *= focal
    poses = torch.from_numpy(poses).float()
    return replace(cameras, camera_to_world=poses, intrinsics=intrinsics)


def _ball_with_depths(cameras: Cameras, radius: float = 0.4):
    origins, directions = pixel_rays(cameras)
    a = (directions**2).sum(-1)
    b = (directions * origins[:, None, None]).sum(-1)
    root = b**2 - a * ((origins**2).sum(-1)[:, None, None] - radius**2)
    depths = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, 0.0)
    return replace(sphere_views(cameras, radius), depths=depths)


def _on_the_ball(count: int = 200) -> np.ndarray:
    points = np.random.default_rng(1).normal(size=(count, 3))
    points[:, 1] *= 0.5
    return 0.4 * points / np.linalg.norm(points, axis=1, keepdims=True)


def _exact_tracks(cameras: Cameras, points: np.ndarray) -> Tracks:
    """Every view sees every point."""
    world = torch.from_numpy(points).to(cameras.camera_to_world)
    pixels = project(world, cameras)[0].double().numpy()
    view, point = np.indices(pixels.shape[:2]).reshape(2, -1)
    return Tracks(points, point, view, pixels.reshape(-1, 2), np.ones(len(point)))


def test_exact_tracks_give_the_true_cameras_back():
    true = Cameras.orbit(6, 20, width=256, height=256)
    tracks = _exact_tracks(true, _on_the_ball())
    off = _off(true, 0.7, 0.01, 1.03)
    assert pixels_moved(off, true, tracks.points) > 2
    found, points = adjust(off, tracks, SPREADS)
    assert pixels_moved(found, true, tracks.points) < 0.02
    assert np.abs(points - tracks.points).max() < 0.03


def test_wild_tracks_count_little():
    true = Cameras.orbit(6, 20, width=256, height=256)
    tracks = _exact_tracks(true, _on_the_ball())
    rng = np.random.default_rng(2)
    wild = rng.random(len(tracks.pixels)) < 0.15
    pixels = tracks.pixels + wild[:, None] * np.array([25.0, 10.0]) * rng.uniform(
        0.5, 1, (len(wild), 1)
    )
    found, _ = adjust(_off(true, 0.5, 0.0, 1.0), replace(tracks, pixels=pixels), SPREADS)
    # Least squares is off by a pixel here.
    assert pixels_moved(found, true, tracks.points) < 0.15


def test_a_similarity_of_all_cameras_is_undone():
    cameras = Cameras.orbit(5, 10)
    cameras = replace(cameras, camera_to_world=cameras.camera_to_world.double())
    turn = Rotation.from_rotvec([0.2, -0.4, 0.1]).as_matrix()
    poses = cameras.camera_to_world.numpy().copy()
    poses[:, :3, :3] = turn @ poses[:, :3, :3]
    poses[:, :3, 3] = 1.3 * poses[:, :3, 3] @ turn.T + np.array([0.1, 2, -1])
    moved = replace(cameras, camera_to_world=torch.from_numpy(poses))
    back = held_as_a_whole(moved, cameras)
    assert torch.allclose(back.camera_to_world, cameras.camera_to_world, atol=1e-9)
    # All at one place there is no scale to tell; turns still are.
    poses[:, :3, 3] = cameras.positions[0].numpy()
    together = replace(cameras, camera_to_world=torch.from_numpy(poses))
    assert torch.isfinite(held_as_a_whole(together, together).camera_to_world).all()


def test_pixels_moved_ignores_what_the_points_as_a_whole_explain():
    cameras = Cameras.orbit(5, 10)
    points = _on_the_ball()
    elsewhere = cameras.in_frame(torch.tensor([0.004, -0.002, 0.003]), 1.004)
    assert pixels_moved(elsewhere, cameras, points) < 0.02
    one = cameras.camera_to_world.clone()
    one[2, :3, 3] += torch.tensor([0.01, 0, 0])
    assert pixels_moved(replace(cameras, camera_to_world=one), cameras, points) > 0.5


def test_one_look_at_the_true_object_finds_small_errors():
    true = Cameras.orbit(8, 15, width=160, height=160)
    off = _off(true, 0.6, 0.0, 1.02)
    views = replace(sphere_views(true), cameras=off)
    found = refine_cameras(views, _ball_with_depths(off))
    before, after = (pixels_moved(c, true, _on_the_ball()) for c in (off, found))
    assert before > 1
    assert after < 0.25 * before
    assert (found.width, found.height, len(found)) == (160, 160, 8)
    factors = (found.intrinsics / off.intrinsics)[:, 0, 0]
    assert torch.allclose(factors, factors[0].expand(8))  # one factor for all
    assert torch.equal(found.intrinsics[:, :, 2], off.intrinsics[:, :, 2])


def test_right_cameras_stay_where_they_are():
    true = Cameras.orbit(8, 15, width=160, height=160)
    found = refine_cameras(sphere_views(true), _ball_with_depths(true))
    assert pixels_moved(found, true, _on_the_ball()) < 0.05


QUICK = CameraRoundsConfig(
    sizes=(96, 128), splat=SplatConfig(count=1500, iterations=60, coarse_share=0.0)
)


def test_rounds_improve_wrong_cameras_and_return_right_ones_untouched():
    true = Cameras.orbit(8, 15, width=128, height=128)
    views = sphere_views(true)
    assert refined_cameras(views, QUICK) is views.cameras
    off = _off(true, 1.0, 0.0, 1.0)
    calls = []
    found = refined_cameras(
        replace(views, cameras=off), QUICK, on_step=lambda done, total: calls.append((done, total))
    )
    before, after = (pixels_moved(c, true, _on_the_ball()) for c in (off, found))
    assert after < 0.6 * before
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (200, 200)


def test_pictures_that_show_nothing_leave_the_cameras():
    cameras = Cameras.orbit(4, 15, width=64, height=64)
    rendered = _ball_with_depths(cameras)
    blank = replace(rendered, images=torch.ones_like(rendered.images), depths=None)
    assert refine_cameras(blank, rendered) is cameras


def test_on_step_may_cancel():
    rendered = _ball_with_depths(Cameras.orbit(4, 15, width=64, height=64))

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refine_cameras(rendered, rendered, on_step=cancel)


def test_bad_input_is_refused():
    views = _ball_with_depths(Cameras.orbit(4, 15, width=64, height=64))
    with pytest.raises(ValueError, match="own cameras"):
        refine_cameras(views, at_size(views, 48))
    with pytest.raises(ValueError, match="no depths"):
        refine_cameras(views, replace(views, depths=None))
    with pytest.raises(ValueError, match="one view"):
        refine_cameras(views[:1], views[:1])
    with pytest.raises(ValueError, match="sizes"):
        CameraRoundsConfig(sizes=())
