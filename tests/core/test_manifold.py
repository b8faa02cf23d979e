"""Whatever the triangles, what comes out is closed, for a reader that merges positions too."""

import numpy as np
import pytest
import torch
import trimesh

from hi3d_core.datatypes import Mesh
from hi3d_core.manifold import is_closed, make_manifold, merge_positions, part_touching
from hi3d_core.mesh import is_watertight, measure_volume


def mesh_of(vertices, faces) -> Mesh:
    return Mesh(
        torch.tensor(np.array(vertices), dtype=torch.float32), torch.tensor(np.array(faces)).long()
    )


def voxel_mesh(filled: np.ndarray) -> Mesh:
    """The outside faces of filled voxels, each with its own four vertices."""
    filled = np.pad(filled, 1)
    quads = []
    for axis in range(3):
        u, v = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
        for step in (1, -1):
            for cell in np.argwhere(filled & ~np.roll(filled, -step, axis=axis)):
                corner = cell + (np.eye(3)[axis] if step > 0 else 0)
                quad = [corner, corner + u, corner + u + v, corner + v]
                quads.append(quad if step > 0 else quad[::-1])
    start = 4 * np.arange(len(quads))[:, None]
    faces = np.concatenate([start + np.array([0, 1, 2]), start + np.array([0, 2, 3])])
    return mesh_of(np.array(quads).reshape(-1, 3), faces)


def is_closed_for_trimesh(mesh: Mesh) -> bool:
    read = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=True)
    return read.is_watertight and read.is_winding_consistent


def test_voxels_that_touch_at_edges_and_corners():
    filled = np.random.default_rng(3).random((9, 9, 9)) < 0.35
    mesh = voxel_mesh(filled)
    assert not is_closed_for_trimesh(mesh)
    result = make_manifold(mesh)
    assert is_closed(result.faces.numpy())
    assert is_watertight(result)
    assert is_closed_for_trimesh(result)
    assert measure_volume(result) == pytest.approx(filled.sum(), rel=1e-3)


def test_two_boxes_that_share_an_edge_come_apart():
    filled = np.zeros((2, 2, 1), dtype=bool)
    filled[0, 0] = filled[1, 1] = True
    result = make_manifold(voxel_mesh(filled))
    read = trimesh.Trimesh(result.vertices.numpy(), result.faces.numpy(), process=True)
    assert read.body_count == 2
    assert read.is_watertight


def test_cavity_that_touches_the_outside_along_an_edge():
    """Both shells keep the edge's two ends, so one edge with four faces becomes two edges."""
    vertices = [[0, 0, 0], [1, 0, 0], [0.5, 2, 0], [0.5, 0, 2], [0.5, 0.6, 0.3], [0.5, 0.3, 0.6]]
    outer = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    inner = np.array([[0, 4, 1], [0, 1, 5], [1, 4, 5], [4, 0, 5]])[:, ::-1]
    shells = [mesh_of(vertices, faces) for faces in (outer, inner)]
    result = make_manifold(mesh_of(vertices, np.concatenate([outer, inner])))
    assert is_closed(result.faces.numpy())
    assert is_closed_for_trimesh(result)
    expected = sum(measure_volume(shell) for shell in shells)
    assert measure_volume(result) == pytest.approx(expected, rel=1e-3)


def test_hole_is_closed_and_the_rest_untouched():
    ball = trimesh.creation.icosphere(3)
    lid = ball.triangles_center[:, 1] > 0.9
    result = make_manifold(mesh_of(ball.vertices, ball.faces[~lid]))
    assert is_closed_for_trimesh(result)
    # A flat lid on a cap of height h takes its volume away, up to the grid of triangles.
    height = 1 - float(ball.vertices[np.unique(ball.faces[~lid])][:, 1].max())
    cap = np.pi * height**2 * (3 - height) / 3
    assert ball.volume - measure_volume(result) == pytest.approx(cap, abs=0.02)


def test_sheet_without_thickness_vanishes():
    ball = trimesh.creation.icosphere(2)
    spare = [[0, 1, 2], [2, 1, 0]]
    vertices = np.concatenate([ball.vertices, [[2, 0, 0], [3, 0, 0], [2, 1, 0]]])
    faces = np.concatenate([ball.faces, np.array(spare) + len(ball.vertices), ball.faces[:5]])
    result = make_manifold(mesh_of(vertices, faces))
    assert len(result.faces) == len(ball.faces)
    assert is_closed_for_trimesh(result)


def test_random_triangles_come_out_closed():
    generator = np.random.default_rng(1)
    soup = mesh_of(generator.random((200, 3)), generator.integers(0, 200, (300, 3)))
    result = make_manifold(soup)
    assert is_closed_for_trimesh(result)


def test_clean_mesh_is_returned_as_it_is():
    ball = trimesh.creation.icosphere(2)
    mesh = mesh_of(ball.vertices, ball.faces)
    result = make_manifold(mesh)
    assert torch.equal(result.vertices, mesh.vertices)
    assert torch.equal(result.faces, mesh.faces)


def test_nothing_but_empty_faces_gives_nothing():
    result = make_manifold(mesh_of([[0, 0, 0], [1, 0, 0], [1, 0, 0]], [[0, 1, 2], [0, 0, 1]]))
    assert result.faces.shape == (0, 3)


def test_vertices_at_one_place_are_parted_by_a_hair():
    one = trimesh.creation.icosphere(2)
    top = one.vertices[:, 1].max()
    vertices = np.concatenate([one.vertices, one.vertices + np.array([0, 2 * top, 0])])
    faces = np.concatenate([one.faces, one.faces + len(one.vertices)])
    touching = mesh_of(vertices, faces)
    assert len(merge_positions(touching)[0]) < len(vertices)
    result = part_touching(touching)
    assert len(merge_positions(result)[0]) == len(vertices)
    assert float((result.vertices - touching.vertices).abs().max()) < 1e-3


def test_is_closed_knows_holes_flips_and_fins():
    ball = trimesh.creation.icosphere(1).faces
    assert is_closed(ball)
    assert not is_closed(ball[1:])
    flipped = ball.copy()
    flipped[0] = flipped[0][::-1]
    assert not is_closed(flipped)
    assert not is_closed(np.concatenate([ball, [[0, 1, 2]]]))
    assert not is_closed(np.zeros((0, 3), dtype=int))
