"""The hand-written gradients against finite differences, in double precision."""

import numpy as np
import pytest

from hi3d_core.surface.hull import Grid
from hi3d_core.surface.optimize import regularizer_gradient
from hi3d_core.surface.render import COLUMNS, RED, SDF, SEEN, accumulate_gradients

from .synthetic import node_radii

NODES = 24


def _scene(seed: int = 0):
    """A bumpy ball of 5.5 voxels in the middle of a grid, and rays that hit, graze and miss."""
    rng = np.random.default_rng(seed)
    grid = Grid.covering(np.full(3, -0.6), np.full(3, 0.6), NODES)
    sdf = node_radii(grid) / grid.voxel - 5.5 + 0.1 * rng.normal(size=grid.shape)
    colors = rng.uniform(size=(*grid.shape, 3))
    count = 60
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    aim = rng.uniform(-7, 7, size=(count, 3)) + (NODES - 1) / 2
    rays = (
        aim - 30 * directions,
        directions,
        rng.uniform(size=(count, 3)),
        rng.uniform(size=count),
        rng.uniform(0.1, 1, size=count),
    )
    slot = np.arange(NODES**3, dtype=np.int32).reshape(grid.shape)
    return sdf, colors, slot, rays


def _run(sdf, colors, slot, rays, sharpness):
    gradients = np.zeros((2, NODES**3, COLUMNS))
    rendered = np.empty((len(rays[0]), 4))
    loss = accumulate_gradients(*rays, sdf, colors, slot, sharpness, 0.3, 0.05, gradients, rendered)
    return loss, gradients.sum(axis=0), rendered


def _differences(function, values, nodes, step=1e-5):
    found = []
    for node in nodes:
        kept = values[node]
        values[node] = kept + step
        high = function()
        values[node] = kept - step
        low = function()
        values[node] = kept
        found.append((high - low) / (2 * step))
    return np.array(found)


@pytest.mark.parametrize("sharpness", [1.5, 6.0])
def test_colour_gradient(sharpness):
    sdf, colors, slot, rays = _scene()
    _, gradients, _ = _run(sdf, colors, slot, rays, sharpness)
    strongest = np.argsort(-np.abs(gradients[:, RED + 1]))[:40]
    nodes = [(*np.unravel_index(n, sdf.shape), 1) for n in strongest]
    numeric = _differences(lambda: _run(sdf, colors, slot, rays, sharpness)[0], colors, nodes)
    assert np.allclose(gradients[strongest, RED + 1], numeric, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("sharpness", [1.5, 6.0])
def test_distance_gradient(sharpness):
    sdf, colors, slot, rays = _scene()
    # One colour everywhere: where along a segment the colour is looked up follows the distances,
    # a path that the method leaves out of the gradient on purpose.
    colors[:] = (0.2, 0.5, 0.7)
    _, gradients, _ = _run(sdf, colors, slot, rays, sharpness)
    # Rays jump by the distance far from the surface, which moves their samples: stay near it.
    eligible = np.where(np.abs(sdf).ravel() < 1.0, np.abs(gradients[:, SDF]), 0)
    strongest = np.argsort(-eligible)[:40]
    nodes = [np.unravel_index(n, sdf.shape) for n in strongest]
    numeric = _differences(lambda: _run(sdf, colors, slot, rays, sharpness)[0], sdf, nodes, 1e-6)
    error = np.abs(gradients[strongest, SDF] - numeric)
    # A sample entering or leaving a cut-off changes a few; the rest agree closely.
    assert np.median(error / np.abs(numeric)) < 1e-5
    assert (error < 1e-3 * np.abs(numeric)).mean() > 0.9


def test_trust_scales_a_rays_loss_and_gradients_and_not_what_it_shows():
    sdf, colors, slot, rays = _scene()
    *given, trust = rays
    loss, gradients, rendered = _run(sdf, colors, slot, (*given, trust), 6.0)
    half, halved, same = _run(sdf, colors, slot, (*given, trust / 2), 6.0)
    assert half == pytest.approx(loss / 2)
    assert np.allclose(halved[:, :SEEN], gradients[:, :SEEN] / 2, atol=1e-12)
    assert np.array_equal(same, rendered)
    assert np.array_equal(halved[:, SEEN], gradients[:, SEEN])
    # A ray without trust may as well not be there.
    kept = trust > 0.5
    _, masked, _ = _run(sdf, colors, slot, (*given, trust * kept), 6.0)
    _, left, _ = _run(sdf, colors, slot, tuple(part[kept] for part in rays), 6.0)
    assert np.allclose(masked[:, :SEEN], left[:, :SEEN], atol=1e-12)


def test_a_sharp_ball_renders_opaque_in_its_own_colour_and_misses_are_white():
    sdf, colors, slot, rays = _scene()
    colors[:] = (0.2, 0.5, 0.7)
    grid = Grid.covering(np.full(3, -0.6), np.full(3, 0.6), NODES)
    sdf = node_radii(grid) / grid.voxel - 5.5
    _, gradients, rendered = _run(sdf, colors, slot, rays, 20.0)
    centre = (NODES - 1) / 2
    to_centre = centre - rays[0]
    along = (to_centre * rays[1]).sum(axis=1, keepdims=True)
    miss = np.linalg.norm(to_centre - along * rays[1], axis=1)
    hits, misses = miss < 4.5, miss > 6.5
    assert hits.sum() >= 5 and misses.sum() >= 5
    assert np.allclose(rendered[hits], [0.2, 0.5, 0.7, 1], atol=5e-3)
    assert np.allclose(rendered[misses], [1, 1, 1, 0], atol=5e-3)
    # What was seen adds up to what the rays' opacity was, but for those that graze the rim.
    assert gradients[:, SEEN].sum() == pytest.approx(rendered[:, 3].sum(), rel=5e-3)


def test_regulariser_gradient():
    rng = np.random.default_rng(1)
    sdf = np.cumsum(rng.normal(1, 0.3, size=(12, 12, 12)), axis=0)

    def energy() -> float:
        inner = sdf[1:-1, 1:-1, 1:-1]
        total = 0.0
        slopes = []
        for axis in range(3):
            up = np.roll(sdf, -1, axis)[1:-1, 1:-1, 1:-1]
            down = np.roll(sdf, 1, axis)[1:-1, 1:-1, 1:-1]
            slopes.append((up - down) / 2)
            total += 0.7 * ((up - 2 * inner + down) ** 2).sum()
        norm = np.sqrt(sum(s**2 for s in slopes))
        return total + 0.4 * ((norm - 1) ** 2).sum()

    nodes = [(6, 6, 6), (4, 7, 5), (7, 5, 4)]
    numeric = _differences(energy, sdf, nodes)
    found = [regularizer_gradient(sdf, *node, 0.4, 0.7) for node in nodes]
    assert np.allclose(found, numeric, rtol=1e-6)
