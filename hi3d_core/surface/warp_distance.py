# mypy: ignore-errors
# Warp reads annotations as they stand: no `from __future__ import annotations`. Values that
# change in loops are made by float(), int() and bool(), or it would take them for constants.
"""`redistance` and `find_band` of `field.py` for CUDA, in NVIDIA Warp.

The distances farther out than the nodes beside the zero level come by repeating Zhao's update for
all nodes at once until none changes: as many rounds as the farthest node is nodes away, against
two times eight sweeps in order on the CPU, and to the same distances.
"""

from .warp_kernels import func, kernel, wp

_FAR = 1.0e6
_ROUNDS_A_LOOK = 16  # between asking whether distances still change
_NOTICEABLE = 1.0e-4  # voxels


@func
def slope_towards(
    sdf: wp.array3d(dtype=wp.float32), f: float, i: int, j: int, k: int, steepest: float
):
    """1 / (distance to the zero level towards a neighbour), if it lies on the other side."""
    if i < 0 or j < 0 or k < 0 or i >= sdf.shape[0] or j >= sdf.shape[1] or k >= sdf.shape[2]:
        return steepest
    g = sdf[i, j, k]
    if (g < 0.0) == (f < 0.0):
        return steepest
    return wp.max(steepest, wp.abs(f - g) / wp.max(wp.abs(f), 1.0e-6))


@kernel
def begin_distance(
    sdf: wp.array3d(dtype=wp.float32),
    distance: wp.array3d(dtype=wp.float32),  # out
    fixed: wp.array3d(dtype=wp.uint8),  # out
):
    """Distances of the nodes beside the zero level; all others are far."""
    i, j, k = wp.tid()
    f = sdf[i, j, k]
    x = slope_towards(sdf, f, i - 1, j, k, 0.0)
    x = slope_towards(sdf, f, i + 1, j, k, x)
    y = slope_towards(sdf, f, i, j - 1, k, 0.0)
    y = slope_towards(sdf, f, i, j + 1, k, y)
    z = slope_towards(sdf, f, i, j, k - 1, 0.0)
    z = slope_towards(sdf, f, i, j, k + 1, z)
    total = x * x + y * y + z * z
    if total > 0.0:
        distance[i, j, k] = 1.0 / wp.sqrt(total)
        fixed[i, j, k] = wp.uint8(1)
    else:
        distance[i, j, k] = _FAR
        fixed[i, j, k] = wp.uint8(0)


@func
def at(distance: wp.array3d(dtype=wp.float32), i: int, j: int, k: int):
    """A distance, far where there is no such node."""
    if (
        i < 0
        or j < 0
        or k < 0
        or i >= distance.shape[0]
        or j >= distance.shape[1]
        or k >= distance.shape[2]
    ):
        return _FAR
    return distance[i, j, k]


@kernel
def spread_distance(
    before: wp.array3d(dtype=wp.float32),
    fixed: wp.array3d(dtype=wp.uint8),
    after: wp.array3d(dtype=wp.float32),  # out
    changed: wp.array(dtype=wp.int32),  # (1,) set where a node's distance fell
):
    """One round of Zhao's update."""
    i, j, k = wp.tid()
    own = before[i, j, k]
    after[i, j, k] = own
    if fixed[i, j, k] == wp.uint8(1):
        return
    a = wp.min(at(before, i - 1, j, k), at(before, i + 1, j, k))
    b = wp.min(at(before, i, j - 1, k), at(before, i, j + 1, k))
    c = wp.min(at(before, i, j, k - 1), at(before, i, j, k + 1))
    low = wp.min(a, wp.min(b, c))
    if low >= own:
        return
    high = wp.max(a, wp.max(b, c))
    middle = wp.max(wp.min(a, b), wp.min(wp.max(a, b), c))
    d = low + 1.0
    if d > middle:
        d = (low + middle + wp.sqrt(wp.max(2.0 - (low - middle) * (low - middle), 0.0))) / 2.0
        if d > high:
            total = low + middle + high
            squares = low * low + middle * middle + high * high
            root = wp.sqrt(wp.max(total * total - 3.0 * (squares - 1.0), 0.0))
            d = (total + root) / 3.0
    if d < own:
        after[i, j, k] = d
        if own - d > _NOTICEABLE:
            changed[0] = 1


@kernel
def sign_distance(
    distance: wp.array3d(dtype=wp.float32),
    sdf: wp.array3d(dtype=wp.float32),  # its signs in, with these distances out
):
    """Give distances the signs of the field."""
    i, j, k = wp.tid()
    sdf[i, j, k] = wp.where(sdf[i, j, k] < 0.0, -distance[i, j, k], distance[i, j, k])


def redistance(sdf) -> None:
    """Turn a field (X, Y, Z) on the device into the distance to its own zero level, in place."""
    shape, device = sdf.shape, sdf.device
    distance = wp.empty(shape, dtype=wp.float32, device=device)
    other = wp.empty(shape, dtype=wp.float32, device=device)
    fixed = wp.empty(shape, dtype=wp.uint8, device=device)
    changed = wp.zeros(1, dtype=wp.int32, device=device)
    wp.launch(begin_distance, shape, [sdf, distance, fixed], device=device)
    for done in range(1, sum(shape) + _ROUNDS_A_LOOK):
        wp.launch(spread_distance, shape, [distance, fixed, other, changed], device=device)
        distance, other = other, distance
        if done % _ROUNDS_A_LOOK == 0:
            if not changed.numpy()[0]:
                break
            changed.zero_()
    wp.launch(sign_distance, shape, [distance, sdf], device=device)


@kernel
def mark_near(
    sdf: wp.array3d(dtype=wp.float32),
    half_width: float,
    marks: wp.array3d(dtype=wp.int32),  # out
):
    """1 where a node belongs to the band, else 0."""
    i, j, k = wp.tid()
    # Stencils reach two nodes out.
    inner = i >= 2 and j >= 2 and k >= 2
    inner = inner and i < sdf.shape[0] - 2 and j < sdf.shape[1] - 2 and k < sdf.shape[2] - 2
    marks[i, j, k] = wp.where(inner and wp.abs(sdf[i, j, k]) < half_width, 1, 0)


@kernel
def collect_nodes(
    marks: wp.array3d(dtype=wp.int32),
    slot: wp.array3d(dtype=wp.int32),  # how many marks lie before in, a node's place or -1 out
    nodes: wp.array(dtype=wp.vec3i),  # (B,) out
):
    """The band's nodes by their places."""
    i, j, k = wp.tid()
    if marks[i, j, k] == 1:
        nodes[slot[i, j, k]] = wp.vec3i(i, j, k)
    else:
        slot[i, j, k] = -1


def band_nodes(sdf, half_width: float):
    """The nodes (B,) near the zero level, in memory order, and each node's place or -1."""
    marks = wp.empty(sdf.shape, dtype=wp.int32, device=sdf.device)
    wp.launch(mark_near, sdf.shape, [sdf, half_width, marks], device=sdf.device)
    slot = wp.empty(sdf.shape, dtype=wp.int32, device=sdf.device)
    wp.utils.array_scan(marks.flatten(), slot.flatten(), inclusive=False)
    # The last node lies at the border and is never marked.
    count = int(slot.flatten()[-1:].numpy()[0])
    nodes = wp.empty(count, dtype=wp.vec3i, device=sdf.device)
    wp.launch(collect_nodes, sdf.shape, [marks, slot, nodes], device=sdf.device)
    return nodes, slot


@kernel
def sum_seen(
    sdf: wp.array3d(dtype=wp.float32),
    seen: wp.array3d(dtype=wp.float32),
    sums: wp.array(dtype=wp.float64),  # (3,) at the surface, nodes there, more than 0 if any is
):
    """How much the surface is seen, and of how many nodes."""
    i, j, k = wp.tid()
    if seen[i, j, k] != 0.0:
        sums[2] = wp.float64(1.0)
    if wp.abs(sdf[i, j, k]) < 1.0:
        wp.atomic_add(sums, 0, wp.float64(seen[i, j, k]))
        wp.atomic_add(sums, 1, wp.float64(1.0))


def mean_seen(sdf, seen) -> float | None:
    """How much an average surface node was seen, or None if no node was."""
    sums = wp.zeros(3, dtype=wp.float64, device=sdf.device)
    wp.launch(sum_seen, sdf.shape, [sdf, seen, sums], device=sdf.device)
    total, nodes, seen_at_all = sums.numpy()
    return float(total / max(nodes, 1)) if seen_at_all else None


@kernel
def find_hidden(
    sdf: wp.array3d(dtype=wp.float32),
    seen: wp.array3d(dtype=wp.float32),
    nodes: wp.array(dtype=wp.vec3i),
    threshold: float,
    hidden: wp.array(dtype=wp.int32),  # (B,) out
):
    """`field._hidden`."""
    n = wp.tid()
    node = nodes[n]
    i, j, k = node[0], node[1], node[2]
    # Follow the gradient to the surface and look at the cell it ends in.
    g = 0.5 * wp.vec3(
        sdf[i + 1, j, k] - sdf[i - 1, j, k],
        sdf[i, j + 1, k] - sdf[i, j - 1, k],
        sdf[i, j, k + 1] - sdf[i, j, k - 1],
    )
    scale = sdf[i, j, k] / wp.max(wp.dot(g, g), 0.1)
    a = wp.clamp(int(float(i) - g[0] * scale), 0, sdf.shape[0] - 2)
    b = wp.clamp(int(float(j) - g[1] * scale), 0, sdf.shape[1] - 2)
    c = wp.clamp(int(float(k) - g[2] * scale), 0, sdf.shape[2] - 2)
    most = float(0.0)
    for corner in range(8):
        most = wp.max(most, seen[a + (corner >> 2), b + ((corner >> 1) & 1), c + (corner & 1)])
    hidden[n] = wp.where(most < threshold, 1, 0)


@kernel
def keep_moments(
    nodes: wp.array(dtype=wp.vec3i),
    old_slot: wp.array3d(dtype=wp.int32),
    old_first: wp.array(dtype=wp.vec4),
    old_second: wp.array(dtype=wp.vec4),
    first: wp.array(dtype=wp.vec4),  # changed
    second: wp.array(dtype=wp.vec4),  # changed
):
    """What nodes had that were in the band before."""
    n = wp.tid()
    node = nodes[n]
    old = old_slot[node[0], node[1], node[2]]
    if old >= 0:
        first[n] = old_first[old]
        second[n] = old_second[old]
