"""The visual hull as a smooth signed distance, and where in the world the object is.

Laurentini 1994, "The visual hull concept". Instead of carving voxels in or out, every point
takes its signed distance to each view's silhouette, in world units at the point's depth; the
hull's distance is the largest of them. With anti-aliased masks its zero level is good to a
fraction of a pixel, so planes and convex things need nothing further.

Letters: V views, H and W the picture's size, (X, Y, Z) grid nodes along the axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numba import prange
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ..cameras import Cameras, project
from ..datatypes import OrbitViews
from ..jit import njit

FloatArray = NDArray[np.float32]

# Room between the object's bounding box and the grid's border, as a share of the half extent.
_MARGIN = 0.12
# To find that box a coarse hull is drawn a few times, each in the box of the one before.
_LOCATING_NODES, _ROUNDS = 48, 3


@dataclass(frozen=True, eq=False)
class Grid:
    """Nodes of a regular grid: node (i, j, k) lies at origin + voxel * (i, j, k).

    origin: (3,) float64 in the world. voxel: edge length in world units. shape: nodes an axis.
    """

    origin: NDArray[np.float64]
    voxel: float
    shape: tuple[int, int, int]

    @staticmethod
    def covering(low: NDArray[np.float64], high: NDArray[np.float64], nodes: int) -> Grid:
        """The grid of cubes over a box whose longest side has `nodes` nodes."""
        size = high - low
        voxel = float(size.max()) / (nodes - 1)
        counts = np.maximum(np.ceil(size / voxel - 1e-9).astype(int) + 1, 8)
        origin = (low + high) / 2 - voxel * (counts - 1) / 2
        return Grid(origin, voxel, (int(counts[0]), int(counts[1]), int(counts[2])))


@dataclass(frozen=True)
class Placement:
    """Where the object lies: p_world = center + scale * p_local, and its local bounding box.

    In the local frame the box is centred on the origin and its longest side is 1.
    half_extent: (3,) half sides of the box in local units, without margin.
    """

    center: Tensor
    scale: float
    half_extent: tuple[float, float, float]

    def grid(self, nodes: int) -> Grid:
        """A grid over the box with room around it; `nodes` along the longest side."""
        half = np.asarray(self.half_extent) + _MARGIN * 0.5
        return Grid.covering(-half, half, nodes)


def silhouette_distances(alphas: Tensor) -> FloatArray:
    """Signed distance to each silhouette in pixels, positive inside.

    alphas: (V, H, W). The edge is where alpha is one half; within a pixel of it the coverage
    itself tells the distance. Returns (V, H, W) float32.
    """
    masks = alphas.detach().cpu().numpy()
    distances = np.empty(masks.shape, np.float32)
    for view, alpha in enumerate(masks):
        inside = alpha > 0.5
        # Both transforms measure to a pixel centre across the edge, half a pixel too far.
        signed = distance_transform_edt(inside) - distance_transform_edt(~inside)
        signed -= 0.5 * np.sign(signed)
        edge = np.abs(signed) <= 0.5
        signed[edge] = np.clip(alpha[edge] - 0.5, -0.5, 0.5)
        distances[view] = signed
    return distances


def hull_distance(
    views: OrbitViews, grid: Grid, *, slack_pixels: float = 0.0, distances: FloatArray | None = None
) -> FloatArray:
    """Signed distance to the visual hull at a grid's nodes, in world units, negative inside.

    slack_pixels: grows every silhouette, so that views that disagree don't carve each other's
    thin parts away. A silhouette cut off by its picture's border goes on outside it; points
    behind a camera are not judged by it. distances: those of `silhouette_distances`, if at hand.
    Returns (X, Y, Z) float32.
    """
    if distances is None:
        distances = silhouette_distances(views.alphas)
    world_to_camera, intrinsics = camera_arrays(views.cameras)
    return _hull_distance(
        distances,
        world_to_camera,
        intrinsics,
        np.float32(slack_pixels),
        grid.origin.astype(np.float32),
        np.float32(grid.voxel),
        *grid.shape,
    )


def camera_arrays(cameras: Cameras) -> tuple[FloatArray, FloatArray]:
    """World-to-camera matrices (V, 3, 4) and [fx, fy, cx, cy] (V, 4) for the kernels."""
    world_to_camera = cameras.world_to_camera[:, :3].cpu().numpy().astype(np.float32)
    k = cameras.intrinsics.cpu().numpy().astype(np.float32)
    focal = np.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], axis=1)
    return np.ascontiguousarray(world_to_camera), np.ascontiguousarray(focal)


@njit(parallel=True, cache=True, fastmath=True)
def _hull_distance(
    distances: FloatArray,
    world_to_camera: FloatArray,
    intrinsics: FloatArray,
    slack: np.float32,
    origin: FloatArray,
    voxel: np.float32,
    nodes_x: int,
    nodes_y: int,
    nodes_z: int,
) -> FloatArray:
    views, height, width = distances.shape
    out = np.empty((nodes_x, nodes_y, nodes_z), np.float32)
    for column in prange(nodes_x * nodes_y):
        i, j = column // nodes_y, column % nodes_y
        x, y = origin[0] + voxel * i, origin[1] + voxel * j
        for k in range(nodes_z):
            z = origin[2] + voxel * k
            largest = np.float32(-1e9)
            for v in range(views):
                m = world_to_camera[v]
                depth = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
                if depth < np.float32(1e-6):
                    continue
                f = intrinsics[v]
                u = f[0] * (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]) / depth + f[2]
                w = f[1] * (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]) / depth + f[3]
                # bilinear, held constant beyond the border
                pu = min(max(u - np.float32(0.5), np.float32(0)), np.float32(width - 1.001))
                pw = min(max(w - np.float32(0.5), np.float32(0)), np.float32(height - 1.001))
                a, b = int(pu), int(pw)
                s, t = pu - a, pw - b
                inside = (1 - t) * (
                    (1 - s) * distances[v, b, a] + s * distances[v, b, a + 1]
                ) + t * ((1 - s) * distances[v, b + 1, a] + s * distances[v, b + 1, a + 1])
                local = -(inside + slack) * depth / f[0]
                largest = max(largest, local)
            out[i, j, k] = largest
    return out


def locate(views: OrbitViews) -> Placement:
    """Find the object's bounding box from its silhouettes alone, wherever the world puts it.

    The rays through the masks' centroids meet near its middle; a coarse hull there gives the
    box, and is drawn again in it until that holds.

    Raises ValueError if the silhouettes have no point in common.
    """
    center, half = _meeting_point(views)
    low, high = center - half, center + half
    distances = silhouette_distances(views.alphas)
    for _ in range(_ROUNDS):
        grid = Grid.covering(low, high, _LOCATING_NODES)
        # Half a voxel of slack, so that a part thinner than the coarse grid still has nodes in.
        hull = hull_distance(views, grid, distances=distances)
        inside = np.argwhere(hull < 0.5 * grid.voxel)
        if len(inside) == 0:
            raise ValueError(
                "the silhouettes have no point in common: the masks, the elevation or the camera "
                "poses do not belong together (check the order of the frames and the pose axes)"
            )
        low = grid.origin + (inside.min(axis=0) - 1.5) * grid.voxel
        high = grid.origin + (inside.max(axis=0) + 1.5) * grid.voxel
    # The last box has a node and a half too much on every side.
    low, high = low + grid.voxel, high - grid.voxel
    scale = float((high - low).max())
    half_extent = (high - low) / (2 * scale)
    return Placement(
        torch.from_numpy((low + high) / 2).float(),
        scale,
        (float(half_extent[0]), float(half_extent[1]), float(half_extent[2])),
    )


def _meeting_point(views: OrbitViews) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The point nearest to the rays through the masks' centroids, and a half size (3,) that
    surely covers the object."""
    cameras = views.cameras
    alphas = views.alphas.double().cpu()
    count, height, width = alphas.shape
    mass = alphas.sum(dim=(1, 2)).clamp_min(1e-9)
    u = (alphas.sum(dim=1) * (torch.arange(width) + 0.5)).sum(dim=1) / mass
    v = (alphas.sum(dim=2) * (torch.arange(height) + 0.5)).sum(dim=1) / mass
    k = cameras.intrinsics.double().cpu()
    local = torch.stack(
        [(u - k[:, 0, 2]) / k[:, 0, 0], (v - k[:, 1, 2]) / k[:, 1, 1], torch.ones(count)], dim=1
    )
    poses = cameras.camera_to_world.double().cpu()
    direction = (poses[:, :3, :3] @ local[:, :, None])[:, :, 0]
    direction = direction / direction.norm(dim=1, keepdim=True)
    across = torch.eye(3) - direction[:, :, None] * direction[:, None, :]
    system = across.sum(dim=0)
    offset = (across @ poses[:, :3, 3:]).sum(dim=0)[:, 0]
    center = torch.linalg.lstsq(system, offset[:, None]).solution[:, 0]
    depth = project(center[None].float(), cameras.to("cpu"))[1][:, 0].double().abs()
    # Half the picture's diagonal at the object's depth, or as far as the nearest camera.
    reach = (depth * np.hypot(width, height) / (2 * k[:, 0, 0])).max()
    reach = torch.minimum(reach, depth.min() * 0.98)
    return center.numpy(), np.full(3, float(reach))


def hull_points(views: OrbitViews, count: int, seed: int = 0, *, nodes: int = 128) -> Tensor:
    """Points on the visual hull's surface, evenly by area up to chance.

    The object must lie within [-0.6, 0.6] on every axis (see `locate` and `Cameras.in_frame`).
    Returns (count, 3) float32, or (0, 3) for an empty hull.
    """
    grid = Grid.covering(np.full(3, -0.6), np.full(3, 0.6), nodes)
    distance = hull_distance(views, grid)
    near = np.argwhere(np.abs(distance[1:-1, 1:-1, 1:-1]) < 0.87 * grid.voxel) + 1
    if len(near) == 0:
        return torch.zeros(0, 3)
    rng = np.random.default_rng(seed)
    chosen = near[rng.integers(len(near), size=count)]
    i, j, k = chosen.T
    gradient = np.stack(
        [
            distance[i + 1, j, k] - distance[i - 1, j, k],
            distance[i, j + 1, k] - distance[i, j - 1, k],
            distance[i, j, k + 1] - distance[i, j, k - 1],
        ],
        axis=1,
    ) / (2 * grid.voxel)
    steepness = np.maximum((gradient**2).sum(axis=1, keepdims=True), 1e-6)
    # Slide along the gradient onto the zero level, then scatter within the voxel's tangent plane.
    position = grid.origin + chosen * grid.voxel
    onto = -distance[i, j, k][:, None] * gradient / steepness
    normal = gradient / np.sqrt(steepness)
    jitter = rng.uniform(-0.5, 0.5, size=(count, 3)) * grid.voxel
    jitter -= (jitter * normal).sum(axis=1, keepdims=True) * normal
    onto = np.clip(onto, -grid.voxel, grid.voxel)
    return torch.from_numpy((position + onto + jitter).astype(np.float32))
