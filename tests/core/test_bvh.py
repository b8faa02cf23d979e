"""The tree answers as asking every triangle does, whatever the triangles look like."""

import numpy as np
import pytest

from hi3d_core.bvh import STACK_SIZE, TriangleTree, closest_triangles, first_hits


def soup(kind: str, count: int = 300) -> np.ndarray:
    generator = np.random.default_rng(3)
    corners = generator.normal(size=(count, 1, 3)) + 0.3 * generator.normal(size=(count, 3, 3))
    if kind == "degenerate":
        corners[::3, 1] = corners[::3, 0]  # segments
        corners[::5] = corners[::5, :1]  # points
        corners[1::7, 2] = (corners[1::7, 0] + corners[1::7, 1]) / 2  # three corners in a line
    if kind == "flat":
        corners[..., 1] = 0.25
    if kind == "repeated":
        corners[:] = corners[:1]
    if kind == "scales":  # each triangle half as far from the origin as the one before
        corners *= 0.5 ** np.arange(count)[:, None, None]
    return corners


KINDS = ["plain", "degenerate", "flat", "repeated", "scales"]


def triangle_distance(point: np.ndarray, triangle: np.ndarray) -> float:
    """By minimising over the edges and, by least squares, over the inside."""
    a, b, c = triangle
    best = np.inf
    for start, end in ((a, b), (b, c), (c, a)):
        along = end - start
        length = along @ along
        t = 0.0 if length == 0 else np.clip((point - start) @ along / length, 0, 1)
        best = min(best, np.linalg.norm(point - start - t * along))
    edges = np.stack([b - a, c - a], axis=1)
    if np.linalg.matrix_rank(edges) == 2:
        weights = np.linalg.lstsq(edges, point - a, rcond=None)[0]
        if weights.min() >= 0 and weights.sum() <= 1:
            best = min(best, np.linalg.norm(point - a - edges @ weights))
    return best


def ray_reach(origin: np.ndarray, direction: np.ndarray, triangle: np.ndarray) -> float:
    """By solving origin + t direction = a + u (b - a) + v (c - a)."""
    a, b, c = triangle
    matrix = np.stack([direction, a - b, a - c], axis=1)
    if np.linalg.matrix_rank(matrix) < 3:
        return np.inf
    t, u, v = np.linalg.solve(matrix, a - origin)
    return t if t >= 0 and u >= 0 and v >= 0 and u + v <= 1 else np.inf


@pytest.mark.parametrize("kind", KINDS)
def test_closest_distance_equals_the_least_over_all_triangles(kind):
    corners = soup(kind)
    points = np.random.default_rng(4).normal(size=(40, 3)) * 1.5
    distances, faces = closest_triangles(TriangleTree(corners), points)
    for point, distance, face in zip(points, distances, faces, strict=True):
        expected = [triangle_distance(point, triangle) for triangle in corners]
        assert distance == pytest.approx(min(expected), abs=1e-12)
        assert expected[face] == pytest.approx(distance, abs=1e-12)


def test_points_on_the_surface_are_at_distance_zero():
    corners = soup("plain")
    weights = np.random.default_rng(5).dirichlet((1, 1, 1), len(corners))
    points = (corners * weights[:, :, None]).sum(axis=1)
    assert closest_triangles(TriangleTree(corners), points)[0].max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_first_hit_equals_the_nearest_over_all_triangles(kind):
    corners = soup(kind)
    generator = np.random.default_rng(6)
    origins = generator.normal(size=(60, 3)) * 2
    aims = corners[generator.integers(len(corners), size=60)].mean(axis=1)
    directions = (aims + 0.1 * generator.normal(size=(60, 3)) - origins) * 0.7
    reach, faces = first_hits(TriangleTree(corners), origins, directions)
    for origin, direction, got, face in zip(origins, directions, reach, faces, strict=True):
        expected = [ray_reach(origin, direction, triangle) for triangle in corners]
        assert got == pytest.approx(min(expected), rel=1e-9)
        assert (face == -1) == np.isinf(got)
        if face >= 0:
            assert expected[face] == pytest.approx(got, rel=1e-9)


def test_rays_along_the_axes_hit_boxes_without_thickness():
    square = np.array([[[0, 0, 1], [1, 0, 1], [1, 1, 1]], [[0, 0, 1], [1, 1, 1], [0, 1, 1]]], float)
    tree = TriangleTree(square)
    # Through the inside, the shared diagonal, an edge and a corner; then just past the edge.
    origins = np.array([[0.7, 0.2, 0], [0.5, 0.5, 0], [0, 0.5, 0], [1, 1, 0], [-1e-6, 0.5, 0]])
    reach, _ = first_hits(tree, origins, np.tile([0.0, 0, 2], (5, 1)))
    np.testing.assert_allclose(reach, [0.5, 0.5, 0.5, 0.5, np.inf])


def test_no_ray_slips_through_a_closed_surface():
    import trimesh

    sphere = trimesh.creation.icosphere(3, 1.0)
    # Rays aimed exactly at vertices and at the middles of edges are where leaks would be.
    targets = np.concatenate([sphere.vertices, sphere.vertices[sphere.edges].mean(axis=1)])
    origin = np.array([0.1, 0.05, -0.02])
    tree = TriangleTree(sphere.vertices[sphere.faces])
    reach, _ = first_hits(tree, np.broadcast_to(origin, targets.shape), targets - origin)
    np.testing.assert_allclose(reach, 1, atol=1e-9)


def test_hits_beyond_the_limit_do_not_count():
    tree = TriangleTree(np.array([[[-1, -1, 3], [1, -1, 3], [0, 2, 3]]], float))
    origins, directions = np.zeros((2, 3)), np.tile([0.0, 0, 1], (2, 1))
    reach, faces = first_hits(tree, origins, directions, np.array([2.9, 3.1]))
    np.testing.assert_array_equal(reach, [np.inf, 3])
    np.testing.assert_array_equal(faces, [-1, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_tree_holds_every_triangle_in_one_leaf_within_its_boxes(kind):
    corners = soup(kind)
    tree = TriangleTree(corners)
    np.testing.assert_array_equal(np.sort(tree.faces), np.arange(len(corners)))
    np.testing.assert_array_equal(tree.corners, corners[tree.faces])
    leaves = tree.rights < 0
    assert tree.counts[leaves].sum() == len(corners)
    assert tree.counts[leaves].max() <= 4
    for box, start, count in zip(tree.boxes, tree.starts, tree.counts, strict=True):
        inside = tree.corners[start : start + count].reshape(-1, 3)
        np.testing.assert_array_equal(box, [inside.min(axis=0), inside.max(axis=0)])
    assert depth(tree) < STACK_SIZE


def depth(tree: TriangleTree) -> int:
    deepest, stack = 0, [(0, 1)]
    while stack:
        node, level = stack.pop()
        deepest = max(deepest, level)
        if tree.rights[node] >= 0:
            stack += [(node + 1, level + 1), (tree.rights[node], level + 1)]
    return deepest


@pytest.mark.parametrize(
    ("triangles", "words"),
    [
        (np.zeros((0, 3, 3)), "no faces"),
        (np.full((1, 3, 3), np.nan), "NaN"),
        (np.zeros((2, 3)), "expected"),
    ],
)
def test_bad_triangles_are_refused(triangles, words):
    with pytest.raises(ValueError, match=words):
        TriangleTree(triangles)
