"""A fog inside the silhouettes: a second opinion on what is solid, with no surface to move.

A surface that starts as a bowl's lid stays one, because no small step makes the pictures fit
better. A fog has a gradient along the whole ray (NeRF: Mildenhall et al. 2020, eq. 3, here on an
explicit grid): it thins out wherever no density could show each view its own colour, and gathers
where they agree. So it finds gaps and hollows by itself, though coarsely; what it leaves is a
proposal for `cavities.py` to fit and to check.

Colours are levelled to mean 0 and a spread of a third, so that pale things count as much as
colourful ones. Lengths in voxels, positions in node coordinates, densities per voxel. Letters: R
rays, N nodes that may hold fog, C chunks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
from numba import prange
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from ..jit import njit
from .consistency import Sightings
from .field import IndexArray, close_border, redistance
from .hull import FloatArray
from .render import clip_to_grid, trilinear

FOG_STEPS = 120

_BATCH = 16384  # rays
_DENSITY, _COLOR = 0.05, 0.03  # Adam's steps at the start
_LAST = 0.1  # share of both that is left at the end
_THINNEST, _DENSEST = -0.05, 5.0  # below 0 counts as 0, but close enough to come back
_BRIGHTEST = 3.0  # levelled colours lie in about -1 to 1
_MASK_WEIGHT, _HUBER = 0.3, 0.1
_ROOM = 0.7  # nodes so far outside the surface may hold fog too
_SOLID = 0.3  # density
_LIT = 0.02  # of what reaches the median node: less light, and nothing is known of a node

# Columns of the gradient buffers: density, colour, light that arrives.
_LIGHT, _COLUMNS = 4, 5
_LONGEST = 512  # samples a ray


def clear_fog(start: FloatArray, sightings: Sightings, seed: int) -> Iterator[FloatArray]:
    """Fill a surface's inside with fog, fit it to the pictures, and keep what is solid.

    start: (X, Y, Z) distance. Yields FOG_STEPS times: `start` while the fog settles, and at last
    the distance to what it left, all of it inside `start`. Nodes that light doesn't reach stay.
    """
    inside = start < _ROOM
    for axis in range(3):  # samples read the eight nodes around them
        border = np.moveaxis(inside, axis, 0)
        border[:2], border[-2:] = False, False
    nodes = np.argwhere(inside).astype(np.int32)
    slot = np.full(start.shape, -1, np.int32)
    slot[inside] = np.arange(len(nodes), dtype=np.int32)
    colors, white = _levelled(sightings)
    fog = np.zeros((*start.shape, 4), np.float32)
    fog[inside, 0] = _DENSITY
    moments = np.zeros((2, len(nodes), 4), np.float32)
    light = np.zeros(len(nodes), np.float32)
    gradients = np.zeros((min(numba.get_num_threads(), 8), len(nodes), _COLUMNS), np.float32)
    rng = np.random.default_rng(seed)
    for step in range(FOG_STEPS):
        batch = np.sort(rng.permutation(len(colors))[:_BATCH])
        _accumulate(
            sightings.origins[batch],
            sightings.directions[batch],
            colors[batch],
            sightings.alphas[batch],
            sightings.trust[batch],
            white,
            start,
            fog,
            slot,
            # Steps of changing length, or the fog would settle between the samples.
            np.float32(rng.uniform(0.85, 1.15)),
            gradients,
        )
        decay = _LAST ** (step / FOG_STEPS)
        rates = np.array([_DENSITY, _COLOR, _COLOR, _COLOR], np.float32) * np.float32(decay)
        _step(gradients, nodes, rates, step + 1, fog, moments, light)
        if step < FOG_STEPS - 1:
            yield start
    lit = light > _LIT * np.median(light[light > 0]) if light.any() else light > 0
    thin = (fog[inside, 0] < _SOLID) & lit
    solid = start < 0
    solid[inside] &= ~thin
    yield _distance_to(solid, start)


def _levelled(sightings: Sightings) -> tuple[FloatArray, FloatArray]:
    """The rays' colours (R, 3) with mean 0 and a spread of a third, and white (3,) likewise."""
    shown = sightings.colors[sightings.alphas > 0.9]
    if len(shown) == 0:
        shown = sightings.colors
    mean = shown.mean(axis=0)
    scale = 1 / (3 * max(float(np.sqrt(((shown - mean) ** 2).mean())), 0.01))
    colors = (sightings.colors - mean) * np.float32(scale)
    return colors.astype(np.float32), ((1 - mean) * scale).astype(np.float32)


def _distance_to(solid: NDArray[np.bool_], start: FloatArray) -> FloatArray:
    """Distance to whole nodes, smoothed to less than their steps, and within `start`."""
    if not solid.any():
        return np.maximum(start, np.float32(1))
    steps = distance_transform_edt(~solid) - distance_transform_edt(solid)
    return redistance(close_border(np.maximum(gaussian_filter(steps, 0.7), start)))


@njit(parallel=True, cache=True, fastmath=True)
def _accumulate(
    origins: FloatArray,  # (R, 3)
    directions: FloatArray,  # (R, 3)
    target_colors: FloatArray,  # (R, 3) levelled
    target_alphas: FloatArray,  # (R,)
    trust: FloatArray,  # (R,)
    white: FloatArray,  # (3,) levelled
    start: FloatArray,  # (X, Y, Z) distance beyond which there is no fog
    fog: FloatArray,  # (X, Y, Z, 4) density and levelled colour
    slot: IndexArray,  # (X, Y, Z)
    step: float,
    gradients: FloatArray,  # (C, N, COLUMNS), added to
) -> float:
    """Add the gradient of the image and mask loss, summed over rays; return that loss."""
    rays, chunks = len(origins), len(gradients)
    losses = np.zeros(chunks)
    for chunk in prange(chunks):
        at = np.empty(_LONGEST, fog.dtype)
        opacity = np.empty(_LONGEST, fog.dtype)
        through = np.empty(_LONGEST, fog.dtype)
        shade = np.empty((_LONGEST, 3), fog.dtype)
        seen, grad_color = np.empty(3, fog.dtype), np.empty(3, fog.dtype)
        out = gradients[chunk]
        for r in range(rays * chunk // chunks, rays * (chunk + 1) // chunks):
            o, d = origins[r], directions[r]
            t, leave = clip_to_grid(o, d, start.shape)
            count, transmittance = 0, fog.dtype.type(1)
            seen[:] = 0
            while t < leave and count < _LONGEST and transmittance > 2e-3:
                x, y, z = o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]
                away = trilinear(start, x, y, z)
                if away > 1:
                    t += max(away - 1, step)
                    continue
                i, j, k = int(x), int(y), int(z)
                u, v, w = x - i, y - j, z - k
                density = fog.dtype.type(0)
                shade[count] = 0
                for corner in range(8):
                    a, b, c = corner >> 2, (corner >> 1) & 1, corner & 1
                    share = (u if a else 1 - u) * (v if b else 1 - v) * (w if c else 1 - w)
                    density += share * fog[i + a, j + b, k + c, 0]
                    for channel in range(3):
                        shade[count, channel] += share * fog[i + a, j + b, k + c, 1 + channel]
                alpha = 1 - np.exp(-max(density, 0) * step)
                at[count], opacity[count], through[count] = t, alpha, transmittance
                for channel in range(3):
                    seen[channel] += transmittance * alpha * shade[count, channel]
                transmittance *= 1 - alpha
                count += 1
                t += step

            cover = 1 - transmittance
            goal = target_alphas[r]
            clamped = min(max(cover, 0.005), 0.995)
            entropy = goal * np.log(clamped) + (1 - goal) * np.log(1 - clamped)
            loss = -_MASK_WEIGHT * entropy
            grad_cover = trust[r] * _MASK_WEIGHT * (clamped - goal) / (clamped * (1 - clamped))
            for channel in range(3):
                off = seen[channel] + transmittance * white[channel] - target_colors[r, channel]
                size = abs(off)
                loss += (off * off / (2 * _HUBER) if size <= _HUBER else size - _HUBER / 2) / 3
                grad_color[channel] = trust[r] * min(max(off / _HUBER, -1), 1) / 3
                grad_cover -= grad_color[channel] * white[channel]
            losses[chunk] += trust[r] * loss

            # Backward: behind = sum over later samples of their weight times its gradient.
            behind = fog.dtype.type(0)
            for n in range(count - 1, -1, -1):
                weight = through[n] * opacity[n]
                grad_weight = grad_cover
                for channel in range(3):
                    grad_weight += grad_color[channel] * shade[n, channel]
                left = 1 - opacity[n]
                grad_alpha = through[n] * grad_weight - behind / max(left, 1e-4)
                behind += weight * grad_weight
                grad_density = grad_alpha * left * step
                x, y, z = o[0] + at[n] * d[0], o[1] + at[n] * d[1], o[2] + at[n] * d[2]
                i, j, k = int(x), int(y), int(z)
                u, v, w = x - i, y - j, z - k
                for corner in range(8):
                    a, b, c = corner >> 2, (corner >> 1) & 1, corner & 1
                    node = slot[i + a, j + b, k + c]
                    if node >= 0:
                        share = (u if a else 1 - u) * (v if b else 1 - v) * (w if c else 1 - w)
                        out[node, 0] += share * grad_density
                        for channel in range(3):
                            out[node, 1 + channel] += share * weight * grad_color[channel]
                        out[node, _LIGHT] += share * through[n]
    return losses.sum()


@njit(parallel=True, cache=True, fastmath=True)
def _step(
    gradients: FloatArray,  # (C, N, COLUMNS); zeroed
    nodes: IndexArray,  # (N, 3)
    rates: FloatArray,  # (4,)
    step: int,
    fog: FloatArray,  # (X, Y, Z, 4) changed
    moments: FloatArray,  # (2, N, 4) changed
    light: FloatArray,  # (N,) changed
) -> None:
    """One Adam step (Kingma and Ba 2015; beta 0.9, 0.95)."""
    beta1, beta2 = np.float32(0.9), np.float32(0.95)
    correct1 = np.float32(1 / (1 - 0.9**step))
    correct2 = np.float32(1 / (1 - 0.95**step))
    for n in prange(len(nodes)):
        i, j, k = nodes[n]
        gathered = np.zeros(_COLUMNS, np.float32)
        for chunk in range(len(gradients)):
            for column in range(_COLUMNS):
                gathered[column] += gradients[chunk, n, column]
                gradients[chunk, n, column] = 0
        light[n] = beta1 * light[n] + gathered[_LIGHT]
        for c in range(4):
            g = gathered[c]
            m = beta1 * moments[0, n, c] + (1 - beta1) * g
            v = beta2 * moments[1, n, c] + (1 - beta2) * g * g
            moments[0, n, c], moments[1, n, c] = m, v
            low = np.float32(_THINNEST if c == 0 else -_BRIGHTEST)
            high = np.float32(_DENSEST if c == 0 else _BRIGHTEST)
            value = fog[i, j, k, c] - rates[c] * m * correct1 / (
                np.sqrt(v * correct2) + np.float32(1e-8)
            )
            fog[i, j, k, c] = min(max(value, low), high)
