"""Project 3D Gaussians to 2D ones (EWA splatting), and the way back for gradients.

The maths is Zwicker et al. 2001 as used by 3D Gaussian Splatting (Kerbl et al. 2023): with the
camera's rotation W, the Gaussian's rotation R and scales s, and the Jacobian J of the
perspective division, the picture's covariance is G Gᵀ + 0.3 I where G = J W R diag(s). Writing it
through the factor G keeps it symmetric and makes the backward pass a chain of small products.

All scalars here are float64 whatever the arrays hold: this is a few percent of the time.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import math

import numba
import numpy as np

from ..jit import njit

NEAR = 0.01  # world units; Gaussians nearer to the camera plane are not drawn
BLUR = 0.3  # square pixels added to both variances: a Gaussian covers at least about a pixel
ALPHA_MINIMUM = 1 / 255  # fainter contributions are not drawn
_CLAMP_MARGIN = 0.3  # of half the picture: beyond it the Jacobian is held, as it would explode

# The columns below are frozen into the compiled kernels of blend.py, and numba's cache only notices
# changes of the file that a kernel stands in: whoever changes them touches blend.py as well.
# Columns of the features that the blending kernels read, one row a Gaussian.
X, Y, CONIC_XX, CONIC_XY, CONIC_YY, OPACITY, LIMIT, EXTENT_Y, RED, GREEN, BLUE, DEPTH = range(12)
FEATURES = 12
# Columns of the gradients that the blending kernels write, one row an intersection.
# The six moments are sums over pixels of dL/dsigma times 1, dx, dy, dx², dx dy, dy².
M_1, M_X, M_Y, M_XX, M_XY, M_YY, D_RED, D_GREEN, D_BLUE, D_DEPTH = range(10)
SLOT = 10


@njit(cache=True)
def _rotation(q, out):
    """Rotation matrix of a quaternion of any length but zero; returns one over its length."""
    length = math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
    scale = 1.0 / max(length, 1e-12)
    w, x, y, z = q[0] * scale, q[1] * scale, q[2] * scale, q[3] * scale
    out[0, 0] = 1 - 2 * (y * y + z * z)
    out[0, 1] = 2 * (x * y - w * z)
    out[0, 2] = 2 * (x * z + w * y)
    out[1, 0] = 2 * (x * y + w * z)
    out[1, 1] = 1 - 2 * (x * x + z * z)
    out[1, 2] = 2 * (y * z - w * x)
    out[2, 0] = 2 * (x * z - w * y)
    out[2, 1] = 2 * (y * z + w * x)
    out[2, 2] = 1 - 2 * (x * x + y * y)
    return scale


@njit(cache=True)
def _clamped(ratio, low, high):
    return min(max(ratio, low), high)


@njit(cache=True)
def _limits(focal, center, size):
    """Tangents of the viewing angle between which the Jacobian follows the mean."""
    margin = _CLAMP_MARGIN * 0.5 * size / focal
    return -center / focal - margin, (size - center) / focal + margin


@njit(cache=True)
def _factor(position, w2c, intrinsics, width, height, rotation, scales, a, jacobian, g):
    """Fill A = W R, the nonzero terms of J, and G = J A diag(s)."""
    for i in range(3):
        for j in range(3):
            a[i, j] = (
                w2c[i, 0] * rotation[0, j] + w2c[i, 1] * rotation[1, j] + w2c[i, 2] * rotation[2, j]
            )
    z = position[2]
    fx, fy = intrinsics[0, 0], intrinsics[1, 1]
    low_x, high_x = _limits(fx, intrinsics[0, 2], width)
    low_y, high_y = _limits(fy, intrinsics[1, 2], height)
    jacobian[0] = fx / z
    jacobian[1] = -fx * _clamped(position[0] / z, low_x, high_x) / z
    jacobian[2] = fy / z
    jacobian[3] = -fy * _clamped(position[1] / z, low_y, high_y) / z
    for j in range(3):
        g[0, j] = (jacobian[0] * a[0, j] + jacobian[1] * a[2, j]) * scales[j]
        g[1, j] = (jacobian[2] * a[1, j] + jacobian[3] * a[2, j]) * scales[j]


@njit(cache=True)
def _project_one(
    n, means, scales, quaternions, opacities, colors, w2c, intrinsics, width, height, tile,
    features, ranges, touched,
):  # fmt: skip
    """Fill row n. (Kept out of the parallel function, which compiles slowly.)"""
    position = np.empty(3)
    for i in range(3):
        position[i] = (
            w2c[i, 0] * means[n, 0] + w2c[i, 1] * means[n, 1] + w2c[i, 2] * means[n, 2] + w2c[i, 3]
        )
    z = position[2]
    opacity = np.float64(opacities[n])
    if not (z > NEAR and opacity > ALPHA_MINIMUM):  # also refuses NaN
        return
    rotation, a, g = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3))
    jacobian = np.empty(4)
    _rotation(quaternions[n], rotation)
    _factor(position, w2c, intrinsics, width, height, rotation, scales[n], a, jacobian, g)
    xx = g[0, 0] * g[0, 0] + g[0, 1] * g[0, 1] + g[0, 2] * g[0, 2] + BLUR
    xy = g[0, 0] * g[1, 0] + g[0, 1] * g[1, 1] + g[0, 2] * g[1, 2]
    yy = g[1, 0] * g[1, 0] + g[1, 1] * g[1, 1] + g[1, 2] * g[1, 2] + BLUR
    determinant = xx * yy - xy * xy
    x = intrinsics[0, 0] * position[0] / z + intrinsics[0, 2]
    y = intrinsics[1, 1] * position[1] / z + intrinsics[1, 2]
    if not (determinant > 0 and math.isfinite(determinant)):
        return
    # opacity exp(-sigma) >= ALPHA_MINIMUM where sigma <= limit.
    limit = math.log(opacity / ALPHA_MINIMUM)
    extent_x, extent_y = math.sqrt(2 * limit * xx), math.sqrt(2 * limit * yy)
    left, right = max(x - extent_x, 0.0), min(x + extent_x, np.float64(width))
    top, bottom = max(y - extent_y, 0.0), min(y + extent_y, np.float64(height))
    if not (left < right and top < bottom):
        return
    first_column = int(left) // tile
    first_row = int(top) // tile
    last_column = int(min(right, width - 0.5)) // tile + 1
    last_row = int(min(bottom, height - 0.5)) // tile + 1
    ranges[n, 0], ranges[n, 1] = first_column, last_column
    ranges[n, 2], ranges[n, 3] = first_row, last_row
    touched[n] = (last_column - first_column) * (last_row - first_row)
    features[n, X], features[n, Y] = x, y
    features[n, CONIC_XX] = yy / determinant
    features[n, CONIC_XY] = -xy / determinant
    features[n, CONIC_YY] = xx / determinant
    features[n, OPACITY], features[n, LIMIT] = opacity, limit
    features[n, EXTENT_Y] = extent_y
    features[n, RED], features[n, GREEN], features[n, BLUE] = colors[n]
    features[n, DEPTH] = z


@njit(cache=True, parallel=True)
def project(means, scales, quaternions, opacities, colors, w2c, intrinsics, width, height, tile):
    """Project N Gaussians to one picture.

    means, scales (N, 3), quaternions (N, 4) w first, of any length, opacities (N,), colors
    (N, 3): all of one float type. w2c (4, 4) and intrinsics (3, 3) float64. tile: pixels.

    Returns features (N, FEATURES) of the same float type, tile ranges (N, 4) int32 as columns
    first, last + 1 and rows first, last + 1, and int32 counts (N,) of the tiles touched, 0 for a
    Gaussian that is not in the picture (behind, outside, too faint, or not finite).
    """
    count = len(means)
    features = np.empty((count, FEATURES), means.dtype)
    ranges = np.zeros((count, 4), np.int32)
    touched = np.zeros(count, np.int32)
    for n in numba.prange(count):
        _project_one(
            n, means, scales, quaternions, opacities, colors, w2c, intrinsics, width, height, tile,
            features, ranges, touched,
        )  # fmt: skip
    return features, ranges, touched


@njit(cache=True)
def _project_one_backward(
    n, means, scales, quaternions, opacities, w2c, intrinsics, width, height,
    features, offsets, slots,
    d_means, d_scales, d_quaternions, d_opacities, d_colors,
):  # fmt: skip
    """Add the gradients of Gaussian n."""
    if offsets[n + 1] == offsets[n]:
        return
    total = np.zeros(SLOT)
    for m in range(offsets[n], offsets[n + 1]):
        for k in range(SLOT):
            total[k] += slots[m, k]
    conic_xx = np.float64(features[n, CONIC_XX])
    conic_xy = np.float64(features[n, CONIC_XY])
    conic_yy = np.float64(features[n, CONIC_YY])
    # sigma = (xx dx² + 2 xy dx dy + yy dy²) / 2, with dx = pixel - x.
    d_x = -(conic_xx * total[M_X] + conic_xy * total[M_Y])
    d_y = -(conic_xy * total[M_X] + conic_yy * total[M_Y])
    # As symmetric matrices: dL/dcovariance = -conic (dL/dconic) conic.
    v_xx, v_xy, v_yy = 0.5 * total[M_XX], 0.5 * total[M_XY], 0.5 * total[M_YY]
    p_xx, p_xy = conic_xx * v_xx + conic_xy * v_xy, conic_xx * v_xy + conic_xy * v_yy
    p_yx, p_yy = conic_xy * v_xx + conic_yy * v_xy, conic_xy * v_xy + conic_yy * v_yy
    c_xx = -(p_xx * conic_xx + p_xy * conic_xy)
    c_xy = -(p_xx * conic_xy + p_xy * conic_yy)
    c_yy = -(p_yx * conic_xy + p_yy * conic_yy)

    position = np.empty(3)
    for i in range(3):
        position[i] = (
            w2c[i, 0] * means[n, 0] + w2c[i, 1] * means[n, 1] + w2c[i, 2] * means[n, 2] + w2c[i, 3]
        )
    rotation, a, g = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3))
    jacobian = np.empty(4)
    inverse_length = _rotation(quaternions[n], rotation)
    _factor(position, w2c, intrinsics, width, height, rotation, scales[n], a, jacobian, g)

    # covariance = G Gᵀ, so dG = 2 dC G; G = J (A diag(s)).
    d_a = np.empty((3, 3))
    d_jacobian = np.zeros(4)
    for j in range(3):
        scale = np.float64(scales[n, j])
        d_g0 = 2 * (c_xx * g[0, j] + c_xy * g[1, j])
        d_g1 = 2 * (c_xy * g[0, j] + c_yy * g[1, j])
        d_jacobian[0] += d_g0 * a[0, j] * scale
        d_jacobian[1] += d_g0 * a[2, j] * scale
        d_jacobian[2] += d_g1 * a[1, j] * scale
        d_jacobian[3] += d_g1 * a[2, j] * scale
        d_b0 = jacobian[0] * d_g0
        d_b1 = jacobian[2] * d_g1
        d_b2 = jacobian[1] * d_g0 + jacobian[3] * d_g1
        d_scales[n, j] += d_b0 * a[0, j] + d_b1 * a[1, j] + d_b2 * a[2, j]
        d_a[0, j], d_a[1, j], d_a[2, j] = d_b0 * scale, d_b1 * scale, d_b2 * scale

    _add_position_gradient(
        n, position, intrinsics, width, height, jacobian, d_jacobian,
        d_x, d_y, total[D_DEPTH], w2c, d_means,
    )  # fmt: skip
    _add_quaternion_gradient(n, quaternions, inverse_length, w2c, d_a, d_quaternions)
    # sigma's gradient is -alpha dL/dalpha, and alpha is proportional to the opacity.
    d_opacities[n] -= total[M_1] / opacities[n]
    d_colors[n, 0] += total[D_RED]
    d_colors[n, 1] += total[D_GREEN]
    d_colors[n, 2] += total[D_BLUE]


@njit(cache=True, parallel=True)
def project_backward(
    means, scales, quaternions, opacities, w2c, intrinsics, width, height,
    features, offsets, slots,
    d_means, d_scales, d_quaternions, d_opacities, d_colors,
):  # fmt: skip
    """Add the gradients of one picture to those of the Gaussians.

    offsets: (N + 1,) where each Gaussian's rows of `slots` (M, SLOT) begin. The d_ arrays have
    the shapes of the parameters, in float64, and are added to.
    """
    for n in numba.prange(len(means)):
        _project_one_backward(
            n, means, scales, quaternions, opacities, w2c, intrinsics, width, height,
            features, offsets, slots,
            d_means, d_scales, d_quaternions, d_opacities, d_colors,
        )  # fmt: skip


@njit(cache=True)
def _add_position_gradient(
    n, position, intrinsics, width, height, jacobian, d_jacobian, d_x, d_y, d_depth, w2c, d_means
):
    """Through the pixel position, the depth and the Jacobian to the mean."""
    z = position[2]
    fx, fy = intrinsics[0, 0], intrinsics[1, 1]
    low_x, high_x = _limits(fx, intrinsics[0, 2], width)
    low_y, high_y = _limits(fy, intrinsics[1, 2], height)
    d_cx = d_x * fx / z
    d_cy = d_y * fy / z
    d_cz = d_depth - (d_x * fx * position[0] + d_y * fy * position[1]) / (z * z)
    d_cz -= (
        d_jacobian[0] * jacobian[0]
        + d_jacobian[1] * jacobian[1]
        + d_jacobian[2] * jacobian[2]
        + d_jacobian[3] * jacobian[3]
    ) / z
    # The clamped ratio x / z moves with the mean only between its limits.
    if low_x < position[0] / z < high_x:
        d_ratio = -d_jacobian[1] * fx / z
        d_cx += d_ratio / z
        d_cz -= d_ratio * position[0] / (z * z)
    if low_y < position[1] / z < high_y:
        d_ratio = -d_jacobian[3] * fy / z
        d_cy += d_ratio / z
        d_cz -= d_ratio * position[1] / (z * z)
    for i in range(3):
        d_means[n, i] += w2c[0, i] * d_cx + w2c[1, i] * d_cy + w2c[2, i] * d_cz


@njit(cache=True)
def _add_quaternion_gradient(n, quaternions, inverse_length, w2c, d_a, d_quaternions):
    """Through A = W R(q / |q|) to the quaternion."""
    r = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            r[i, j] = w2c[0, i] * d_a[0, j] + w2c[1, i] * d_a[1, j] + w2c[2, i] * d_a[2, j]
    w = quaternions[n, 0] * inverse_length
    x = quaternions[n, 1] * inverse_length
    y = quaternions[n, 2] * inverse_length
    z = quaternions[n, 3] * inverse_length
    d_w = 2 * (x * (r[2, 1] - r[1, 2]) + y * (r[0, 2] - r[2, 0]) + z * (r[1, 0] - r[0, 1]))
    d_qx = 2 * (
        y * (r[0, 1] + r[1, 0])
        + z * (r[0, 2] + r[2, 0])
        + w * (r[2, 1] - r[1, 2])
        - 2 * x * (r[1, 1] + r[2, 2])
    )
    d_qy = 2 * (
        x * (r[0, 1] + r[1, 0])
        + z * (r[1, 2] + r[2, 1])
        + w * (r[0, 2] - r[2, 0])
        - 2 * y * (r[0, 0] + r[2, 2])
    )
    d_qz = 2 * (
        x * (r[0, 2] + r[2, 0])
        + y * (r[1, 2] + r[2, 1])
        + w * (r[1, 0] - r[0, 1])
        - 2 * z * (r[0, 0] + r[1, 1])
    )
    # Of a change of q only the part across q turns the Gaussian.
    along = d_w * w + d_qx * x + d_qy * y + d_qz * z
    d_quaternions[n, 0] += (d_w - along * w) * inverse_length
    d_quaternions[n, 1] += (d_qx - along * x) * inverse_length
    d_quaternions[n, 2] += (d_qy - along * y) * inverse_length
    d_quaternions[n, 3] += (d_qz - along * z) * inverse_length
