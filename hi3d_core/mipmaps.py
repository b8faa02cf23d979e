"""Textures with mipmaps, sampled over a pixel's footprint: a picture never shimmers.

A pixel's footprint on the texture is an ellipse. Its short axis chooses the mipmap level, and up
to `MAX_PROBES` trilinear probes are spread along its long axis, as graphics cards do (OpenGL's
EXT_texture_filter_anisotropic). Textures repeat outside [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .jit import njit

MAX_PROBES = 8


@dataclass(frozen=True, eq=False)
class Mipmaps:
    """Several textures, each with all its half-size copies, packed one after another.

    texels: (T, 3) float32. levels: (L, 3) int64, each level's first texel, height and width.
    first_level: (textures + 1,) int64: texture i owns levels first_level[i] to first_level[i+1].
    """

    texels: np.ndarray
    levels: np.ndarray
    first_level: np.ndarray


def build_mipmaps(textures: list[Tensor]) -> Mipmaps:
    """Average each (H, W, 3) texture down to one texel, in the colour space it is in."""
    pieces, levels, first_level = [np.zeros((0, 3), np.float32)], [], [0]
    start = 0
    for texture in textures:
        image = texture.detach().cpu().float().permute(2, 0, 1)[None]
        while True:
            height, width = image.shape[2:]
            pieces.append(image[0].permute(1, 2, 0).reshape(-1, 3).numpy())
            levels.append((start, height, width))
            start += height * width
            if height == width == 1:
                break
            smaller = (max(1, height // 2), max(1, width // 2))
            image = torch.nn.functional.adaptive_avg_pool2d(image, smaller)
        first_level.append(len(levels))
    return Mipmaps(
        np.concatenate(pieces),
        np.array(levels, np.int64).reshape(-1, 3),
        np.array(first_level, np.int64),
    )


@njit(cache=True)
def sample_footprint(texels, levels, u, v, du_dx, dv_dx, du_dy, dv_dy):  # type: ignore[no-untyped-def]
    """Colour (red, green, blue) of one texture over a pixel.

    levels: the texture's own rows of `Mipmaps.levels`. u, v: texture coordinates of the pixel's
    centre, origin top left. The rest: how they change a pixel to the right and a pixel down.
    """
    height, width = levels[0, 1], levels[0, 2]
    right = math.hypot(du_dx * width, dv_dx * height)
    down = math.hypot(du_dy * width, dv_dy * height)
    if right >= down:
        long, short, along_u, along_v = right, down, du_dx, dv_dx
    else:
        long, short, along_u, along_v = down, right, du_dy, dv_dy
    if long <= 1.0:
        return _bilinear(texels, levels[0], u, v)
    coarsest = len(levels) - 1
    if not long < np.inf:  # a face seen exactly edge-on
        return _bilinear(texels, levels[coarsest], u, v)
    probes = int(min(float(MAX_PROBES), math.ceil(long / max(short, 1e-9))))
    level = min(max(0.0, math.log2(long / probes)), float(coarsest))
    lower = int(level)
    upper = min(lower + 1, coarsest)
    blend = level - lower
    red, green, blue = 0.0, 0.0, 0.0
    for probe in range(probes):
        offset = (probe + 0.5) / probes - 0.5
        at_u, at_v = u, v
        if probes > 1:
            at_u, at_v = u + offset * along_u, v + offset * along_v
        near = _bilinear(texels, levels[lower], at_u, at_v)
        red += near[0] * (1 - blend)
        green += near[1] * (1 - blend)
        blue += near[2] * (1 - blend)
        if blend > 0.0:
            far = _bilinear(texels, levels[upper], at_u, at_v)
            red += far[0] * blend
            green += far[1] * blend
            blue += far[2] * blend
    return red / probes, green / probes, blue / probes


@njit(cache=True)
def _bilinear(texels, level, u, v):  # type: ignore[no-untyped-def]
    first, height, width = level[0], level[1], level[2]
    x = (u - math.floor(u)) * width - 0.5
    y = (v - math.floor(v)) * height - 0.5
    left, top = math.floor(x), math.floor(y)
    to_right, to_bottom = x - left, y - top
    x0, x1 = int(left) % width, (int(left) + 1) % width
    y0, y1 = int(top) % height, (int(top) + 1) % height
    a, b = first + y0 * width + x0, first + y0 * width + x1
    c, d = first + y1 * width + x0, first + y1 * width + x1
    wa, wb = (1 - to_right) * (1 - to_bottom), to_right * (1 - to_bottom)
    wc, wd = (1 - to_right) * to_bottom, to_right * to_bottom
    return (
        texels[a, 0] * wa + texels[b, 0] * wb + texels[c, 0] * wc + texels[d, 0] * wd,
        texels[a, 1] * wa + texels[b, 1] * wb + texels[c, 1] * wc + texels[d, 1] * wd,
        texels[a, 2] * wa + texels[b, 2] * wb + texels[c, 2] * wc + texels[d, 2] * wd,
    )


def sample_texture(texture: Tensor, uvs: Tensor) -> Tensor:
    """Colours (N, 3) of a texture (H, W, 3) at points uvs (N, 2), origin top left; bilinear."""
    texels = np.ascontiguousarray(texture.detach().cpu().float().reshape(-1, 3).numpy())
    level = np.array([0, texture.shape[0], texture.shape[1]], np.int64)
    colors = _sample_points(texels, level, uvs.detach().cpu().float().numpy())
    return torch.from_numpy(colors).to(uvs.device)


@njit(cache=True)
def _sample_points(texels, level, uvs):  # type: ignore[no-untyped-def]
    colors = np.empty((len(uvs), 3), np.float32)
    for i in range(len(uvs)):
        colors[i, 0], colors[i, 1], colors[i, 2] = _bilinear(texels, level, uvs[i, 0], uvs[i, 1])
    return colors
