"""A surface that lies far from where the views agree, found again; and plain ones, spanned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from hi3d_core.datatypes import OrbitViews
from hi3d_core.surface import fairing, sweep
from hi3d_core.surface.consistency import Sightings, projected_colors
from hi3d_core.surface.fairing import Rims
from hi3d_core.surface.field import Field, redistance
from hi3d_core.surface.fit import Level, fit_surface
from hi3d_core.surface.hull import FloatArray, Grid, Placement, silhouette_distances
from hi3d_core.surface.rays import Rays
from hi3d_core.surface.recolor import COLORING_ITERATIONS
from hi3d_core.surface.sweep import (
    SWEEP_STEPS,
    _facing,
    _Pinholes,
    _Surface,
    sweep_surface,
    swept,
)

from .cavity_scenes import SMALL, orbit_at, placed, places
from .texture_scenes import ball, mesh_of, views_of

RADIUS, SIDE, PATCH = 0.45, 0.35, 0.15


def grain(points: torch.Tensor) -> torch.Tensor:
    phase = torch.tensor([0.0, 1.0, 2.0])
    fine = torch.sin(61 * points + phase) * torch.sin(47 * points.roll(1, -1) - phase)
    return 0.5 + 0.3 * fine * torch.cos(33 * points.roll(2, -1))


def plain(points: torch.Tensor) -> torch.Tensor:
    return torch.full_like(points, 0.6)


def with_seams(points: torch.Tensor) -> torch.Tensor:
    """One colour, and eight dark lines from pole to pole, half a pixel or so wide."""
    azimuths = torch.atan2(points[..., 0], points[..., 2])
    away = points[..., [0, 2]].norm(dim=-1) * torch.sin(4 * azimuths).abs() / 4
    return torch.where((away < 0.004)[..., None], 0.1, plain(points))


def with_a_plain_patch(points: torch.Tensor) -> torch.Tensor:
    """Grain, but one colour in the middle of what faces +Z."""
    in_front = (points[..., :2].abs().amax(dim=-1) < PATCH) & (points[..., 2] > 0.2)
    return torch.where(in_front[..., None], plain(points), grain(points))


def seen(mesh, paint) -> tuple[OrbitViews, Placement]:
    return placed(views_of(mesh, orbit_at(15, 192, 16), paint, fine=2))


def box():
    return mesh_of(trimesh.creation.box([2 * SIDE] * 3))


def ball_distance(where: FloatArray) -> FloatArray:
    return np.linalg.norm(where, axis=-1) - RADIUS


def box_distance(where: FloatArray, sides: float | FloatArray = SIDE) -> FloatArray:
    beyond = np.abs(where) - sides
    outside = np.linalg.norm(np.maximum(beyond, 0), axis=-1)
    return outside + np.minimum(beyond.max(axis=-1), 0)


def in_voxels(distance, grid: Grid, placement: Placement) -> FloatArray:
    values = distance(places(grid, placement)) / (placement.scale * grid.voxel)
    return redistance(values.astype(np.float32))


def dented(sdf: FloatArray, grid: Grid, placement: Placement, depth: float) -> FloatArray:
    """With a smooth dent or, below 0, a bump towards +Z, `depth` voxels in its middle."""
    where = places(grid, placement)
    away = np.hypot(where[..., 0], where[..., 1]) / 0.15
    dent = depth * np.exp(-(away**2)) * (where[..., 2] > 0)
    return redistance((sdf + dent).astype(np.float32))


def off_in_front(sdf: FloatArray, true: FloatArray, grid: Grid, placement: Placement) -> float:
    """Mean distance of two surfaces, in the middle of what faces +Z."""
    where = places(grid, placement)
    near = (np.abs(true) < 1) & (where[..., 2] > 0)
    near &= np.hypot(where[..., 0], where[..., 1]) < 0.1
    return float(np.abs(sdf - true)[near].mean())


def go_on() -> None:
    """Nothing is cancelled."""


@pytest.mark.parametrize("depth", [2.5, -2.5], ids=["dent", "bump"])
@pytest.mark.parametrize(
    ("mesh", "distance"), [(ball(), ball_distance), (box(), box_distance)], ids=["ball", "box"]
)
def test_surface_far_from_where_the_views_agree_comes_back(mesh, distance, depth):
    views, placement = seen(mesh, grain)
    grid = placement.grid(48)
    true = in_voxels(distance, grid, placement)
    start = dented(true, grid, placement, depth)
    before = start.copy()
    found = swept(start, grid, views, go_on)
    assert off_in_front(start, true, grid, placement) > 1.5
    assert off_in_front(found, true, grid, placement) < 0.25
    assert np.array_equal(start, before)


def off_when_begun_in_place(mesh, paint, distance) -> tuple[FloatArray, FloatArray]:
    """How far the truth is moved, voxels, at nodes near it where views look; their places."""
    views, placement = seen(mesh, paint)
    grid = placement.grid(48)
    true = in_voxels(distance, grid, placement)
    found = swept(true, grid, views, go_on)
    where = places(grid, placement)
    near = (np.abs(true) < 1) & (where[..., 1] > -0.15)  # below, no view looks
    return np.abs(found - true)[near], where[near]


def test_a_surface_in_its_place_stays_there():
    off, _ = off_when_begun_in_place(ball(), grain, ball_distance)
    assert off.mean() < 0.1


def test_thin_lines_on_plain_paint_do_not_sink():
    # Further inside, all views show plain paint, and agree on it.
    off, where = off_when_begun_in_place(ball(), with_seams, ball_distance)
    assert off[where[:, 1] < 0.25].mean() < 0.2


def test_what_lies_beside_a_thin_thing_is_no_part_of_it():
    sides = np.array([0.04, 0.4, 0.08])
    thin = mesh_of(trimesh.creation.box(2 * sides))
    off, _ = off_when_begun_in_place(thin, grain, lambda where: box_distance(where, sides))
    assert off.mean() < 0.1


def test_what_the_views_say_nothing_of_stays_flat():
    off, _ = off_when_begun_in_place(box(), plain, box_distance)
    assert off.mean() < 0.25


def test_plain_paint_is_spanned_from_what_lies_around_it():
    views, placement = seen(box(), with_a_plain_patch)
    grid = placement.grid(48)
    true = in_voxels(box_distance, grid, placement)
    start = dented(true, grid, placement, 2.5)
    found = swept(start, grid, views, go_on)
    before = off_in_front(start, true, grid, placement)
    assert off_in_front(found, true, grid, placement) < 0.4 * before


def test_one_colour_all_over_is_held_up_by_its_silhouettes(monkeypatch):
    views, placement = seen(ball(), plain)
    grid = placement.grid(48)
    true = in_voxels(ball_distance, grid, placement)

    def kept() -> float:
        inside, now = (
            np.clip(0.5 - d, 0, 1).sum() for d in (true, swept(true, grid, views, go_on))
        )
        return now / inside

    held = kept()
    monkeypatch.setattr(fairing, "_HOLD", 0.0)
    loose = kept()
    assert held > 0.93
    assert loose < held - 0.05


def test_each_ray_is_held_up_by_what_sank_least():
    rims = Rims(np.array([0, 1, 2, 1, 3]), np.array([0, 0, 1, 1, 2]))
    held = rims.held(np.array([-2.0, -1.0, -0.5, -1.0, 0.0]))
    assert held.tolist() == [False, True, True, True, False]


def test_rims_are_vertices_at_silhouettes_edges():
    views, placement = seen(ball(), plain)
    two = [0, 5]
    views = OrbitViews(views.images[two], views.alphas[two], views.cameras[two])
    grid = placement.grid(48)
    cameras = _Pinholes.of(views, grid)
    surface = _Surface.of(in_voxels(ball_distance, grid, placement))
    insides = silhouette_distances(views.alphas)
    pixel = cameras.pixel_at(surface.vertices)
    rims = Rims.of(surface.vertices, cameras.projections, insides, pixel)
    # An eye at distance D sees the rim of a ball where normal and line of sight are at a right
    # angle; an edge's width away from it, by _RIM voxels, the cosine is the root of 2 _RIM / R.
    radius = RADIUS / (placement.scale * grid.voxel)
    sight = cameras.eyes[:, None] - surface.vertices
    sight /= np.linalg.norm(sight, axis=-1, keepdims=True)
    cosines = np.abs((sight * surface.normals).sum(axis=-1))
    beside = cosines.min(axis=0) < 0.5 * np.sqrt(2 * fairing._RIM / radius)
    far = cosines.min(axis=0) > 1.5 * np.sqrt(2 * fairing._RIM / radius)
    on_rim = np.isin(np.arange(len(surface.vertices)), rims.vertices)
    assert beside.sum() > 100 and far.sum() > 100
    assert on_rim[beside].all() and not on_rim[far].any()
    assert np.array_equal(np.unique(rims.rays), np.arange(rims.rays.max() + 1))


def test_the_field_takes_the_shape_that_was_found_and_the_views_colours():
    views, placement = seen(ball(), grain)
    grid = placement.grid(48)
    true = in_voxels(ball_distance, grid, placement)
    start = dented(true, grid, placement, 2.5)
    sightings = Sightings.of(Rays.from_views(views, 96).in_grid(grid))
    field = Field(grid, start, np.full((*grid.shape, 3), 0.5, "f4"), np.ones(grid.shape, "f4"))

    def refit(moving: Field, iterations: int):
        for iteration in range(iterations):
            moving.sdf = moving.sdf + np.float32(0.1)
            moving.seen += 1
            yield iteration + 1

    steps = list(sweep_surface(field, views, sightings, refit, go_on))
    assert [step for _, step in steps] == list(range(1, SWEEP_STEPS + 1))
    assert all(found is field for found, _ in steps[:-1])
    found = steps[-1][0]
    shape = swept(start, grid, views, go_on)
    assert np.array_equal(found.sdf, shape)
    assert np.array_equal(found.colors, projected_colors(shape, sightings))
    assert (found.seen == COLORING_ITERATIONS).all()
    assert np.array_equal(field.sdf, start)


def test_a_search_may_be_cancelled():
    views, placement = seen(ball(), grain)
    grid = placement.grid(48)
    true = in_voxels(ball_distance, grid, placement)
    calls = []

    def cancel() -> None:
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swept(true, grid, views, cancel)


def test_nothing_inside_stays_nothing():
    views, placement = seen(ball(), grain)
    grid = placement.grid(24)
    nothing = np.ones(grid.shape, np.float32)
    assert swept(nothing, grid, views, go_on) is nothing


@pytest.mark.parametrize(("levels", "sweeps"), [(1, 0), (2, 1), (3, 2)])
def test_all_levels_but_the_last_are_swept_and_counted(levels, sweeps, monkeypatch):
    views, placement = seen(ball(), grain)
    swept_grids, counts = [], []

    def nowhere(sdf, grid, views, alive):
        swept_grids.append(grid.shape[1])
        return sdf

    monkeypatch.setattr(sweep, "swept", nowhere)
    ladder = tuple(Level(nodes, 48, 3) for nodes in (16, 20, 24)[:levels])
    config = replace(SMALL, levels=ladder, rays=1024)
    fit_surface(views, placement, config, on_step=lambda *step: counts.append(step))
    assert swept_grids == [placement.grid(each.nodes).shape[1] for each in ladder[:sweeps]]
    total = 3 * levels + sweeps * SWEEP_STEPS
    assert counts[-1] == (total, total)


def test_a_place_behind_another_is_not_seen():
    axes = np.stack(np.meshgrid(*[np.arange(48.0)] * 3, indexing="ij"), axis=-1)
    front, back = np.array([24.0, 24, 34]), np.array([24.0, 24, 14])
    balls = [np.linalg.norm(axes - middle, axis=-1) - 5 for middle in (front, back)]
    sdf = np.minimum(*balls).astype(np.float32)
    poles = np.stack([front, back]) + np.array([0, 0, 5])
    normals = np.array([[0, 0, 1.0]] * 2)
    eyes = np.array([[24.0, 24, 120], [60, 24, 60]])
    facing = _facing(*(each.astype(np.float32) for each in (poles, normals, eyes)), sdf)
    # Straight from above one hides the other; from the side both are in sight.
    assert facing[0, 0] == pytest.approx(1) and facing[1, 0] == 0
    sights = eyes[1] - poles
    assert facing[:, 1] == pytest.approx(sights[:, 2] / np.linalg.norm(sights, axis=1), abs=1e-5)


def test_the_matrix_is_that_of_the_plate_and_the_membrane():
    made = trimesh.creation.icosphere(1, 3.0)
    vertices, normals = np.array(made.vertices), np.array(made.vertex_normals)
    stiffness, pull = fairing._stiffness(vertices, np.array(made.faces), normals)
    laplacian = np.zeros((len(vertices), len(vertices)))
    for a, b in made.edges_unique:
        laplacian[[a, b], [b, a]] += 1 / 6
        laplacian[[a, b], [a, b]] -= 1 / 6

    def energy(moves):
        moved = vertices + moves[:, None] * normals
        bent = laplacian @ moved
        return fairing._BENDING / 2 * (bent**2).sum() - fairing._AREA / 2 * (moved * bent).sum()

    moves = np.random.default_rng(0).normal(size=len(vertices))
    steps = 1e-5 * np.eye(len(vertices))
    slope = [(energy(moves + step) - energy(moves - step)) / 2e-5 for step in steps]
    assert stiffness @ moves - pull == pytest.approx(np.array(slope), abs=1e-7)
