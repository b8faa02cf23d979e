"""How well the views' silhouettes agree with each other.

The visual hull lies inside every silhouette. Where exact views are given it also fills them all;
views that a generator painted one by one carve each other, and the hull misses a rim of each
silhouette. The share that it still fills tells the two kinds apart without looking at colours.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import prange

from ..datatypes import OrbitViews
from ..jit import njit
from .fit import SurfaceConfig
from .hull import FloatArray, Placement, hull_distance
from .rays import Rays
from .render import clip_to_grid, trilinear

_NODES = 128  # of the hull's grid, on the longest side
_PICTURE = 128  # pixels

# Measured: renders of meshes agree to .9998 or better, also as compressed video, and so do renders
# warped by 2.5 pixels once they are aligned. Before that they agree to .987 to .989, and generated
# orbits to .981 to .991; aligned, these reach .993 to .997, and the best of a small model's blurred
# ones .998 to .999.
EXACT, _EXACT_ALIGNED, _WORST = 0.998, 0.9995, 0.996
_SMOOTHEST = 50.0  # times as smooth as exact views, at the worst
_SLACK_PIXELS = 1.5
_TOLERANCE = 5.0  # times the colour difference from which the loss is linear, at the worst
_BLURRED = 0.125  # of the last sharpness, where finer levels begin at the worst


def silhouette_agreement(views: OrbitViews, placement: Placement) -> float:
    """The share of the silhouettes' area that the hull of all of them fills, in [0, 1].

    views: in the placement's local frame.
    """
    grid = placement.grid(_NODES)
    distance = hull_distance(views, grid) / np.float32(grid.voxel)
    rays = Rays.from_views(views, _PICTURE).in_grid(grid)
    origins, directions, _, alphas, _ = rays.pick(np.flatnonzero(rays.alphas > 0.5))
    return float(_share_hit(origins, directions, alphas, distance))


def doubt(agreement: float, *, aligned: bool = False) -> float:
    """0 for views that agree as renders of one object do, up to 1 for those that surely don't.

    aligned: whether they were brought to a fit of them, which makes silhouettes alike whatever
    they hold: then doubt begins sooner.
    """
    exact = _EXACT_ALIGNED if aligned else EXACT
    return float(np.clip((exact - agreement) / (exact - _WORST), 0, 1))


def suited_to(config: SurfaceConfig, agreement: float, *, aligned: bool = False) -> SurfaceConfig:
    """The settings for views that agree this well: `config` itself for exact ones.

    aligned: as for `doubt`.

    Where views disagree the colours of each pull the surface its own way and emboss it with
    noise, so it is smoothed more, and finer levels begin more blurred; silhouettes carve thin
    parts off each other, so they are given slack; and small differences of colour are noise.
    Between the two limits smoothness and the tolerance of colours grow geometrically. Cavities
    show by disagreement, so fewer rounds look for them, and none in aligned views that leave any
    doubt. Vessels are not looked for in aligned views: the fit that they were aligned to
    has lids, and so what shows inside was bent to a lid. Surface is searched for only without any
    doubt: else views' patches agree in wrong places as well as in the right one.
    """
    share, rounds = doubt(agreement, aligned=aligned), config.cavity_rounds
    return replace(
        config,
        smoothness_weight=config.smoothness_weight * _SMOOTHEST**share,
        continued=config.continued * (min(_BLURRED / config.continued, 1)) ** share,
        cavity_rounds=0 if aligned and share > 0 else round(rounds * (1 - share)),
        vessels=config.vessels and not aligned,
        sweeps=config.sweeps if share == 0 else 0,
        slack_pixels=config.slack_pixels + _SLACK_PIXELS * share,
        huber=config.huber * _TOLERANCE**share,
    )


@njit(parallel=True, cache=True, fastmath=True)
def _share_hit(
    origins: FloatArray, directions: FloatArray, weights: FloatArray, distance: FloatArray
) -> float:
    """Weighted share of rays that meet the inside of a distance in voxels."""
    met = np.zeros(len(origins))
    for r in prange(len(origins)):
        o, d = origins[r], directions[r]
        t, leave = clip_to_grid(o, d, distance.shape)
        while t < leave:
            f = trilinear(distance, o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
            # A quarter voxel: a ray that grazes a thin part may step past its exact inside.
            if f < 0.25:
                met[r] = weights[r]
                break
            t += max(f * 0.7, 0.25)
    return met.sum() / weights.sum()
