"""Edge collapse keeps a closed surface closed, of the same genus, and near the shape."""

import numpy as np
import pytest
import torch
from skimage.measure import marching_cubes

from hi3d_core.datatypes import Mesh
from hi3d_core.manifold import is_closed
from hi3d_core.mesh import is_watertight, measure_volume
from hi3d_core.simplify import SHORTEST_EDGE, simplify

SIZE = 64
STEP = 1.2 / SIZE


def from_field(field: np.ndarray) -> Mesh:
    padded = np.pad(field, 1, constant_values=1.0).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(padded, 0.0)
    vertices = (vertices - 0.5) / SIZE * 1.2 - 0.6
    return Mesh(
        torch.tensor(vertices, dtype=torch.float32), torch.tensor(faces[:, ::-1].copy()).long()
    )


def shapes() -> dict[str, np.ndarray]:
    axis = (np.arange(SIZE) + 0.5) * STEP - 0.6
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    noise = np.random.default_rng(0).normal(size=x.shape) * STEP
    ball = np.sqrt(x * x + y * y + z * z)
    ring = np.sqrt((np.hypot(x, z) - 0.35) ** 2 + y * y)
    plate = np.maximum(np.abs(y) - 0.8 * STEP, np.maximum(np.abs(x), np.abs(z)) - 0.4)
    waves = np.sin(20 * x) * np.cos(20 * y) + np.sin(20 * y) * np.cos(20 * z)
    waves += np.sin(20 * z) * np.cos(20 * x)
    return {
        "ball": ball - 0.45,
        "ring": ring - 0.08,
        "thin ring": ring - 1.5 * STEP,
        "plate": plate,
        "blocky plate": np.where(plate < 0, -1.0, 1.0),
        "noisy ball": ball - 0.4 + 0.6 * noise,
        "very noisy ball": ball - 0.35 + 3 * noise,
        "gyroid": np.maximum(np.abs(waves) - 0.3, 8 * ball - 3.6) * 0.1,
        "steps": np.round((ball - 0.4) / STEP) + 1e-3,
    }


def euler_number(mesh: Mesh) -> int:
    faces = mesh.faces.numpy()
    edges = np.sort(np.concatenate([faces[:, :2], faces[:, 1:], faces[:, ::2]]), axis=1)
    return len(np.unique(faces)) - len(np.unique(edges, axis=0)) + len(faces)


@pytest.mark.parametrize("name", list(shapes()))
def test_simplified_surface_stays_closed_and_keeps_its_genus(name):
    mesh = from_field(shapes()[name])
    assert is_closed(mesh.faces.numpy())
    for share in (0.5, 0.05):
        result = simplify(mesh, int(share * len(mesh.faces)))
        assert is_closed(result.faces.numpy())
        assert euler_number(result) == euler_number(mesh)


@pytest.mark.parametrize("name", ["ball", "ring", "noisy ball", "gyroid", "steps"])
def test_budget_is_met_and_volume_kept(name):
    mesh = from_field(shapes()[name])
    budget = len(mesh.faces) // 8
    result = simplify(mesh, budget)
    assert len(result.faces) in (budget, budget - 1)
    assert measure_volume(result) == pytest.approx(measure_volume(mesh), rel=0.02)
    assert is_watertight(result)


def test_flat_sides_cost_nothing():
    """A box's faces lie in planes: quadric error keeps its eight corners and little else."""
    axis = (np.arange(SIZE) + 0.5) * STEP - 0.6
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    box = from_field(np.maximum(np.abs(x), np.maximum(np.abs(y), np.abs(z))) - 0.4)
    result = simplify(box, 300)
    assert len(result.faces) <= 300
    assert measure_volume(result) == pytest.approx(measure_volume(box), rel=2e-3)
    # Not a point strays from the box.
    far = (result.vertices.abs() - 0.4).max()
    assert float(far) < 0.1 * STEP


def test_short_edges_go_even_within_the_budget():
    mesh = from_field(shapes()["ball"])
    corners = mesh.vertices[mesh.faces[0]]
    vertices = mesh.vertices.clone()
    diagonal = float((vertices.amax(0) - vertices.amin(0)).norm())
    vertices[mesh.faces[0, 1]] = corners[0] + 0.1 * SHORTEST_EDGE * diagonal
    result = simplify(Mesh(vertices, mesh.faces), 10 * len(mesh.faces))
    assert len(result.faces) == len(mesh.faces) - 2
    assert is_closed(result.faces.numpy())


def test_a_tetrahedron_is_left_alone():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    result = simplify(Mesh(vertices, faces), 4)
    assert len(result.faces) == 4
    assert measure_volume(result) == pytest.approx(1 / 6)


def test_refuses_a_budget_no_closed_surface_meets():
    with pytest.raises(ValueError, match="budget is 3"):
        simplify(from_field(shapes()["ball"]), 3)
