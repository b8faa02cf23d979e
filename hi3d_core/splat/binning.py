"""Sort the Gaussians by depth and list, for every tile of the picture, those that touch it.

Letters: N Gaussians, T tiles in row order, M intersections of a Gaussian with a tile.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from ..jit import njit

_RADIX_BITS = 11
_RADIX = 1 << _RADIX_BITS


@njit(cache=True)
def depth_order(depths, touched):
    """Indices of the Gaussians that touch a tile, nearest first; equal depths keep their order.

    depths: (N,) positive where touched (N,) is not 0. Sorted as float32, by its bits: positive
    floats order like the integers that store them.
    """
    visible = 0
    for n in range(len(touched)):
        if touched[n] > 0:
            visible += 1
    order = np.empty(visible, np.int32)
    keys = np.empty(visible, np.float32)
    position = 0
    for n in range(len(touched)):
        if touched[n] > 0:
            order[position] = n
            keys[position] = depths[n]
            position += 1
    bits = keys.view(np.uint32)
    spare_order, spare_bits = np.empty_like(order), np.empty_like(bits)
    for pass_ in range(3):
        shift = np.uint32(pass_ * _RADIX_BITS)
        starts = np.zeros(_RADIX + 1, np.int64)
        for i in range(visible):
            starts[((bits[i] >> shift) & np.uint32(_RADIX - 1)) + 1] += 1
        for k in range(_RADIX):
            starts[k + 1] += starts[k]
        for i in range(visible):
            digit = (bits[i] >> shift) & np.uint32(_RADIX - 1)
            spare_order[starts[digit]] = order[i]
            spare_bits[starts[digit]] = bits[i]
            starts[digit] += 1
        order, spare_order = spare_order, order
        bits, spare_bits = spare_bits, bits
    return order


@njit(cache=True)
def tile_lists(order, ranges, touched, columns, rows):
    """For every tile the Gaussians that touch it, nearest first.

    Returns tile_starts (T + 1,), gaussians (M,) and slots (M,), both in tile order, and
    slot_starts (N + 1,). Slots number the intersections in the Gaussians' order, so that the
    gradients that tiles write apart are found side by side when a Gaussian sums its own.
    """
    slot_starts = np.zeros(len(touched) + 1, np.int64)
    for n in range(len(touched)):
        slot_starts[n + 1] = slot_starts[n] + touched[n]
    tile_starts = np.zeros(columns * rows + 1, np.int64)
    for n in order:
        for row in range(ranges[n, 2], ranges[n, 3]):
            for column in range(ranges[n, 0], ranges[n, 1]):
                tile_starts[row * columns + column + 1] += 1
    for tile in range(columns * rows):
        tile_starts[tile + 1] += tile_starts[tile]
    cursor = tile_starts[:-1].copy()
    gaussians = np.empty(slot_starts[-1], np.int32)
    slots = np.empty(slot_starts[-1], np.int32)
    for n in order:
        slot = slot_starts[n]
        for row in range(ranges[n, 2], ranges[n, 3]):
            for column in range(ranges[n, 0], ranges[n, 1]):
                tile = row * columns + column
                gaussians[cursor[tile]] = n
                slots[cursor[tile]] = slot
                cursor[tile] += 1
                slot += 1
    return tile_starts, gaussians, slots, slot_starts


@njit(cache=True)
def share_tiles(counts, longest_first, workers):
    """Deal the tiles to workers so that each gets about the same number of Gaussians.

    counts: (T,) lengths of the tiles' lists; longest_first: (T,) tiles in that order. Always the
    next one to the worker that has least. Returns tiles (T,) and starts (workers + 1,).
    """
    load = np.zeros(workers, np.int64)
    owner = np.empty(len(counts), np.int64)
    starts = np.zeros(workers + 1, np.int64)
    for tile in longest_first:
        worker = 0
        for other in range(1, workers):
            if load[other] < load[worker]:
                worker = other
        owner[tile] = worker
        load[worker] += counts[tile] + 8  # an empty tile costs a little too
        starts[worker + 1] += 1
    for worker in range(workers):
        starts[worker + 1] += starts[worker]
    cursor = starts[:-1].copy()
    tiles = np.empty(len(counts), np.int64)
    for tile in longest_first:
        tiles[cursor[owner[tile]]] = tile
        cursor[owner[tile]] += 1
    return tiles, starts
