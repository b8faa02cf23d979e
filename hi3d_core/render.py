"""Pictures of meshes: colour, alpha, depth and normals, on the CPU without a graphics driver.

Every pixel is split into supersample x supersample points, each drawn by `raster` and shaded by
itself; the pixel is their mean. Colours are blended as they are stored (sRGB), which is what
unlit viewers and the reference pictures of most datasets do.

Letters: V views, H and W the picture's size, N vertices, M faces of all meshes together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numba import prange
from torch import Tensor

from .cameras import Cameras
from .datatypes import Mesh, OnStep, OrbitViews
from .jit import njit
from .mipmaps import Mipmaps, build_mipmaps, sample_footprint
from .normals import corner_normals
from .raster import cross, pixel_matrices, rasterize_triangles

Shading = Literal["unlit", "soft"]
SHADINGS: tuple[Shading, ...] = ("unlit", "soft")

_PLAIN_GREY = 0.72
_CREASE_DEGREES = 50.0
# Soft shading: brightness = ambient + headlight * facing + sky * upness, 1 at most.
_AMBIENT, _HEADLIGHT, _SKY = 0.2, 0.6, 0.25


@dataclass(frozen=True, eq=False, kw_only=True)
class MeshRender(OrbitViews):
    """Views of a mesh (images over white, alphas, cameras, depths), and its normals.

    depths: mean z-depth of what a pixel sees of the mesh, world units, 0 where it sees none.
    normals: (V, H, W, 3) unit vectors in the world, turned towards the camera; 0 where no mesh.
    """

    normals: Tensor

    @property
    def normal_images(self) -> Tensor:
        """The normals as colours (V, H, W, 3): x, y, z from [-1, 1] to [0, 1], over white."""
        return over_white(self.normals * 0.5 + 0.5, self.alphas)


def over_white(colors: Tensor, alphas: Tensor) -> Tensor:
    """Straight colours (..., 3), covering alphas (...) of a pixel, over white."""
    return colors * alphas[..., None] + 1 - alphas[..., None]


def render_mesh(
    mesh: Mesh | Sequence[Mesh],
    cameras: Cameras,
    *,
    supersample: int = 3,
    shading: Shading = "unlit",
    on_step: OnStep | None = None,
) -> MeshRender:
    """Draw one mesh, or several as one scene, into every view; faces are seen from both sides.

    A mesh is coloured by its texture, else by its vertex colours, else plain grey. To see the
    geometry alone draw `Mesh(mesh.vertices, mesh.faces)` with shading "soft": a lamp at the
    camera and a bright sky. supersample: points a pixel along each axis. on_step: called after
    each view.

    Returns the pictures on the device of the first mesh. Raises ValueError for no mesh, an
    unknown shading or a supersample below 1.
    """
    meshes = [mesh] if isinstance(mesh, Mesh) else list(mesh)
    if not meshes:
        raise ValueError("there is no mesh to render: give at least one")
    if shading not in SHADINGS:
        raise ValueError(f"shading is {shading!r}, expected one of {', '.join(SHADINGS)}")
    if supersample < 1:
        raise ValueError(f"supersample is {supersample}, expected at least 1")
    scene = _gather(meshes)
    lighting = np.array([1.0, 0, 0] if shading == "unlit" else [_AMBIENT, _HEADLIGHT, _SKY])
    fine = cameras.to("cpu").resized(cameras.width * supersample, cameras.height * supersample)
    matrices = pixel_matrices(fine)
    shape = (len(cameras), cameras.height, cameras.width)
    colors, normals = np.ones((*shape, 3), np.float32), np.zeros((*shape, 3), np.float32)
    alphas, depths = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for view in range(len(cameras)):
        one = fine[view : view + 1]
        fragments = rasterize_triangles(scene.vertices, scene.faces, one)
        _shade(
            fragments.faces[0].numpy(),
            fragments.barycentrics[0].numpy(),
            fragments.depths[0].numpy(),
            scene.vertices.double().numpy() @ matrices[view, :, :3].T + matrices[view, :, 3],
            scene.vertices.numpy(),
            scene.faces.numpy(),
            scene.normals,
            scene.colors,
            scene.uvs,
            scene.face_textures,
            scene.mipmaps.texels,
            scene.mipmaps.levels,
            scene.mipmaps.first_level,
            one.positions[0].numpy(),
            lighting,
            supersample,
            colors[view],
            alphas[view],
            depths[view],
            normals[view],
        )
        if on_step is not None:
            on_step(view + 1, len(cameras))
    device = meshes[0].vertices.device
    return MeshRender(
        torch.from_numpy(colors).clamp(0, 1).to(device),
        torch.from_numpy(alphas).to(device),
        cameras.to(device),
        torch.from_numpy(depths).to(device),
        normals=torch.from_numpy(normals).to(device),
    )


@dataclass(frozen=True, eq=False)
class _Scene:
    """All meshes in one: face_textures (M,) names a texture in `mipmaps`, -1 for vertex colours."""

    vertices: Tensor
    faces: Tensor
    normals: np.ndarray  # (M, 3, 3)
    colors: np.ndarray  # (N, 3)
    uvs: np.ndarray  # (N, 2)
    face_textures: np.ndarray
    mipmaps: Mipmaps


def _gather(meshes: list[Mesh]) -> _Scene:
    vertices, faces, normals, colors, uvs, face_textures = [], [], [], [], [], []
    textures: list[Tensor] = []
    start = 0
    for mesh in (m.to("cpu") for m in meshes):
        count = len(mesh.vertices)
        points = mesh.vertices.detach().float()
        vertices.append(points)
        faces.append(mesh.faces + start)
        normals.append(corner_normals(points, mesh.faces, crease_degrees=_CREASE_DEGREES).numpy())
        plain = mesh.vertex_colors
        plain = torch.full((count, 3), _PLAIN_GREY) if plain is None else plain.detach().float()
        colors.append(plain.numpy())
        has_texture = mesh.texture is not None and mesh.uvs is not None
        uvs.append(
            mesh.uvs.detach().float().numpy()
            if mesh.uvs is not None
            else np.zeros((count, 2), np.float32)
        )
        face_textures.append(np.full(len(mesh.faces), len(textures) if has_texture else -1))
        if mesh.texture is not None and has_texture:
            textures.append(mesh.texture)
        start += count
    return _Scene(
        torch.cat(vertices),
        torch.cat(faces),
        np.concatenate(normals),
        np.concatenate(colors),
        np.concatenate(uvs),
        np.concatenate(face_textures).astype(np.int32),
        build_mipmaps(textures),
    )


@njit(cache=True, parallel=True)
def _shade(  # type: ignore[no-untyped-def]
    fragment_faces, barycentrics, fragment_depths, corners, vertices, faces, normals, colors, uvs,
    face_textures, texels, levels, first_level, eye, lighting, supersample,
    out_colors, out_alphas, out_depths, out_normals,
):  # fmt: skip
    """Colour all points of one view and average them into pixels; parallel over rows."""
    height, width = out_alphas.shape
    for y in prange(height):
        for x in range(width):
            red, green, blue, depth, hits = 0.0, 0.0, 0.0, 0.0, 0
            normal_x, normal_y, normal_z = 0.0, 0.0, 0.0
            for j in range(supersample * supersample):
                fine_y = y * supersample + j // supersample
                fine_x = x * supersample + j % supersample
                face = fragment_faces[fine_y, fine_x]
                if face < 0:
                    continue
                weights = barycentrics[fine_y, fine_x]
                a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
                texture = face_textures[face]
                if texture >= 0:
                    color = _sample(
                        texels, levels[first_level[texture] : first_level[texture + 1]],
                        corners[a], corners[b], corners[c], uvs[a], uvs[b], uvs[c],
                        fine_x + 0.5, fine_y + 0.5,
                    )  # fmt: skip
                else:
                    color = _mix(weights, colors[a], colors[b], colors[c])
                n = _mix(weights, normals[face, 0], normals[face, 1], normals[face, 2])
                point = _mix(weights, vertices[a], vertices[b], vertices[c])
                to_eye = (eye[0] - point[0], eye[1] - point[1], eye[2] - point[2])
                # Turn by the face, not by the normal: at silhouettes smooth normals lean away.
                flat = cross(
                    (vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1],
                     vertices[b, 2] - vertices[a, 2]),
                    (vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1],
                     vertices[c, 2] - vertices[a, 2]),
                )  # fmt: skip
                length = max(_dot(n, n) ** 0.5, 1e-12)
                if _dot(flat, to_eye) < 0:
                    length = -length
                n = (n[0] / length, n[1] / length, n[2] / length)
                facing = max(0.0, _dot(n, to_eye) / max(_dot(to_eye, to_eye) ** 0.5, 1e-12))
                light = lighting[0] + lighting[1] * facing + lighting[2] * (0.5 + 0.5 * n[1])
                red += color[0] * light
                green += color[1] * light
                blue += color[2] * light
                normal_x += n[0]
                normal_y += n[1]
                normal_z += n[2]
                depth += fragment_depths[fine_y, fine_x]
                hits += 1
            if hits == 0:
                continue
            points = supersample * supersample
            out_alphas[y, x] = hits / points
            out_colors[y, x, 0] = (red + points - hits) / points
            out_colors[y, x, 1] = (green + points - hits) / points
            out_colors[y, x, 2] = (blue + points - hits) / points
            out_depths[y, x] = depth / hits
            length = max((normal_x**2 + normal_y**2 + normal_z**2) ** 0.5, 1e-12)
            out_normals[y, x, 0] = normal_x / length
            out_normals[y, x, 1] = normal_y / length
            out_normals[y, x, 2] = normal_z / length


@njit(cache=True, inline="always")
def _dot(a, b):  # type: ignore[no-untyped-def]
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True, inline="always")
def _mix(weights, a, b, c):  # type: ignore[no-untyped-def]
    return (
        weights[0] * a[0] + weights[1] * b[0] + weights[2] * c[0],
        weights[0] * a[1] + weights[1] * b[1] + weights[2] * c[1],
        weights[0] * a[2] + weights[1] * b[2] + weights[2] * c[2],
    )


@njit(cache=True)
def _sample(texels, levels, p0, p1, p2, uv0, uv1, uv2, x, y):  # type: ignore[no-untyped-def]
    """Texture colour of a triangle, corners given as (x z, y z, z), at pixel position (x, y).

    With e_i the edge functions (see `raster`), u = sum(u_i e_i) / sum(e_i): a quotient of two
    functions linear in x and y, whose derivatives are exact.
    """
    e0, e1, e2 = cross(p1, p2), cross(p2, p0), cross(p0, p1)
    v0 = e0[0] * x + e0[1] * y + e0[2]
    v1 = e1[0] * x + e1[1] * y + e1[2]
    v2 = e2[0] * x + e2[1] * y + e2[2]
    total = v0 + v1 + v2
    u = (uv0[0] * v0 + uv1[0] * v1 + uv2[0] * v2) / total
    v = (uv0[1] * v0 + uv1[1] * v1 + uv2[1] * v2) / total
    total_dx, total_dy = e0[0] + e1[0] + e2[0], e0[1] + e1[1] + e2[1]
    du_dx = (uv0[0] * e0[0] + uv1[0] * e1[0] + uv2[0] * e2[0] - u * total_dx) / total
    dv_dx = (uv0[1] * e0[0] + uv1[1] * e1[0] + uv2[1] * e2[0] - v * total_dx) / total
    du_dy = (uv0[0] * e0[1] + uv1[0] * e1[1] + uv2[0] * e2[1] - u * total_dy) / total
    dv_dy = (uv0[1] * e0[1] + uv1[1] * e1[1] + uv2[1] * e2[1] - v * total_dy) / total
    return sample_footprint(texels, levels, u, v, du_dx, dv_dx, du_dy, dv_dy)
