# mypy: ignore-errors
# Warp reads annotations as they stand: no `from __future__ import annotations`. Values that
# change in loops are made by float(), int() and bool(), or it would take them for constants.
"""The kernels of `render.py`, `priors.py` and `optimize.py` for CUDA, in NVIDIA Warp.

What each computes is told there; here is only what differs. A thread takes one ray, point or
node, and gradients are added up by atomic operations, so that their last digits depend on the
order of threads. Nothing is stored along a ray: it is walked a second time for its gradient, and
what lies behind a sample is what all samples gave less what those up to it gave.

Warp compiles the same source for the CPU, where the tests compare it with numba's.

Lengths in voxels, positions in node coordinates, in double precision: in single precision a
distance of hundreds of voxels leaves too few digits for a fraction of one. Letters: R rays, B band
nodes, (X, Y, Z) grid nodes.
"""

import hashlib
from functools import partial

from ..optional import require
from .optimize import LEAST_GRADIENT
from .priors import STEEPEST
from .render import COLUMNS, GRAZING, LONGEST, OPAQUE, RED, SDF, SEEN

wp = require("warp", for_="fitting surfaces on CUDA")

# ComfyUI imports this file under a name with slashes in it, and Warp makes files of modules'
# names.
MODULE = f"hi3d_surface_{hashlib.sha1(__name__.encode()).hexdigest()[:8]}"

func = partial(wp.func, module=MODULE)
struct = partial(wp.struct, module=MODULE)
# Gradients are by hand: Warp need not derive its own.
kernel = partial(wp.kernel, module=MODULE, enable_backward=False)

OPAQUE, GRAZING = float(OPAQUE), float(GRAZING)


@struct
class RayArrays:
    """`Rays` on the device."""

    origins: wp.array(dtype=wp.vec3)  # (V,)
    rotations: wp.array(dtype=wp.mat33)  # (V,)
    focals: wp.array(dtype=wp.vec4)  # (V,)
    view: wp.array(dtype=wp.int32)  # (R,)
    column: wp.array(dtype=wp.float32)
    row: wp.array(dtype=wp.float32)
    colors: wp.array(dtype=wp.vec3)
    alphas: wp.array(dtype=wp.float32)
    trust: wp.array(dtype=wp.float32)


@func
def trilinear(sdf: wp.array3d(dtype=wp.float32), p: wp.vec3d):
    """The field between nodes."""
    i, j, k = int(p[0]), int(p[1]), int(p[2])
    u = float(p[0] - wp.float64(i))
    v = float(p[1] - wp.float64(j))
    w = float(p[2] - wp.float64(k))
    a = sdf[i, j, k] * (1.0 - w) + sdf[i, j, k + 1] * w
    b = sdf[i, j + 1, k] * (1.0 - w) + sdf[i, j + 1, k + 1] * w
    c = sdf[i + 1, j, k] * (1.0 - w) + sdf[i + 1, j, k + 1] * w
    d = sdf[i + 1, j + 1, k] * (1.0 - w) + sdf[i + 1, j + 1, k + 1] * w
    return (a * (1.0 - v) + b * v) * (1.0 - u) + (c * (1.0 - v) + d * v) * u


@func
def trilinear_color(colors: wp.array3d(dtype=wp.vec3), p: wp.vec3d):
    """The colour between nodes."""
    i, j, k = int(p[0]), int(p[1]), int(p[2])
    u = float(p[0] - wp.float64(i))
    v = float(p[1] - wp.float64(j))
    w = float(p[2] - wp.float64(k))
    a = colors[i, j, k] * (1.0 - w) + colors[i, j, k + 1] * w
    b = colors[i, j + 1, k] * (1.0 - w) + colors[i, j + 1, k + 1] * w
    c = colors[i + 1, j, k] * (1.0 - w) + colors[i + 1, j, k + 1] * w
    d = colors[i + 1, j + 1, k] * (1.0 - w) + colors[i + 1, j + 1, k + 1] * w
    return (a * (1.0 - v) + b * v) * (1.0 - u) + (c * (1.0 - v) + d * v) * u


@func
def clip_axis(o: float, d: float, nodes: int, span: wp.vec2):
    """Narrow the span of a ray to where it is inside the grid along one axis."""
    low = 1.0
    high = float(nodes) - 2.01
    if wp.abs(d) < 1e-8:
        if o < low or o > high:
            return wp.vec2(span[0], -1.0)
        return span
    t0 = (low - o) / d
    t1 = (high - o) / d
    return wp.vec2(wp.max(span[0], wp.min(t0, t1)), wp.min(span[1], wp.max(t0, t1)))


@func
def clip_to_grid(o: wp.vec3, d: wp.vec3, sdf: wp.array3d(dtype=wp.float32)):
    """Where a ray is at least one node inside the grid: (enter, leave), as in `render.py`."""
    span = clip_axis(o[0], d[0], sdf.shape[0], wp.vec2(0.0, 1.0e9))
    span = clip_axis(o[1], d[1], sdf.shape[1], span)
    return clip_axis(o[2], d[2], sdf.shape[2], span)


@func
def direction_of(rays: RayArrays, r: int):
    """A ray's unit direction, as `Rays.pick` finds it."""
    view = rays.view[r]
    focal = rays.focals[view]
    local = wp.vec3(
        (rays.column[r] - focal[2]) / focal[0], (rays.row[r] - focal[3]) / focal[1], 1.0
    )
    return wp.normalize(rays.rotations[view] * local)


@func
def exponential(s: float, f: float):
    """1 / Phi(f) - 1, its exponent kept in range."""
    return wp.exp(-wp.max(s * f, -30.0))


@func
def crossing(before: float, f: float, t: wp.float64):
    """Where between the sample at t and the one before the distance falls to zero."""
    share = wp.clamp(before / (before - f), 0.0, 1.0)
    return t - wp.float64(1.0) + wp.float64(share)


@func
def corner_share(corner: int, u: float, v: float, w: float):
    """The weight of a corner, 0 to 7, of the cell that a place lies in."""
    share = wp.where((corner >> 2) == 1, u, 1.0 - u)
    share *= wp.where(((corner >> 1) & 1) == 1, v, 1.0 - v)
    return share * wp.where((corner & 1) == 1, w, 1.0 - w)


@func
def add_sdf_gradient(
    slot: wp.array3d(dtype=wp.int32),
    p: wp.vec3d,
    value: float,
    gradients: wp.array2d(dtype=wp.float32),
):
    """Share a distance gradient among the corners around a place."""
    i, j, k = int(p[0]), int(p[1]), int(p[2])
    u = float(p[0] - wp.float64(i))
    v = float(p[1] - wp.float64(j))
    w = float(p[2] - wp.float64(k))
    for corner in range(8):
        b = slot[i + (corner >> 2), j + ((corner >> 1) & 1), k + (corner & 1)]
        if b >= 0:
            wp.atomic_add(gradients, b, SDF, value * corner_share(corner, u, v, w))


@func
def add_color_gradient(
    slot: wp.array3d(dtype=wp.int32),
    p: wp.vec3d,
    value: wp.vec3,
    seen: float,
    gradients: wp.array2d(dtype=wp.float32),
):
    """Share a colour gradient, and how much is seen, among the corners around a place."""
    i, j, k = int(p[0]), int(p[1]), int(p[2])
    u = float(p[0] - wp.float64(i))
    v = float(p[1] - wp.float64(j))
    w = float(p[2] - wp.float64(k))
    for corner in range(8):
        b = slot[i + (corner >> 2), j + ((corner >> 1) & 1), k + (corner & 1)]
        if b >= 0:
            share = corner_share(corner, u, v, w)
            wp.atomic_add(gradients, b, RED, share * value[0])
            wp.atomic_add(gradients, b, RED + 1, share * value[1])
            wp.atomic_add(gradients, b, RED + 2, share * value[2])
            if seen > 0.0:
                wp.atomic_add(gradients, b, SEEN, share * seen)


@func
def huber_loss(off: float, huber: float):
    """Quadratic up to `huber`, then linear."""
    size = wp.abs(off)
    return wp.where(size <= huber, off * off / (2.0 * huber), size - huber / 2.0)


@func
def huber_slope(off: float, huber: float):
    """Derivative of `huber_loss`."""
    return wp.clamp(off / huber, -1.0, 1.0)


@kernel
def add_ray_gradients(
    rays: RayArrays,
    chosen: wp.array(dtype=wp.int32),  # (R,) of all rays
    sdf: wp.array3d(dtype=wp.float32),
    colors: wp.array3d(dtype=wp.vec3),
    slot: wp.array3d(dtype=wp.int32),
    s: float,  # sharpness
    mask_weight: float,
    huber: float,
    gradients: wp.array2d(dtype=wp.float32),  # (B, COLUMNS), added to
    losses: wp.array(dtype=wp.float64),  # (R,) out
    rendered: wp.array(dtype=wp.vec4),  # (R,) colour and alpha out
):
    """`render.accumulate_gradients`."""
    n = wp.tid()
    r = chosen[n]
    origin = rays.origins[rays.view[r]]
    direction = direction_of(rays, r)
    span = clip_to_grid(origin, direction, sdf)
    o = wp.vec3d(origin)
    d = wp.vec3d(direction)
    enter, leave = wp.float64(span[0]), wp.float64(span[1])
    near = wp.min(4.5, 5.0 / s + 1.0)

    t = wp.float64(enter)
    count = int(0)
    through = float(1.0)
    cover = float(0.0)
    before = float(0.0)
    joined = bool(False)
    shown = wp.vec3(0.0, 0.0, 0.0)
    while t < leave and count < LONGEST and through > OPAQUE:
        f = trilinear(sdf, o + t * d)
        if f > near and not joined:
            t += wp.float64(wp.max(f - near, 1.0))
        else:
            if joined and f < before:
                alpha = 1.0 - (1.0 + exponential(s, before)) / (1.0 + exponential(s, f))
                alpha = wp.min(alpha, 0.9999)
                w = through * alpha
                if w > 1.0e-5:
                    shown += w * trilinear_color(colors, o + crossing(before, f, t) * d)
                    cover += w
                    through *= 1.0 - alpha
            count += 1
            before = f
            joined = f <= near
            t += wp.float64(1.0)

    over_white = shown + wp.vec3(1.0 - cover, 1.0 - cover, 1.0 - cover)
    rendered[n] = wp.vec4(over_white[0], over_white[1], over_white[2], cover)
    goal = rays.alphas[r]
    clamped = wp.clamp(cover, 0.005, 0.995)
    ray_mask_weight = mask_weight * rays.trust[r]
    slope = ray_mask_weight * (clamped - goal) / (clamped * (1.0 - clamped))
    entropy = goal * wp.log(clamped) + (1.0 - goal) * wp.log(1.0 - clamped)
    off = over_white - rays.colors[r]
    per_channel = rays.trust[r] / 3.0
    loss = slope * (cover - clamped) - ray_mask_weight * entropy
    loss += per_channel * huber_loss(off[0], huber)
    loss += per_channel * huber_loss(off[1], huber)
    loss += per_channel * huber_loss(off[2], huber)
    losses[n] = wp.float64(loss)
    grad_color = per_channel * wp.vec3(
        huber_slope(off[0], huber), huber_slope(off[1], huber), huber_slope(off[2], huber)
    )
    grad_cover = slope - grad_color[0] - grad_color[1] - grad_color[2]

    # The same walk again. behind: sum over later samples of their weight times its gradient.
    behind = grad_cover * cover + wp.dot(grad_color, shown)
    t = wp.float64(enter)
    count = int(0)
    through = float(1.0)
    before = float(0.0)
    joined = bool(False)
    pending = float(0.0)  # gradient of the sample before, which this one may still add to
    while t < leave and count < LONGEST and through > OPAQUE:
        p = o + t * d
        f = trilinear(sdf, p)
        if f > near and not joined:
            t += wp.float64(wp.max(f - near, 1.0))
        else:
            own = float(0.0)
            if joined and f < before:
                e0 = exponential(s, before)
                e1 = exponential(s, f)
                alpha = wp.min(1.0 - (1.0 + e0) / (1.0 + e1), 0.9999)
                w = through * alpha
                if w > 1.0e-5:
                    hit = o + crossing(before, f, t) * d
                    grad_weight = grad_cover + wp.dot(grad_color, trilinear_color(colors, hit))
                    behind -= w * grad_weight
                    if alpha < 0.9998:
                        grad_alpha = through * grad_weight - behind / (1.0 - alpha)
                        pending += grad_alpha * s * e0 / (1.0 + e1)
                        own = -grad_alpha * s * (e1 / (1.0 + e1)) * (1.0 + e0) / (1.0 + e1)
                    seen = wp.where(before - f > GRAZING, w, 0.0)
                    add_color_gradient(slot, hit, w * grad_color, seen, gradients)
                    through *= 1.0 - alpha
            if pending != 0.0:
                add_sdf_gradient(slot, p - d, pending, gradients)
            pending = own
            count += 1
            before = f
            joined = f <= near
            t += wp.float64(1.0)
    if pending != 0.0:
        add_sdf_gradient(slot, o + (t - wp.float64(1.0)) * d, pending, gradients)


@kernel
def add_prior_gradients(
    points: wp.array(dtype=wp.vec3),  # (R,)
    normals: wp.array(dtype=wp.vec3),  # (R,)
    depth_weights: wp.array(dtype=wp.float32),
    normal_weights: wp.array(dtype=wp.float32),
    sdf: wp.array3d(dtype=wp.float32),
    slot: wp.array3d(dtype=wp.int32),
    depth_weight: float,
    normal_weight: float,
    limit: float,
    huber: float,
    gradients: wp.array2d(dtype=wp.float32),  # (B, COLUMNS), added to
    losses: wp.array(dtype=wp.float64),  # (R,) out
):
    """`priors.accumulate_prior_gradients`."""
    r = wp.tid()
    p = points[r]
    i, j, k = int(p[0]), int(p[1]), int(p[2])
    u, v, w = p[0] - float(i), p[1] - float(j), p[2] - float(k)
    f = trilinear(sdf, wp.vec3d(p))
    weigh = depth_weight * depth_weights[r]
    if wp.abs(f) >= limit:
        losses[r] = wp.float64(weigh * (limit - huber / 2.0))
        return
    loss = weigh * huber_loss(f, huber)
    by_value = weigh * huber_slope(f, huber)
    by_gradient = wp.vec3(0.0, 0.0, 0.0)
    weigh = normal_weight * normal_weights[r]
    if weigh > 0.0:
        # Gradient of the trilinear cell.
        g = wp.vec3(0.0, 0.0, 0.0)
        for corner in range(8):
            di, dj, dk = corner >> 2, (corner >> 1) & 1, corner & 1
            g += sdf[i + di, j + dj, k + dk] * share_slope(di, dj, dk, u, v, w)
        steep = wp.length(g)
        if steep > STEEPEST:
            cosine = wp.dot(g, normals[r]) / steep
            loss += weigh * (1.0 - cosine)
            # d(-cos)/dg = -(n - cos g/|g|) / |g|
            by_gradient = -(weigh / steep) * (normals[r] - g * (cosine / steep))
    losses[r] = wp.float64(loss)
    for corner in range(8):
        di, dj, dk = corner >> 2, (corner >> 1) & 1, corner & 1
        b = slot[i + di, j + dj, k + dk]
        if b >= 0:
            value = by_value * corner_share(corner, u, v, w)
            value += wp.dot(by_gradient, share_slope(di, dj, dk, u, v, w))
            wp.atomic_add(gradients, b, SDF, value)


@func
def share_slope(di: int, dj: int, dk: int, u: float, v: float, w: float):
    """Derivative of a corner's share of a cell by the place in the cell."""
    a = wp.where(di == 1, u, 1.0 - u)
    b = wp.where(dj == 1, v, 1.0 - v)
    c = wp.where(dk == 1, w, 1.0 - w)
    x = wp.where(di == 1, 1.0, -1.0)
    y = wp.where(dj == 1, 1.0, -1.0)
    z = wp.where(dk == 1, 1.0, -1.0)
    return wp.vec3(x * b * c, y * a * c, z * a * b)


@func
def eikonal_pull(sdf: wp.array3d(dtype=wp.float32), i: int, j: int, k: int, axis: int):
    """Half the derivative of (|g| - 1)^2 by g[axis]."""
    g = 0.5 * wp.vec3(
        sdf[i + 1, j, k] - sdf[i - 1, j, k],
        sdf[i, j + 1, k] - sdf[i, j - 1, k],
        sdf[i, j, k + 1] - sdf[i, j, k - 1],
    )
    return (1.0 - 1.0 / wp.max(wp.length(g), 0.05)) * g[axis]


@func
def second(sdf: wp.array3d(dtype=wp.float32), i: int, j: int, k: int, di: int, dj: int, dk: int):
    """The second difference along an axis."""
    return sdf[i + di, j + dj, k + dk] - 2.0 * sdf[i, j, k] + sdf[i - di, j - dj, k - dk]


@func
def regularizer_gradient(
    sdf: wp.array3d(dtype=wp.float32), i: int, j: int, k: int, eikonal: float, smoothness: float
):
    """`optimize.regularizer_gradient`."""
    total = float(0.0)
    for axis in range(3):
        di, dj, dk = int(axis == 0), int(axis == 1), int(axis == 2)
        total += eikonal * (
            eikonal_pull(sdf, i - di, j - dj, k - dk, axis)
            - eikonal_pull(sdf, i + di, j + dj, k + dk, axis)
        )
        total += (2.0 * smoothness) * (
            second(sdf, i - di, j - dj, k - dk, di, dj, dk)
            - 2.0 * second(sdf, i, j, k, di, dj, dk)
            + second(sdf, i + di, j + dj, k + dk, di, dj, dk)
        )
    return total


@kernel
def step_nodes(
    gradients: wp.array2d(dtype=wp.float32),  # (B, COLUMNS); zeroed
    nodes: wp.array(dtype=wp.vec3i),  # (B,)
    hidden: wp.array(dtype=wp.int32),  # (B,)
    sdf: wp.array3d(dtype=wp.float32),
    colors: wp.array3d(dtype=wp.vec3),  # changed
    seen: wp.array3d(dtype=wp.float32),  # changed
    first_moment: wp.array(dtype=wp.vec4),  # (B,) changed
    second_moment: wp.array(dtype=wp.vec4),  # (B,) changed
    correct1: float,  # Adam's corrections of the moments at this step
    correct2: float,
    sdf_rate: float,
    color_rate: float,
    eikonal: float,
    smoothness: float,
    curvature_rate: float,
    steps: wp.array(dtype=wp.float32),  # (B,) out: of the nodes' distances
):
    """`optimize.step_band`, but for the distances, which `spread_steps` and `move_nodes` change."""
    n = wp.tid()
    node = nodes[n]
    i, j, k = node[0], node[1], node[2]
    seen[i, j, k] = 0.9 * seen[i, j, k] + gradients[n, SEEN]
    f = sdf[i, j, k]
    g = wp.vec4(gradients[n, SDF], gradients[n, RED], gradients[n, RED + 1], gradients[n, RED + 2])
    m = first_moment[n]
    v = second_moment[n]
    if hidden[n] == 0:
        g[0] = g[0] + regularizer_gradient(sdf, i, j, k, eikonal, smoothness)
    new_m = 0.9 * m + 0.1 * g
    new_v = 0.95 * v + 0.05 * wp.cw_mul(g, g)
    if hidden[n] == 0:
        steps[n] = -sdf_rate * adam_step(new_m[0], new_v[0], correct1, correct2, LEAST_GRADIENT)
    else:
        neighbours = sdf[i + 1, j, k] + sdf[i - 1, j, k] + sdf[i, j + 1, k] + sdf[i, j - 1, k]
        neighbours += sdf[i, j, k + 1] + sdf[i, j, k - 1]
        steps[n] = curvature_rate * (neighbours / 6.0 - f)
        new_m[0] = m[0]
        new_v[0] = v[0]
    first_moment[n] = new_m
    second_moment[n] = new_v
    color = colors[i, j, k]
    for c in range(3):
        step = color_rate * adam_step(new_m[1 + c], new_v[1 + c], correct1, correct2, 1.0e-8)
        color[c] = wp.clamp(color[c] - step, 0.0, 1.0)
    colors[i, j, k] = color
    for c in range(COLUMNS):
        gradients[n, c] = 0.0


@func
def adam_step(m: float, v: float, correct1: float, correct2: float, least: float):
    """Adam's step at a rate of 1. least: added to what it divides by."""
    return m * correct1 / (wp.sqrt(v * correct2) + least)


@func
def step_of(
    steps: wp.array(dtype=wp.float32), hidden: wp.array(dtype=wp.int32), neighbour: wp.int32
):
    """A neighbour's step and 1, or zeros where it has none to give."""
    if neighbour < 0:
        return wp.vec2(0.0, 0.0)
    if hidden[neighbour] != 0:
        return wp.vec2(0.0, 0.0)
    return wp.vec2(steps[neighbour], 1.0)


@kernel
def spread_steps(
    nodes: wp.array(dtype=wp.vec3i),
    hidden: wp.array(dtype=wp.int32),
    slot: wp.array3d(dtype=wp.int32),
    steps: wp.array(dtype=wp.float32),
    spread: wp.array(dtype=wp.float32),  # out
):
    """`optimize._spread`."""
    n = wp.tid()
    node = nodes[n]
    i, j, k = node[0], node[1], node[2]
    spread[n] = steps[n]
    if hidden[n] == 0:
        total = step_of(steps, hidden, slot[i + 1, j, k])
        total += step_of(steps, hidden, slot[i - 1, j, k])
        total += step_of(steps, hidden, slot[i, j + 1, k])
        total += step_of(steps, hidden, slot[i, j - 1, k])
        total += step_of(steps, hidden, slot[i, j, k + 1])
        total += step_of(steps, hidden, slot[i, j, k - 1])
        if total[1] > 0.0:
            spread[n] = 0.5 * (steps[n] + total[0] / total[1])


@kernel
def move_nodes(
    nodes: wp.array(dtype=wp.vec3i),
    steps: wp.array(dtype=wp.float32),
    sdf: wp.array3d(dtype=wp.float32),  # changed
):
    """Apart from `step_nodes`, so that no node reads a neighbour's new value."""
    n = wp.tid()
    node = nodes[n]
    sdf[node[0], node[1], node[2]] += steps[n]
