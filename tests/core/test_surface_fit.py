import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from hi3d_core.cameras import Cameras
from hi3d_core.surface import fit
from hi3d_core.surface.extract import extract_mesh
from hi3d_core.surface.field import Field
from hi3d_core.surface.fit import Level, SurfaceConfig, fit_surface
from hi3d_core.surface.hull import Grid, Placement, locate

from .synthetic import node_radii, sphere_color, sphere_views

SMALL = SurfaceConfig(levels=(Level(24, 64, 30), Level(48, 128, 40)), rays=8192)


def _solid(mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


def test_an_exact_field_gives_an_exact_closed_sphere():
    grid = Grid.covering(np.full(3, -0.6), np.full(3, 0.6), 65)
    mesh = _solid(extract_mesh(Field.from_distance(grid, (node_radii(grid) - 0.4).astype("f4"))))
    assert mesh.is_watertight
    assert mesh.euler_number == 2
    assert mesh.area == pytest.approx(4 * math.pi * 0.4**2, rel=0.01)
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.4**3, rel=0.01)  # positive: outward


def test_an_empty_field_is_refused():
    grid = Grid.covering(np.full(3, -0.6), np.full(3, 0.6), 16)
    field = Field(grid, np.ones(grid.shape, "f4"), np.zeros((16, 16, 16, 3), "f4"), np.zeros(1))
    with pytest.raises(ValueError, match="empty"):
        extract_mesh(field)


@pytest.fixture(scope="module")
def orbit():
    views = sphere_views(Cameras.orbit(12, 10, width=128, height=128))
    placement = locate(views)
    local = replace(views, cameras=views.cameras.in_frame(placement.center, placement.scale))
    return local, placement


def test_a_sphere_comes_back_with_its_shape_and_colours(orbit):
    views, placement = orbit
    field = fit_surface(views, placement, SMALL)
    mesh = extract_mesh(field).from_frame(placement.center, placement.scale)
    solid = _solid(mesh)
    assert solid.is_watertight
    # The zone that an orbit at ten degrees sees from the side.
    zone = mesh.vertices[mesh.vertices[:, 1].abs() < 0.3]
    voxel = field.grid.voxel * placement.scale
    assert (zone.norm(dim=1) - 0.4).abs().mean() < 0.2 * voxel
    near = np.argwhere(np.abs(field.sdf) < 0.5)
    points = field.grid.origin + field.grid.voxel * near
    world = torch.from_numpy(points) * placement.scale + placement.center
    seen = world[:, 1].abs() < 0.2
    expected = sphere_color(torch.nn.functional.normalize(world[seen], dim=1))
    found = torch.from_numpy(field.colors[tuple(near.T)])[seen]
    assert (found - expected).abs().mean() < 0.04


def test_a_mask_that_cuts_a_piece_off_is_overruled_where_it_is_not_trusted(orbit):
    views, placement = orbit
    alphas, images = views.alphas.clone(), views.images.clone()
    alphas[0, 56:72, 40:88], images[0, 56:72, 40:88] = 0, 1
    cut = replace(views, alphas=alphas, images=images)
    # A hull of that mask would be cut through before the fit begins.
    config = replace(SMALL, slack_pixels=4, cavity_rounds=0)
    trust = np.ones(tuple(alphas.shape), "f4")
    trust[0, 52:76, 36:92] = 0
    believed = fit_surface(cut, placement, config)
    doubted = fit_surface(cut, placement, config, trust=trust)
    whole = fit_surface(views, placement, config)
    inside = whole.sdf < -1
    assert (believed.sdf[inside] > 0).mean() > 0.02
    assert (doubted.sdf[inside] > 0).mean() < 0.002
    with pytest.raises(ValueError, match="trust is"):
        fit_surface(cut, placement, config, trust=trust[:, ::2, ::2])


def test_the_unseen_underside_is_flatter_than_the_hulls_cone(monkeypatch):
    # From above, the hull of a ball hangs down in a cone that no view sees.
    views = sphere_views(Cameras.orbit(12, 35, width=128, height=128))
    placement = locate(views)
    local = replace(views, cameras=views.cameras.in_frame(placement.center, placement.scale))
    frozen = replace(SMALL, curvature_rate=0.0)

    def lowest(config: SurfaceConfig) -> float:
        mesh = extract_mesh(fit_surface(local, placement, config))
        return float(mesh.from_frame(placement.center, placement.scale).vertices[:, 1].min())

    relaxed = lowest(SMALL)
    monkeypatch.setattr(fit, "relax_hidden", lambda *arguments: None)
    cone = lowest(frozen)
    assert cone < -0.43
    assert relaxed > cone + 0.01


def test_the_same_seed_gives_the_same_field(orbit):
    views, placement = orbit
    quick = SurfaceConfig(levels=(Level(24, 64, 10),), rays=4096)
    first = fit_surface(views, placement, quick, seed=5)
    again = fit_surface(views, placement, quick, seed=5)
    assert np.array_equal(first.sdf, again.sdf)
    assert not np.array_equal(first.sdf, fit_surface(views, placement, quick, seed=6).sdf)


def test_on_step_counts_to_the_end_and_may_cancel(orbit):
    views, placement = orbit
    quick = SurfaceConfig(
        levels=(Level(16, 64, 3), Level(24, 64, 4)), rays=1024, cavity_rounds=0, sweeps=0
    )
    calls = []
    fit_surface(views, placement, quick, on_step=lambda done, total: calls.append((done, total)))
    assert list(dict.fromkeys(calls)) == [(i, 7) for i in range(8)]

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_surface(views, placement, quick, on_step=cancel)


def test_no_levels_are_refused():
    with pytest.raises(ValueError, match="levels is empty"):
        SurfaceConfig(levels=())


def test_views_in_between_never_carve_the_hull(orbit):
    # Two rendered views in between that show nothing: as given views they would empty the hull.
    views, placement = orbit
    # Surface that doesn't step stays the hull.
    quick = SurfaceConfig(levels=(Level(24, 64, 10),), rays=1 << 20, sdf_rate=0.0, cavity_rounds=0)
    nothing = replace(
        views[[0, 1]], images=torch.ones(2, 128, 128, 3), alphas=views.alphas[:2].clamp(max=0.03)
    )
    alone = fit_surface(views, placement, quick)
    joined = fit_surface(views, placement, quick, between=nothing, between_share=0.1)
    assert (joined.sdf < 0).sum() > 0.99 * (alone.sdf < 0).sum()


def test_placement_grid_leaves_room_around_the_object():
    placement = Placement(torch.zeros(3), 1.0, (0.5, 0.2, 0.3))
    grid = placement.grid(64)
    high = grid.origin + grid.voxel * (np.array(grid.shape) - 1)
    assert max(grid.shape) == 64
    assert (grid.origin < -np.array([0.5, 0.2, 0.3]) - 2 * grid.voxel).all()
    assert (high > np.array([0.5, 0.2, 0.3]) + 2 * grid.voxel).all()
