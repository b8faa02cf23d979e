"""Pictures of the fitted field: colour, coverage and depth from any cameras.

The forward half of `render.py`, with its sampling and its opacities (NeuS, Wang et al. 2021,
eq. 13), for whole pictures.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import prange

from ..cameras import Cameras, pixel_rays
from ..datatypes import OnStep, OrbitViews
from ..jit import njit
from .field import Field
from .hull import FloatArray
from .render import clip_to_grid, trilinear

_OPAQUE = 2e-3  # transmittance at which a ray has ended
_KNOWN_DEPTH_ALPHA = 0.5  # coverage below which a pixel's depth is called unknown


def field_views(
    field: Field, cameras: Cameras, sharpness: float = 8.0, *, on_step: OnStep | None = None
) -> OrbitViews:
    """Draw a field over white.

    cameras: in the field's frame (the placement's local one). sharpness: of Phi, per voxel; at
    the end of a fit it is the last of `SurfaceConfig.sharpness`.

    Depths are expected z-depths, 0 where less than half of a pixel is covered. `on_step` counts
    views.
    """
    origins, directions = pixel_rays(cameras.to("cpu"))
    # In node coordinates; directions keep a length, so depth = voxel * t / length.
    starts = ((origins.double().numpy() - field.grid.origin) / field.grid.voxel).astype(np.float32)
    views, height, width = len(cameras), cameras.height, cameras.width
    drawn = np.empty((views, height, width, 5), np.float32)
    for view in range(views):
        ways = directions[view].reshape(-1, 3).numpy().astype(np.float32)
        lengths = np.linalg.norm(ways, axis=1)
        picture = drawn[view].reshape(-1, 5)
        _draw(starts[view], ways / lengths[:, None], field.sdf, field.colors, sharpness, picture)
        picture[:, 4] *= np.float32(field.grid.voxel) / lengths
        if on_step is not None:
            on_step(view + 1, views)
    alphas = torch.from_numpy(np.clip(drawn[..., 3], 0, 1))
    depths = torch.from_numpy(drawn[..., 4].copy())
    return OrbitViews(
        torch.from_numpy(np.clip(drawn[..., :3], 0, 1)),
        alphas,
        cameras.to("cpu"),
        torch.where(alphas > _KNOWN_DEPTH_ALPHA, depths, 0.0),
    )


@njit(parallel=True, cache=True, fastmath=True)
def _draw(
    origin: FloatArray,  # (3,) node coordinates
    directions: FloatArray,  # (R, 3) unit length
    sdf: FloatArray,  # (X, Y, Z)
    colors: FloatArray,  # (X, Y, Z, 3)
    sharpness: float,
    drawn: FloatArray,  # (R, 5) colour over white, coverage, distance in voxels out
) -> None:
    s = np.float32(sharpness)
    near = min(np.float32(4.5), np.float32(5.0 / sharpness + 1.0))
    for r in prange(len(directions)):
        o, d = origin, directions[r]
        t, leave = clip_to_grid(o, d, sdf.shape)
        through, cover, far = np.float32(1), np.float32(0), np.float32(0)
        red = green = blue = np.float32(0)
        before, joined = np.float32(0), False
        while t < leave and through > _OPAQUE:
            f = trilinear(sdf, o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
            if f > near and not joined:
                t += max(f - near, np.float32(1))
                continue
            if joined and f < before:
                # Phi(f1) / Phi(f0) with exponents kept in range
                e0 = np.exp(-max(s * before, np.float32(-30)))
                e1 = np.exp(-max(s * f, np.float32(-30)))
                alpha = min(1 - (1 + e0) / (1 + e1), np.float32(0.9999))
                w = through * alpha
                if w > 1e-5:
                    p = t - 1 + min(max(before / (before - f), np.float32(0)), np.float32(1))
                    x, y, z = o[0] + p * d[0], o[1] + p * d[1], o[2] + p * d[2]
                    red += w * trilinear(colors[..., 0], x, y, z)
                    green += w * trilinear(colors[..., 1], x, y, z)
                    blue += w * trilinear(colors[..., 2], x, y, z)
                    far += w * p
                    cover += w
                    through *= 1 - alpha
            before, joined = f, f <= near
            t += 1
        drawn[r, 0] = red + 1 - cover
        drawn[r, 1] = green + 1 - cover
        drawn[r, 2] = blue + 1 - cover
        drawn[r, 3] = cover
        drawn[r, 4] = far / max(cover, np.float32(1e-6))
