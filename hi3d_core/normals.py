"""Smooth normals at the corners of faces, welded where positions are equal.

A textured mesh repeats a vertex along every UV seam; normals averaged over indices would show the
seams as creases, so vertices are first joined by their position.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import prange
from torch import Tensor

from .jit import njit


def weld_indices(positions: np.ndarray) -> tuple[np.ndarray, int]:
    """Number rows that are exactly equal alike.

    positions: (N, 3). Returns (N,) int64 numbers from 0 and how many there are; -0 equals 0.
    """
    if len(positions) == 0:
        return np.zeros(0, np.int64), 0
    order = np.lexsort(positions.T)
    in_order = positions[order]
    is_new = np.ones(len(order), np.int64)
    is_new[1:] = (in_order[1:] != in_order[:-1]).any(axis=1)
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.cumsum(is_new) - 1
    return numbers, int(is_new.sum())


def corner_normals(vertices: Tensor, faces: Tensor, *, crease_degrees: float = 180.0) -> Tensor:
    """Unit normals (M, 3, 3) of every face's three corners, outward for counter-clockwise faces.

    A corner's normal is the mean of the faces around its position, weighted by their angle there
    (Thürmer and Wüthrich 1998); faces that lean away by more than `crease_degrees` are left out,
    so 180 gives one normal a position. A face without area takes its neighbours' normals, or
    +Y if it has none.

    vertices: (N, 3) world units. faces: (M, 3). Returns float32 on the vertices' device.
    """
    positions = vertices.detach().cpu().double().numpy()
    table = np.ascontiguousarray(faces.detach().cpu().numpy(), np.int64)
    welded, count = weld_indices(positions)
    corners_at = welded[table].reshape(-1)
    # Corners sorted by where they lie: those of position p are order[first[p] : first[p + 1]].
    order = np.argsort(corners_at, kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(corners_at, minlength=count))])
    limit = -2.0 if crease_degrees >= 180 else math.cos(math.radians(crease_degrees)) - 1e-9
    face_normals, angles = _face_geometry(positions[table])
    normals = _mean_normals(face_normals, angles, corners_at, order, first, limit)
    return torch.from_numpy(normals).to(vertices.device)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals (N, 3) of vertices; those at one position share theirs. +Y where no face is."""
    numbers, count = weld_indices(vertices.detach().cpu().numpy())
    number_of = torch.from_numpy(numbers).to(vertices.device)
    normals = torch.zeros(count, 3, device=vertices.device)
    normals[:, 1] = 1
    normals[number_of[faces.reshape(-1)]] = corner_normals(vertices, faces).reshape(-1, 3)
    return normals[number_of]


def _face_geometry(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals (M, 3), 0 for no area, and angles (M, 3) in radians of faces (M, 3, 3)."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    edges = np.roll(corners, -1, axis=1) - corners
    sizes = np.linalg.norm(edges, axis=2, keepdims=True)
    edges = np.divide(edges, sizes, out=np.zeros_like(edges), where=sizes > 0)
    cosines = -(edges * np.roll(edges, 1, axis=1)).sum(axis=2)
    return normals, np.arccos(np.clip(cosines, -1, 1))


@njit(cache=True, parallel=True)
def _mean_normals(face_normals, angles, corners_at, order, first, limit):  # type: ignore[no-untyped-def]
    normals = np.empty((len(face_normals), 3, 3), np.float32)
    for face in prange(len(face_normals)):
        own = face_normals[face]
        is_flat = own[0] == 0 and own[1] == 0 and own[2] == 0
        for corner in range(3):
            position = corners_at[3 * face + corner]
            x, y, z = 0.0, 0.0, 0.0
            for k in range(first[position], first[position + 1]):
                other = face_normals[order[k] // 3]
                lean = own[0] * other[0] + own[1] * other[1] + own[2] * other[2]
                if is_flat or lean >= limit:
                    weight = angles[order[k] // 3, order[k] % 3]
                    x += weight * other[0]
                    y += weight * other[1]
                    z += weight * other[2]
            length = math.sqrt(x * x + y * y + z * z)
            if length < 1e-12:  # opposite faces cancel out, or none has area
                x, y, z, length = own[0], own[1], own[2], 1.0
                if is_flat:
                    y = 1.0
            normals[face, corner, 0] = x / length
            normals[face, corner, 1] = y / length
            normals[face, corner, 2] = z / length
    return normals
