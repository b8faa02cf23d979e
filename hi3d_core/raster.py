"""A z-buffer triangle rasterizer for the CPU: which face every pixel sees, and where on it.

Triangles are rasterized in homogeneous coordinates (Olano and Greer 1997, "Triangle scan
conversion using 2D homogeneous coordinates"), so one that reaches behind the camera needs no
clipping. With p_i the corners as (x z, y z, z), pixels x and y, the edge function
e_i(x, y) = (p_j x p_k) . (x, y, 1) equals b_i det / z, where b_i is the perspective-correct
barycentric coordinate, det = p_0 . (p_1 x p_2) and z the depth. So a pixel is inside where all
e_i have det's sign, b_i = e_i / sum(e) and 1 / z = sum(e) / det.

Two triangles at a shared edge compute exactly negated edge functions, and a pixel centre exactly
on the edge goes to the one whose function grows to the right (or, if level, downwards): no
cracks, no pixel drawn twice. That needs strict IEEE arithmetic, so no fastmath here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numba import prange
from torch import Tensor

from .cameras import Cameras
from .jit import njit

NEAR = 1e-4  # world units; what is nearer to the camera's plane is not drawn
_BAND_ROWS = 32  # rows a thread draws at a time


@dataclass(frozen=True, eq=False)
class Fragments:
    """What every pixel centre of every view sees first.

    faces: (V, H, W) int32 index of the face, -1 for none.
    barycentrics: (V, H, W, 3) float32 perspective-correct weights of the face's three corners,
        which add up to 1; 0 for none.
    depths: (V, H, W) float32 z-depth in world units, 0 for none.
    """

    faces: Tensor
    barycentrics: Tensor
    depths: Tensor

    def interpolate(self, values: Tensor, faces: Tensor) -> Tensor:
        """Vertex values at the pixels.

        values: (N, C) one row a vertex. faces: (M, 3) as given to `rasterize_triangles`.
        Returns (V, H, W, C) in the type of `values`, 0 where no face is seen.
        """
        corners = values[faces[self.faces.clamp(min=0).long()]]
        return (corners * self.barycentrics[..., None].to(values)).sum(dim=-2)


def rasterize_triangles(
    vertices: Tensor, faces: Tensor, cameras: Cameras, *, near: float = NEAR
) -> Fragments:
    """Draw triangles, seen from either side, into every view; the nearest face wins.

    vertices: (N, 3) in the world. faces: (M, 3) int64. near: z-depth in world units up to which
    nothing is drawn. Of faces at exactly the same depth the one of lower index wins, so the
    result does not depend on the number of threads.

    Returns `Fragments` on the vertices' device (drawn on the CPU); without faces they are empty.
    Raises ValueError for wrong shapes, vertices that are not finite or faces out of range.
    """
    corners_world, face_table = _checked(vertices, faces)
    views, height, width = len(cameras), cameras.height, cameras.width
    out_faces = np.full((views, height, width), -1, np.int32)
    out_barycentrics = np.zeros((views, height, width, 3), np.float32)
    out_depths = np.zeros((views, height, width), np.float32)
    # Scratch that all views share: edge functions (3 x 3 numbers) and 1/det, boxes in pixels.
    edges = np.empty((len(face_table), 10), np.float64)
    boxes = np.empty((len(face_table), 4), np.int32)
    for view, matrix in enumerate(pixel_matrices(cameras)):
        corners = corners_world @ matrix[:, :3].T + matrix[:, 3]
        _set_up(corners, face_table, width, height, near, edges, boxes)
        _fill(edges, boxes, near, out_faces[view], out_barycentrics[view], out_depths[view])
    device = vertices.device
    return Fragments(
        torch.from_numpy(out_faces).to(device),
        torch.from_numpy(out_barycentrics).to(device),
        torch.from_numpy(out_depths).to(device),
    )


def pixel_matrices(cameras: Cameras) -> np.ndarray:
    """(V, 3, 4) float64 matrices from the world to (x z, y z, z), x and y in pixels."""
    world_to_camera = cameras.to("cpu").world_to_camera.detach().double()[:, :3]
    intrinsics = cameras.intrinsics.detach().cpu().double()
    return (intrinsics @ world_to_camera).numpy()


def _checked(vertices: Tensor, faces: Tensor) -> tuple[np.ndarray, np.ndarray]:
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"vertices is {tuple(vertices.shape)}, expected (N, 3)")
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.is_floating_point():
        raise ValueError(f"faces is {faces.dtype} {tuple(faces.shape)}, expected int64 (M, 3)")
    positions = vertices.detach().cpu().double().numpy()
    table = np.ascontiguousarray(faces.detach().cpu().numpy(), np.int64)
    if not np.isfinite(positions).all():
        raise ValueError("vertices hold values that are NaN or infinite")
    if table.size and not 0 <= table.min() <= table.max() < len(positions):
        raise ValueError(
            f"faces name vertices {table.min()} to {table.max()}, there are {len(positions)}"
        )
    return positions, table


@njit(cache=True, inline="always")
def cross(a, b):  # type: ignore[no-untyped-def]
    """Cross product of two triples, as a tuple; exactly antisymmetric in floating point."""
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )


@njit(cache=True, parallel=True)
def _set_up(corners, faces, width, height, near, edges, boxes):  # type: ignore[no-untyped-def]
    """Edge functions, 1/det and pixel box (x0, x1, y0, y1; ends excluded) of every face.

    A face that can't be seen gets an empty box.
    """
    for face in prange(len(faces)):
        p0, p1, p2 = corners[faces[face, 0]], corners[faces[face, 1]], corners[faces[face, 2]]
        boxes[face] = 0
        low_x, high_x, low_y, high_y = _screen_box(p0, p1, p2, near)
        # Centres lie at .5: pixel i is a candidate if low <= i + .5 <= high.
        x0 = int(max(0.0, min(float(width), math.ceil(low_x - 0.5))))
        x1 = int(max(0.0, min(float(width), math.floor(high_x - 0.5) + 1)))
        y0 = int(max(0.0, min(float(height), math.ceil(low_y - 0.5))))
        y1 = int(max(0.0, min(float(height), math.floor(high_y - 0.5) + 1)))
        if x0 >= x1 or y0 >= y1:
            continue
        e0, e1, e2 = cross(p1, p2), cross(p2, p0), cross(p0, p1)
        determinant = p0[0] * e0[0] + p0[1] * e0[1] + p0[2] * e0[2]
        if determinant == 0.0:
            continue
        sign = 1.0 if determinant > 0 else -1.0
        for axis in range(3):
            edges[face, axis] = sign * e0[axis]
            edges[face, 3 + axis] = sign * e1[axis]
            edges[face, 6 + axis] = sign * e2[axis]
        edges[face, 9] = 1.0 / abs(determinant)
        boxes[face, 0], boxes[face, 1], boxes[face, 2], boxes[face, 3] = x0, x1, y0, y1


@njit(cache=True)
def _screen_box(p0, p1, p2, near):  # type: ignore[no-untyped-def]
    """Bounds in pixels of the part of a triangle beyond the near plane; inverted if none is.

    A whisker wider than exact, so that rounding here never cuts what the edge functions keep.
    """
    low_x, high_x, low_y, high_y = np.inf, -np.inf, np.inf, -np.inf
    for i in range(3):
        a = p0 if i == 0 else (p1 if i == 1 else p2)
        b = p1 if i == 0 else (p2 if i == 1 else p0)
        if a[2] > near:
            x, y = a[0] / a[2], a[1] / a[2]
            low_x, high_x = min(low_x, x), max(high_x, x)
            low_y, high_y = min(low_y, y), max(high_y, y)
        if (a[2] > near) != (b[2] > near):
            t = (near - a[2]) / (b[2] - a[2])
            x = (a[0] + t * (b[0] - a[0])) / near
            y = (a[1] + t * (b[1] - a[1])) / near
            low_x, high_x = min(low_x, x), max(high_x, x)
            low_y, high_y = min(low_y, y), max(high_y, y)
    return low_x - 1e-6, high_x + 1e-6, low_y - 1e-6, high_y + 1e-6


@njit(cache=True, inline="always")
def _covers(value, slope_x, slope_y):  # type: ignore[no-untyped-def]
    """Whether a pixel lies inside an edge, with ties broken by the edge's direction."""
    return value > 0.0 or (value == 0.0 and (slope_x > 0.0 or (slope_x == 0.0 and slope_y > 0.0)))


@njit(cache=True, parallel=True)
def _fill(edges, boxes, near, out_faces, out_barycentrics, out_depths):  # type: ignore[no-untyped-def]
    """Draw all faces into one view; every band of rows belongs to one thread."""
    height, width = out_faces.shape
    bands = (height + _BAND_ROWS - 1) // _BAND_ROWS
    for band in prange(bands):
        first, last = band * _BAND_ROWS, min(height, (band + 1) * _BAND_ROWS)
        nearest = np.zeros((last - first, width), np.float64)  # 1/z, so 0 is infinitely far
        for face in range(len(boxes)):
            y0, y1 = max(boxes[face, 2], first), min(boxes[face, 3], last)
            if y0 >= y1:
                continue
            e = edges[face]
            for y in range(y0, y1):
                pixel_y = y + 0.5
                row0 = e[1] * pixel_y + e[2]
                row1 = e[4] * pixel_y + e[5]
                row2 = e[7] * pixel_y + e[8]
                for x in range(boxes[face, 0], boxes[face, 1]):
                    pixel_x = x + 0.5
                    v0 = e[0] * pixel_x + row0
                    v1 = e[3] * pixel_x + row1
                    v2 = e[6] * pixel_x + row2
                    if v0 < 0.0 or v1 < 0.0 or v2 < 0.0:
                        continue
                    inverse_depth = (v0 + v1 + v2) * e[9]
                    if (
                        inverse_depth > nearest[y - first, x]
                        and inverse_depth * near < 1.0
                        and _covers(v0, e[0], e[1])
                        and _covers(v1, e[3], e[4])
                        and _covers(v2, e[6], e[7])
                    ):
                        nearest[y - first, x] = inverse_depth
                        out_faces[y, x] = face
        _resolve(edges, first, last, out_faces, out_barycentrics, out_depths)


@njit(cache=True)
def _resolve(edges, first, last, out_faces, out_barycentrics, out_depths):  # type: ignore[no-untyped-def]
    """Barycentrics and depth of the faces that won the rows first to last."""
    for y in range(first, last):
        for x in range(out_faces.shape[1]):
            face = out_faces[y, x]
            if face < 0:
                continue
            e = edges[face]
            pixel_x, pixel_y = x + 0.5, y + 0.5
            v0 = e[0] * pixel_x + (e[1] * pixel_y + e[2])
            v1 = e[3] * pixel_x + (e[4] * pixel_y + e[5])
            v2 = e[6] * pixel_x + (e[7] * pixel_y + e[8])
            total = v0 + v1 + v2
            out_barycentrics[y, x, 0] = v0 / total
            out_barycentrics[y, x, 1] = v1 / total
            out_barycentrics[y, x, 2] = v2 / total
            out_depths[y, x] = 1.0 / (total * e[9])
