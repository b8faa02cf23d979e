"""Fusion of depth pictures into a truncated signed distance: a baseline.

Curless and Levoy 1996, "A volumetric method for building complex models from range images": each
view's distance along its axis between a node and the surface, cut off, is
averaged over the views that see the node or lie in front of it. What (nearly) every view calls
hidden is inside, so that the surface is closed.

Letters: V views, H and W the picture's size, (X, Y, Z) grid nodes along the axes.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from hi3d_core.datatypes import OrbitViews
from hi3d_core.surface.hull import FloatArray, Grid, camera_arrays

# Of the object's size. A splat's depths are rough, so this is wide: .05 and .11 gave a visible
# chamfer of .011 and .0085 on one object, the mean of the depths; their median was worse.
_TRUNCATION = 0.1
FEWEST_VIEWS = 3  # that must tell, or a node is taken for hidden: single ones see through gaps


def fuse_depths(views: OrbitViews, grid: Grid) -> FloatArray:
    """Signed distance (X, Y, Z) in units of the truncation, [-1, 1], negative inside.

    views: with depths; a pixel without depth, or less than half covered, sees through to
    infinity, so it carves. The object is about 1 across.
    """
    if views.depths is None:
        raise ValueError("the views have no depths: render them from a splat")
    covered = (views.depths > 0) & (views.alphas > 0.5)
    depths = views.depths.masked_fill(~covered, np.inf).cpu().numpy().astype(np.float32)
    world_to_camera, intrinsics = camera_arrays(views.cameras)
    return _fuse(
        depths,
        world_to_camera,
        intrinsics,
        grid.origin.astype(np.float32),
        np.float32(grid.voxel),
        np.float32(_TRUNCATION),
        *grid.shape,
    )


@njit(parallel=True, cache=True)
def _fuse(  # type: ignore[no-untyped-def]
    depths, world_to_camera, intrinsics, origin, voxel, truncation, nodes_x, nodes_y, nodes_z
):
    views, height, width = depths.shape
    out = np.empty((nodes_x, nodes_y, nodes_z), np.float32)
    for column in prange(nodes_x * nodes_y):
        i, j = column // nodes_y, column % nodes_y
        x, y = origin[0] + voxel * i, origin[1] + voxel * j
        votes = np.empty(views)
        for k in range(nodes_z):
            z = origin[2] + voxel * k
            count = 0
            for v in range(views):
                m, f = world_to_camera[v], intrinsics[v]
                depth = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
                if depth < 1e-6:
                    continue
                u = f[0] * (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]) / depth + f[2]
                w = f[1] * (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]) / depth + f[3]
                # The nearest pixel: between two surfaces there is no depth in the middle.
                a, b = int(np.floor(u)), int(np.floor(w))
                if a < 0 or b < 0 or a >= width or b >= height:
                    continue
                ahead = (depths[v, b, a] - depth) / truncation
                if ahead < -1:
                    continue  # hidden from this view: it can't tell
                votes[count] = min(ahead, 1.0)
                count += 1
            out[i, j, k] = np.mean(votes[:count]) if count >= FEWEST_VIEWS else -1.0
    return out
