"""The cone below what was photographed from above, and the surface that stays as it is."""

from dataclasses import replace

import numpy as np
import pytest

from hi3d_core.surface.field import Field, redistance, unseen_below
from hi3d_core.surface.fit import fit_surface
from hi3d_core.surface.hull import Grid
from hi3d_core.surface.relax import relax_hidden
from hi3d_core.surface.render import COLUMNS, SEEN, accumulate_gradients

from .cavity_scenes import LOW, SMALL, cup, from_above, placed, places


def _drum(depth: float, all_seen: bool = False) -> tuple[Field, np.ndarray]:
    """A drum of radius 14.3 with a cone `depth` deep below it, and the nodes' heights, voxels.

    Seen but for the cone, as rays would leave it.
    """
    grid = Grid.covering(np.full(3, -0.5), np.full(3, 0.5), 49)
    i, j, k = np.indices(grid.shape).astype(np.float32)
    radius, height = np.hypot(i - 24, k - 24), j - 24
    cone = -height - depth * (1 - radius / 14.3)
    drum = np.maximum(radius - 14.3, height - 10.4)
    distance = np.maximum(drum, cone)
    sdf = redistance(distance.astype(np.float32))
    seen = np.where((all_seen | (cone < drum)) & (np.abs(sdf) < 2), 10, 0).astype(np.float32)
    return Field(grid, sdf, np.full((*grid.shape, 3), 0.5, "f4"), seen), height


def _underside(field: Field) -> np.ndarray:
    """Where the column in the middle crosses the zero level from below, in voxels."""
    column = field.sdf[24, :, 24]
    first = int(np.argmax(column < 0))
    outside, inside = column[first - 1], column[first]
    return first - 1 + outside / (outside - inside) - 24


def test_a_hidden_cone_becomes_flat():
    field, height = _drum(depth=9)
    assert _underside(field) < -8.5
    relax_hidden(field, 5.0)
    assert abs(_underside(field)) < 1.0
    # What hung below is gone, and nothing else.
    before = _drum(depth=9)[0].sdf
    assert ((field.sdf < 0) & (height < -1)).sum() < 0.05 * ((before < 0) & (height < -1)).sum()
    above = height > 2
    assert np.array_equal((field.sdf < 0)[above], (before < 0)[above])


def test_a_hidden_dent_is_filled():
    field, _ = _drum(depth=-6)
    assert _underside(field) > 5
    relax_hidden(field, 5.0)
    assert -0.5 < _underside(field) < 3


def test_a_surface_that_is_all_seen_is_left_to_the_bit():
    field, _ = _drum(depth=9, all_seen=True)
    before = replace(field, sdf=field.sdf.copy())
    relax_hidden(field, 5.0)
    assert np.array_equal(field.sdf, before.sdf)
    assert np.array_equal(field.colors, before.colors)
    assert np.array_equal(field.seen, before.seen)


def test_before_any_ray_all_counts_as_seen():
    field, _ = _drum(depth=9)
    field.seen[:] = 0
    before = field.sdf.copy()
    assert unseen_below(field) < 0
    relax_hidden(field, 5.0)
    assert np.array_equal(field.sdf, before)


def test_unseen_is_told_by_the_share_of_an_average_node():
    field, _ = _drum(depth=9)
    threshold = unseen_below(field)
    surface = np.abs(field.sdf) < 1
    assert threshold == pytest.approx(0.02 * field.seen[surface].mean())
    field.seen *= 1000  # more rays change nothing
    assert unseen_below(field) == pytest.approx(1000 * threshold)


def test_the_same_field_gives_the_same_underside():
    first, again = _drum(depth=9)[0], _drum(depth=9)[0]
    relax_hidden(first, 5.0)
    relax_hidden(again, 5.0)
    assert np.array_equal(first.sdf, again.sdf)


def test_a_fit_from_above_gets_a_flat_base():
    views, placement = placed(from_above(cup()))
    longer = replace(SMALL, levels=(replace(SMALL.levels[0], iterations=100),))
    field = fit_surface(views, placement, longer)
    where = places(field.grid, placement)
    voxel = field.grid.voxel * placement.scale
    lowest = where[..., 1][field.sdf < 0].min()
    # The hull's cone reaches .35 below the base: .42 * tan(40 degrees).
    assert lowest > LOW - 2.5 * voxel
    assert lowest < LOW + voxel


@pytest.mark.parametrize(("cosine", "share"), [(0.5, 1.0), (0.2, 1.0), (0.06, 0.0)])
def test_rays_that_graze_a_plane_do_not_see_it(cosine, share):
    nodes = 64
    sdf = np.broadcast_to(np.arange(nodes, dtype="f4")[None, :, None] - 20, (nodes,) * 3).copy()
    direction = np.array([[np.sqrt(1 - cosine**2), -cosine, 0]], "f4")
    # Starts outside and meets the plane in the grid's middle.
    start = np.array([[32, 20, 32]], "f4") - 29 * direction
    gradients = np.zeros((1, nodes**3, COLUMNS), "f4")
    rendered = np.empty((1, 4), "f4")
    accumulate_gradients(
        start,
        direction,
        np.full((1, 3), 0.5, "f4"),
        np.ones(1, "f4"),
        np.ones(1, "f4"),
        sdf,
        np.full((*sdf.shape, 3), 0.5, "f4"),
        np.arange(nodes**3, dtype=np.int32).reshape(sdf.shape),
        8.0,
        0.3,
        0.05,
        gradients,
        rendered,
    )
    assert rendered[0, 3] > 0.95
    assert gradients[0, :, SEEN].sum() == pytest.approx(share, abs=0.05)
