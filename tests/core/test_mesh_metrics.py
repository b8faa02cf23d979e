"""Mesh metrics on shapes whose distances and volumes are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from hi3d_core.bvh import TriangleTree
from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import Mesh
from hi3d_core.mesh_metrics import (
    MeasuringFrame,
    corners_of,
    joined,
    sample_surface,
    surface_distances,
    visible_chamfer,
    visible_points,
    volume_iou,
)

ORBIT = Cameras.orbit(16).positions
GRID = 32  # cells along a side of the cube: enough for shapes this simple, and quick


def to_mesh(shape: trimesh.Trimesh) -> Mesh:
    return Mesh(
        torch.tensor(np.asarray(shape.vertices), dtype=torch.float32),
        torch.tensor(np.asarray(shape.faces), dtype=torch.int64),
    )


def sphere(radius: float, subdivisions: int = 4) -> Mesh:
    return to_mesh(trimesh.creation.icosphere(subdivisions, radius))


def box(x: float, y: float, z: float) -> Mesh:
    return to_mesh(trimesh.creation.box((x, y, z)))


def moved(mesh: Mesh, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mesh:
    return replace(mesh, vertices=mesh.vertices + torch.tensor([x, y, z]))


def test_concentric_spheres_are_their_radii_apart():
    distances = surface_distances(sphere(0.5), sphere(0.4))
    # The gap is 0.1; samples that face each other lie about the spacing of samples aside.
    assert distances.accuracy == pytest.approx(0.1, rel=2e-3)
    assert distances.completeness == pytest.approx(0.1, rel=2e-3)
    assert distances.chamfer == (distances.accuracy + distances.completeness) / 2


def test_accuracy_looks_from_the_prediction_and_completeness_from_the_truth():
    whole = joined([moved(sphere(0.2), x=-0.3), moved(sphere(0.2), x=0.3)])
    half = moved(sphere(0.2), x=-0.3)
    missing = surface_distances(half, whole, 10_000)
    assert missing.accuracy < 0.01
    assert missing.completeness > 0.1
    extra = surface_distances(whole, half, 10_000)
    assert extra.completeness < 0.01
    assert extra.accuracy > 0.1


def test_equal_meshes_score_the_spacing_of_samples_and_the_same_each_time():
    first, second = (surface_distances(sphere(0.5), sphere(0.5), 20_000) for _ in range(2))
    assert first == second
    # For n random points on area A the nearest lies 0.5 sqrt(A / n) away on average.
    assert first.chamfer == pytest.approx(0.5 * math.sqrt(math.pi / 20_000), rel=0.02)


def test_visible_chamfer_has_no_floor_and_measures_to_the_surface():
    assert visible_chamfer(sphere(0.5), sphere(0.5), ORBIT) < 1e-7
    assert visible_chamfer(sphere(0.5), sphere(0.45), ORBIT) == pytest.approx(0.05, rel=0.01)


def test_visible_chamfer_does_not_blame_for_what_no_camera_sees():
    hidden = joined([sphere(0.5), sphere(0.2)])  # the inner sphere is walled in
    assert visible_chamfer(hidden, sphere(0.5), ORBIT) < 1e-7
    assert visible_chamfer(sphere(0.5), hidden, ORBIT) < 1e-7
    shown = joined([sphere(0.5), moved(sphere(0.05), y=0.6)])
    assert visible_chamfer(shown, sphere(0.5), ORBIT) > 1e-4


def test_a_convex_body_shows_a_camera_the_faces_turned_to_it():
    mesh = sphere(0.5, 5)
    points = sample_surface(mesh, 20_000, 0)
    seen = visible_points(TriangleTree(corners_of(mesh)), points, ORBIT[:1], 0.0005)
    # From distance d a sphere shows the cap above the plane at r^2 / d.
    height = points @ np.array([0, 0, 1.0])
    edge = 0.5**2 / 1.5
    clear = np.abs(height - edge) > 0.02
    np.testing.assert_array_equal(seen[clear], height[clear] > edge)


def test_no_cameras_see_nothing():
    with pytest.raises(ValueError, match="no camera sees"):
        visible_chamfer(sphere(0.5), sphere(0.5), torch.empty(0, 3))


def test_volume_iou_of_boxes_is_the_ratio_of_their_volumes():
    # Faces lie on boundaries between cells, so that counting centres is exact.
    cell = 1.2 / GRID
    whole = box(16 * cell, 16 * cell, 16 * cell)
    half = box(16 * cell, 8 * cell, 16 * cell)
    assert volume_iou(whole, whole, resolution=GRID) == 1
    assert volume_iou(half, whole, resolution=GRID) == 0.5
    shifted = moved(whole, x=8 * cell)
    assert volume_iou(shifted, whole, resolution=GRID) == pytest.approx(1 / 3)
    assert volume_iou(moved(half, y=0.5), moved(half, y=-0.5), resolution=GRID) == 0


def test_volume_counts_overlaps_once_and_small_holes_hardly():
    halves = joined([moved(box(0.5, 0.4, 0.4), x=-0.1), moved(box(0.5, 0.4, 0.4), x=0.1)])
    assert volume_iou(halves, box(0.7, 0.4, 0.4), resolution=GRID) == 1
    whole = sphere(0.45, 3)
    punctured = replace(whole, faces=whole.faces[5:])
    assert volume_iou(punctured, whole, resolution=GRID) > 0.98


def test_the_frame_follows_the_truth_out_of_the_unit_cube():
    assert MeasuringFrame.of(sphere(0.5)) == MeasuringFrame()
    near, far = sphere(0.4, 3), moved(sphere(0.5, 3), x=0.05)
    score = volume_iou(far, near, MeasuringFrame.of(near), GRID)
    # The same scene in millimetres, elsewhere.
    shifted = [
        replace(mesh, vertices=mesh.vertices * 1000 + torch.tensor([5000.0, 0, 0]))
        for mesh in (near, far)
    ]
    frame = MeasuringFrame.of(shifted[0])
    assert frame.center == pytest.approx((5000, 0, 0), abs=0.1)
    assert frame.unit == pytest.approx(800, rel=1e-4)
    assert volume_iou(shifted[1], shifted[0], frame, GRID) == pytest.approx(score, abs=0.02)
    assert MeasuringFrame.of(sphere(0.01)).unit == pytest.approx(0.02)


def test_samples_are_even_over_the_area_and_repeat():
    mesh = joined([box(0.2, 0.2, 0.2), moved(box(0.4, 0.4, 0.4), x=2)])
    points = sample_surface(mesh, 50_000, 7)
    assert (points[:, 0] > 1).mean() == pytest.approx(0.8, abs=0.01)
    np.testing.assert_array_equal(points, sample_surface(mesh, 50_000, 7))


def test_meshes_without_surface_are_refused():
    empty = Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64))
    flat = Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))
    for mesh in (empty, flat):
        with pytest.raises(ValueError, match=r"no faces|no area"):
            surface_distances(mesh, sphere(0.5))
    with pytest.raises(ValueError, match="one point"):
        MeasuringFrame.of(flat)
