"""Gaussians to start a fit from: points on the visual hull, coloured by the views.

Letters: N points, V views.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ..cameras import Cameras, project
from ..datatypes import Gaussians, OrbitViews
from .rasterize import rasterize
from .rotations import matrices_from_quaternions, quaternions_from_matrices
from .spherical_harmonics import sh_from_colors

_NEIGHBOURS = 12  # for a point's normal and spacing
_WIDTH = 0.7  # standard deviation along the surface, of the spacing
_THICKNESS = 0.3  # standard deviation across it, of the one along it
_OPACITY = 0.8
_FULLY_COVERED = 0.95  # alpha above which a pixel shows the object's own colour
_OPAQUE = 0.99
_HIDDEN_WIDTHS = 4.0  # of a Gaussian behind what is drawn: it is hidden
_VISIBILITY_SIZE = 256  # pixels, the longer side of the pictures that tell what hides what


def initial_gaussians(points: Tensor, views: OrbitViews) -> Gaussians:
    """Flat Gaussians on a surface, each of the colour in which most views see it.

    points: (N, 3) on the object's surface (or its visual hull's) in the world, N >= 4.

    Each lies along the surface (normals from the nearest neighbours) and is about as wide as
    the points are apart. Its colour is the weighted median over the views in which no other
    point hides it, weighted by how squarely they face it; a point that no view sees takes the
    colour of the nearest one that is seen. Follows the points' device.

    Raises ValueError for fewer than 4 points or points that are not finite.
    """
    if points.ndim != 2 or points.shape[1] != 3 or len(points) < 4:
        raise ValueError(f"points is {tuple(points.shape)}, expected (N, 3) with N >= 4")
    if not torch.isfinite(points).all():
        raise ValueError("points holds values that are NaN or infinite")
    device = points.device
    points, views = points.detach().float().cpu(), views.to("cpu")
    tree = cKDTree(points.numpy())
    distances, neighbours = tree.query(points.numpy(), k=min(_NEIGHBOURS, len(points)))
    spacing = torch.from_numpy(distances[:, 1:4].mean(axis=1)).float()
    # Points that fell together would be invisible; lone ones would be huge.
    spacing = spacing.clamp(0.2 * float(spacing.median()), 5 * float(spacing.median()) + 1e-9)
    spacing = spacing.clamp_min(1e-6)
    axes = _surface_axes(points, torch.from_numpy(neighbours))
    width = _WIDTH * spacing
    grey = Gaussians(
        means=points.clone(),
        scales=torch.stack([width, width, _THICKNESS * width], dim=1),
        quaternions=quaternions_from_matrices(axes),
        opacities=torch.full((len(points),), _OPACITY),
        sh=torch.zeros(len(points), 1, 3),
    )
    return replace(grey, sh=sh_from_colors(seen_colors(grey, views))).to(device)


def _surface_axes(points: Tensor, neighbours: Tensor) -> Tensor:
    """(N, 3, 3) rotations whose columns are two tangents and the normal, of either sign."""
    offsets = points[neighbours] - points[neighbours].mean(dim=1, keepdim=True)
    # Eigenvalues ascend: the first eigenvector is the direction of least spread.
    _, vectors = torch.linalg.eigh(offsets.transpose(1, 2).double() @ offsets.double())
    normal, tangent = vectors[:, :, 0], vectors[:, :, 2]
    return torch.stack(
        [tangent, torch.cross(normal, tangent, dim=1), normal], dim=2
    ).float()  # fmt: skip


def seen_colors(surface: Gaussians, views: OrbitViews) -> Tensor:
    """(N, 3) colours of points on a surface, as most views that see them agree.

    surface: flat Gaussians on it, on the CPU, wide enough to hide what lies behind them. Their
    own colours and opacities do not matter.
    """
    normals = matrices_from_quaternions(surface.quaternions)[:, :, 2]
    # A surface seen at a slant spans some depth within a Gaussian's width.
    tolerance = _HIDDEN_WIDTHS * surface.scales[:, 0]
    cameras = views.cameras.resized(*_reduced(views.cameras.width, views.cameras.height))
    colors, weights = [], []
    for view in range(len(views)):
        camera = cameras[[view]]
        with torch.no_grad():
            drawn = rasterize(
                surface.means,
                surface.scales,
                surface.quaternions,
                torch.full_like(surface.opacities, _OPAQUE),
                torch.zeros_like(surface.means),
                camera,
            )
        pixels, depths = project(surface.means, camera)
        drawn_depth = _sample(drawn.depths[0][..., None], pixels[0], camera)[:, 0]
        picture = torch.cat([views.images[view], views.alphas[view][..., None]], dim=-1)
        sample = _sample(picture.float(), pixels[0], camera)
        toward = torch.nn.functional.normalize(camera.positions[0] - surface.means, dim=1)
        facing = (toward * normals).sum(dim=1).abs()
        sees = (depths[0] > 0) & (depths[0] < drawn_depth + tolerance)
        sees &= sample[:, 3] > _FULLY_COVERED
        colors.append(sample[:, :3])
        weights.append(torch.where(sees, facing**2 + 1e-3, torch.zeros(())))
    weight = torch.stack(weights)
    median = _weighted_median(torch.stack(colors), weight)
    seen = weight.sum(dim=0) > 0
    if not seen.any():
        return torch.full_like(surface.means, 0.5)
    if not seen.all():
        _, nearest = cKDTree(surface.means[seen].numpy()).query(surface.means[~seen].numpy())
        median[~seen] = median[seen][torch.from_numpy(nearest)]
    return median


def _reduced(width: int, height: int) -> tuple[int, int]:
    factor = min(1.0, _VISIBILITY_SIZE / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _sample(picture: Tensor, pixels: Tensor, camera: Cameras) -> Tensor:
    """Bilinear values (N, C) of a picture (H, W, C), zero outside it.

    pixels: (N, 2) in the camera's picture, which may be of another size.
    """
    grid = pixels / torch.tensor([camera.width, camera.height]) * 2 - 1
    grid = torch.nan_to_num(grid, nan=9.0).clamp(-9, 9)
    return torch.nn.functional.grid_sample(
        picture.permute(2, 0, 1)[None],
        grid[None, None],
        align_corners=False,
        padding_mode="zeros",
    )[0, :, 0].T


def _weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """Along the first dimension: values (V, N, 3), weights (V, N). Zero weights never win."""
    ordered, order = values.sort(dim=0)
    cumulative = weights[..., None].expand_as(values).gather(0, order).cumsum(dim=0)
    middle = (cumulative >= 0.5 * cumulative[-1:]).long().argmax(dim=0, keepdim=True)
    return ordered.gather(0, middle)[0]
