import numpy as np
import pytest
import torch

from hi3d_core.cameras import Cameras, project
from hi3d_core.surface.field import Field
from hi3d_core.surface.hull import Grid
from hi3d_core.surface.priors import (
    AlignedDepths,
    PriorPoints,
    SurfacePriors,
    accumulate_prior_gradients,
    align_depths,
    render_depths,
)
from hi3d_core.surface.render import COLUMNS, SDF

from .synthetic import node_radii

NODES = 24


def _scene(dtype=np.float64):
    """A bumpy ball of 6.5 voxels, and points in, on and outside it with normals of any kind."""
    rng = np.random.default_rng(0)
    grid = Grid.covering(np.full(3, -0.6), np.full(3, 0.6), NODES)
    sdf = node_radii(grid) / grid.voxel - 6.5 + 0.1 * rng.normal(size=grid.shape)
    directions = rng.normal(size=(80, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    points = (NODES - 1) / 2 + directions * rng.uniform(3, 10, size=(80, 1))
    normals = directions + 0.5 * rng.normal(size=(80, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals[:10] = 0
    weights = rng.uniform(size=(2, 80))
    weights[1, :10] = 0
    slot = np.arange(NODES**3, dtype=np.int32).reshape(grid.shape)
    arrays = [a.astype(dtype) for a in (points, normals, *weights, sdf)]
    return arrays, slot


def _run(arrays, slot, depth_weight, normal_weight, chunks=2):
    sdf = arrays[-1]
    gradients = np.zeros((chunks, int(slot.max()) + 1, COLUMNS), sdf.dtype)
    loss = accumulate_prior_gradients(
        *arrays, slot, depth_weight, normal_weight, 2.0, 0.3, gradients
    )
    return loss, gradients.sum(axis=0)


@pytest.mark.parametrize(("depth_weight", "normal_weight"), [(0.7, 0.0), (0.0, 0.4), (0.7, 0.4)])
def test_gradient_against_finite_differences(depth_weight, normal_weight):
    arrays, slot = _scene()
    sdf = arrays[-1]
    loss, gradients = _run(arrays, slot, depth_weight, normal_weight)
    assert loss > 0
    strongest = np.argsort(-np.abs(gradients[:, SDF]))[:60]
    assert np.abs(gradients[strongest, SDF]).min() > 1e-3
    for node in strongest:
        at = np.unravel_index(node, sdf.shape)
        kept, found = sdf[at], []
        for step in (1e-6, -1e-6):
            sdf[at] = kept + step
            found.append(_run(arrays, slot, depth_weight, normal_weight)[0])
        sdf[at] = kept
        numeric = (found[0] - found[1]) / 2e-6
        assert gradients[node, SDF] == pytest.approx(numeric, rel=1e-5, abs=1e-7)


def test_single_precision_agrees_and_chunks_add_up():
    arrays, slot = _scene()
    singles, _ = _scene(np.float32)
    loss, gradients = _run(arrays, slot, 0.7, 0.4, chunks=1)
    for chunks in (1, 3):
        single_loss, single = _run(singles, slot, 0.7, 0.4, chunks)
        assert single_loss == pytest.approx(loss, rel=1e-4)
        assert np.allclose(single, gradients, atol=2e-4)
    assert (gradients[:, SDF + 1 :] == 0).all()


def test_points_beyond_the_limit_and_nodes_outside_the_band_are_left_alone():
    arrays, slot = _scene()
    points, sdf = arrays[0], arrays[-1]
    radii = np.linalg.norm(points - (NODES - 1) / 2, axis=1)
    far = np.abs(radii - 6.5) > 2.6
    assert far.sum() > 10
    kept = [np.ascontiguousarray(a[far]) for a in arrays[:4]]
    _, gradients = _run([*kept, sdf], slot, 0.7, 0.4)
    assert (gradients == 0).all()
    _, everything = _run(arrays, slot, 0.7, 0.4)
    thinned = np.where(slot % 2 == 0, slot // 2, -1).astype(np.int32)
    _, band = _run(arrays, thinned, 0.7, 0.4)
    assert np.allclose(band, everything[::2][: len(band)])


def _ball_views():
    cameras = Cameras.orbit(4, 20, width=96, height=96)
    grid = Grid.covering(np.full(3, -0.6), np.full(3, 0.6), 96)
    sdf = (node_radii(grid) - 0.4) / grid.voxel
    return cameras, grid, sdf.astype(np.float32)


def test_rendered_depths_of_a_ball_are_exact_and_zero_beside_it():
    cameras, grid, sdf = _ball_views()
    depths = render_depths(sdf, grid, cameras)
    aligned = AlignedDepths(depths, (depths > 0).astype(np.float32))
    points = PriorPoints.from_views(cameras, aligned, grid)
    world = points.points * grid.voxel + grid.origin
    assert np.abs(np.linalg.norm(world, axis=1) - 0.4).max() < 0.05 * grid.voxel
    # The share of a picture that a ball covers, from the cone of its tangents.
    focal = float(cameras.intrinsics[0, 0, 0])
    tangent = 0.4 / np.sqrt(1.5**2 - 0.4**2)
    assert (depths > 0).mean() == pytest.approx(np.pi * (focal * tangent) ** 2 / 96**2, rel=0.02)
    pixels, depth = project(torch.zeros(1, 3), cameras)
    middle = depths[0, int(pixels[0, 0, 1]), int(pixels[0, 0, 0])]
    assert middle == pytest.approx(float(depth[0, 0]) - 0.4, abs=2e-3)


def test_each_views_scale_and_offset_are_undone_despite_wild_errors():
    cameras, grid, sdf = _ball_views()
    depths = render_depths(sdf, grid, cameras)
    known = depths > 0
    inverse = np.where(known, 1 / np.where(known, depths, 1), 0)
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.2, 30, size=(4, 1, 1))
    relative = np.where(known, scale * inverse + rng.uniform(-5, 5, size=(4, 1, 1)), 0)
    # A quarter of every ball is wildly wrong, and all to one side.
    wrong = known & (np.arange(96) < 40)[None, None, :]
    relative = np.where(wrong, relative + 0.6 * scale * rng.uniform(0.5, 1, depths.shape), relative)
    aligned = align_depths(
        relative.astype(np.float32), depths, known.astype(np.float32), tolerance=0.02
    )
    right = known & ~wrong
    assert 0.15 < wrong.sum() / known.sum() < 0.5
    assert np.abs(aligned.depths[right] / depths[right] - 1).max() < 2e-3
    assert aligned.weights[right].min() > 0.95
    assert aligned.weights[wrong].max() == 0
    assert (aligned.weights[~known] == 0).all()


def test_maps_that_say_nothing_get_no_weight():
    cameras, grid, sdf = _ball_views()
    depths = render_depths(sdf, grid, cameras)
    known = depths > 0
    swapped = np.where(known, depths, 0)  # near is small: not what was asked for
    swapped[1] = 0.7  # flat
    masks = known.astype(np.float32)
    masks[2] = 0
    aligned = align_depths(swapped, depths, masks)
    assert (aligned.weights == 0).all()


def test_points_lie_where_the_cameras_say_and_carry_their_normals():
    cameras, grid, sdf = _ball_views()
    depths = render_depths(sdf, grid, cameras)
    normals = np.zeros((*depths.shape, 3), np.float32)
    normals[:2] = (0, 1, 0)
    weights = np.where(depths > 0, np.float32(0.5), 0).astype(np.float32)
    points = PriorPoints.from_views(cameras, AlignedDepths(depths, weights), grid, normals)
    assert len(points) == (depths > 0).sum()
    with_normal = points.normal_weights > 0
    assert with_normal.sum() == (depths[:2] > 0).sum()
    assert np.allclose(points.normals[with_normal], (0, 1, 0))
    world = torch.from_numpy(points.points * grid.voxel + grid.origin).float()
    first = int((depths[0] > 0).sum())
    pixels, depth = project(world[:first], cameras[[0]])
    assert torch.allclose(depth[0], torch.from_numpy(depths[0][depths[0] > 0]), atol=1e-4)
    rows, columns = np.nonzero(depths[0])
    expected = torch.from_numpy(np.stack([columns, rows], 1) + 0.5).float()
    assert torch.allclose(pixels[0], expected, atol=1e-2)
    batch = points.drawn(50, np.random.default_rng(0))
    assert [len(part) for part in batch] == [50] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inverse_depths": np.zeros((4, 8), np.float32)}, "expected"),
        ({"masks": np.ones((1, 8, 8), np.float32)}, "one map for each view"),
        ({"inverse_depths": np.full((2, 8, 8), np.nan, np.float32)}, "not finite"),
        ({"reference": np.full((2, 8, 8), -1, np.float32)}, "negative"),
        ({"tolerance": 0.0}, "tolerance"),
    ],
)
def test_bad_maps_are_refused(change, message):
    good = {
        name: np.ones((2, 8, 8), np.float32) for name in ("inverse_depths", "reference", "masks")
    }
    with pytest.raises(ValueError, match=message):
        align_depths(**{**good, **change})


def _ball_field():
    cameras, grid, sdf = _ball_views()
    field = Field(grid, sdf, np.zeros((*grid.shape, 3), "f4"), np.zeros(grid.shape, "f4"))
    depths = render_depths(sdf, grid, cameras)
    return cameras, field, depths, (depths > 0).astype(np.float32)


def test_priors_are_laid_on_the_field_as_it_is_now():
    cameras, field, depths, masks = _ball_field()
    inverse = np.where(depths > 0, 7 / np.where(depths > 0, depths, 1) + 3, 0).astype(np.float32)
    priors = SurfacePriors(cameras, masks, inverse)
    points = priors.points(field)
    assert len(points) > 0.95 * masks.sum()
    off = np.linalg.norm(points.points * field.grid.voxel + field.grid.origin, axis=1) - 0.4
    assert np.abs(off).max() < 0.1 * field.grid.voxel
    assert (points.normal_weights == 0).all()
    # A field of another size: the same maps, but other points.
    smaller = Field(field.grid, field.sdf + 3, field.colors, field.seen)
    other = priors.points(smaller)
    radii = np.linalg.norm(other.points * field.grid.voxel + field.grid.origin, axis=1)
    assert np.median(radii) == pytest.approx(0.4 - 3 * field.grid.voxel, abs=field.grid.voxel)


def test_normals_alone_pull_at_the_surface_and_say_nothing_of_depth():
    cameras, field, depths, masks = _ball_field()
    masks[2] = 0.5  # not surely the object
    normals = np.zeros((*depths.shape, 3), np.float32)
    normals[..., 1] = 1
    points = SurfacePriors(cameras, masks, normals=normals).points(field)
    assert len(points) == (masks == 1).sum()
    assert (points.depth_weights == 0).all()
    assert (points.normal_weights == 1).all()
    assert (points.normals == (0, 1, 0)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inverse_depths": None}, "neither depths nor normals"),
        ({"masks": np.ones((4, 8, 8), np.float32)}, "masks are"),
        ({"inverse_depths": np.ones((3, 96, 96), np.float32)}, "inverse depths are"),
    ],
)
def test_priors_of_other_views_are_refused(change, message):
    maps = np.ones((4, 96, 96), np.float32)
    cameras = Cameras.orbit(4, 20, width=96, height=96)
    with pytest.raises(ValueError, match=message):
        SurfacePriors(**{"cameras": cameras, "masks": maps, "inverse_depths": maps, **change})
