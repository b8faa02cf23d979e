"""The rasterizer against a naive ray caster, and the promises no picture would show."""

import math

import numpy as np
import pytest
import torch
import trimesh

from hi3d_core.cameras import Cameras, pixel_rays
from hi3d_core.raster import rasterize_triangles


def tensors(mesh: trimesh.Trimesh) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.tensor(np.array(mesh.vertices), dtype=torch.float32),
        torch.tensor(np.array(mesh.faces), dtype=torch.int64),
    )


def cast_rays(vertices: torch.Tensor, faces: torch.Tensor, cameras: Cameras):
    """Every pixel's ray against every triangle (Möller-Trumbore), in float64."""
    origins, directions = pixel_rays(cameras)
    origin = origins[:, None, None, None].double()
    direction = directions[:, :, :, None].double()
    a, b, c = vertices.double()[faces].unbind(1)
    ab, ac = b - a, c - a
    p = torch.linalg.cross(direction, ac.expand(*direction.shape[:3], *ac.shape))
    determinant = (p * ab).sum(-1)
    from_a = origin - a
    u = (from_a * p).sum(-1) / determinant
    q = torch.linalg.cross(from_a, ab.expand_as(from_a))
    v = (direction * q).sum(-1) / determinant
    depth = (ac * q).sum(-1) / determinant  # directions have unit z-depth
    hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (depth > 1e-4)
    depth = torch.where(hit, depth, math.inf)
    nearest, face = depth.min(-1)
    found = nearest.isfinite()
    weights = torch.stack([1 - u - v, u, v], -1)
    weights = weights.gather(3, face[..., None, None].expand(*face.shape, 1, 3))[..., 0, :]
    return (
        torch.where(found, face, -1),
        weights * found[..., None],
        torch.where(found, nearest, 0.0),
    )


def triangle_soup(count: int, spread: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(count, 1, 3, generator=generator) * 2 * spread - spread
    corners = centers + torch.randn(count, 3, 3, generator=generator) * 0.3
    return corners.reshape(-1, 3), torch.arange(3 * count).reshape(-1, 3)


# At radius 0.4 the cameras stand inside the soup: triangles cross and surround the camera plane.
@pytest.mark.parametrize("radius", [1.5, 0.4])
def test_agrees_with_ray_casting(radius):
    vertices, faces = triangle_soup(60, 0.5, seed=1)
    cameras = Cameras.orbit(3, 20, radius, width=70, height=45, fov_degrees=80)
    got = rasterize_triangles(vertices, faces, cameras)
    face, weights, depth = cast_rays(vertices, faces, cameras)
    same = got.faces == face
    # A centre within rounding of an edge may fall either way; anything more is a fault.
    assert (~same).sum() <= 3
    assert (face >= 0).float().mean() > 0.5
    torch.testing.assert_close(got.depths[same], depth[same].float(), rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(got.barycentrics[same], weights[same].float(), rtol=1e-3, atol=1e-3)


def test_a_floor_that_runs_under_the_camera():
    """Faces with one and with two corners behind the camera are cut at its plane, not lost."""
    vertices = torch.tensor([[-9.0, -0.2, -3], [9, -0.3, -4], [7, -0.2, 8], [-8, -0.4, 9]])
    cameras = Cameras.orbit(6, 5, 1.5, width=60, height=40, fov_degrees=70)
    for faces in ([[0, 1, 2]], [[0, 1, 3]], [[1, 2, 3]], [[2, 3, 0]], [[0, 1, 2], [0, 2, 3]]):
        table = torch.tensor(faces)
        got = rasterize_triangles(vertices, table, cameras)
        face, _, depth = cast_rays(vertices, table, cameras)
        assert (face >= 0).any()
        assert (got.faces != face).sum() <= 3
        same = (got.faces == face) & (face >= 0)
        torch.testing.assert_close(got.depths[same], depth[same].float(), rtol=1e-4, atol=0)


def test_intrinsics_off_centre_and_not_square():
    vertices, faces = triangle_soup(20, 0.4, seed=2)
    cameras = Cameras.orbit(2, 10, width=50, height=40)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[:, 0, 2] += 7.3
    intrinsics[:, 1, 1] *= 1.4
    cameras = Cameras(cameras.camera_to_world, intrinsics, 50, 40)
    got = rasterize_triangles(vertices, faces, cameras)
    face, _, _ = cast_rays(vertices, faces, cameras)
    assert (got.faces != face).sum() <= 3


def test_shared_edges_leave_no_crack_and_no_overlap():
    """A fan of triangles tiles a square whose edges run exactly through pixel centres: each
    triangle drawn alone covers its pixels, and every pixel is covered exactly once."""
    size = 33
    camera = Cameras(
        torch.diag(torch.tensor([1.0, 1, 1, 1]))[None],
        torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]]),
        size,
        size,
    )
    ring = [(0.5, 0.5), (16.5, 0.5), (32.5, 0.5), (32.5, 16.5), (32.5, 32.5), (16.5, 32.5)]
    ring += [(0.5, 32.5), (0.5, 16.5)]
    points = torch.tensor([(16.5, 16.5), *ring])
    vertices = torch.cat([points, torch.ones(9, 1)], 1)
    faces = torch.tensor([(0, i, i % 8 + 1) for i in range(1, 9)])
    for winding in (faces, faces.flip(1)):
        count = torch.zeros(size, size, dtype=torch.int64)
        for face in winding:
            count += (rasterize_triangles(vertices, face[None], camera).faces[0] >= 0).long()
        assert (count[1:-1, 1:-1] == 1).all()
        assert count.max() == 1


def test_closed_mesh_has_no_hole():
    """Cracks in the front of a closed sphere would show the far side through it."""
    vertices, faces = tensors(trimesh.creation.icosphere(5, 0.5))
    cameras = Cameras.orbit(4, 13, width=400, height=400)
    fragments = rasterize_triangles(vertices, faces, cameras)
    nearest_point = 1.5 - 0.5
    covered = fragments.faces >= 0
    # The visible cap of a sphere of radius r from distance d ends at depth (d² - r²) / d.
    assert fragments.depths[covered].min() > nearest_point - 1e-3
    assert fragments.depths[covered].max() < (1.5**2 - 0.5**2) / 1.5 + 2e-3
    disc = covered.float().sum((1, 2))
    tangent = 0.5 / math.sqrt(1.5**2 - 0.5**2) * float(cameras.intrinsics[0, 0, 0])
    torch.testing.assert_close(disc, torch.full((4,), math.pi * tangent**2), rtol=2e-3, atol=0)


def test_interpolation_is_perspective_correct():
    vertices, faces = triangle_soup(30, 0.4, seed=3)
    cameras = Cameras.orbit(2, 30, width=64, height=64)
    fragments = rasterize_triangles(vertices, faces, cameras)
    points = fragments.interpolate(vertices, faces)
    origins, directions = pixel_rays(cameras)
    expected = origins[:, None, None] + fragments.depths[..., None] * directions
    covered = fragments.faces >= 0
    torch.testing.assert_close(points[covered], expected[covered], rtol=0, atol=1e-4)
    assert (points[~covered] == 0).all()


def test_the_nearest_wins_in_either_order_and_ties_go_to_the_first():
    near = torch.tensor([[-1.0, -1, 0.5], [1, -1, 0.5], [0, 1, 0.5]])
    far = near - torch.tensor([0.0, 0, 0.5])
    cameras = Cameras.orbit(1, width=32, height=32)
    for vertices, winner in ((torch.cat([near, far]), 0), (torch.cat([far, near]), 1)):
        fragments = rasterize_triangles(vertices, torch.arange(6).reshape(2, 3), cameras)
        assert fragments.faces[0, 16, 16] == winner
        assert fragments.depths[0, 16, 16] == pytest.approx(1.0)
    twice = torch.tensor([[0, 1, 2], [0, 1, 2]])
    assert rasterize_triangles(near, twice, cameras).faces.max() == 0


def test_degenerate_and_hidden_faces_draw_nothing():
    vertices = torch.tensor([[0.0, 0, 0], [1, 1, 0], [2, 2, 0], [0, 0, 9], [1, 0, 9], [0, 1, 9]])
    faces = torch.tensor([[0, 1, 2], [0, 0, 1], [3, 4, 5]])  # a line, a needle, behind the camera
    fragments = rasterize_triangles(vertices, faces, Cameras.orbit(1, width=32, height=32))
    assert (fragments.faces == -1).all()
    assert (fragments.depths == 0).all()
    assert (fragments.barycentrics == 0).all()


def test_no_faces():
    empty = torch.zeros(0, 3)
    fragments = rasterize_triangles(empty, empty.long(), Cameras.orbit(2, width=8, height=4))
    assert fragments.faces.shape == (2, 4, 8)
    assert (fragments.faces == -1).all()


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(1, 3, dtype=torch.int64), "vertices"),
        (torch.zeros(3, 3), torch.zeros(1, 3), "faces"),
        (torch.zeros(3, 3), torch.full((1, 3), 3), "name vertices"),
        (torch.full((3, 3), math.nan), torch.zeros(1, 3, dtype=torch.int64), "NaN"),
    ],
)
def test_refuses(vertices, faces, message):
    with pytest.raises(ValueError, match=message):
        rasterize_triangles(vertices, faces, Cameras.orbit(1, width=8, height=8))
