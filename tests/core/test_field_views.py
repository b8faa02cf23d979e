"""Pictures of a field whose surface is known exactly."""

import numpy as np
import pytest
import torch

from hi3d_core.cameras import Cameras, pixel_rays
from hi3d_core.surface.field import Field
from hi3d_core.surface.field_views import field_views
from hi3d_core.surface.hull import Grid

from .synthetic import node_radii, sphere_views

_RADIUS = 0.4


def _ball(color: tuple[float, float, float] = (0.8, 0.4, 0.2)) -> Field:
    grid = Grid.covering(np.full(3, -0.55), np.full(3, 0.55), 72)
    field = Field.from_distance(grid, (node_radii(grid) - _RADIUS).astype(np.float32))
    field.colors[...] = color
    return field


def test_a_ball_looks_like_a_ball():
    cameras = Cameras.orbit(3, 20.0, width=96, height=96)
    drawn = field_views(_ball(), cameras)
    true = sphere_views(cameras, _RADIUS)
    assert (drawn.alphas - true.alphas).abs().mean() < 0.004
    inside = true.alphas > 0.999
    off = (drawn.images[inside] - torch.tensor([0.8, 0.4, 0.2])).abs()
    assert off.mean() < 0.01
    assert off.max() < 0.06  # rays that only graze the ball
    assert (drawn.images[true.alphas == 0] > 0.99).float().mean() > 0.98


def test_depths_lie_on_the_ball_and_are_0_beside_it():
    cameras = Cameras.orbit(2, 10.0, width=96, height=96)
    drawn = field_views(_ball(), cameras)
    assert drawn.depths is not None
    # Lifted back, every pixel but the grazing ones is at the radius.
    origins, directions = pixel_rays(cameras)
    points = origins[:, None, None] + drawn.depths[..., None] * directions
    facing = -(directions * points).sum(-1) / (directions.norm(dim=-1) * points.norm(dim=-1))
    well = (drawn.alphas > 0.99) & (facing > 0.5)
    assert well.sum() > 1000
    assert (points.norm(dim=-1)[well] - _RADIUS).abs().max() < 0.3 * 1.1 / 71
    assert (drawn.depths[drawn.alphas < 0.5] == 0).all()


def test_colours_are_read_where_they_are():
    field = _ball()
    x = field.grid.origin[0] + field.grid.voxel * np.arange(field.grid.shape[0])
    field.colors[x > 0] = (0, 0, 1)
    front = field_views(field, Cameras.orbit(1, width=96, height=96))
    assert front.images[0, 48, 60, 2] > 0.95  # camera 0 looks along -Z with +X on its right
    assert front.images[0, 48, 36, 0] > 0.75


def test_it_can_be_cancelled():
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        field_views(_ball(), Cameras.orbit(2, width=32, height=32), on_step=stop)
