"""Texture coordinates: a map of the whole surface, without overlaps, that keeps it closed."""

import weakref

import numpy as np
import pytest
import torch
import trimesh
import xatlas

from hi3d_core.datatypes import Mesh
from hi3d_core.mesh import is_watertight
from hi3d_core.texture.texels import find_texels, surface_points
from hi3d_core.unwrap import padding_pixels, unwrap

SIZE = 256


def knot() -> Mesh:
    made = trimesh.creation.torus(0.35, 0.12, major_sections=48, minor_sections=20)
    made.merge_vertices()
    faces = torch.tensor(np.array(made.faces)).long()
    return Mesh(torch.tensor(np.array(made.vertices), dtype=torch.float32), faces)


@pytest.fixture(scope="module")
def unwrapped() -> Mesh:
    return unwrap(knot(), SIZE)


def uv_areas(mesh: Mesh) -> np.ndarray:
    a, b, c = np.moveaxis(mesh.uvs.double().numpy()[mesh.faces.numpy()], 1, 0)
    u, v = b - a, c - a
    return 0.5 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])


def test_same_faces_at_bitwise_equal_places(unwrapped):
    original = knot()
    assert torch.equal(unwrapped.vertices[unwrapped.faces], original.vertices[original.faces])
    assert is_watertight(unwrapped)
    assert len(unwrapped.vertices) > len(original.vertices)


def test_uvs_lie_inside_and_fill_the_square(unwrapped):
    assert float(unwrapped.uvs.min()) >= 0
    assert float(unwrapped.uvs.max()) <= 1
    assert 0.4 < np.abs(uv_areas(unwrapped)).sum() < 1


def test_charts_do_not_overlap_and_keep_their_distance(unwrapped):
    """Each texel lies in one face only, and texels of different charts are far apart."""
    uvs, faces = unwrapped.uvs.double().numpy(), unwrapped.faces.numpy()
    area = np.abs(uv_areas(unwrapped)).sum() * SIZE * SIZE
    texels, owners = find_texels(uvs, faces, SIZE)
    corners = uvs[faces[owners]] * SIZE
    centre = np.stack([texels % SIZE + 0.5, texels // SIZE + 0.5], axis=1)
    a, b, c = np.moveaxis(corners, 1, 0)

    def cross(u, v):
        return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]

    sides = np.stack([cross(b - a, centre - a), cross(c - b, centre - b), cross(a - c, centre - c)])
    inside = (sides >= 0).all(axis=0) | (sides <= 0).all(axis=0)
    # If charts overlapped there would be fewer texels than their areas add up to.
    assert inside.sum() == pytest.approx(area, rel=0.01)
    chart = trimesh.graph.connected_component_labels(
        trimesh.graph.face_adjacency(faces), node_count=len(faces)
    )
    picture = np.full((SIZE, SIZE), -1)
    picture.reshape(-1)[texels[inside]] = chart[owners[inside]]
    for dy in range(padding_pixels(SIZE) + 1):
        for dx in range(padding_pixels(SIZE) + 1):
            one, other = picture[dy:, dx:], picture[: SIZE - dy, : SIZE - dx]
            assert not ((one >= 0) & (other >= 0) & (one != other)).any()


def test_texels_stand_for_places_on_their_faces(unwrapped):
    """Inside a face, interpolating the uvs at a texel's place gives the texel back."""
    uvs, faces = unwrapped.uvs.double().numpy(), unwrapped.faces.numpy()
    texels, owners = find_texels(uvs, faces, SIZE)
    flat = np.concatenate([uvs, np.zeros((len(uvs), 1))], axis=1)
    places = surface_points(texels, owners, SIZE, uvs, flat, faces)
    centre = np.stack([texels % SIZE + 0.5, texels // SIZE + 0.5], axis=1) / SIZE
    away = np.abs(places[:, :2] - centre).max(axis=1) * SIZE
    # The rim of one texel around the charts is moved onto their edge, nothing else is.
    assert away.max() < 1.6
    assert (away < 1e-3).mean() > 0.8


def test_vertex_colors_are_carried_along():
    mesh = knot()
    colors = (mesh.vertices - mesh.vertices.amin(0)) / 2
    result = unwrap(Mesh(mesh.vertices, mesh.faces, vertex_colors=colors), SIZE)
    assert torch.equal(result.vertex_colors[result.faces], colors[mesh.faces])


def test_refuses_nothing_and_tiny_textures():
    with pytest.raises(ValueError, match="nothing to unwrap"):
        unwrap(Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64)), SIZE)
    with pytest.raises(ValueError, match="texture size is 8"):
        unwrap(knot(), 8)


def test_no_part_can_lie_where_an_earlier_one_lay(monkeypatch):
    """xatlas knows a part by its arrays' sizes and addresses, and takes equal ones for copies."""
    from hi3d_core import unwrap as module

    lent = []

    class Watched(xatlas.Atlas):
        def add_uv_mesh(self, uvs, faces):
            lent.append((weakref.ref(uvs), weakref.ref(faces)))
            super().add_uv_mesh(uvs, faces)
            assert all(each() is not None for pair in lent for each in pair)

    monkeypatch.setattr(module, "_PART_FACES", 300)
    monkeypatch.setattr(module.xatlas, "Atlas", Watched)
    mesh = knot()
    cut = unwrap(mesh, SIZE)
    assert len(lent) == 8
    assert torch.equal(cut.vertices[cut.faces], mesh.vertices[mesh.faces])


def test_large_meshes_are_cut_into_parts_and_can_be_cancelled(monkeypatch):
    from hi3d_core import unwrap as module

    monkeypatch.setattr(module, "_PART_FACES", 300)
    told: list[tuple[int, int]] = []
    # A small one beside it, so that parts differ in size.
    large, count = knot(), len(knot().vertices)
    mesh = Mesh(
        torch.cat([large.vertices, 0.3 * large.vertices + 1]),
        torch.cat([large.faces, large.faces + count]),
    )
    cut = unwrap(mesh, SIZE, on_step=lambda done, total: told.append((done, total)))
    assert torch.equal(cut.vertices[cut.faces], mesh.vertices[mesh.faces])
    assert is_watertight(cut)
    assert 0.35 < np.abs(uv_areas(cut)).sum() < 1
    # All parts at one scale: texels are shared out by area.
    a, b, c = mesh.vertices[mesh.faces].double().numpy().swapaxes(0, 1)
    surface = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    share = np.abs(uv_areas(cut)) / surface
    assert np.percentile(share, 95) < 1.5 * np.percentile(share, 5)
    assert told[-1] == (17, 17)  # 3840 faces in sixteen parts, and the packing
    assert {done for done, _ in told} == set(range(18))

    def cancel(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unwrap(mesh, SIZE, on_step=cancel)
