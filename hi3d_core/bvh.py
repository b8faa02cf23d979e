"""A tree of boxes over triangles: exact closest distances and ray casts on the CPU.

Binary bounding-volume hierarchy, split where the surface-area heuristic over sixteen bins says
(Wald 2007, "On fast construction of SAH-based bounding volume hierarchies"). Nodes lie in depth
first order: the left child of node i is i + 1. Arrays in, arrays out, all float64, since a
distance that scores a reconstruction must not be limited by its own rounding.

Letters: N points or rays, M triangles, K nodes.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from .jit import njit

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_LEAF_SIZE = 4
_BINS = 16
# Past this depth nodes are halved by count, so a stack of this and the 32 halvings that any
# int32 count allows never overflows, whatever the triangles look like.
_SAH_DEPTH = 60
STACK_SIZE = _SAH_DEPTH + 36


class TriangleTree:
    """Triangles sorted into boxes.

    corners: (M, 3, 3) float64 triangles in leaf order. faces: (M,) the row of each among those
    given. boxes: (K, 2, 3) lowest and highest corner of each node. starts, counts: (K,) a node's
    triangles are corners[start : start + count]. rights: (K,) its right child, -1 for a leaf.
    """

    def __init__(self, triangles: NDArray) -> None:
        """Sort triangles (M, 3, 3): three corners each, which is `vertices[faces]` of a mesh.

        Triangles without area are kept: they count as the segment or point that they are.
        Raises ValueError for none, or corners that are not finite.
        """
        triangles = np.ascontiguousarray(triangles, dtype=np.float64)
        if triangles.ndim != 3 or triangles.shape[1:] != (3, 3):
            raise ValueError(f"triangles is {triangles.shape}, expected (M, 3, 3)")
        if len(triangles) == 0:
            raise ValueError("the mesh has no faces: there is no surface to measure")
        if not np.isfinite(triangles).all():
            raise ValueError("the mesh has vertices that are NaN or infinite: repair it first")
        self.faces, self.boxes, self.starts, self.counts, self.rights = _build(triangles)
        self.corners = triangles[self.faces]


def closest_triangles(tree: TriangleTree, points: NDArray) -> tuple[Floats, Integers]:
    """The triangle nearest to each point, exactly.

    points: (N, 3). Returns unsigned distances (N,), in the mesh's units, and rows of the
    given triangles (N,).
    """
    points = np.ascontiguousarray(points, dtype=np.float64)
    squares, slots = _closest(
        points, tree.corners, tree.boxes, tree.starts, tree.counts, tree.rights
    )
    return np.sqrt(squares), tree.faces[slots]


def first_hits(
    tree: TriangleTree,
    origins: NDArray,
    directions: NDArray,
    longest: NDArray | float = np.inf,
) -> tuple[Floats, Integers]:
    """Where rays first meet a triangle, from either side.

    origins, directions: (N, 3), directions of any length but zero. longest: one limit, or (N,),
    in multiples of the direction. Returns multiples of the direction (N,), inf where nothing is
    hit before the limit, and rows of the given triangles (N,), -1
    there.
    """
    origins = np.ascontiguousarray(origins, dtype=np.float64)
    directions = np.ascontiguousarray(directions, dtype=np.float64)
    limits = np.ascontiguousarray(np.broadcast_to(longest, len(origins)), dtype=np.float64)
    reach, slots = _first_hits(
        origins, directions, limits, tree.corners, tree.boxes, tree.starts, tree.counts, tree.rights
    )
    return reach, np.where(slots < 0, -1, tree.faces[slots])


# ------------------------------------------------------------------------------------- building


@njit(cache=True)
def _half_area(low, high):  # type: ignore[no-untyped-def]
    x, y, z = high[0] - low[0], high[1] - low[1], high[2] - low[2]
    return x * y + y * z + z * x


@njit(cache=True)
def _split_plane(order, start, count, low, high, centers, axis, first, last):  # type: ignore[no-untyped-def]
    """The bin that starts the right side in the cheapest split of a node along `axis`."""
    bin_counts = np.zeros(_BINS, np.int64)
    bin_low = np.full((_BINS, 3), np.inf)
    bin_high = np.full((_BINS, 3), -np.inf)
    scale = _BINS / (last - first)
    for slot in range(start, start + count):
        triangle = order[slot]
        which = min(int((centers[triangle, axis] - first) * scale), _BINS - 1)
        bin_counts[which] += 1
        for k in range(3):
            bin_low[which, k] = min(bin_low[which, k], low[triangle, k])
            bin_high[which, k] = max(bin_high[which, k], high[triangle, k])
    right_costs = np.zeros(_BINS)
    running_low, running_high = np.full(3, np.inf), np.full(3, -np.inf)
    running = 0
    for which in range(_BINS - 1, 0, -1):
        running += bin_counts[which]
        for k in range(3):
            running_low[k] = min(running_low[k], bin_low[which, k])
            running_high[k] = max(running_high[k], bin_high[which, k])
        right_costs[which] = running * _half_area(running_low, running_high) if running else 0.0
    running_low[:], running_high[:] = np.inf, -np.inf
    running, best, best_cost = 0, 1, np.inf
    for which in range(1, _BINS):
        running += bin_counts[which - 1]
        for k in range(3):
            running_low[k] = min(running_low[k], bin_low[which - 1, k])
            running_high[k] = max(running_high[k], bin_high[which - 1, k])
        if 0 < running < count:
            cost = running * _half_area(running_low, running_high) + right_costs[which]
            if cost < best_cost:
                best, best_cost = which, cost
    return best


@njit(cache=True)
def _partition(order, start, count, low, high, centers, depth):  # type: ignore[no-untyped-def]
    """Reorder a node's triangles into left and right; returns how many go left."""
    first, last = np.full(3, np.inf), np.full(3, -np.inf)
    for slot in range(start, start + count):
        for k in range(3):
            first[k] = min(first[k], centers[order[slot], k])
            last[k] = max(last[k], centers[order[slot], k])
    axis = int(np.argmax(last - first))
    extent = last[axis] - first[axis]
    # Centres that coincide (or nearly: the scale below must stay finite) can't be told apart.
    if depth >= _SAH_DEPTH or extent <= 1e-300:
        return count // 2
    plane = _split_plane(order, start, count, low, high, centers, axis, first[axis], last[axis])
    scale = _BINS / extent
    i, j = start, start + count - 1
    while i <= j:
        if min(int((centers[order[i], axis] - first[axis]) * scale), _BINS - 1) < plane:
            i += 1
        else:
            order[i], order[j] = order[j], order[i]
            j -= 1
    return i - start if start < i < start + count else count // 2


@njit(cache=True)
def _build(triangles):  # type: ignore[no-untyped-def]
    total = len(triangles)
    low, high = np.empty((total, 3)), np.empty((total, 3))
    for i in range(total):
        for k in range(3):
            a, b, c = triangles[i, 0, k], triangles[i, 1, k], triangles[i, 2, k]
            low[i, k], high[i, k] = min(a, b, c), max(a, b, c)
    centers = 0.5 * low + 0.5 * high
    order = np.arange(total)
    most = 2 * total
    boxes = np.empty((most, 2, 3))
    starts, counts = np.empty(most, np.int64), np.empty(most, np.int64)
    rights = np.full(most, -1)
    # Each stacked entry: first triangle, count, depth, and the parent whose right child it is.
    stack = np.empty((STACK_SIZE, 4), np.int64)
    stack[0] = (0, total, 0, -1)
    top, used = 1, 0
    while top:
        top -= 1
        start, count, depth, parent = stack[top]
        node = used
        used += 1
        if parent >= 0:
            rights[parent] = node
        starts[node], counts[node] = start, count
        boxes[node, 0], boxes[node, 1] = np.inf, -np.inf
        for slot in range(start, start + count):
            for k in range(3):
                boxes[node, 0, k] = min(boxes[node, 0, k], low[order[slot], k])
                boxes[node, 1, k] = max(boxes[node, 1, k], high[order[slot], k])
        if count > _LEAF_SIZE:
            left = _partition(order, start, count, low, high, centers, depth)
            stack[top] = (start + left, count - left, depth + 1, node)
            stack[top + 1] = (start, left, depth + 1, -1)
            top += 2
    return (
        order,
        boxes[:used].copy(),
        starts[:used].copy(),
        counts[:used].copy(),
        rights[:used].copy(),
    )


# -------------------------------------------------------------------------------------- queries


@njit(cache=True, inline="always")
def _box_square_distance(box, x, y, z):  # type: ignore[no-untyped-def]
    dx = max(box[0, 0] - x, 0.0, x - box[1, 0])
    dy = max(box[0, 1] - y, 0.0, y - box[1, 1])
    dz = max(box[0, 2] - z, 0.0, z - box[1, 2])
    return dx * dx + dy * dy + dz * dz


@njit(cache=True, inline="always")
def _segment_square_distance(px, py, pz, ex, ey, ez):  # type: ignore[no-untyped-def]
    """Squared distance of p to the segment from the origin to e, which may be a point."""
    length = ex * ex + ey * ey + ez * ez
    t = 0.0
    if length > 0:
        t = min(max((px * ex + py * ey + pz * ez) / length, 0.0), 1.0)
    dx, dy, dz = px - t * ex, py - t * ey, pz - t * ez
    return dx * dx + dy * dy + dz * dz


@njit(cache=True)
def _triangle_square_distance(triangle, x, y, z):  # type: ignore[no-untyped-def]
    """Squared distance to a triangle: to its plane above the inside, else to the nearest edge."""
    ax, ay, az = x - triangle[0, 0], y - triangle[0, 1], z - triangle[0, 2]
    ux, uy, uz = (
        triangle[1, 0] - triangle[0, 0],
        triangle[1, 1] - triangle[0, 1],
        triangle[1, 2] - triangle[0, 2],
    )
    vx, vy, vz = (
        triangle[2, 0] - triangle[0, 0],
        triangle[2, 1] - triangle[0, 1],
        triangle[2, 2] - triangle[0, 2],
    )
    uu, vv = ux * ux + uy * uy + uz * uz, vx * vx + vy * vy + vz * vz
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    nn = nx * nx + ny * ny + nz * nz
    # A needle thinner than 1e-10 of its length has a normal made of rounding: it has only edges.
    if nn > 1e-20 * uu * vv:
        # Barycentric coordinates of the projection, times nn.
        second = (ay * vz - az * vy) * nx + (az * vx - ax * vz) * ny + (ax * vy - ay * vx) * nz
        third = (uy * az - uz * ay) * nx + (uz * ax - ux * az) * ny + (ux * ay - uy * ax) * nz
        if second >= 0 and third >= 0 and second + third <= nn:
            along = ax * nx + ay * ny + az * nz
            return along * along / nn
    best = _segment_square_distance(ax, ay, az, ux, uy, uz)
    best = min(best, _segment_square_distance(ax, ay, az, vx, vy, vz))
    return min(best, _segment_square_distance(ax - ux, ay - uy, az - uz, vx - ux, vy - uy, vz - uz))


@njit(cache=True, parallel=True)
def _closest(points, corners, boxes, starts, counts, rights):  # type: ignore[no-untyped-def]
    squares, slots = np.empty(len(points)), np.empty(len(points), np.int64)
    for i in prange(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        stack, bounds = np.empty(STACK_SIZE, np.int64), np.empty(STACK_SIZE)
        stack[0], bounds[0] = 0, 0.0
        top, best, best_slot = 1, np.inf, -1
        while top:
            top -= 1
            node = stack[top]
            if bounds[top] >= best:
                continue
            if rights[node] < 0:
                for slot in range(starts[node], starts[node] + counts[node]):
                    square = _triangle_square_distance(corners[slot], x, y, z)
                    if square < best:
                        best, best_slot = square, slot
                continue
            near, far = node + 1, rights[node]
            to_near = _box_square_distance(boxes[near], x, y, z)
            to_far = _box_square_distance(boxes[far], x, y, z)
            if to_far < to_near:
                near, far, to_near, to_far = far, near, to_far, to_near
            if to_far < best:
                stack[top], bounds[top] = far, to_far
                top += 1
            if to_near < best:
                stack[top], bounds[top] = near, to_near
                top += 1
        squares[i], slots[i] = best, best_slot
    return squares, slots


@njit(cache=True, inline="always")
def _box_entry(box, origin, inverse, limit):  # type: ignore[no-untyped-def]
    """Where a ray enters a box, inf if it misses it or enters beyond `limit`."""
    enter, leave = 0.0, limit
    for k in range(3):
        if inverse[k] == np.inf:  # parallel to these two sides: between them all along, or never
            if origin[k] < box[0, k] or origin[k] > box[1, k]:
                return np.inf
            continue
        a, b = (box[0, k] - origin[k]) * inverse[k], (box[1, k] - origin[k]) * inverse[k]
        enter, leave = max(enter, min(a, b)), min(leave, max(a, b))
    # The slack keeps boxes without thickness, and rays through their corners.
    return enter if enter <= leave * (1 + 1e-12) + 1e-300 else np.inf


@njit(cache=True)
def _ray_triangle(triangle, origin, direction):  # type: ignore[no-untyped-def]
    """Multiple of the direction at which a ray meets a triangle, inf for a miss.

    Moeller and Trumbore 1997. The edges belong to the triangle, with a slack of rounding size, so
    that no ray slips between neighbours; a triangle without area is never met.
    """
    ux, uy, uz = (
        triangle[1, 0] - triangle[0, 0],
        triangle[1, 1] - triangle[0, 1],
        triangle[1, 2] - triangle[0, 2],
    )
    vx, vy, vz = (
        triangle[2, 0] - triangle[0, 0],
        triangle[2, 1] - triangle[0, 1],
        triangle[2, 2] - triangle[0, 2],
    )
    dx, dy, dz = direction[0], direction[1], direction[2]
    px, py, pz = dy * vz - dz * vy, dz * vx - dx * vz, dx * vy - dy * vx
    determinant = ux * px + uy * py + uz * pz
    if determinant == 0:
        return np.inf
    sx, sy, sz = origin[0] - triangle[0, 0], origin[1] - triangle[0, 1], origin[2] - triangle[0, 2]
    second = (sx * px + sy * py + sz * pz) / determinant
    qx, qy, qz = sy * uz - sz * uy, sz * ux - sx * uz, sx * uy - sy * ux
    third = (dx * qx + dy * qy + dz * qz) / determinant
    if second < -1e-12 or third < -1e-12 or second + third > 1 + 1e-12:
        return np.inf
    reach = (vx * qx + vy * qy + vz * qz) / determinant
    return reach if reach >= 0 else np.inf


@njit(cache=True, parallel=True)
def _first_hits(origins, directions, limits, corners, boxes, starts, counts, rights):  # type: ignore[no-untyped-def]
    reach, slots = np.empty(len(origins)), np.empty(len(origins), np.int64)
    for i in prange(len(origins)):
        origin, direction = origins[i], directions[i]
        inverse = np.empty(3)
        for k in range(3):
            inverse[k] = 1 / direction[k] if direction[k] != 0 else np.inf
        stack, bounds = np.empty(STACK_SIZE, np.int64), np.empty(STACK_SIZE)
        best, best_slot = limits[i], -1
        stack[0], bounds[0] = 0, _box_entry(boxes[0], origin, inverse, best)
        top = 1
        while top:
            top -= 1
            node = stack[top]
            if not bounds[top] <= best or bounds[top] == np.inf:
                continue
            if rights[node] < 0:
                for slot in range(starts[node], starts[node] + counts[node]):
                    here = _ray_triangle(corners[slot], origin, direction)
                    if here < best:
                        best, best_slot = here, slot
                continue
            near, far = node + 1, rights[node]
            to_near = _box_entry(boxes[near], origin, inverse, best)
            to_far = _box_entry(boxes[far], origin, inverse, best)
            if to_far < to_near:
                near, far, to_near, to_far = far, near, to_far, to_near
            if to_far < np.inf:
                stack[top], bounds[top] = far, to_far
                top += 1
            if to_near < np.inf:
                stack[top], bounds[top] = near, to_near
                top += 1
        reach[i], slots[i] = best if best_slot >= 0 else np.inf, best_slot
    return reach, slots
