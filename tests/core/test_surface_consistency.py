"""What the views say of the true surface, of a lid, and of what they do not see."""

from dataclasses import replace

import numpy as np
import pytest

from hi3d_core.surface.consistency import Sightings, judge, projected_colors, trace
from hi3d_core.surface.field import redistance
from hi3d_core.surface.rays import Rays

from .cavity_scenes import (
    FLOOR,
    HIGH,
    INNER,
    LOW,
    cup,
    cup_field,
    from_above,
    pattern_at,
    placed,
    places,
)


@pytest.fixture(scope="module")
def scene():
    views, placement = placed(from_above(cup()))
    grid = placement.grid(64)
    return views, placement, grid, Sightings.of(Rays.from_views(views, 96).in_grid(grid))


def _in_opening(verdict, grid, placement):
    """Judged nodes in the middle of the cup's opening, its floor or a lid."""
    where = places(grid, placement)[tuple(verdict.nodes.T)]
    radius = np.hypot(where[:, 0], where[:, 2])
    return verdict.judged & (radius < 0.6 * INNER) & (where[:, 1] > FLOOR - 0.1)


def test_views_agree_on_the_true_surface_and_not_on_a_lid(scene):
    _, placement, grid, sightings = scene
    floor = judge(cup_field(grid, placement).sdf, sightings)
    lid = judge(cup_field(grid, placement, lid=True).sdf, sightings)
    on_floor, on_lid = (_in_opening(each, grid, placement) for each in (floor, lid))
    assert on_floor.sum() > 200 and on_lid.sum() > 200
    assert np.median(lid.spreads[on_lid]) > 0.12
    assert np.median(floor.spreads[on_floor]) < 0.25 * np.median(lid.spreads[on_lid])
    # Most of a lid stands out against the change of colour within a pixel, and hardly any floor.
    assert (lid.spreads > 1.5 * lid.contrasts)[on_lid].mean() > 0.8
    assert (floor.spreads > 1.5 * floor.contrasts)[on_floor].mean() < 0.02


def test_what_no_view_sees_is_not_judged(scene):
    _, placement, grid, sightings = scene
    verdict = judge(cup_field(grid, placement).sdf, sightings)
    height = places(grid, placement)[tuple(verdict.nodes.T)][:, 1]
    voxel = grid.voxel * placement.scale
    below = height < LOW - voxel  # under the base
    assert below.sum() > 200
    assert not verdict.judged[below].any()
    rim = np.abs(height - HIGH) < 0.5 * voxel
    assert verdict.judged[rim].mean() > 0.5


def test_colours_are_those_of_the_object(scene):
    _, placement, grid, sightings = scene
    sdf = cup_field(grid, placement).sdf
    verdict = judge(sdf, sightings)
    chosen = _in_opening(verdict, grid, placement)
    i, j, k = verdict.nodes[chosen].T
    where = places(grid, placement)[i, j, k].copy()
    where[:, 1] = FLOOR  # a node's word is about the surface next to it
    expected = pattern_at(where)
    assert np.abs(verdict.colors[chosen] - expected).mean() < 0.03
    colors = projected_colors(sdf, sightings)
    assert np.array_equal(colors[i, j, k], verdict.colors[chosen])
    # Elsewhere that of the nearest node that has one: none is left as it was made.
    known = np.unique(verdict.colors[verdict.seen].round(5), axis=0)
    assert colors.shape == (*grid.shape, 3)
    assert np.isin(colors[0, 0].round(5), known).all()


def test_rays_end_on_the_surface_or_miss_it(scene):
    _, placement, grid, sightings = scene
    sdf = cup_field(grid, placement, lid=True).sdf
    hits = trace(sightings.origins, sightings.directions, sdf)
    met = hits >= 0
    # Where a pixel is all object rays meet it, and where it is all background they don't.
    assert met[sightings.alphas > 0.999].mean() > 0.995
    assert not met[sightings.alphas < 0.001].any()
    ends = sightings.origins + hits[:, None] * sightings.directions
    where = ends[met] * grid.voxel + grid.origin
    where = where * placement.scale + placement.center.numpy()
    radius, height = np.hypot(where[:, 0], where[:, 2]), where[:, 1]
    from_side, from_top = np.abs(radius - 0.42), np.abs(height - HIGH)
    assert np.minimum(from_side, from_top).mean() < 0.15 * grid.voxel * placement.scale


def test_sightings_keep_views_apart(scene):
    views, _, grid, sightings = scene
    rays = Rays.from_views(views, 96).in_grid(grid)
    assert sightings.starts[0] == 0 and sightings.starts[-1] == len(rays.view)
    for view in range(len(views)):
        chosen = slice(sightings.starts[view], sightings.starts[view + 1])
        assert (rays.view[chosen] == view).all()
        assert np.allclose(sightings.origins[chosen], rays.origins[view])


def test_contrast_is_the_change_of_colour_a_pixel(scene):
    views, _, grid, _ = scene
    ramp = np.broadcast_to(np.arange(96)[None, None, :, None] / 200.0, (12, 96, 96, 3))
    images = views.images.new_tensor(ramp.copy())
    sightings = Sightings.of(Rays.from_views(replace(views, images=images), 96).in_grid(grid))
    inside = sightings.alphas > 0.999
    assert np.median(sightings.contrasts[inside]) == pytest.approx(1 / 200, rel=1e-3)


def test_a_surface_that_nobody_sees_says_nothing(scene):
    _, _, grid, sightings = scene
    away = np.full(grid.shape, 9.0, np.float32)
    away[3:6, 3:6, 3:6] = -1  # in a corner, beside all rays
    blank = replace(sightings, alphas=np.zeros_like(sightings.alphas))
    verdict = judge(redistance(away), blank)
    assert len(verdict.nodes) and not verdict.judged.any() and not verdict.seen.any()
    assert (projected_colors(redistance(away), blank) == 0.5).all()
