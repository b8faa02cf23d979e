"""Smooth normals: where they point, that seams don't show, that creases do."""

import numpy as np
import pytest
import torch
import trimesh

from hi3d_core.normals import corner_normals, vertex_normals, weld_indices


def tensors(mesh):
    return torch.tensor(np.array(mesh.vertices)).float(), torch.tensor(np.array(mesh.faces)).long()


def test_sphere_normals_point_outward():
    vertices, faces = tensors(trimesh.creation.icosphere(4, 0.5))
    normals = vertex_normals(vertices, faces)
    torch.testing.assert_close(normals, vertices / 0.5, rtol=0, atol=3e-3)


def test_a_mesh_cut_into_loose_faces_has_the_normals_of_the_whole():
    vertices, faces = tensors(trimesh.creation.icosphere(2, 0.5))
    loose = torch.arange(faces.numel()).reshape(-1, 3)
    whole = vertex_normals(vertices, faces)[faces]
    torch.testing.assert_close(corner_normals(vertices[faces].reshape(-1, 3), loose), whole)


def test_creases_keep_faces_apart():
    vertices, faces = tensors(trimesh.creation.box())
    flat = torch.linalg.cross(
        vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]]
    )
    creased = corner_normals(vertices, faces, crease_degrees=60)
    torch.testing.assert_close(creased, flat[:, None].expand(-1, 3, -1))
    # Weights by angle make a cube's corners point along its diagonals, however it is cut.
    smooth = corner_normals(vertices, faces)
    torch.testing.assert_close(smooth, (vertices[faces] / 0.75**0.5))


def test_faces_without_area_still_get_unit_normals():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0], [9, 9, 9]])
    faces = torch.tensor([[0, 1, 3], [0, 1, 2], [4, 4, 4]])
    normals = corner_normals(vertices, faces)
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(3, 3))
    assert normals[1, 0].tolist() == [0, 0, 1]  # the neighbour's
    assert normals[2, 0].tolist() == [0, 1, 0]


def test_weld_joins_equal_rows_only():
    rows = np.array([[1.0, 2, 3], [0.0, 0, 0], [1, 2, 3], [-0.0, 0, 0], [1, 2, 3.0000001]])
    numbers, count = weld_indices(rows)
    assert count == 3
    assert numbers[0] == numbers[2]
    assert numbers[1] == numbers[3]
    assert len({numbers[0], numbers[1], numbers[4]}) == 3


@pytest.mark.parametrize("size", [0, 1])
def test_weld_of_little(size):
    assert weld_indices(np.zeros((size, 3)))[1] == size
