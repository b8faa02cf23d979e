"""How often a mesh winds around points: 1 inside, 0 outside, in between near holes.

The generalised winding number (Jacobson et al. 2013) is the mesh's signed solid angle seen from
a point over 4 pi. It says what is inside also for meshes with holes, several parts, or parts
that overlap. Far parts of the mesh are summed up by their first two moments, as in "Fast Winding
Numbers for Soups and Clouds" (Barill et al. 2018); near ones are exact.

Letters: N points, K nodes of the tree.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from .bvh import STACK_SIZE, Floats, TriangleTree
from .jit import njit

# A node is summed up when it is farther than this many of its radii (beta in Barill et al.).
_FAR = 2.0


def winding_numbers(tree: TriangleTree, points: NDArray) -> Floats:
    """The winding number of the tree's mesh around each point.

    points: (N, 3). Returns (N,): for a closed mesh whose faces look outward 1 inside and 0
    outside, -1 inside one turned inside out, within about 0.01 of the exact sum of solid angles.
    """
    points = np.ascontiguousarray(points, dtype=np.float64)
    moments = _moments(tree.corners, tree.starts, tree.counts)
    return _winding(points, tree.corners, tree.starts, tree.counts, tree.rights, *moments)


@njit(cache=True, parallel=True)
def _moments(corners, starts, counts):  # type: ignore[no-untyped-def]
    """Sums over every node's triangles of area vector n and offset o from the node's centre.

    Returns centres, squared far radii, and moments (K, 22): sum of n (3); n o (6), symmetric, as
    coefficients of xx yy zz xy xz yz; half of n o o (10), symmetric, as coefficients of
    xxx yyy zzz xxy xxz yyx yyz zzx zzy xyz; and the trace of the latter (3).
    """
    total = len(starts)
    centers, far_squares, moments = np.empty((total, 3)), np.empty(total), np.zeros((total, 22))
    for node in prange(total):
        area, center = 0.0, np.zeros(3)
        slots = range(starts[node], starts[node] + counts[node])
        for slot in slots:
            a, b, c = corners[slot]
            normal = np.cross(b - a, c - a) / 2
            # The tiny weight gives a centre to nodes whose triangles all lack area.
            weight = np.sqrt((normal * normal).sum()) + 1e-300
            area += weight
            center += weight * (a + b + c) / 3
        center /= area
        radius, first, second = 0.0, np.zeros((3, 3)), np.zeros((3, 3, 3))
        for slot in slots:
            a, b, c = (
                corners[slot, 0] - center,
                corners[slot, 1] - center,
                corners[slot, 2] - center,
            )
            radius = max(radius, (a * a).sum(), (b * b).sum(), (c * c).sum())
            normal, middle = np.cross(b - a, c - a) / 2, (a + b + c) / 3
            for i in range(3):
                moments[node, i] += normal[i]
                for j in range(3):
                    first[i, j] += normal[i] * middle[j]
                    for k in range(3):
                        mean = a[j] * a[k] + b[j] * b[k] + c[j] * c[k] + 9 * middle[j] * middle[k]
                        second[i, j, k] += normal[i] * mean / 24
        centers[node], far_squares[node] = center, radius * _FAR**2
        moment = moments[node]
        for i in range(3):
            moment[3 + i], moment[9 + i] = first[i, i], second[i, i, i]
            for j in range(3):
                # The trace of the symmetric part: (n oo + 2 (n o) o) / 3.
                moment[19 + i] += (second[i, j, j] + 2 * second[j, j, i]) / 3
        moment[6], moment[7] = first[0, 1] + first[1, 0], first[0, 2] + first[2, 0]
        moment[8] = first[1, 2] + first[2, 1]
        slot = 12
        for i in range(3):
            for j in range(3):
                if i != j:
                    moment[slot] = second[i, i, j] + second[i, j, i] + second[j, i, i]
                    slot += 1
        # xxy xxz yyx yyz zzx zzy lie in 12..17.
        for i in range(3):
            for j in range(3):
                if i != j:
                    moment[18] += second[i, j, 3 - i - j]
    return centers, far_squares, moments


@njit(cache=True, fastmath=True)
def _solid_angle(triangle, x, y, z):  # type: ignore[no-untyped-def]
    """Signed solid angle of a triangle over two (van Oosterom and Strackee 1983)."""
    ax, ay, az = triangle[0, 0] - x, triangle[0, 1] - y, triangle[0, 2] - z
    bx, by, bz = triangle[1, 0] - x, triangle[1, 1] - y, triangle[1, 2] - z
    cx, cy, cz = triangle[2, 0] - x, triangle[2, 1] - y, triangle[2, 2] - z
    a = np.sqrt(ax * ax + ay * ay + az * az)
    b = np.sqrt(bx * bx + by * by + bz * bz)
    c = np.sqrt(cx * cx + cy * cy + cz * cz)
    volume = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
    ab, bc, ca = (
        ax * bx + ay * by + az * bz,
        bx * cx + by * cy + bz * cz,
        cx * ax + cy * ay + cz * az,
    )
    return np.arctan2(volume, a * b * c + ab * c + bc * a + ca * b)


@njit(cache=True, fastmath=True, inline="always")
def _far_sum(m, x, y, z, square):  # type: ignore[no-untyped-def]
    """4 pi times the winding number of a far node, whose centre is at (x, y, z) from the point.

    Taylor expansion of n . d / |d|^3 about the centre to second order (Barill et al. 2018, eq.
    12 to 14); the moments are symmetric since derivatives of 1 / |d| are.
    """
    inverse = 1 / square
    zeroth = x * m[0] + y * m[1] + z * m[2]
    quadratic = x * (x * m[3] + y * m[6] + z * m[7]) + y * (y * m[4] + z * m[8]) + z * z * m[5]
    cubic = (
        x * x * (x * m[9] + y * m[12] + z * m[13])
        + y * y * (y * m[10] + x * m[14] + z * m[15])
        + z * z * (z * m[11] + x * m[16] + y * m[17])
        + x * y * z * m[18]
    )
    traced = x * m[19] + y * m[20] + z * m[21]
    first = m[3] + m[4] + m[5] - 3 * quadratic * inverse
    second = (15 * cubic * inverse - 9 * traced) * inverse
    return (zeroth + first + second) * inverse * np.sqrt(inverse)


@njit(cache=True, parallel=True, fastmath=True)
def _winding(points, corners, starts, counts, rights, centers, far_squares, moments):  # type: ignore[no-untyped-def]
    numbers = np.empty(len(points))
    for i in prange(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        stack = np.empty(STACK_SIZE, np.int64)
        stack[0], top, total = 0, 1, 0.0
        while top:
            top -= 1
            node = stack[top]
            dx, dy, dz = centers[node, 0] - x, centers[node, 1] - y, centers[node, 2] - z
            square = dx * dx + dy * dy + dz * dz
            if square > far_squares[node]:
                total += _far_sum(moments[node], dx, dy, dz, square)
            elif rights[node] < 0:
                for slot in range(starts[node], starts[node] + counts[node]):
                    total += 2 * _solid_angle(corners[slot], x, y, z)
            else:
                stack[top], stack[top + 1] = rights[node], node + 1
                top += 2
        numbers[i] = total / (4 * np.pi)
    return numbers
