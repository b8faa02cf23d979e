"""Colour that depends on the viewing direction: real spherical harmonics up to degree 3.

The basis, its signs and its order are those of 3D Gaussian Splatting's files (Kerbl et al. 2023).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SH_0 = 0.28209479177387814  # the constant function
SH_1 = 0.4886025119029199
SH_2 = (1.0925484305920792, -1.0925484305920792, 0.31539156525252005, -1.0925484305920792,
        0.5462742152960396)  # fmt: skip
SH_3 = (-0.5900435899266435, 2.890611442640554, -0.4570457994644658, 0.3731763325901154,
        -0.4570457994644658, 1.445305721320277, -0.5900435899266435)  # fmt: skip


def colors_from_sh(sh: Tensor, directions: Tensor) -> Tensor:
    """Colours of Gaussians seen along directions.

    sh: (N, K, 3) with K = 1, 4, 9 or 16. directions: (..., N, 3) from the camera to the
    Gaussian, of any length but zero. Returns (..., N, 3), not negative and with no upper limit.
    """
    return (basis(directions, sh.shape[1])[..., None] * sh).sum(dim=-2).add(0.5).clamp_min(0)


def sh_from_colors(colors: Tensor) -> Tensor:
    """Coefficients (N, 1, 3) of degree 0 that show `colors` (N, 3) from everywhere."""
    return ((colors - 0.5) / SH_0)[:, None]


def basis(directions: Tensor, terms: int) -> Tensor:
    """The first `terms` functions (1, 4, 9 or 16) at directions (..., 3). Returns (..., terms).

    Raises ValueError for another number of terms.
    """
    if terms not in (1, 4, 9, 16):
        raise ValueError(f"got {terms} spherical-harmonics terms, expected 1, 4, 9 or 16")
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    functions = [torch.full_like(x, SH_0)]
    if math.isqrt(terms) > 1:
        functions += [-SH_1 * y, SH_1 * z, -SH_1 * x]
    if math.isqrt(terms) > 2:
        xx, yy, zz = x * x, y * y, z * z
        functions += [
            SH_2[0] * x * y,
            SH_2[1] * y * z,
            SH_2[2] * (2 * zz - xx - yy),
            SH_2[3] * x * z,
            SH_2[4] * (xx - yy),
        ]
    if math.isqrt(terms) > 3:
        functions += [
            SH_3[0] * y * (3 * xx - yy),
            SH_3[1] * x * y * z,
            SH_3[2] * y * (4 * zz - xx - yy),
            SH_3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            SH_3[4] * x * (4 * zz - xx - yy),
            SH_3[5] * z * (xx - yy),
            SH_3[6] * x * (xx - 3 * yy),
        ]
    return torch.stack(functions, dim=-1)
