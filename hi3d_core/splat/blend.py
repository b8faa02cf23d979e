"""Blend projected Gaussians tile by tile, front to back, and the way back for gradients.

A Gaussian k covers a pixel with alpha_k = min(0.999, opacity exp(-sigma)), where sigma is half
its squared Mahalanobis distance; contributions below 1/255 are not drawn. With the transmittance
T_k = prod_{j<k} (1 - alpha_j) the pixel shows sum_k alpha_k T_k value_k. A Gaussian that would
bring T to 1e-4 or less is not drawn and ends the pixel. These are the rules and constants of 3D
Gaussian Splatting (Kerbl et al. 2023) and of gsplat.

How it is fast. A worker owns whole tiles, so nothing is shared and nothing needs an atomic. A
tile's pixels lie in one small buffer, plane beside plane, which stays in the first cache. Of each
Gaussian only the pixels inside its ellipse are visited, a row at a time, in blocks of LANES
pixels that the compiler turns into vector instructions: no branches inside, pixels outside the
ellipse get alpha 0, and a block may run over the tile's edge into padding. `lanes` is an argument
that always holds LANES: were it a constant, LLVM would unroll the loop before vectorizing it.

The same source serves float32 and float64; constants take the arrays' type. List positions are
kept as floats beside the pixels: exact for up to 16 million Gaussians on a tile.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import math

import numba
import numpy as np
from numba import types
from numba.extending import overload

from ..jit import njit
from .project import (
    BLUE,
    CONIC_XX,
    CONIC_XY,
    CONIC_YY,
    D_BLUE,
    D_DEPTH,
    D_GREEN,
    D_RED,
    DEPTH,
    EXTENT_Y,
    GREEN,
    LIMIT,
    M_1,
    M_X,
    M_XX,
    M_XY,
    M_Y,
    M_YY,
    OPACITY,
    RED,
    SLOT,
    X,
    Y,
)

TILE = 32  # pixels
LANES = 8
ALPHA_MAXIMUM = 0.999
TRANSMITTANCE_MINIMUM = 1e-4

_STRIDE = TILE + LANES
# Planes of the forward buffer: transmittance, the list position that ended the pixel, values.
_T, _END, _R, _G, _B, _D = (np.uint64(plane * _STRIDE) for plane in range(6))
_FORWARD_ROW = 6 * _STRIDE
# Planes of the backward buffer: as above, what lies behind, and the picture's gradients.
_BEHIND, _GR, _GG, _GB, _GD, _GA = (np.uint64(plane * _STRIDE) for plane in range(2, 8))
_BACKWARD_ROW = 8 * _STRIDE
# Where the columns of a slot lie in the sums that are kept lane by lane.
_S_1, _S_X, _S_Y, _S_XX, _S_XY, _S_YY, _S_RED, _S_GREEN, _S_BLUE, _S_DEPTH = (
    np.uint64(LANES * column)
    for column in (M_1, M_X, M_Y, M_XX, M_XY, M_YY, D_RED, D_GREEN, D_BLUE, D_DEPTH)
)

# Associative sums and fused multiply-add, but NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}


def _exp_of_minus(sigma):
    """exp(-sigma) for sigma in [0, 5.6], which is all that lies above 1/255."""
    return math.exp(-sigma)


# exp(-sigma / 8) on [0, 5.6] by the Chebyshev interpolant of degree 5: 1e-7 relative, and eight
# times that for its eighth power.
_LARGEST_SIGMA = 5.6
_POLYNOMIAL = tuple(
    np.float32(c)
    for c in np.polynomial.Chebyshev.interpolate(
        lambda s: np.exp(-s / 8), 5, domain=[0, _LARGEST_SIGMA]
    ).convert(kind=np.polynomial.Polynomial, domain=[-1, 1]).coef
)  # fmt: skip
_C0, _C1, _C2, _C3, _C4, _C5 = _POLYNOMIAL


@overload(_exp_of_minus, inline="always")
def _overload_exp_of_minus(sigma):
    if sigma == types.float32:

        def polynomial(sigma):
            e = ((((_C5 * sigma + _C4) * sigma + _C3) * sigma + _C2) * sigma + _C1) * sigma + _C0
            e = e * e
            e = e * e
            return e * e

        return polynomial
    return lambda sigma: math.exp(-sigma)


@njit(cache=True, inline="always", fastmath=_FAST, error_model="numpy")
def _pixels_within(center, half, first, last):
    """The first and one past the last pixel with centres within `half` of `center`.

    Both stay between the pixels first and last, which are not negative (so that truncation is
    rounding down).
    """
    real = type(center)
    low = max(center - half, real(first))
    high = max(min(center + half, real(last)), low)
    return int(low + real(0.5)), int(high + real(0.5))


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _blend_gaussian(buffer, index, feature, top, left, bottom, right):
    """Draw one Gaussian on the buffer of the tile whose pixels are top to bottom, left to right.

    index: its position in the tile's list.
    """
    real = buffer.dtype.type
    one, zero, half = real(1), real(0), real(0.5)
    alpha_maximum, stop = real(ALPHA_MAXIMUM), real(TRANSMITTANCE_MINIMUM)
    largest = real(_LARGEST_SIGMA)
    center_x, center_y = feature[X], feature[Y]
    xx, xy, yy = feature[CONIC_XX], feature[CONIC_XY], feature[CONIC_YY]
    opacity, limit = feature[OPACITY], feature[LIMIT]
    red, green, blue, depth = feature[RED], feature[GREEN], feature[BLUE], feature[DEPTH]
    half_xx, inverse_xx = half * xx, one / xx
    position = real(index)
    first_row, last_row = _pixels_within(center_y, feature[EXTENT_Y], top, bottom)
    for y in range(first_row, last_row):
        dy = real(y) + half - center_y
        # The row's part of the ellipse sigma <= limit: a quadratic in dx.
        slope = xy * dy
        inside = slope * slope - xx * (yy * dy * dy - limit - limit)
        if not inside > zero:
            continue
        first, last = _pixels_within(
            center_x - slope * inverse_xx, math.sqrt(inside) * inverse_xx, left, right
        )
        sigma_y = half * yy * dy * dy
        at = np.uint64((y - top) * _FORWARD_ROW + first - left)
        dx = real(first) + half - center_x
        # Whole blocks: the compiler then needs no loop for what is left over.
        for k in range(np.uint64((last - first + LANES - 1) // LANES * LANES)):
            i = at + k
            lane_dx = dx + real(np.int32(k))
            sigma = (half_xx * lane_dx + slope) * lane_dx + sigma_y
            alpha = min(opacity * _exp_of_minus(min(max(sigma, zero), largest)), alpha_maximum)
            t = buffer[i + _T]
            alpha = alpha if (sigma <= limit) & (t > zero) else zero
            t_next = t * (one - alpha)
            ends_here = (t > zero) & (t_next <= stop)
            weight = zero if ends_here else alpha * t
            # A pixel that has ended keeps its transmittance, with a minus sign.
            buffer[i + _T] = -t if ends_here else t_next
            buffer[i + _END] += position if ends_here else zero
            buffer[i + _R] += weight * red
            buffer[i + _G] += weight * green
            buffer[i + _B] += weight * blue
            buffer[i + _D] += weight * depth


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _blend_share(
    worker, features, tile_starts, gaussians, shared_tiles, share_starts,
    picture, transmittance, ends,
):  # fmt: skip
    """Draw one worker's tiles. (Kept out of the parallel function, which compiles slowly.)"""
    height, width = transmittance.shape
    columns = (width + TILE - 1) // TILE
    real = features.dtype.type
    buffer = np.empty(TILE * _FORWARD_ROW, features.dtype)
    for share in range(share_starts[worker], share_starts[worker + 1]):
        tile = shared_tiles[share]
        begin, count = tile_starts[tile], tile_starts[tile + 1] - tile_starts[tile]
        if count == 0:
            continue
        top, left = tile // columns * TILE, tile % columns * TILE
        bottom, right = min(top + TILE, height), min(left + TILE, width)
        buffer.fill(real(0))
        for row in range(TILE):
            for x in range(_STRIDE):
                buffer[np.uint64(row * _FORWARD_ROW + x) + _T] = real(1)
        for index in range(count):
            n = gaussians[begin + index]
            _blend_gaussian(buffer, index, features[n], top, left, bottom, right)
        for y in range(top, bottom):
            for x in range(left, right):
                at = np.uint64((y - top) * _FORWARD_ROW + x - left)
                transmittance[y, x] = abs(buffer[at + _T])
                ends[y, x] = count if buffer[at + _T] > 0 else int(buffer[at + _END])
                picture[y, x, 0] = buffer[at + _R]
                picture[y, x, 1] = buffer[at + _G]
                picture[y, x, 2] = buffer[at + _B]
                picture[y, x, 3] = buffer[at + _D]


@njit(cache=True, parallel=True)
def blend(features, tile_starts, gaussians, shared_tiles, share_starts, width, height):
    """Draw the tiles' Gaussians.

    features: (N, FEATURES) of `project`; the rest from `binning`.

    Returns picture (H, W, 4): red, green, blue and depth times coverage, over nothing;
    transmittance (H, W); and ends (H, W) int32, where in the tile's list drawing stopped.
    """
    picture = np.zeros((height, width, 4), features.dtype)
    transmittance = np.ones((height, width), features.dtype)
    ends = np.zeros((height, width), np.int32)
    for worker in numba.prange(len(share_starts) - 1):
        _blend_share(
            worker, features, tile_starts, gaussians, shared_tiles, share_starts,
            picture, transmittance, ends,
        )  # fmt: skip
    return picture, transmittance, ends


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _blend_gaussian_backward(buffer, sums, lanes, index, feature, top, left, bottom, right):
    """Undo one Gaussian on a tile's buffer and add its gradients, lane by lane, to `sums`."""
    real = buffer.dtype.type
    one, zero, half = real(1), real(0), real(0.5)
    alpha_maximum, largest = real(ALPHA_MAXIMUM), real(_LARGEST_SIGMA)
    center_x, center_y = feature[X], feature[Y]
    xx, xy, yy = feature[CONIC_XX], feature[CONIC_XY], feature[CONIC_YY]
    opacity, limit = feature[OPACITY], feature[LIMIT]
    red, green, blue, depth = feature[RED], feature[GREEN], feature[BLUE], feature[DEPTH]
    half_xx, inverse_xx = half * xx, one / xx
    position = real(index)
    first_row, last_row = _pixels_within(center_y, feature[EXTENT_Y], top, bottom)
    for y in range(first_row, last_row):
        dy = real(y) + half - center_y
        slope = xy * dy
        inside = slope * slope - xx * (yy * dy * dy - limit - limit)
        if not inside > zero:
            continue
        first, last = _pixels_within(
            center_x - slope * inverse_xx, math.sqrt(inside) * inverse_xx, left, right
        )
        sigma_y = half * yy * dy * dy
        dy_dy = dy * dy
        for x in range(first, last, LANES):
            at = np.uint64((y - top) * _BACKWARD_ROW + x - left)
            dx = real(x) + half - center_x
            for k in range(lanes):
                i = at + k
                lane_dx = dx + real(np.int32(k))
                sigma = (half_xx * lane_dx + slope) * lane_dx + sigma_y
                full = opacity * _exp_of_minus(min(max(sigma, zero), largest))
                alpha = min(full, alpha_maximum) if sigma <= limit else zero
                alpha = alpha if buffer[i + _END] > position else zero
                remains = one / (one - alpha)
                t = buffer[i + _T] * remains  # in front of this Gaussian
                weight = alpha * t
                d_red, d_green, d_blue = buffer[i + _GR], buffer[i + _GG], buffer[i + _GB]
                d_depth = buffer[i + _GD]
                value = (
                    red * d_red + green * d_green + blue * d_blue + depth * d_depth
                    + buffer[i + _GA]
                )  # fmt: skip
                behind = buffer[i + _BEHIND]
                buffer[i + _T] = t
                buffer[i + _BEHIND] = behind + weight * value
                # alpha = opacity exp(-sigma) moves with sigma unless it is capped.
                moving = alpha if full <= alpha_maximum else zero
                d_sigma = moving * (behind * remains - t * value)
                d_sigma_x = d_sigma * lane_dx
                sums[k + _S_1] += d_sigma
                sums[k + _S_X] += d_sigma_x
                sums[k + _S_Y] += d_sigma * dy
                sums[k + _S_XX] += d_sigma_x * lane_dx
                sums[k + _S_XY] += d_sigma_x * dy
                sums[k + _S_YY] += d_sigma * dy_dy
                sums[k + _S_RED] += weight * d_red
                sums[k + _S_GREEN] += weight * d_green
                sums[k + _S_BLUE] += weight * d_blue
                sums[k + _S_DEPTH] += weight * d_depth


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _blend_share_backward(
    worker, features, tile_starts, gaussians, slots, shared_tiles, share_starts,
    transmittance, ends, d_picture, d_alpha, lanes, gradients,
):  # fmt: skip
    """Write the gradients of one worker's tiles."""
    height, width = transmittance.shape
    columns = (width + TILE - 1) // TILE
    real = features.dtype.type
    buffer = np.empty(TILE * _BACKWARD_ROW, features.dtype)
    sums = np.empty(SLOT * LANES, features.dtype)
    for share in range(share_starts[worker], share_starts[worker + 1]):
        tile = shared_tiles[share]
        begin = tile_starts[tile]
        if tile_starts[tile + 1] == begin:
            continue
        top, left = tile // columns * TILE, tile % columns * TILE
        bottom, right = min(top + TILE, height), min(left + TILE, width)
        buffer.fill(real(0))
        deepest = 0
        for y in range(top, bottom):
            for x in range(left, right):
                at = np.uint64((y - top) * _BACKWARD_ROW + x - left)
                buffer[at + _T] = transmittance[y, x]
                buffer[at + _END] = real(ends[y, x])
                deepest = max(deepest, ends[y, x])
                buffer[at + _GR] = d_picture[y, x, 0]
                buffer[at + _GG] = d_picture[y, x, 1]
                buffer[at + _GB] = d_picture[y, x, 2]
                buffer[at + _GD] = d_picture[y, x, 3]
                buffer[at + _GA] = d_alpha[y, x]
        for index in range(deepest - 1, -1, -1):
            n = gaussians[begin + index]
            sums.fill(real(0))
            _blend_gaussian_backward(
                buffer, sums, lanes, index, features[n], top, left, bottom, right
            )
            slot = slots[begin + index]
            for k in range(SLOT):
                total = real(0)
                for lane in range(LANES):
                    total += sums[k * LANES + lane]
                gradients[slot, k] = total


@njit(cache=True, parallel=True)
def blend_backward(
    features, tile_starts, gaussians, slots, shared_tiles, share_starts,
    transmittance, ends, d_picture, d_alpha, lanes,
):  # fmt: skip
    """Gradients of one picture, one row for each intersection.

    transmittance, ends: from `blend`. d_picture (H, W, 4), d_alpha (H, W): the loss's gradients
    with respect to picture and to 1 - transmittance.

    Walks each tile's list from the back: T in front of a Gaussian is T behind it divided by
    1 - alpha, and all that lies behind it enters through one number a pixel, sum of weight times
    (value · gradient).

    Returns (M, SLOT) float64, by slot; the rows of Gaussians that touch nothing are 0.
    """
    gradients = np.zeros((len(gaussians), SLOT), features.dtype)
    for worker in numba.prange(len(share_starts) - 1):
        _blend_share_backward(
            worker, features, tile_starts, gaussians, slots, shared_tiles, share_starts,
            transmittance, ends, d_picture, d_alpha, lanes, gradients,
        )  # fmt: skip
    return gradients
