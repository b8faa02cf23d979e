"""Fewer triangles without opening the surface: edge collapse by quadric error.

Surface Simplification Using Quadric Error Metrics, Garland and Heckbert 1997. An edge is
collapsed only if the link condition holds (Topology Preserving Edge Contraction, Dey et al.
1999), so that a closed manifold stays a closed manifold of the same genus whatever its shape;
and only if no triangle around it turns over.

Each vertex keeps a linked list of its corners (corner 3 f + k is vertex k of face f), so that
merging two vertices is joining two lists.
"""

from __future__ import annotations

import numpy as np
import torch

from .collapse_queue import drop_stale, pop, push
from .datatypes import Mesh
from .jit import njit

# Weak pull of each vertex to its own place, relative to its planes' weight: makes the best
# position unique on flat or straight parts, and keeps triangles there well shaped.
_POINT_WEIGHT = 1e-3
# A triangle may turn by at most this angle (cosine) in one collapse.
_LARGEST_TURN = 0.2
# Edges shorter than this share of the bounding box's diagonal are collapsed first, always.
SHORTEST_EDGE = 1e-5


def simplify(mesh: Mesh, face_budget: int) -> Mesh:
    """Collapse edges of a closed manifold until at most `face_budget` faces are left.

    mesh: vertices shared by index (no seams), every edge with exactly two faces. Texture
    coordinates and colours are dropped. Edges shorter than `SHORTEST_EDGE` of the diagonal go
    even if the budget is already met. A shape whose topology needs more faces than the budget
    (a lattice of many holes) keeps what it needs.

    Returns a closed manifold of the same genus. Raises ValueError for a budget below 4.
    """
    if face_budget < 4:
        raise ValueError(f"the face budget is {face_budget}, expected at least 4: a closed surface")
    if len(mesh.faces) == 0:
        return Mesh(mesh.vertices, mesh.faces)
    vertices = mesh.vertices.double().cpu().numpy()
    faces = mesh.faces.cpu().numpy().astype(np.int32)
    diagonal = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    center = vertices.mean(axis=0)
    kept_vertices, kept_faces = _collapse(
        vertices - center, faces, face_budget, SHORTEST_EDGE * diagonal
    )
    return Mesh(
        torch.from_numpy(kept_vertices + center).to(mesh.vertices),
        torch.from_numpy(kept_faces).to(mesh.faces),
    )


@njit(cache=True)
def _collapse(
    vertices: np.ndarray, faces: np.ndarray, face_budget: int, shortest: float
) -> tuple[np.ndarray, np.ndarray]:
    vertex_count, face_count = len(vertices), len(faces)
    position = vertices.copy()
    face = faces.copy()
    face_alive = np.ones(face_count, dtype=np.bool_)
    stamp = np.zeros(vertex_count, dtype=np.int32)
    head, tail, following = _corner_lists(face, vertex_count)
    quadric = _vertex_quadrics(position, face)
    # Heap of candidate collapses: cost, ends, their stamps.
    capacity = 3 * face_count + 1024
    cost = np.empty(capacity, dtype=np.float64)
    ends = np.empty((capacity, 4), dtype=np.int32)
    size = 0
    place = np.empty(3)
    shortest_squared = shortest * shortest
    for f in range(face_count):
        for k in range(3):
            u, v = face[f, k], face[f, (k + 1) % 3]
            if u < v:  # in a closed manifold each edge is met once in this direction
                price = _best_place(position, quadric, u, v, shortest_squared, place)
                size = push(cost, ends, size, price, u, v, 0, 0)
    alive = face_count
    mark = np.zeros(vertex_count, dtype=np.int64)
    round_number = 0
    neighbours = np.empty(1024, dtype=np.int32)
    while size > 0:
        if alive <= face_budget and cost[0] >= 0:
            break
        price = cost[0]
        u, v, stamp_u, stamp_v = ends[0]
        size = pop(cost, ends, size)
        if stamp[u] != stamp_u or stamp[v] != stamp_v:
            continue
        _best_place(position, quadric, u, v, shortest_squared, place)
        round_number += 2
        if not _keeps_topology(face, face_alive, head, following, u, v, mark, round_number):
            continue
        if price >= 0 and (
            _turns_over(position, face, face_alive, head, following, u, v, place)
            or _turns_over(position, face, face_alive, head, following, v, u, place)
        ):
            continue
        # v goes into u.
        corner = head[v]
        while corner >= 0:
            f = corner // 3
            if face_alive[f]:
                if face[f, 0] == u or face[f, 1] == u or face[f, 2] == u:
                    face_alive[f] = False
                    alive -= 1
                else:
                    face[f, corner % 3] = u
            corner = following[corner]
        following[tail[u]] = head[v]
        tail[u] = tail[v]
        head[v] = -1
        stamp[v] = -1
        position[u] = place
        for i in range(11):
            quadric[u, i] += quadric[v, i]
        # Only u moved, so only the edges at u have a new cost; one stamp a vertex marks them.
        stamp[u] += 1
        count = _ring(face, face_alive, head, tail, following, u, neighbours)
        if count > len(neighbours):
            neighbours = np.empty(2 * count, dtype=np.int32)
            count = _ring(face, face_alive, head, tail, following, u, neighbours)
        if size + count > len(cost):
            cost, ends, size = drop_stale(cost, ends, size, stamp, count)
        for i in range(count):
            w = neighbours[i]
            price = _best_place(position, quadric, u, w, shortest_squared, place)
            size = push(cost, ends, size, price, u, w, stamp[u], stamp[w])
    return _compact(position, face, face_alive, alive)


@njit(cache=True)
def _corner_lists(face: np.ndarray, vertex_count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and last corner of each vertex, and the corner after each one; -1 ends a list."""
    head = np.full(vertex_count, -1, dtype=np.int32)
    tail = np.full(vertex_count, -1, dtype=np.int32)
    following = np.full(3 * len(face), -1, dtype=np.int32)
    for f in range(len(face)):
        for k in range(3):
            v, corner = face[f, k], 3 * f + k
            if head[v] < 0:
                head[v] = corner
            else:
                following[tail[v]] = corner
            tail[v] = corner
    return head, tail, following


@njit(cache=True)
def _vertex_quadrics(position: np.ndarray, face: np.ndarray) -> np.ndarray:
    """(N, 11): the symmetric matrix A (6), the vector b (3), the constant c and the weight.

    The error of a place p is p A p - 2 b p + c: squared distances to planes, weighted by area.
    """
    quadric = np.zeros((len(position), 11))
    for f in range(len(face)):
        a, b, c = position[face[f, 0]], position[face[f, 1]], position[face[f, 2]]
        normal = np.cross(b - a, c - a)
        length = np.sqrt((normal * normal).sum())
        if length <= 1e-30:
            continue
        n0, n1, n2 = normal[0] / length, normal[1] / length, normal[2] / length
        offset = n0 * a[0] + n1 * a[1] + n2 * a[2]
        weight = length / 6
        for k in range(3):
            q = quadric[face[f, k]]
            q[0] += weight * n0 * n0
            q[1] += weight * n0 * n1
            q[2] += weight * n0 * n2
            q[3] += weight * n1 * n1
            q[4] += weight * n1 * n2
            q[5] += weight * n2 * n2
            q[6] += weight * offset * n0
            q[7] += weight * offset * n1
            q[8] += weight * offset * n2
            q[9] += weight * offset * offset
            q[10] += weight
    for v in range(len(position)):
        q, p = quadric[v], position[v]
        weight = _POINT_WEIGHT * q[10]
        q[0] += weight
        q[3] += weight
        q[5] += weight
        for k in range(3):
            q[6 + k] += weight * p[k]
            q[9] += weight * p[k] * p[k]
    return quadric


@njit(cache=True)
def _best_place(
    position: np.ndarray,
    quadric: np.ndarray,
    u: int,
    v: int,
    shortest_squared: float,
    place: np.ndarray,
) -> float:
    """Write the place of least error for the merged vertex, and return that error.

    Negative for an edge that is too short to keep: the shorter, the lower.
    """
    x, y = position[u], position[v]
    squared = (x[0] - y[0]) ** 2 + (x[1] - y[1]) ** 2 + (x[2] - y[2]) ** 2
    a, b, c, d, e, f, r, s, t, k = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    p, q = quadric[u], quadric[v]
    a, b, c, d, e, f = p[0] + q[0], p[1] + q[1], p[2] + q[2], p[3] + q[3], p[4] + q[4], p[5] + q[5]
    r, s, t, k = p[6] + q[6], p[7] + q[7], p[8] + q[8], p[9] + q[9]
    middle0, middle1, middle2 = (x[0] + y[0]) / 2, (x[1] + y[1]) / 2, (x[2] + y[2]) / 2
    place[0], place[1], place[2] = middle0, middle1, middle2
    cofactor0, cofactor1, cofactor2 = d * f - e * e, c * e - b * f, b * e - c * d
    determinant = a * cofactor0 + b * cofactor1 + c * cofactor2
    trace = a + d + f
    if determinant > 1e-12 * trace * trace * trace:
        p0 = (cofactor0 * r + cofactor1 * s + cofactor2 * t) / determinant
        p1 = (cofactor1 * r + (a * f - c * c) * s + (b * c - a * e) * t) / determinant
        p2 = (cofactor2 * r + (b * c - a * e) * s + (a * d - b * b) * t) / determinant
        away = (p0 - middle0) ** 2 + (p1 - middle1) ** 2 + (p2 - middle2) ** 2
        if away <= 4 * squared:  # else nearly singular: the middle is safer
            place[0], place[1], place[2] = p0, p1, p2
    if squared < shortest_squared:
        return -1 + squared / shortest_squared
    p0, p1, p2 = place[0], place[1], place[2]
    error = (
        p0 * (a * p0 + 2 * b * p1 + 2 * c * p2)
        + p1 * (d * p1 + 2 * e * p2)
        + f * p2 * p2
        - 2 * (r * p0 + s * p1 + t * p2)
        + k
    )
    return max(error, 0.0)


@njit(cache=True)
def _keeps_topology(
    face: np.ndarray,
    face_alive: np.ndarray,
    head: np.ndarray,
    following: np.ndarray,
    u: int,
    v: int,
    mark: np.ndarray,
    round_number: int,
) -> bool:
    """The link condition: u and v share exactly the two vertices opposite to their edge, and
    are not two corners of a tetrahedron (which would fold flat)."""
    opposite_a, opposite_b = -1, -1
    corner = head[u]
    while corner >= 0:
        f = corner // 3
        if face_alive[f]:
            k = corner % 3
            first, second = face[f, (k + 1) % 3], face[f, (k + 2) % 3]
            mark[first] = round_number
            mark[second] = round_number
            if v in (first, second):
                other = second if first == v else first
                if opposite_a < 0:
                    opposite_a = other
                elif opposite_b < 0:
                    opposite_b = other
                else:
                    return False
        corner = following[corner]
    if opposite_a < 0 or opposite_b < 0 or opposite_a == opposite_b:
        return False
    shared, folded = 0, 0
    corner = head[v]
    while corner >= 0:
        f = corner // 3
        if face_alive[f]:
            k = corner % 3
            first, second = face[f, (k + 1) % 3], face[f, (k + 2) % 3]
            for w in (first, second):
                if mark[w] == round_number:
                    mark[w] = round_number + 1
                    shared += 1
            if (first in (opposite_a, opposite_b)) and (second in (opposite_a, opposite_b)):
                folded += 1
        corner = following[corner]
    if shared != 2:
        return False
    if folded == 0:
        return True
    corner = head[u]
    while corner >= 0:
        f = corner // 3
        if face_alive[f]:
            k = corner % 3
            first, second = face[f, (k + 1) % 3], face[f, (k + 2) % 3]
            if (first in (opposite_a, opposite_b)) and (second in (opposite_a, opposite_b)):
                return False
        corner = following[corner]
    return True


@njit(cache=True)
def _turns_over(
    position: np.ndarray,
    face: np.ndarray,
    face_alive: np.ndarray,
    head: np.ndarray,
    following: np.ndarray,
    u: int,
    v: int,
    place: np.ndarray,
) -> bool:
    """Whether moving u to `place` turns a face at u (not one it shares with v) too far."""
    p = position[u]
    corner = head[u]
    while corner >= 0:
        f = corner // 3
        if face_alive[f]:
            k = corner % 3
            i, j = face[f, (k + 1) % 3], face[f, (k + 2) % 3]
            if v not in (i, j):
                a, b = position[i], position[j]
                e0, e1, e2 = b[0] - a[0], b[1] - a[1], b[2] - a[2]
                d0, d1, d2 = p[0] - a[0], p[1] - a[1], p[2] - a[2]
                n0, n1, n2 = e1 * d2 - e2 * d1, e2 * d0 - e0 * d2, e0 * d1 - e1 * d0
                d0, d1, d2 = place[0] - a[0], place[1] - a[1], place[2] - a[2]
                m0, m1, m2 = e1 * d2 - e2 * d1, e2 * d0 - e0 * d2, e0 * d1 - e1 * d0
                before = n0 * n0 + n1 * n1 + n2 * n2
                after = m0 * m0 + m1 * m1 + m2 * m2
                along = n0 * m0 + n1 * m1 + n2 * m2
                if along <= _LARGEST_TURN * np.sqrt(before * after) and before > 0:
                    return True
        corner = following[corner]
    return False


@njit(cache=True)
def _ring(
    face: np.ndarray,
    face_alive: np.ndarray,
    head: np.ndarray,
    tail: np.ndarray,
    following: np.ndarray,
    u: int,
    neighbours: np.ndarray,
) -> int:
    """List the vertices around u (as many as fit; the count is returned), and cut its dead
    corners out of the list on the way."""
    count = 0
    previous = -1
    corner = head[u]
    while corner >= 0:
        f = corner // 3
        if face_alive[f]:
            # In a closed fan every neighbour is the next corner of exactly one face.
            if count < len(neighbours):
                neighbours[count] = face[f, (corner % 3 + 1) % 3]
            count += 1
            previous = corner
        elif previous < 0:
            head[u] = following[corner]
        else:
            following[previous] = following[corner]
        corner = following[corner]
    tail[u] = previous
    return count


@njit(cache=True)
def _compact(
    position: np.ndarray, face: np.ndarray, face_alive: np.ndarray, alive: int
) -> tuple[np.ndarray, np.ndarray]:
    index = np.full(len(position), -1, dtype=np.int64)
    kept_faces = np.empty((alive, 3), dtype=np.int64)
    kept_vertices = np.empty((len(position), 3))
    count, row = 0, 0
    for f in range(len(face)):
        if not face_alive[f]:
            continue
        for k in range(3):
            v = face[f, k]
            if index[v] < 0:
                index[v] = count
                kept_vertices[count] = position[v]
                count += 1
            kept_faces[row, k] = index[v]
        row += 1
    return kept_vertices[:count].copy(), kept_faces
