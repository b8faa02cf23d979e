"""Volume rendering of the band: from rays to gradients of the signed distance and colours.

NeuS, Wang et al. 2021: a segment of a ray between distances f0 and f1 has the opacity
    alpha = max(1 - Phi(f1) / Phi(f0), 0),   Phi(f) = 1 / (1 + exp(-sharpness * f))   (eq. 13)
so that weights peak on the surface and the nearest surface wins. Rays jump by the distance until
they come near, then walk a voxel at a time; forward, loss and backward are one pass a ray, so
nothing is stored between rays. Gradients by hand, checked against finite differences in the
tests.

Lengths in voxels, positions in node coordinates. Letters: R rays, C chunks, B band nodes.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from ..jit import njit
from .field import IndexArray
from .hull import FloatArray

# Columns of the gradient buffers.
SDF, RED, SEEN, COLUMNS = 0, 1, 4, 5

LONGEST = 160  # samples a ray
OPAQUE = 2e-3  # transmittance at which a ray has ended
# Cosine of the angle to the normal below which a ray doesn't see the surface that it meets: the
# sides of the cone that silhouettes leave under an object lie along such rays.
GRAZING = 0.12


@njit(inline="always")
def trilinear(sdf, x, y, z):  # type: ignore[no-untyped-def]
    """The field between nodes; (x, y, z) in node coordinates, inside the grid."""
    i, j, k = int(x), int(y), int(z)
    u, v, w = x - i, y - j, z - k
    a = sdf[i, j, k] * (1 - w) + sdf[i, j, k + 1] * w
    b = sdf[i, j + 1, k] * (1 - w) + sdf[i, j + 1, k + 1] * w
    c = sdf[i + 1, j, k] * (1 - w) + sdf[i + 1, j, k + 1] * w
    d = sdf[i + 1, j + 1, k] * (1 - w) + sdf[i + 1, j + 1, k + 1] * w
    return (a * (1 - v) + b * v) * (1 - u) + (c * (1 - v) + d * v) * u


@njit(inline="always")
def clip_to_grid(o, d, shape):  # type: ignore[no-untyped-def]
    """Where a ray is at least one node inside the grid: (enter, leave), leave < enter if never."""
    enter, leave = np.float32(0), np.float32(1e9)
    for axis in range(3):
        low, high = np.float32(1), np.float32(shape[axis] - 2.01)
        if abs(d[axis]) < 1e-8:
            if o[axis] < low or o[axis] > high:
                leave = np.float32(-1)
        else:
            t0 = (low - o[axis]) / d[axis]
            t1 = (high - o[axis]) / d[axis]
            enter = max(enter, min(t0, t1))
            leave = min(leave, max(t0, t1))
    return enter, leave


@njit(parallel=True, cache=True, fastmath=True)
def accumulate_gradients(
    origins: FloatArray,  # (R, 3)
    directions: FloatArray,  # (R, 3) unit length
    target_colors: FloatArray,  # (R, 3), over white
    target_alphas: FloatArray,  # (R,)
    trust: FloatArray,  # (R,) weight of each ray's loss
    sdf: FloatArray,  # (X, Y, Z)
    colors: FloatArray,  # (X, Y, Z, 3)
    slot: IndexArray,  # (X, Y, Z)
    sharpness: float,
    mask_weight: float,
    huber: float,
    gradients: FloatArray,  # (C, B, COLUMNS), added to
    rendered: FloatArray,  # (R, 4) colour and alpha out
) -> float:
    """Add the gradient of the image and mask loss, summed over rays; return that loss.

    A ray's loss is the mean Huber difference of the three channels plus `mask_weight` times the
    binary cross entropy of its opacity, all of it times the ray's trust.
    """
    rays = len(origins)
    chunks = len(gradients)
    losses = np.zeros(chunks)
    near = min(np.float32(4.5), np.float32(5.0 / sharpness + 1.0))
    s = np.float32(sharpness)
    for chunk in prange(chunks):
        at = np.empty(LONGEST, sdf.dtype)
        value = np.empty(LONGEST, sdf.dtype)
        joined = np.empty(LONGEST, np.bool_)  # a segment leads here from the node before
        weight = np.empty(LONGEST, sdf.dtype)
        opacity = np.empty(LONGEST, sdf.dtype)
        through = np.empty(LONGEST, sdf.dtype)
        shade = np.empty((LONGEST, 3), sdf.dtype)
        grad_value = np.empty(LONGEST, sdf.dtype)
        out = gradients[chunk]
        total = 0.0
        for r in range(rays * chunk // chunks, rays * (chunk + 1) // chunks):
            o, d = origins[r], directions[r]
            t, leave = clip_to_grid(o, d, sdf.shape)
            count = 0
            transmittance = np.float32(1)
            red = green = blue = cover = np.float32(0)
            previous_near = False
            while t < leave and count < LONGEST and transmittance > OPAQUE:
                f = trilinear(sdf, o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
                if f > near and not previous_near:
                    t += max(f - near, np.float32(1))
                    continue
                at[count], value[count], joined[count] = t, f, previous_near
                weight[count] = opacity[count] = 0
                through[count] = transmittance
                if previous_near:
                    f0 = value[count - 1]
                    if f < f0:
                        # Phi(f1) / Phi(f0) with exponents kept in range
                        e0 = np.exp(-max(s * f0, np.float32(-30)))
                        e1 = np.exp(-max(s * f, np.float32(-30)))
                        alpha = min(1 - (1 + e0) / (1 + e1), np.float32(0.9999))
                        opacity[count] = alpha
                        w = transmittance * alpha
                        weight[count] = w
                        if w > 1e-5:
                            p = t - 1 + min(max(f0 / (f0 - f), np.float32(0)), np.float32(1))
                            x, y, z = o[0] + p * d[0], o[1] + p * d[1], o[2] + p * d[2]
                            i, j, k = int(x), int(y), int(z)
                            u, v, q = x - i, y - j, z - k
                            for c in range(3):
                                a = colors[i, j, k, c] * (1 - q) + colors[i, j, k + 1, c] * q
                                b = (
                                    colors[i, j + 1, k, c] * (1 - q)
                                    + colors[i, j + 1, k + 1, c] * q
                                )
                                e = (
                                    colors[i + 1, j, k, c] * (1 - q)
                                    + colors[i + 1, j, k + 1, c] * q
                                )
                                g = (
                                    colors[i + 1, j + 1, k, c] * (1 - q)
                                    + colors[i + 1, j + 1, k + 1, c] * q
                                )
                                shade[count, c] = (a * (1 - v) + b * v) * (1 - u) + (
                                    e * (1 - v) + g * v
                                ) * u
                            red += w * shade[count, 0]
                            green += w * shade[count, 1]
                            blue += w * shade[count, 2]
                            cover += w
                            transmittance *= 1 - alpha
                count += 1
                previous_near = f <= near
                t += 1
            red += 1 - cover
            green += 1 - cover
            blue += 1 - cover
            rendered[r, 0], rendered[r, 1], rendered[r, 2] = red, green, blue
            rendered[r, 3] = cover

            goal = target_alphas[r]
            # Beyond the clamp the loss goes on as a straight line, so that it never stops pulling.
            clamped = min(max(cover, np.float32(0.005)), np.float32(0.995))
            ray_mask_weight = mask_weight * trust[r]
            slope = ray_mask_weight * (clamped - goal) / (clamped * (1 - clamped))
            loss = -ray_mask_weight * (goal * np.log(clamped) + (1 - goal) * np.log(1 - clamped))
            loss += slope * (cover - clamped)
            grad_cover = slope
            grad_color = np.empty(3, sdf.dtype)
            per_channel = trust[r] / np.float32(3)
            for c in range(3):
                got = red if c == 0 else (green if c == 1 else blue)
                off = got - target_colors[r, c]
                if abs(off) <= huber:
                    loss += per_channel * off * off / (2 * huber)
                    grad_color[c] = per_channel * off / huber
                else:
                    loss += per_channel * (abs(off) - huber / 2)
                    grad_color[c] = per_channel if off > 0 else -per_channel
                grad_cover -= grad_color[c]  # the white background shows less
            total += loss

            # Backward: behind = sum over later samples of their weight times its gradient.
            behind = np.float32(0)
            for n in range(count):
                grad_value[n] = 0
            for n in range(count - 1, -1, -1):
                w = weight[n]
                if opacity[n] == 0 or w <= 1e-5:
                    continue
                grad_weight = (
                    grad_cover
                    + grad_color[0] * shade[n, 0]
                    + grad_color[1] * shade[n, 1]
                    + grad_color[2] * shade[n, 2]
                )
                grad_alpha = through[n] * grad_weight - behind / (1 - opacity[n])
                behind += w * grad_weight
                e0 = np.exp(-max(s * value[n - 1], np.float32(-30)))
                e1 = np.exp(-max(s * value[n], np.float32(-30)))
                if opacity[n] < 0.9998:
                    grad_value[n - 1] += grad_alpha * s * e0 / (1 + e1)
                    grad_value[n] -= grad_alpha * s * (e1 / (1 + e1)) * (1 + e0) / (1 + e1)
                # colours
                f0 = value[n - 1]
                p = at[n] - 1 + min(max(f0 / (f0 - value[n]), np.float32(0)), np.float32(1))
                x, y, z = o[0] + p * d[0], o[1] + p * d[1], o[2] + p * d[2]
                i, j, k = int(x), int(y), int(z)
                u, v, q = x - i, y - j, z - k
                # The distance falls by the cosine of the angle to the normal, per voxel.
                faces_camera = 1 if f0 - value[n] > GRAZING else 0
                for corner in range(8):
                    di, dj, dk = corner >> 2, (corner >> 1) & 1, corner & 1
                    b = slot[i + di, j + dj, k + dk]
                    if b >= 0:
                        share = (
                            w * (u if di else 1 - u) * (v if dj else 1 - v) * (q if dk else 1 - q)
                        )
                        out[b, RED] += share * grad_color[0]
                        out[b, RED + 1] += share * grad_color[1]
                        out[b, RED + 2] += share * grad_color[2]
                        out[b, SEEN] += share * faces_camera
            for n in range(count):
                g = grad_value[n]
                if g == 0:
                    continue
                x, y, z = o[0] + at[n] * d[0], o[1] + at[n] * d[1], o[2] + at[n] * d[2]
                i, j, k = int(x), int(y), int(z)
                u, v, q = x - i, y - j, z - k
                for corner in range(8):
                    di, dj, dk = corner >> 2, (corner >> 1) & 1, corner & 1
                    b = slot[i + di, j + dj, k + dk]
                    if b >= 0:
                        out[b, SDF] += (
                            g * (u if di else 1 - u) * (v if dj else 1 - v) * (q if dk else 1 - q)
                        )
        losses[chunk] = total
    return losses.sum()
