"""Balls whose colour is a known function of the place, and pictures of them."""

import numpy as np
import torch
import trimesh

from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import Mesh, OrbitViews
from hi3d_core.raster import rasterize_triangles
from hi3d_core.texture.texels import find_texels, surface_points

PICTURE = 128
FINE = 4
SIZE = 256


def mesh_of(made: trimesh.Trimesh) -> Mesh:
    made.merge_vertices()
    return Mesh(
        torch.tensor(np.array(made.vertices), dtype=torch.float32),
        torch.tensor(np.array(made.faces)).long(),
    )


def ball(radius: float = 0.45) -> Mesh:
    return mesh_of(trimesh.creation.icosphere(4, radius))


def waves(points: torch.Tensor) -> torch.Tensor:
    """A smooth colour for every place in the world, away from white and black."""
    phase = torch.tensor([0.0, 1.0, 2.0])
    return 0.45 + 0.25 * torch.sin(6 * points + phase)


def stripes(points: torch.Tensor) -> torch.Tensor:
    """Waves with stripes, too fine for pictures of 128 pixels."""
    return waves(points) + 0.12 * torch.sin(130 * points[..., :1])


def views_of(mesh: Mesh, cameras: Cameras, paint=waves, gains=None, fine=FINE) -> OrbitViews:
    """Pictures of a mesh whose colour is a function of the place, averaged over fine x fine."""
    finer = cameras.resized(cameras.width * fine, cameras.height * fine)
    fragments = rasterize_triangles(mesh.vertices, mesh.faces, finer)
    colors = paint(fragments.interpolate(mesh.vertices, mesh.faces))
    if gains is not None:
        colors = (colors * gains[:, None, None]).clamp(0, 1)
    seen = (fragments.faces >= 0).float()[..., None]
    both = torch.cat([colors * seen + 1 - seen, seen], dim=-1)
    shape = (len(cameras), cameras.height, fine, cameras.width, fine, 4)
    both = both.reshape(shape).mean(dim=(2, 4))
    return OrbitViews(both[..., :3], both[..., 3], cameras)


def orbit(n: int = 12, elevation: float = 15.0) -> Cameras:
    return Cameras.orbit(n, elevation, width=PICTURE, height=PICTURE)


def texel_places(mesh: Mesh, size: int = SIZE) -> tuple[np.ndarray, torch.Tensor]:
    uvs, faces = mesh.uvs.double().numpy(), mesh.faces.numpy()
    texels, owners = find_texels(uvs, faces, size)
    places = surface_points(texels, owners, size, uvs, mesh.vertices.double().numpy(), faces)
    return texels, torch.from_numpy(places)
