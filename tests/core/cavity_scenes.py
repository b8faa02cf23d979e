"""A patterned cup that the silhouettes close with a lid, and a patterned ball that is convex."""

import numpy as np
import torch
import trimesh

from hi3d_core.align.warp import warp
from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import Mesh, OrbitViews
from hi3d_core.local_views import in_local_frame
from hi3d_core.surface.field import Field, redistance
from hi3d_core.surface.fit import Level, SurfaceConfig
from hi3d_core.surface.hull import FloatArray, Grid, Placement, locate

from .texture_scenes import mesh_of, views_of

OUTER, INNER, LOW, FLOOR, HIGH = 0.42, 0.34, -0.3, -0.1, 0.2
SMALL = SurfaceConfig(levels=(Level(48, 96, 30),), rays=8192, cavity_rounds=0)


def cup() -> Mesh:
    """Round, thick walled, open at its top (y = HIGH), with a floor at FLOOR."""
    profile = np.array(
        [[0, LOW], [OUTER, LOW], [OUTER, HIGH], [INNER, HIGH], [INNER, FLOOR], [0, FLOOR]]
    )
    made = trimesh.creation.revolve(profile, sections=48)
    made.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    return mesh_of(made)


def pattern(points: torch.Tensor) -> torch.Tensor:
    """Blobs of all colours, a few pixels wide in pictures of 96."""
    phase = torch.tensor([0.0, 1.0, 2.0])
    waves = torch.sin(22 * points + phase) + torch.sin(22 * points.roll(1, -1) - phase)
    return 0.5 + 0.2 * waves


def spots(points: torch.Tensor) -> torch.Tensor:
    """Texture that flow can hold on to, wider than a coarse fit's voxels."""
    phase = torch.tensor([0.0, 1.0, 2.0])
    return 0.45 + 0.3 * torch.sin(14 * points + phase) * torch.cos(11 * points.roll(1, -1))


def pattern_at(where: FloatArray) -> FloatArray:
    """`pattern` of numpy places (..., 3)."""
    return pattern(torch.from_numpy(where).float()).numpy()


def orbit_at(elevation: float, size: int, count: int = 12) -> Cameras:
    return Cameras.orbit(count, elevation, width=size, height=size)


def from_above(mesh: Mesh, paint=pattern, count: int = 12, size: int = 96) -> OrbitViews:
    return views_of(mesh, orbit_at(40, size, count), paint, fine=3)


def placed(views: OrbitViews) -> tuple[OrbitViews, Placement]:
    """The views in their local frame, as the fit takes them."""
    placement = locate(views)
    return in_local_frame(views, placement), placement


def places(grid: Grid, placement: Placement) -> FloatArray:
    """(X, Y, Z, 3) where a local grid's nodes are in the world."""
    axes = [grid.origin[a] + grid.voxel * np.arange(grid.shape[a]) for a in range(3)]
    local = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return local * placement.scale + placement.center.numpy()


def cup_field(grid: Grid, placement: Placement, lid: bool = False) -> Field:
    """The cup, or with a lid on it, as it should come out."""
    where = places(grid, placement)
    radius, height = np.hypot(where[..., 0], where[..., 2]), where[..., 1]
    distance = np.maximum(radius - OUTER, np.maximum(LOW - height, height - HIGH))
    if not lid:
        distance = np.maximum(distance, np.minimum(INNER - radius, height - FLOOR))
    sdf = redistance((distance / (placement.scale * grid.voxel)).astype(np.float32))
    shape = grid.shape
    return Field(grid, sdf, np.full((*shape, 3), 0.5, "f4"), np.zeros(shape, "f4"))


def opening(field: Field, placement: Placement) -> FloatArray:
    """(N,) heights of the first surface met from above, in the middle of the cup's opening."""
    where = places(field.grid, placement)
    middle = np.hypot(where[:, 0, :, 0], where[:, 0, :, 2]) < 0.6 * INNER
    heights = where[0, :, 0, 1]
    columns = np.moveaxis(field.sdf, 1, 2)[middle] < 0
    top = columns.shape[1] - 1 - columns[:, ::-1].argmax(axis=1)
    return heights[top]


def bent(views: OrbitViews, pixels: float) -> OrbitViews:
    """Each view but the first pulled smoothly its own way by `pixels` rms, mask and all."""
    height, width = views.alphas.shape[1:]
    y, x = np.mgrid[:height, :width] / width
    images, alphas = views.images.clone(), views.alphas.clone()
    for view in range(1, len(views)):
        turn = 2.4 * view
        pull = np.stack([np.sin(4 * y + 2 * x + turn), np.cos(3 * x - 3 * y + 2 * turn)], axis=2)
        pull *= pixels / np.sqrt((pull**2).sum(axis=2).mean())
        picture = np.dstack([views.images[view].numpy(), views.alphas[view].numpy()])
        moved = warp(picture, pull.astype(np.float32))
        images[view] = torch.from_numpy(moved[..., :3]).clamp(0, 1)
        alphas[view] = torch.from_numpy(moved[..., 3]).clamp(0, 1)
    return OrbitViews(images, alphas, views.cameras)
