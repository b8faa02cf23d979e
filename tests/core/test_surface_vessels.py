"""Pale vessels under the lids that silhouettes give them, and solids that look the same outside."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from hi3d_core.surface.consistency import Sightings, held_out_errors, trace
from hi3d_core.surface.field import Field
from hi3d_core.surface.hull import FloatArray
from hi3d_core.surface.rays import Rays
from hi3d_core.surface.vessels import (
    VESSEL_STEPS,
    Trial,
    _is_vessel,
    find_lids,
    open_vessels,
)

from .cavity_scenes import (
    FLOOR,
    HIGH,
    INNER,
    LOW,
    OUTER,
    cup,
    cup_field,
    opening,
    orbit_at,
    pattern,
    placed,
    places,
)
from .texture_scenes import ball, mesh_of, views_of

NODES, PICTURE = 48, 96


def pale(points: torch.Tensor) -> torch.Tensor:
    """White, and a little darker the deeper inside the cup."""
    radius, height = points[..., [0, 2]].norm(dim=-1), points[..., 1]
    depth = ((HIGH - height) / (HIGH - FLOOR)).clamp(0, 1) * (radius < INNER + 0.01)
    return (0.95 - 0.2 * depth)[..., None].expand(points.shape).clone()


def drum() -> trimesh.Trimesh:
    """The cup filled up to its rim."""
    made = trimesh.creation.cylinder(OUTER, HIGH - LOW, sections=48)
    made.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    made.apply_translation([0, (HIGH + LOW) / 2, 0])
    return made


def seen_from(mesh, paint, elevation: float = 30):
    views, placement = placed(views_of(mesh, orbit_at(elevation, PICTURE), paint, fine=3))
    grid = placement.grid(NODES)
    return placement, grid, Sightings.of(Rays.from_views(views, PICTURE).in_grid(grid))


@pytest.fixture(scope="module")
def pale_cup():
    return seen_from(cup(), pale)


def last(start: FloatArray, sightings: Sightings) -> FloatArray:
    steps = [start, *open_vessels(start, sightings)]
    assert len(steps) <= VESSEL_STEPS + 1
    return steps[-1]


def test_a_pale_cup_is_hollowed_to_its_walls_and_floor(pale_cup):
    placement, grid, sightings = pale_cup
    lid = cup_field(grid, placement, lid=True)
    before = lid.sdf.copy()
    found = last(lid.sdf, sightings)
    assert np.array_equal(lid.sdf, before)
    true = cup_field(grid, placement).sdf
    solid, hollow = true < 0, (before < 0) & (true >= 0)
    # Less than half a voxel off, all over: the cup has as many nodes beside its surface.
    assert (found >= 0)[hollow].mean() > 0.85
    assert (found < 0)[solid].mean() > 0.85
    voxel = grid.voxel * placement.scale
    off = np.abs(opening(Field(grid, found, lid.colors, lid.seen), placement) - FLOOR)
    assert off.max() < 2 * voxel


@pytest.mark.parametrize("paint", [pale, pattern], ids=["pale", "patterned"])
def test_a_solid_of_the_same_outside_stays_closed(paint):
    placement, grid, sightings = seen_from(mesh_of(drum()), paint)
    start = cup_field(grid, placement, lid=True).sdf
    assert all(found is start for found in open_vessels(start, sightings))


def test_a_ball_stays_whole():
    placement, grid, sightings = seen_from(ball(), pale)
    radius = np.linalg.norm(places(grid, placement), axis=-1)
    start = ((radius - 0.45) / (grid.voxel * placement.scale)).astype(np.float32)
    assert all(found is start for found in open_vessels(start, sightings))


def test_shades_finer_than_a_pictures_steps_open_nothing(pale_cup):
    placement, grid, sightings = pale_cup
    start = cup_field(grid, placement, lid=True).sdf
    colors = (0.95 + (sightings.colors - 0.95) / 25).astype(np.float32)
    assert all(found is start for found in open_vessels(start, replace(sightings, colors=colors)))


def test_a_vessel_is_open_in_its_middle_whatever_its_walls():
    def trial(wall: float, gain: float, share: float, doubt: float = 0.01) -> Trial:
        return Trial(np.ones((2, 2, 2), np.float32), wall, 5.0, int(100 / wall), gain, share, doubt)

    assert _is_vessel([trial(2, 90, 0.6), trial(4.5, 40, 0.5), trial(9, 1, 0.1)])
    # A gap: nothing to gain behind thicker walls.
    assert not _is_vessel([trial(2, 90, 0.6), trial(2.6, 60, 0.5), trial(4.5, 20, 0.2)])
    assert not _is_vessel([trial(2, 90, 0.2), trial(4.5, 40, 0.5)])
    assert not _is_vessel([trial(2, 90, 0.6, 0.001), trial(4.5, 40, 0.5)])
    assert not _is_vessel([trial(2, -3, -0.1), trial(4.5, 0, 0)])


def test_without_trust_nothing_is_opened(pale_cup):
    placement, grid, sightings = pale_cup
    start = cup_field(grid, placement, lid=True).sdf
    nothing = replace(sightings, trust=np.zeros_like(sightings.trust))
    assert all(found is start for found in open_vessels(start, nothing))


def test_what_no_view_sees_is_not_dug():
    # From over the nearest piece of rim the views see some of the wall opposite, and no floor.
    placement, grid, sightings = seen_from(cup(), pattern, elevation=22)
    start = cup_field(grid, placement, lid=True)
    found = replace(start, sdf=last(start.sdf, sightings))
    x, y, _ = sorted(np.abs(orbit_at(22, PICTURE).positions[0].tolist()))[::-1]
    deepest = HIGH - 2 * INNER * (y - HIGH) / (x - INNER)
    voxel = grid.voxel * placement.scale
    heights = opening(found, placement)
    assert heights.max() < HIGH - 3 * voxel
    assert heights.min() > deepest - 1.5 * voxel > FLOOR + voxel


def test_lids_are_what_faces_up(pale_cup):
    placement, grid, _ = pale_cup
    sdf = cup_field(grid, placement, lid=True).sdf
    layer, lids = find_lids(sdf)
    assert len(lids) == 1
    height = places(grid, placement)[..., 1]
    voxel = grid.voxel * placement.scale
    assert (layer & lids[0]).sum() == lids[0].sum()
    assert (np.abs(height[lids[0]] - HIGH) < 2 * voxel).all()
    top = (
        layer
        & (height > HIGH)
        & (np.hypot(*np.moveaxis(places(grid, placement), -1, 0)[::2]) < 0.3)
    )
    assert lids[0][top].all()


def test_held_out_errors_leave_a_views_own_rays_out(pale_cup):
    placement, grid, sightings = pale_cup
    sdf = cup_field(grid, placement).sdf
    hits = trace(sightings.origins, sightings.directions, sdf)
    errors = held_out_errors(sdf, sightings, hits)
    shown = (hits >= 0) & (sightings.alphas > 0.98)
    known = shown & np.isfinite(errors)
    assert known.sum() > 0.9 * shown.sum()
    assert np.median(errors[known]) < 0.01
    assert np.isnan(errors[hits < 0]).all()
    # One view of another colour: its own rays are off by all of it, the others' by their mean.
    first = np.zeros(len(hits), bool)
    first[: sightings.starts[1]] = True
    colors = np.where(first[:, None], sightings.colors - 0.4, sightings.colors)
    errors = held_out_errors(sdf, replace(sightings, colors=colors.astype(np.float32)), hits)
    assert np.median(errors[known & first]) == pytest.approx(0.4, abs=0.01)
    # A view alone has nothing to be compared with.
    alone = sightings.chosen(first)
    assert len(alone.starts) == len(sightings.starts) and alone.starts[-1] == first.sum()
    assert np.isnan(held_out_errors(sdf, alone, hits[first])).all()
