"""One picture of N Gaussians on the CPU, forward and backward: the kernels in their order.

All arrays are numpy, float32 or float64 throughout; `rasterize.py` is the entry for tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from .binning import depth_order, share_tiles, tile_lists
from .blend import LANES, TILE, blend, blend_backward
from .project import DEPTH, project, project_backward

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture, and what its backward pass needs to remember.

    picture: (H, W, 4) red, green, blue, z-depth, each times coverage, over nothing.
    transmittance: (H, W), one minus coverage.
    """

    picture: Floats
    transmittance: Floats
    ends: Integers
    features: Floats
    tile_starts: Integers
    gaussians: Integers
    slots: Integers
    slot_starts: Integers
    shared_tiles: Integers
    share_starts: Integers


def draw(
    means: Floats,
    scales: Floats,
    quaternions: Floats,
    opacities: Floats,
    colors: Floats,
    world_to_camera: Floats,
    intrinsics: Floats,
    width: int,
    height: int,
) -> Drawn:
    """Draw Gaussians to one camera.

    means, scales (N, 3), quaternions (N, 4), opacities (N,), colors (N, 3) of one float type;
    world_to_camera (4, 4) and intrinsics (3, 3) float64.
    """
    features, ranges, touched = project(
        means, scales, quaternions, opacities, colors, world_to_camera, intrinsics,
        width, height, TILE,
    )  # fmt: skip
    order = depth_order(features[:, DEPTH], touched)
    columns, rows = -(-width // TILE), -(-height // TILE)
    tile_starts, gaussians, slots, slot_starts = tile_lists(order, ranges, touched, columns, rows)
    counts = np.diff(tile_starts)
    longest_first = np.argsort(-counts, kind="stable")
    shared_tiles, share_starts = share_tiles(counts, longest_first, numba.get_num_threads())
    picture, transmittance, ends = blend(
        features, tile_starts, gaussians, shared_tiles, share_starts, width, height
    )
    return Drawn(
        picture, transmittance, ends, features, tile_starts, gaussians, slots, slot_starts,
        shared_tiles, share_starts,
    )  # fmt: skip


def draw_backward(
    drawn: Drawn,
    d_picture: Floats,
    d_alpha: Floats,
    means: Floats,
    scales: Floats,
    quaternions: Floats,
    opacities: Floats,
    world_to_camera: Floats,
    intrinsics: Floats,
    gradients: tuple[Floats, Floats, Floats, Floats, Floats],
) -> None:
    """Add one picture's gradients to `gradients`: float64 arrays of the parameters' shapes.

    d_picture (H, W, 4), d_alpha (H, W): the loss's gradients with respect to the picture and to
    the coverage, 1 - transmittance.
    """
    height, width = drawn.transmittance.shape
    by_slot = blend_backward(
        drawn.features, drawn.tile_starts, drawn.gaussians, drawn.slots, drawn.shared_tiles,
        drawn.share_starts, drawn.transmittance, drawn.ends, d_picture, d_alpha, np.uint64(LANES),
    )  # fmt: skip
    project_backward(
        means, scales, quaternions, opacities, world_to_camera, intrinsics, width, height,
        drawn.features, drawn.slot_starts, by_slot, *gradients,
    )  # fmt: skip
