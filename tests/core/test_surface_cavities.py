"""A cup's opening, dug out; and all that must stay as it is."""

from dataclasses import replace

import numpy as np
import pytest

from hi3d_core.surface import cavities
from hi3d_core.surface.cavities import (
    CANDIDATE_ITERATIONS,
    DIG_STEPS,
    SETTLE_ITERATIONS,
    better_of,
    dig,
    open_cavities,
    steps_of,
)
from hi3d_core.surface.consistency import Sightings, projected_colors
from hi3d_core.surface.field import Field, redistance
from hi3d_core.surface.fit import Level, fit_surface
from hi3d_core.surface.hull import FloatArray
from hi3d_core.surface.rays import Rays

from .cavity_scenes import (
    FLOOR,
    INNER,
    SMALL,
    cup,
    cup_field,
    from_above,
    opening,
    orbit_at,
    placed,
    places,
)
from .texture_scenes import ball, views_of, waves


@pytest.fixture(scope="module")
def scene():
    views, placement = placed(from_above(cup()))
    grid = placement.grid(48)
    return views, placement, grid, Sightings.of(Rays.from_views(views, 96).in_grid(grid))


def _colored(field: Field, sightings: Sightings) -> Field:
    return replace(field, colors=projected_colors(field.sdf, sightings))


def _volume(sdf: FloatArray) -> float:
    """Voxels inside, to a fraction of one."""
    return float(np.clip(0.5 - sdf, 0, 1).sum())


def _no_refit(field: Field, iterations: int):
    yield from range(1, iterations + 1)


def test_a_cup_that_silhouettes_close_is_opened_to_its_floor(scene):
    views, placement, grid, _ = scene
    closed = fit_surface(views, placement, SMALL)
    levels = (*SMALL.levels, Level(64, 96, 30))
    opened = fit_surface(views, placement, replace(SMALL, levels=levels, cavity_rounds=1))
    voxel = grid.voxel * placement.scale
    # Without digging the silhouettes' lid stays, more than the cup's depth above the floor.
    assert np.abs(opening(closed, placement) - FLOOR).mean() > 8 * voxel
    off = np.abs(opening(opened, placement) - FLOOR)
    assert off.mean() < voxel
    assert off.max() < 2 * voxel
    # The wall around it still stands.
    where = places(opened.grid, placement)
    radius = np.hypot(where[..., 0], where[..., 2])
    wall = (np.abs(radius - (INNER + 0.04)) < 0.02) & (np.abs(where[..., 1]) < 0.1)
    assert (opened.sdf[wall] < 0).mean() > 0.95


@pytest.mark.parametrize("paint", [waves, None], ids=["smooth", "patterned"])
def test_a_convex_thing_keeps_its_surface(paint):
    drawn = from_above(ball()) if paint is None else views_of(ball(), orbit_at(0, 96), paint)
    views, placement = placed(drawn)
    # Without digging, for as many iterations.
    fitting = 2 * (CANDIDATE_ITERATIONS + SETTLE_ITERATIONS)
    as_long = replace(SMALL.levels[0], iterations=30 + fitting)
    kept = fit_surface(views, placement, replace(SMALL, levels=(as_long,)))
    dug = fit_surface(views, placement, replace(SMALL, cavity_rounds=1))
    # Where the views look, which excludes the cone below those from above.
    voxel = kept.grid.voxel * placement.scale
    where = places(kept.grid, placement)
    seen = where[..., 1] > -0.15
    assert _volume(dug.sdf[seen]) == pytest.approx(_volume(kept.sdf[seen]), rel=0.01)
    near = seen & (np.abs(kept.sdf) < 1)
    assert np.abs(dug.sdf - kept.sdf)[near].mean() < 0.2
    true = (np.linalg.norm(where, axis=-1) - 0.45) / voxel
    assert np.abs(dug.sdf - true)[near].mean() < np.abs(kept.sdf - true)[near].mean() + 0.05


def test_dig_never_grows_the_surface_and_leaves_its_input(scene):
    _, placement, grid, sightings = scene
    start = cup_field(grid, placement, lid=True).sdf
    before = start.copy()
    last, volumes = start, []
    for sdf in dig(start, sightings):
        assert not ((sdf < 0) & (last >= 0)).any()
        volumes.append((sdf < 0).sum())
        last = sdf
    assert np.array_equal(start, before)
    assert volumes == sorted(volumes, reverse=True)
    # What it takes away is mostly the cup's inside, not the cup.
    gone = (start < 0) & (last >= 0)
    solid = cup_field(grid, placement).sdf < 0
    assert (gone & ~solid).sum() > 0.8 * ((start < 0) & ~solid).sum()
    assert (gone & solid).sum() < 0.2 * solid.sum()


def test_dig_has_nothing_to_do_where_the_views_agree(scene):
    _, placement, grid, sightings = scene
    blank = replace(sightings, colors=np.full_like(sightings.colors, 0.5))
    assert list(dig(cup_field(grid, placement, lid=True).sdf, blank)) == []


def test_the_better_fit_is_taken_place_by_place(scene):
    _, placement, grid, sightings = scene
    true = _colored(cup_field(grid, placement), sightings)
    lid = _colored(cup_field(grid, placement, lid=True), sightings)
    difference = int(((lid.sdf < 0) != (true.sdf < 0)).sum())

    opened, changed = better_of(lid, true, sightings)
    assert changed > 0.9 * difference
    assert np.abs(opening(opened, placement) - opening(true, placement)).max() < 1e-6
    # A lid on what is open fits worse: hardly a node of it is taken.
    refused, changed = better_of(true, lid, sightings)
    assert changed < 0.1 * difference
    assert np.abs(opening(refused, placement) - opening(true, placement)).max() < 1e-6


def test_a_hole_that_makes_the_pictures_worse_is_filled_again(scene):
    _, placement, grid, sightings = scene
    true = _colored(cup_field(grid, placement), sightings)
    where = places(grid, placement)
    pit = np.linalg.norm(where - np.array([0, FLOOR, 0]), axis=-1)
    hole = (0.12 - pit) / (placement.scale * grid.voxel)
    deeper = redistance(np.maximum(true.sdf, hole).astype(np.float32))
    worse = _colored(replace(true, sdf=deeper), sightings)
    dug = int(((true.sdf < 0) & (deeper >= 0)).sum())
    assert dug > 30
    found, changed = better_of(true, worse, sightings)
    assert changed < 0.2 * dug
    assert np.abs(opening(found, placement) - opening(true, placement)).max() < 1e-6


def test_crumbs_fall_away_but_what_was_apart_before_stays(scene, monkeypatch):
    _, placement, grid, sightings = scene
    nodes = np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float32)
    middle = np.array(grid.shape) / 2

    def solid(*balls):
        offsets = [np.linalg.norm(nodes - middle - place, axis=-1) - r for place, r in balls]
        return redistance(np.min(offsets, axis=0).astype(np.float32))

    # Less than a fiftieth of the large one, but apart from the start.
    small = (np.array([-14.0, 0, -14]), 2.0)
    before = solid((np.zeros(3), 10.0), small)
    # The large one is eaten down to a core and a crumb.
    after = solid((np.array([-2.0, 0, 0]), 7.7), (np.array([8.0, 0, 0]), 1.2), small)
    monkeypatch.setattr(cavities, "open_vessels", lambda sdf, sightings: iter(()))
    monkeypatch.setattr(cavities, "clear_fog", lambda sdf, sightings, seed: iter([after]))
    fitted = []

    def refit(field: Field, iterations: int):
        fitted.append(field.sdf.copy())
        yield 1

    start = cup_field(grid, placement)
    list(open_cavities(replace(start, sdf=before), sightings, refit, 1))
    inside = fitted[0] < 0
    crumb = np.linalg.norm(nodes - middle - np.array([8.0, 0, 0]), axis=-1) < 2.2
    assert (after < 0)[crumb].sum() > 0 and not inside[crumb].any()
    assert np.array_equal(inside[~crumb], (after < 0)[~crumb])
    assert inside[np.linalg.norm(nodes - middle - small[0], axis=-1) < 2].all()


def test_steps_count_up_and_a_round_without_use_ends(scene):
    _, placement, grid, sightings = scene
    true = _colored(cup_field(grid, placement), sightings)
    blank = replace(sightings, colors=np.full_like(sightings.colors, 0.5))
    steps = list(open_cavities(replace(true, sdf=true.sdf.copy()), blank, _no_refit, 3))
    done = [step for _, step in steps]
    assert done == sorted(done)
    assert done[-1] <= steps_of(1) - DIG_STEPS
    assert np.array_equal(steps[-1][0].sdf < 0, true.sdf < 0)


def test_what_the_fit_raises_comes_through(scene):
    _, placement, grid, sightings = scene

    def cancelled(field: Field, iterations: int):
        yield 1
        raise KeyboardInterrupt

    lid = _colored(cup_field(grid, placement, lid=True), sightings)
    with pytest.raises(KeyboardInterrupt):
        list(open_cavities(lid, sightings, cancelled, 1))


def test_digging_may_be_cancelled_and_counts_to_the_end(scene):
    views, placement, _, _ = scene
    quick = replace(SMALL, levels=(replace(SMALL.levels[0], iterations=3),), cavity_rounds=1)
    calls: list[tuple[int, int]] = []

    def cancel(done: int, total: int) -> None:
        calls.append((done, total))
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_surface(views, placement, quick, on_step=cancel)
    # Some counts come twice: at moments to cancel within a step.
    assert list(dict.fromkeys(calls)) == [(i, 3 + steps_of(1)) for i in range(11)]


def test_a_vessel_keeps_the_shape_that_was_chosen_and_takes_the_views_colours(scene, monkeypatch):
    _, placement, grid, sightings = scene
    true = cup_field(grid, placement)
    lid = _colored(cup_field(grid, placement, lid=True), sightings)
    monkeypatch.setattr(cavities, "open_vessels", lambda sdf, _: iter([sdf, true.sdf]))
    moved = []

    def refit(field: Field, iterations: int):
        moved.append(field)
        for iteration in range(iterations):
            field.sdf = field.sdf + np.float32(0.1)
            yield iteration + 1

    before = lid.sdf.copy()
    *_, (found, done) = open_cavities(lid, sightings, refit, 3)
    assert moved == [found]
    assert np.array_equal(found.sdf, true.sdf) and found.sdf is not true.sdf
    assert np.array_equal(found.colors, projected_colors(true.sdf, sightings))
    assert np.array_equal(lid.sdf, before)
    assert done < steps_of(3)


def test_vessels_are_left_alone_where_they_are_not_looked_for(scene, monkeypatch):
    _, placement, grid, sightings = scene
    true = cup_field(grid, placement)
    lid = _colored(cup_field(grid, placement, lid=True), sightings)
    monkeypatch.setattr(cavities, "open_vessels", lambda sdf, _: iter([sdf, true.sdf]))
    monkeypatch.setattr(cavities, "clear_fog", lambda sdf, *_: iter([sdf]))
    monkeypatch.setattr(cavities, "dig", lambda sdf, _: iter([sdf]))
    *_, (found, done) = open_cavities(lid, sightings, _no_refit, 1, vessels=False)
    assert np.array_equal(found.sdf < 0, lid.sdf < 0)
    assert done <= steps_of(1, vessels=False) < steps_of(1)


def test_the_same_seed_gives_the_same_cavity(scene):
    views, placement, _, _ = scene
    quick = replace(SMALL, levels=(Level(32, 48, 5),), cavity_rounds=1, rays=2048)
    first = fit_surface(views, placement, quick, seed=3)
    again = fit_surface(views, placement, quick, seed=3)
    assert np.array_equal(first.sdf, again.sdf)
    assert np.array_equal(first.colors, again.colors)
