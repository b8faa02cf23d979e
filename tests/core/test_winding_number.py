"""The fast winding number stays near the exact sum of solid angles, also where meshes are open."""

import numpy as np
import pytest
import trimesh

from hi3d_core.bvh import TriangleTree
from hi3d_core.winding_number import winding_numbers


def exact(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Every triangle's solid angle, summed (Jacobson et al. 2013, eq. 5 and 6)."""
    total = np.zeros(len(points))
    for triangle in corners:
        a, b, c = (corner - points for corner in triangle)
        la, lb, lc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
        volume = np.einsum("ij,ij->i", a, np.cross(b, c))
        below = la * lb * lc + (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
        total += 2 * np.arctan2(volume, below)
    return total / (4 * np.pi)


def shapes() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    sphere = trimesh.creation.icosphere(3, 0.5)
    torus = trimesh.creation.torus(0.4, 0.12, 32, 16)
    corners = sphere.vertices[sphere.faces]
    places = generator.uniform(-0.4, 0.4, size=(1000, 1, 3))
    return {
        "sphere": corners,
        "open sphere": corners[corners[:, :, 2].mean(axis=1) < 0.2],
        "inside out": corners[:, ::-1],
        "overlapping": np.concatenate([corners, corners * 0.8 + 0.3]),
        "torus": torus.vertices[torus.faces],
        "soup": places + 0.02 * generator.normal(size=(1000, 3, 3)),
    }


@pytest.mark.parametrize("name", shapes())
def test_close_to_the_sum_of_solid_angles(name):
    corners = shapes()[name]
    points = np.random.default_rng(2).uniform(-0.8, 0.8, size=(500, 3))
    error = np.abs(winding_numbers(TriangleTree(corners), points) - exact(corners, points))
    assert error.max() < 0.02
    assert np.sqrt((error**2).mean()) < 0.004


def test_inside_and_outside_of_an_analytic_sphere():
    sphere = trimesh.creation.icosphere(5, 0.5)
    tree = TriangleTree(sphere.vertices[sphere.faces])
    points = np.random.default_rng(2).uniform(-0.8, 0.8, size=(20_000, 3))
    radii = np.linalg.norm(points, axis=1)
    clear = np.abs(radii - 0.5) > 1e-3
    inside = winding_numbers(tree, points)[clear] > 0.5
    np.testing.assert_array_equal(inside, radii[clear] < 0.5)


def test_far_away_the_moments_alone_are_exact():
    # At ten radii the first term left out is about a thousandth of the sum.
    corners = shapes()["open sphere"]
    directions = np.random.default_rng(3).normal(size=(200, 3))
    points = 5 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    truth = exact(corners, points)
    error = np.abs(winding_numbers(TriangleTree(corners), points) - truth)
    assert error.max() < 2e-3 * np.abs(truth).max()


def test_faces_without_area_add_nothing():
    corners = shapes()["sphere"]
    needles = np.repeat(np.random.default_rng(1).normal(size=(500, 1, 3)), 3, axis=1)
    needles[::2, 1] += 0.3
    points = np.random.default_rng(2).uniform(-0.8, 0.8, size=(500, 3))
    both = winding_numbers(TriangleTree(np.concatenate([corners, needles])), points)
    alone = winding_numbers(TriangleTree(corners), points)
    np.testing.assert_allclose(both, alone, atol=0.02)
    only_needles = winding_numbers(TriangleTree(needles), points)
    np.testing.assert_allclose(only_needles, 0, atol=1e-9)
