"""What depth and normal maps say about the surface: alignment to the scene, and their gradients.

A network's depth is relative: its inverse is right up to a scale and an offset of each picture,
and now and then wrong altogether. So each map is first laid on the depth that the current field
shows from that view, robustly; what still disagrees by far gets no weight. The aligned depths and
normals then pull on the signed distance f beside the images' own gradients (`render.py`):
    depth: min(|f(p)|, limit),       normals: 1 - cos(grad f(p), n),       p the point at the depth
Beyond the limit the depth is taken for wrong and pulls no more.

Letters: V views, H and W the picture's size, R pixels, (X, Y, Z) grid nodes, C chunks, B band
nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ..cameras import Cameras
from ..jit import njit
from .field import Field, IndexArray
from .hull import FloatArray, Grid
from .render import SDF, clip_to_grid, trilinear

_INSIDE = 0.95  # alpha of pixels that show nothing but the object
_ROUNDS = 20  # of reweighting
_LEAST_PIXELS = 30  # that a view's map needs to be laid on the scene
# Beyond the first, in voxels, a depth is taken for wrong; below the second its pull is quadratic.
DEPTH_LIMIT, DEPTH_HUBER = 3.0, 0.5
STEEPEST = 0.05  # least length of the field's gradient whose direction means anything


@dataclass(frozen=True, eq=False)
class AlignedDepths:
    """depths: (V, H, W) float32 z-depth in the reference's units, 0 where unknown.

    weights: (V, H, W) float32 in [0, 1], 0 where the map disagrees wildly or says nothing.
    """

    depths: FloatArray
    weights: FloatArray


def align_depths(
    inverse_depths: FloatArray, reference: FloatArray, masks: FloatArray, *, tolerance: float = 0.05
) -> AlignedDepths:
    """Lay relative inverse depths on a reference's depths, each view by its own scale and offset.

    inverse_depths: (V, H, W), near is large (`hi3d_core.depth`); of any scale and offset.
    reference: (V, H, W) z-depths, such as `render_depths` gives; 0 where unknown.
    masks: (V, H, W) in [0, 1], where the object is; weights are 0 where it covers less than all.
    tolerance: relative to depth; pixels that differ from the reference by twice of it or more
    get no weight, those by much less full weight.

    A view's scale and offset minimise Cauchy's loss of the difference of inverse depths, by
    reweighted least squares. A view whose map can't be laid on the reference (too
    few pixels in common, or near and far swapped) gets weight 0 throughout.

    Raises ValueError for shapes that differ, values that are not finite, negative depths or a
    tolerance that is not positive.
    """
    _check_maps(inverse_depths, reference, masks, tolerance)
    depths = np.zeros(reference.shape, np.float32)
    weights = np.zeros(reference.shape, np.float32)
    for view in range(len(reference)):
        inside = masks[view] > _INSIDE
        common = inside & (reference[view] > 0)
        if int(common.sum()) < _LEAST_PIXELS:
            continue
        goal = 1 / reference[view][common].astype(np.float64)
        fitted = _robust_line(inverse_depths[view][common].astype(np.float64), goal)
        if fitted is None:
            continue
        scale, offset = fitted
        inverse = scale * inverse_depths[view].astype(np.float64) + offset
        # No nearer than half and no farther than twice what the object spans.
        good = inside & (inverse > 0.5 * goal.min()) & (inverse < 2 * goal.max())
        depths[view] = np.where(good, 1 / np.where(good, inverse, 1), 0)
        known = good & common
        apart = np.abs(depths[view][known] / reference[view][known] - 1) / tolerance
        weights[view][known] = np.clip(1 - (apart / 2) ** 2, 0, 1) ** 2
    return AlignedDepths(depths, weights)


def _check_maps(
    inverse_depths: FloatArray, reference: FloatArray, masks: FloatArray, tolerance: float
) -> None:
    if inverse_depths.ndim != 3:
        raise ValueError(f"inverse depths are {inverse_depths.shape}, expected (V, H, W)")
    for name, values in (("reference depths", reference), ("masks", masks)):
        if values.shape != inverse_depths.shape:
            raise ValueError(
                f"{name} are {values.shape}, the inverse depths {inverse_depths.shape}: give one "
                "map for each view, of one size"
            )
    for name, values in (("inverse depths", inverse_depths), ("reference depths", reference)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} hold values that are not finite: set unknown ones to 0")
    if reference.size and float(reference.min()) < 0:
        raise ValueError("reference depths must not be negative, 0 where unknown")
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}, expected a positive number")


def _robust_line(
    maps: NDArray[np.float64], goal: NDArray[np.float64]
) -> tuple[float, float] | None:
    """Scale and offset with goal = scale * maps + offset for most pairs (P,); None if scale <= 0.

    The maps are fitted to the goal and not the other way round: a map's blunders may lie far
    outside its range and would bend the line, the goal's can't, as all of it is the object.
    """
    middle, unit = float(np.median(goal)), float(np.std(goal))
    spread = float(np.quantile(maps, 0.9) - np.quantile(maps, 0.1))
    if not (unit > 0 and spread > 0):
        return None
    x, y = (goal - middle) / unit, maps / spread
    slope, offset = 0.0, float(np.median(y))
    smallest = 1e-3
    # Least absolute deviations to begin with: Cauchy's loss has more than one valley.
    for step in range(2 * _ROUNDS):
        residual = y - slope * x - offset
        if step < _ROUNDS:
            weight = 1 / np.maximum(np.abs(residual), smallest)
        else:
            sigma = max(1.4826 * float(np.median(np.abs(residual))), smallest)
            weight = 1 / (1 + (residual / (2 * sigma)) ** 2)
        mean_x, mean_y = np.average(x, weights=weight), np.average(y, weights=weight)
        variance = float((weight * (x - mean_x) ** 2).sum())
        slope = float((weight * (x - mean_x) * (y - mean_y)).sum()) / max(variance, 1e-300)
        offset = float(mean_y - slope * mean_x)
    # In units of the scene's own spread: a map that leaves more than it explains is unrelated.
    if not slope > 1.4826 * float(np.median(np.abs(y - slope * x - offset))):
        return None
    scale = unit / (slope * spread)
    return scale, middle - unit * offset / slope


def render_depths(sdf: FloatArray, grid: Grid, cameras: Cameras) -> FloatArray:
    """(V, H, W) float32 z-depths of a signed distance's zero level, 0 where rays miss it.

    sdf: (X, Y, Z) in voxels at the grid's nodes, negative inside. cameras: in the grid's frame.
    """
    sdf = np.ascontiguousarray(sdf, np.float32)
    poses = cameras.camera_to_world.cpu().numpy().astype(np.float32)
    k = cameras.intrinsics.cpu().numpy().astype(np.float32)
    depths = np.zeros((len(cameras), cameras.height, cameras.width), np.float32)
    for view in range(len(cameras)):
        origin = ((poses[view, :3, 3] - grid.origin) / grid.voxel).astype(np.float32)
        axes = np.ascontiguousarray(poses[view, :3, :3])
        _march(sdf, origin, axes, k[view], np.float32(grid.voxel), depths[view])
    return depths


@njit(parallel=True, cache=True, fastmath=True)
def _march(
    sdf: FloatArray,
    origin: FloatArray,
    axes: FloatArray,
    k: FloatArray,
    voxel: np.float32,
    depths: FloatArray,
) -> None:
    height, width = depths.shape
    for row in prange(height):
        direction = np.empty(3, np.float32)
        for column in range(width):
            x = (column + np.float32(0.5) - k[0, 2]) / k[0, 0]
            y = (row + np.float32(0.5) - k[1, 2]) / k[1, 1]
            length = np.sqrt(x * x + y * y + np.float32(1))
            for axis in range(3):
                direction[axis] = (axes[axis, 0] * x + axes[axis, 1] * y + axes[axis, 2]) / length
            t, leave = clip_to_grid(origin, direction, sdf.shape)
            before_t, before = t, np.float32(1e9)
            while t < leave:
                f = trilinear(
                    sdf,
                    origin[0] + t * direction[0],
                    origin[1] + t * direction[1],
                    origin[2] + t * direction[2],
                )
                if f < 0:
                    if before < 1e8:
                        t = before_t + (t - before_t) * before / (before - f)
                    depths[row, column] = t * voxel / length
                    break
                before_t, before = t, f
                t += max(f * np.float32(0.9), np.float32(0.3))


@dataclass(frozen=True, eq=False)
class PriorPoints:
    """What depth and normal maps say, point by point; (R, ...) over all views.

    points: (R, 3) in node coordinates. normals: (R, 3) unit, outward, or 0 where unknown.
    depth_weights, normal_weights: (R,) 0 or more.
    """

    points: FloatArray
    normals: FloatArray
    depth_weights: FloatArray
    normal_weights: FloatArray

    @staticmethod
    def from_views(
        cameras: Cameras, aligned: AlignedDepths, grid: Grid, normals: FloatArray | None = None
    ) -> PriorPoints:
        """The points at the aligned depths that have any weight and lie inside the grid.

        cameras: in the grid's frame, of the maps' size. normals: (V, H, W, 3) in the world,
        outward (towards the camera), of unit length, or 0 where unknown; None for no normals.

        Raises ValueError for maps of another size than the cameras'.
        """
        size = (len(cameras), cameras.height, cameras.width)
        if aligned.depths.shape != size:
            raise ValueError(f"depths are {aligned.depths.shape}, the cameras are for {size}")
        if normals is not None and normals.shape != (*size, 3):
            raise ValueError(f"normals are {normals.shape}, expected {(*size, 3)}")
        view, row, column = np.nonzero((aligned.weights > 0) & (aligned.depths > 0))
        depth = aligned.depths[view, row, column].astype(np.float64)
        poses = cameras.camera_to_world.cpu().double().numpy()[view]
        k = cameras.intrinsics.cpu().double().numpy()[view]
        x = (column + 0.5 - k[:, 0, 2]) / k[:, 0, 0]
        y = (row + 0.5 - k[:, 1, 2]) / k[:, 1, 1]
        local = np.stack([x, y, np.ones_like(x)], axis=1) * depth[:, None]
        world = np.einsum("rij,rj->ri", poses[:, :3, :3], local) + poses[:, :3, 3]
        points = ((world - grid.origin) / grid.voxel).astype(np.float32)
        inside = ((points > 1) & (points < np.array(grid.shape) - 2.01)).all(axis=1)
        weights = aligned.weights[view, row, column].astype(np.float32)
        if normals is None:
            directions = np.zeros((len(view), 3), np.float32)
        else:
            directions = normals[view, row, column].astype(np.float32)
        known = np.linalg.norm(directions, axis=1) > 0.5
        normal_weights = np.where(known, weights, 0).astype(np.float32)
        return PriorPoints(
            points[inside], directions[inside], weights[inside], normal_weights[inside]
        )

    def __len__(self) -> int:
        return len(self.points)

    def drawn(
        self, count: int, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """A random batch of at most `count`, as `accumulate_prior_gradients` takes it."""
        chosen = slice(None) if count >= len(self) else np.sort(rng.integers(len(self), size=count))
        return (
            self.points[chosen],
            self.normals[chosen],
            self.depth_weights[chosen],
            self.normal_weights[chosen],
        )


@dataclass(frozen=True, eq=False)
class SurfacePriors:
    """Estimated maps of the views, before they are laid on a field.

    inverse_depths: (V, H, W), near is large, of any scale and offset, or None. normals:
    (V, H, W, 3) in the world, outward, unit length or 0 where unknown, or None. masks: (V, H, W)
    in [0, 1]. cameras: in the field's frame, of the maps' size.

    Raises ValueError for maps of another size than the cameras', and if both are None.
    """

    cameras: Cameras
    masks: FloatArray
    inverse_depths: FloatArray | None = None
    normals: FloatArray | None = None

    def __post_init__(self) -> None:
        size = (len(self.cameras), self.cameras.height, self.cameras.width)
        if self.inverse_depths is None and self.normals is None:
            raise ValueError("neither depths nor normals are given: leave the priors out")
        for name, maps in (("masks", self.masks), ("inverse depths", self.inverse_depths)):
            if maps is not None and maps.shape != size:
                raise ValueError(f"{name} are {maps.shape}, the cameras are for {size}")
        if self.normals is not None and self.normals.shape != (*size, 3):
            raise ValueError(f"normals are {self.normals.shape}, expected {(*size, 3)}")

    def points(self, field: Field) -> PriorPoints:
        """What they say about a field as it is now; normals alone pull where its surface is."""
        shown = render_depths(field.sdf, field.grid, self.cameras)
        if self.inverse_depths is not None:
            aligned = align_depths(self.inverse_depths, shown, self.masks)
            return PriorPoints.from_views(self.cameras, aligned, field.grid, self.normals)
        inside = ((self.masks > _INSIDE) & (shown > 0)).astype(np.float32)
        here = AlignedDepths(shown, inside)
        points = PriorPoints.from_views(self.cameras, here, field.grid, self.normals)
        return replace(points, depth_weights=np.zeros_like(points.depth_weights))


@njit(parallel=True, cache=True, fastmath=True)
def accumulate_prior_gradients(
    points: FloatArray,  # (R, 3) node coordinates, inside the grid
    normals: FloatArray,  # (R, 3)
    depth_weights: FloatArray,  # (R,)
    normal_weights: FloatArray,  # (R,)
    sdf: FloatArray,  # (X, Y, Z) in voxels
    slot: IndexArray,  # (X, Y, Z)
    depth_weight: float,
    normal_weight: float,
    limit: float,
    huber: float,
    gradients: FloatArray,  # (C, B, COLUMNS), added to
) -> float:
    """Add the gradient of the depth and normal priors, summed over points; return that loss.

    depth_weight: of |f(p)| in voxels, quadratic below `huber` and constant beyond `limit`.
    normal_weight: of 1 - cos between the field's gradient and the normal; only points within
    `limit` of the surface count, as elsewhere the field has another surface's direction.
    """
    chunks = len(gradients)
    count = len(points)
    losses = np.zeros(chunks)
    for chunk in prange(chunks):
        out = gradients[chunk]
        total = 0.0
        for r in range(count * chunk // chunks, count * (chunk + 1) // chunks):
            x, y, z = points[r, 0], points[r, 1], points[r, 2]
            i, j, k = int(x), int(y), int(z)
            u, v, q = x - i, y - j, z - k
            f = trilinear(sdf, x, y, z)
            off = abs(f)
            weigh = depth_weight * depth_weights[r]
            if off >= limit:
                total += weigh * (limit - huber / 2)
                continue
            if off <= huber:
                total += weigh * f * f / (2 * huber)
                by_value = weigh * f / huber
            else:
                total += weigh * (off - huber / 2)
                by_value = weigh if f > 0 else -weigh

            weigh = normal_weight * normal_weights[r]
            by_x = by_y = by_z = by_value * 0
            if weigh > 0:
                # Gradient of the trilinear cell.
                gx = gy = gz = by_value * 0
                for corner in range(8):
                    di, dj, dk = corner >> 2, (corner >> 1) & 1, corner & 1
                    a = u if di else 1 - u
                    b = v if dj else 1 - v
                    c = q if dk else 1 - q
                    value = sdf[i + di, j + dj, k + dk]
                    gx += (value if di else -value) * b * c
                    gy += (value if dj else -value) * a * c
                    gz += (value if dk else -value) * a * b
                steep = np.sqrt(gx * gx + gy * gy + gz * gz)
                if steep > STEEPEST:
                    nx, ny, nz = normals[r, 0], normals[r, 1], normals[r, 2]
                    cosine = (gx * nx + gy * ny + gz * nz) / steep
                    total += weigh * (1 - cosine)
                    # d(-cos)/dg = -(n - cos g/|g|) / |g|
                    by_x = -weigh * (nx - cosine * gx / steep) / steep
                    by_y = -weigh * (ny - cosine * gy / steep) / steep
                    by_z = -weigh * (nz - cosine * gz / steep) / steep
            for corner in range(8):
                di, dj, dk = corner >> 2, (corner >> 1) & 1, corner & 1
                node = slot[i + di, j + dj, k + dk]
                if node >= 0:
                    a = u if di else 1 - u
                    b = v if dj else 1 - v
                    c = q if dk else 1 - q
                    out[node, SDF] += (
                        by_value * a * b * c
                        + (by_x if di else -by_x) * b * c
                        + (by_y if dj else -by_y) * a * c
                        + (by_z if dk else -by_z) * a * b
                    )
        losses[chunk] = total
    return losses.sum()
