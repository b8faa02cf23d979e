import numpy as np

from hi3d_core.surface.field import Field, close_border, find_band, redistance
from hi3d_core.surface.hull import Grid


def _grid(nodes: int) -> Grid:
    return Grid.covering(np.full(3, -0.6), np.full(3, 0.6), nodes)


def _radii(grid: Grid) -> np.ndarray:
    axes = [grid.origin[a] + grid.voxel * np.arange(grid.shape[a]) for a in range(3)]
    return np.sqrt(sum(x**2 for x in np.meshgrid(*axes, indexing="ij")))


def test_redistance_recovers_a_spheres_distance_from_a_distorted_field():
    grid = _grid(65)
    true = ((_radii(grid) - 0.4) / grid.voxel).astype(np.float32)
    distorted = (true * (1.5 + 0.3 * np.sin(true))).astype(np.float32)  # same zero level and signs
    found = redistance(distorted)
    near = np.abs(true) < 5
    # First-order sweeping from a distorted start: a tenth of a voxel near the surface.
    assert np.abs(found - true)[near].mean() < 0.1
    assert np.abs(found - true).max() < 0.05 * np.abs(true).max() + 0.6
    assert ((found < 0) == (true < 0)).all()


def test_redistance_keeps_the_zero_level_where_it_is():
    grid = _grid(49)
    true = ((_radii(grid) - 0.33) / grid.voxel).astype(np.float32)
    twice = redistance(redistance(true))
    beside = np.abs(true) < 0.5
    assert np.abs(twice - true)[beside].max() < 0.08


def test_a_closed_border_is_outside():
    sdf = close_border(np.full((8, 9, 10), -5.0, np.float32))
    inner = np.zeros(sdf.shape, bool)
    inner[2:-2, 2:-2, 2:-2] = True
    assert (sdf[~inner] > 0).all()
    assert (sdf[inner] == -5).all()


def test_resampling_to_a_finer_grid_keeps_the_sphere():
    coarse = _grid(33)
    field = Field.from_distance(coarse, (_radii(coarse) - 0.4).astype(np.float32))
    fine = field.resampled(_grid(97))
    true = (_radii(fine.grid) - 0.4) / fine.grid.voxel
    near = np.abs(true) < 2
    assert np.abs(fine.sdf - true)[near].mean() < 0.15


def test_the_band_names_each_node_near_the_surface_once():
    grid = _grid(33)
    field = Field.from_distance(grid, (_radii(grid) - 0.4).astype(np.float32))
    band = find_band(field, 3.0, 0.0)
    i, j, k = band.nodes.T
    assert (band.slot[i, j, k] == np.arange(len(band.nodes))).all()
    assert (np.abs(field.sdf[i, j, k]) < 3).all()
    assert (band.slot >= 0).sum() == len(band.nodes) == (np.abs(field.sdf) < 3).sum()


def test_hidden_nodes_are_those_whose_nearest_surface_nobody_saw():
    grid = _grid(49)
    field = Field.from_distance(grid, (_radii(grid) - 0.4).astype(np.float32))
    height = grid.origin[1] + grid.voxel * np.arange(grid.shape[1])
    field.seen[:] = (height > 0)[None, :, None]
    band = find_band(field, 4.0, 0.5)
    y = height[band.nodes[:, 1]]
    assert band.hidden[y < -2 * grid.voxel].all()
    assert not band.hidden[y > 2 * grid.voxel].any()
