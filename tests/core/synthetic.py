"""Views of objects that are known exactly, made by arithmetic and not by the code under test."""

import numpy as np
import torch

from hi3d_core.cameras import Cameras, pixel_rays
from hi3d_core.datatypes import OrbitViews


def sphere_color(normals: torch.Tensor) -> torch.Tensor:
    """A smooth colour for each direction (..., 3) in [0.1, 0.9]."""
    return 0.5 + 0.4 * torch.sin(4 * normals + torch.tensor([0.0, 1.0, 2.0]))


def sphere_views(
    cameras: Cameras, radius: float = 0.4, center=(0.0, 0.0, 0.0), supersample: int = 3
) -> OrbitViews:
    """Pictures of a coloured sphere, ray traced, anti-aliased, over white."""
    fine = cameras.resized(cameras.width * supersample, cameras.height * supersample)
    origins, directions = pixel_rays(fine)
    origins = origins[:, None, None] - torch.tensor(center)
    a = (directions**2).sum(-1)
    b = (directions * origins).sum(-1)
    c = (origins**2).sum(-1) - radius**2
    root = b**2 - a * c
    hit = root > 0
    depth = (-b - root.clamp_min(0).sqrt()) / a
    normals = (origins + depth[..., None] * directions) / radius
    colors = torch.where(hit[..., None], sphere_color(normals), torch.ones(3))
    size = (len(cameras), cameras.height, supersample, cameras.width, supersample)
    images = colors.reshape(*size, 3).mean(dim=(2, 4))
    alphas = hit.float().reshape(*size).mean(dim=(2, 4))
    return OrbitViews(images, alphas, cameras)


def node_radii(grid) -> np.ndarray:
    """Distance of every node of a `Grid` from the origin, (X, Y, Z)."""
    axes = [grid.origin[a] + grid.voxel * np.arange(grid.shape[a]) for a in range(3)]
    return np.sqrt(sum(x**2 for x in np.meshgrid(*axes, indexing="ij")))
