"""Fog inside a cup that silhouettes close, and inside what really is solid."""

from dataclasses import replace

import numpy as np
import pytest

from hi3d_core.surface import fog
from hi3d_core.surface.consistency import Sightings
from hi3d_core.surface.fog import FOG_STEPS, clear_fog
from hi3d_core.surface.rays import Rays

from .cavity_scenes import FLOOR, INNER, LOW, OUTER, cup, cup_field, from_above, placed, places
from .texture_scenes import ball


@pytest.fixture(scope="module")
def scene():
    views, placement = placed(from_above(cup()))
    grid = placement.grid(40)
    return placement, grid, Sightings.of(Rays.from_views(views, 96).in_grid(grid))


@pytest.fixture(scope="module")
def cleared(scene):
    placement, grid, sightings = scene
    start = cup_field(grid, placement, lid=True).sdf
    before = start.copy()
    steps = list(clear_fog(start, sightings, seed=0))
    assert np.array_equal(start, before)
    return start, steps


def test_it_clears_the_cups_opening_and_leaves_the_cup(scene, cleared):
    placement, grid, _ = scene
    start, steps = cleared
    assert len(steps) == FOG_STEPS
    assert all(step is start for step in steps[:-1])
    where = places(grid, placement)
    radius, height = np.hypot(where[..., 0], where[..., 2]), where[..., 1]
    voxel = grid.voxel * placement.scale
    hollow = (radius < INNER - 2 * voxel) & (height > FLOOR + 2 * voxel) & (start < 0)
    wall = (np.abs(radius - (INNER + OUTER) / 2) < 0.02) & (np.abs(height) < 0.1)
    base = (height < FLOOR - voxel) & (height > LOW + voxel) & (start < -1)
    assert hollow.sum() > 500 and wall.sum() > 100 and base.sum() > 500
    assert (steps[-1][hollow] > 0).mean() > 0.85
    assert (steps[-1][wall] < 0).mean() > 0.9
    assert (steps[-1][base] < 0).mean() > 0.97


def test_what_it_leaves_lies_within_the_start_and_is_a_distance(cleared):
    start, steps = cleared
    left = steps[-1]
    assert not ((left < 0) & (start > 0.01)).any()
    near = np.abs(left[2:-2, 2:-2, 2:-2]) < 3
    slope = np.sqrt(sum(np.gradient(left, axis=a)[2:-2, 2:-2, 2:-2] ** 2 for a in range(3)))
    assert np.median(slope[near]) == pytest.approx(1, abs=0.05)


def test_a_solid_stays_solid():
    views, placement = placed(from_above(ball()))
    grid = placement.grid(40)
    sightings = Sightings.of(Rays.from_views(views, 96).in_grid(grid))
    where = places(grid, placement)
    start = ((np.linalg.norm(where, axis=-1) - 0.45) / (grid.voxel * placement.scale)).astype("f4")
    *_, left = clear_fog(start, sightings, seed=0)
    deep = start < -2
    # The inside is dark, so nothing is known of it, and it stays.
    assert (left[deep] < 0).mean() > 0.99


def test_the_same_seed_gives_the_same_fog(scene, cleared):
    _, _, sightings = scene
    start, steps = cleared
    *_, again = clear_fog(start, sightings, seed=0)
    *_, other = clear_fog(start, sightings, seed=1)
    assert np.array_equal(steps[-1], again)
    assert not np.array_equal(steps[-1], other)


def test_untrusted_views_say_nothing(scene, cleared):
    _, _, sightings = scene
    start, _ = cleared
    nothing = replace(sightings, trust=np.zeros_like(sightings.trust))
    *_, left = clear_fog(start, nothing, seed=0)
    *_, same = clear_fog(start, replace(nothing, alphas=1 - sightings.alphas), seed=0)
    assert np.array_equal(left, same)
    # Fog as thin as it began is not solid.
    assert (left > 0).all()


def test_gradients():
    rng = np.random.default_rng(0)
    shape, count = (14, 14, 14), 30
    start = np.full(shape, -1.0)
    values = rng.uniform(0.05, 0.5, size=(*shape, 4))
    slot = np.arange(14**3, dtype=np.int32).reshape(shape)
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rays = (
        rng.uniform(4, 9, size=(count, 3)) - 20 * directions,
        directions,
        rng.uniform(-1, 1, size=(count, 3)),
        rng.uniform(size=count),
        rng.uniform(0.1, 1, size=count),
    )

    def loss(gradients=None) -> float:
        out = np.zeros((2, 14**3, 5)) if gradients is None else gradients
        return fog._accumulate(*rays, np.array([1.5, 1.2, 0.9]), start, values, slot, 0.9, out)

    gradients = np.zeros((2, 14**3, 5))
    loss(gradients)
    found = gradients.sum(axis=0)
    for column in range(4):
        strongest = np.argsort(-np.abs(found[:, column]))[:25]
        numeric = []
        for node in strongest:
            at = (*np.unravel_index(node, shape), column)
            kept = values[at]
            values[at] = kept + 1e-5
            high = loss()
            values[at] = kept - 1e-5
            numeric.append((high - loss()) / 2e-5)
            values[at] = kept
        assert np.allclose(found[strongest, column], numeric, rtol=1e-4, atol=1e-7)
