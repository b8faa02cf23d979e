"""The queue of edges to collapse, cheapest first: a binary heap in two arrays.

cost: (capacity,) ascending along every path from entry 0. ends: (capacity, 4) the edge's two
vertices and their stamps when it was queued. A vertex gets a new stamp when it moves, so entries
go stale instead of being looked up and changed: who takes one compares the stamps.
"""

from __future__ import annotations

import numpy as np

from .jit import njit


@njit(cache=True)
def push(
    cost: np.ndarray,
    ends: np.ndarray,
    size: int,
    price: float,
    u: int,
    v: int,
    stamp_u: int,
    stamp_v: int,
) -> int:
    """Add an entry; returns the new size. There must be room."""
    i = size
    while i > 0:
        parent = (i - 1) // 2
        if cost[parent] <= price:
            break
        cost[i] = cost[parent]
        ends[i] = ends[parent]
        i = parent
    cost[i] = price
    ends[i, 0], ends[i, 1], ends[i, 2], ends[i, 3] = u, v, stamp_u, stamp_v
    return size + 1


@njit(cache=True)
def pop(cost: np.ndarray, ends: np.ndarray, size: int) -> int:
    """Remove the cheapest entry, which lies at 0; returns the new size."""
    size -= 1
    price = cost[size]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and cost[child + 1] < cost[child]:
            child += 1
        if cost[child] >= price:
            break
        cost[i] = cost[child]
        ends[i] = ends[child]
        i = child
    cost[i] = price
    ends[i] = ends[size]
    return size


@njit(cache=True)
def drop_stale(
    cost: np.ndarray, ends: np.ndarray, size: int, stamp: np.ndarray, room: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Rebuild the heap without the entries whose ends have moved, with room for more."""
    kept = 0
    for i in range(size):
        u, v = ends[i, 0], ends[i, 1]
        if stamp[u] == ends[i, 2] and stamp[v] == ends[i, 3]:
            kept += 1
    capacity = max(len(cost), 2 * (kept + room))
    new_cost = np.empty(capacity, dtype=np.float64)
    new_ends = np.empty((capacity, 4), dtype=np.int32)
    filled = 0
    for i in range(size):
        u, v, stamp_u, stamp_v = ends[i]
        if stamp[u] == stamp_u and stamp[v] == stamp_v:
            filled = push(new_cost, new_ends, filled, cost[i], u, v, stamp_u, stamp_v)
    return new_cost, new_ends, filled
