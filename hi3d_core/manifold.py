"""Make any triangle soup with a surface in it a closed manifold.

After `make_manifold` every edge has exactly two faces and every vertex one fan of faces, also
for a reader that merges vertices at equal positions: parts that only touched are moved apart by
a hair. Marching cubes and keyed volumes need it: they meet in corners and along edges.

Letters: N vertices, M faces; a half-edge is corner k of a face to its corner k + 1.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from .datatypes import Mesh
from .normals import weld_indices

_log = logging.getLogger(__name__)

# Vertices nearer than this share of the bounding box's diagonal are pulled apart.
_SMALLEST_GAP = 2e-6
_ROUNDS = 50


def make_manifold(mesh: Mesh) -> Mesh:
    """Merge, cut, close and part a mesh until it is a closed manifold.

    Vertices at equal positions are merged and empty faces dropped; a face and its reverse cancel
    out; an edge with four or more faces is cut into sheets of two; holes are closed by a fan.
    Only positions and faces are kept (no texture coordinates, no colours).

    Returns a mesh that `is_closed` agrees with, perhaps without any face.
    """
    indices = mesh.faces.cpu().numpy()
    if is_closed(indices) and not _has_empty(indices).any():
        return part_touching(Mesh(mesh.vertices, mesh.faces))
    vertices, faces = merge_positions(mesh)
    faces = _without_twins(faces)
    vertices, faces = _split_sheets(vertices, faces)
    vertices, faces = _close_holes(vertices, faces)
    vertices, faces = _part_double_edges(vertices, faces)
    used, flat = np.unique(faces, return_inverse=True)
    vertices, faces = vertices[used], flat.reshape(-1, 3)
    return part_touching(
        Mesh(
            torch.from_numpy(vertices).to(mesh.vertices),
            torch.from_numpy(faces.astype(np.int64)).to(mesh.faces.device),
        )
    )


def merge_positions(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, 3) float64 without repeats, and faces (M, 3) without empty ones."""
    positions = mesh.vertices.detach().cpu().double().numpy()
    index, count = weld_indices(positions)
    vertices = np.empty((count, 3))
    vertices[index] = positions
    faces = index[mesh.faces.cpu().numpy()].reshape(-1, 3)
    return vertices, faces[~_has_empty(faces)]


def is_closed(faces: np.ndarray) -> bool:
    """Whether each edge belongs to exactly two faces, that pass it in opposite directions."""
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    size = int(faces.max(initial=0)) + 1
    key = start * size + end
    unique, count = np.unique(key, return_counts=True)
    reverse = end * size + start
    return len(faces) > 0 and bool((count == 1).all()) and np.array_equal(np.sort(reverse), unique)


def _has_empty(faces: np.ndarray) -> np.ndarray:
    """(M,) whether a face names a vertex twice."""
    return (
        (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2]) | (faces[:, 2] == faces[:, 0])
    )


def part_touching(mesh: Mesh) -> Mesh:
    """Move vertices that lie at (nearly) the same place apart, towards their own neighbours."""
    vertices = mesh.vertices.detach().cpu().double().numpy()
    if len(vertices) == 0:
        return mesh
    gap = _SMALLEST_GAP * float(np.linalg.norm(np.ptp(vertices, axis=0)))
    rounded = vertices
    for number in range(_ROUNDS):
        # What the caller gets is rounded to its own type, so that is what must be apart.
        rounded = torch.from_numpy(vertices).to(mesh.vertices.dtype).double().numpy()
        near = np.unique(cKDTree(rounded).query_pairs(gap, output_type="ndarray"))
        if len(near) == 0:
            break
        if number == 0:
            inward = _towards_neighbours(vertices, mesh.faces.cpu().numpy())
            generator = np.random.default_rng(0)
        # Copies of one place have different neighbours; chance parts those that have not.
        step = 2 * gap * (1 + number)
        vertices = vertices.copy()
        vertices[near] += step * (inward[near] + 0.5 * generator.normal(size=(len(near), 3)))
    else:
        _log.warning("%d vertices still touch after %d rounds", len(near), _ROUNDS)
    return Mesh(torch.from_numpy(rounded).to(mesh.vertices), mesh.faces)


def _towards_neighbours(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(N, 3) unit directions from each vertex to the middle of those around it."""
    total, degree = np.zeros_like(vertices), np.zeros(len(vertices))
    for corner in range(3):
        index, other = faces[:, corner], vertices[faces[:, (corner + 1) % 3]]
        degree += np.bincount(index, minlength=len(vertices))
        for axis in range(3):
            total[:, axis] += np.bincount(index, other[:, axis], minlength=len(vertices))
    direction = total / np.maximum(degree, 1)[:, None] - vertices
    return direction / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-300)


def _without_twins(faces: np.ndarray) -> np.ndarray:
    """Drop repeated faces, and pairs of a face and its reverse (a sheet without thickness)."""
    if len(faces) == 0:
        return faces
    first = np.argmin(faces, axis=1)
    rolled = np.take_along_axis(faces, (first[:, None] + np.arange(3)) % 3, axis=1)
    sides = np.where(rolled[:, 1] < rolled[:, 2], 1, -1)
    _, group = np.unique(np.sort(faces, axis=1), axis=0, return_inverse=True)
    balance = np.bincount(group.reshape(-1), weights=sides)
    # Of a group keep one face of the side that is in the majority, or none.
    wanted = np.sign(balance)[group.reshape(-1)] == sides
    order = np.flatnonzero(wanted)
    _, keep = np.unique(group.reshape(-1)[order], return_index=True)
    return faces[np.sort(order[keep])]


def _split_sheets(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Copy vertices until each has one fan of faces, joined over edges by pairs of faces."""
    first, second = _paired_half_edges(vertices, faces)
    # A corner is 3 f + k. Over a shared edge two pairs of corners are the same vertex.
    successor = lambda half: 3 * (half // 3) + (half % 3 + 1) % 3  # noqa: E731
    corners = 3 * len(faces)
    rows = np.concatenate([first, successor(first)])
    columns = np.concatenate([successor(second), second])
    graph = coo_matrix((np.ones(len(rows), bool), (rows, columns)), (corners, corners))
    count, label = connected_components(graph, directed=False)
    place = np.zeros(count, dtype=np.int64)
    place[label] = faces.reshape(-1)
    return vertices[place], label.reshape(-1, 3).astype(np.int64)


def _paired_half_edges(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half-edges (numbered 3 f + k) that belong together: (P,) and (P,), opposite directions."""
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    low, high = np.minimum(start, end), np.maximum(start, end)
    key = low * (int(faces.max(initial=0)) + 1) + high
    order = np.argsort(key, kind="stable")
    bounds = np.flatnonzero(np.diff(key[order], prepend=-1, append=-1))
    sizes = np.diff(bounds)
    simple = bounds[:-1][sizes == 2]
    first, second = order[simple], order[simple + 1]
    opposite = start[first] != start[second]
    pairs = [(first[opposite], second[opposite])]
    for begin, size in zip(bounds[:-1][sizes > 2], sizes[sizes > 2], strict=True):
        halves = order[begin : begin + size]
        pairs.append(_pairs_around(vertices, faces, halves, start[halves] < end[halves]))
    return (
        np.concatenate([pair[0] for pair in pairs]),
        np.concatenate([pair[1] for pair in pairs]),
    )


def _pairs_around(
    vertices: np.ndarray, faces: np.ndarray, halves: np.ndarray, forward: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pair the half-edges of one edge: each with the next one around it that turns back."""
    face, corner = halves // 3, halves % 3
    a, b = faces[face, corner], faces[face, (corner + 1) % 3]
    low, high = min(a[0], b[0]), max(a[0], b[0])
    axis = vertices[high] - vertices[low]
    axis = axis / max(float(np.linalg.norm(axis)), 1e-300)
    side = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
    side = side / np.linalg.norm(side)
    outward = vertices[faces[face, (corner + 2) % 3]] - vertices[low]
    angle = np.arctan2(outward @ np.cross(axis, side), outward @ side)
    ring = list(np.argsort(angle, kind="stable"))
    first, second = [], []
    while ring:
        # A forward face and the next one around, backward: between them lies the inside.
        for position, here in enumerate(ring):
            there = ring[position - 1]
            if forward[here] and not forward[there]:
                first.append(halves[here])
                second.append(halves[there])
                ring = [item for item in ring if item not in (here, there)]
                break
        else:
            break  # all pass the edge in one direction: left open, closed as holes
    return np.array(first, dtype=np.int64), np.array(second, dtype=np.int64)


def _close_holes(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Close each loop of open edges by a fan around its middle."""
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    size = len(vertices) + 1
    is_open = ~np.isin(start * size + end, end * size + start)
    if not is_open.any():
        return vertices, faces
    start, end = start[is_open], end[is_open]
    # Every vertex has one fan, so at most one open edge leaves it: the open edges form loops.
    graph = coo_matrix((np.ones(len(start), bool), (start, end)), (len(vertices),) * 2)
    _, label = connected_components(graph, directed=False)
    _, loop = np.unique(label[start], return_inverse=True)
    count = np.bincount(loop)
    middles = np.stack([np.bincount(loop, weights=vertices[start, k]) / count for k in range(3)], 1)
    fans = np.stack([end, start, len(vertices) + loop], axis=1)
    return np.concatenate([vertices, middles]), np.concatenate([faces, fans])


def _part_double_edges(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split edges that two sheets share (same two vertices, four faces) at their middle.

    Each sheet gets its own middle vertex, so that no two edges have the same ends.
    """
    while True:
        start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
        low, high = np.minimum(start, end), np.maximum(start, end)
        key = low * (len(vertices) + 1) + high
        unique, index, count = np.unique(key, return_inverse=True, return_counts=True)
        if len(unique) == 0 or count.max() <= 2:
            return vertices, faces
        first, second = _paired_half_edges(vertices, faces)
        crowded = (count[index.reshape(-1)] > 2)[first]
        first, second = first[crowded], second[crowded]
        # One edge a face at a time.
        taken: set[int] = set()
        chosen = []
        for pair in range(len(first)):
            touched = {int(first[pair]) // 3, int(second[pair]) // 3}
            if len(touched) == 2 and not touched & taken:
                taken |= touched
                chosen.append(pair)
        if not chosen:
            return vertices, faces
        added: list[np.ndarray] = []
        middles: list[np.ndarray] = []
        faces = faces.copy()
        for pair in chosen:
            middle = len(vertices) + len(middles)
            for half in (first[pair], second[pair]):
                face, corner = half // 3, half % 3
                following = (corner + 1) % 3
                if half == first[pair]:
                    middles.append(vertices[faces[face, [corner, following]]].mean(axis=0))
                other = faces[face].copy()
                other[corner] = middle
                faces[face, following] = middle
                added.append(other)
        vertices = np.concatenate([vertices, np.array(middles)])
        faces = np.concatenate([faces, np.array(added)])
