"""Vessels: what silhouettes close with a lid, opened as a whole and judged as a whole.

A white bowl's inside shows every view nearly the same colour everywhere, so no small step of a
surface, and no thinning of a fog, gains anything that stands out. Whole surfaces differ by more:
the rim's inner edge and the shades of floor and walls fall in different places. So the surface's
level parts are taken for lids, and under each one cavities are tried that leave a wall of even
thickness and a level floor. The views' colours choose among them, and whether to open the lid at
all. What is chosen is a proposal, which `cavities.py` has fitted and checked.

Up is +Y. Lengths in voxels, positions in node coordinates. Letters: R rays, C changed rays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, label

from .consistency import Sightings, held_out_errors, trace
from .field import close_border, redistance
from .hull import FloatArray

BoolArray = NDArray[np.bool_]

_LIDS = 2  # the largest are tried
_LEAST_LID = 80  # nodes
_LEVEL = 0.6  # upward part of a lid's normal; silhouettes' lids are as steep as views look down
_ALL_AROUND = np.ones((3, 3, 3))
_WALLS = (2.0, 3.0, 4.5, 6.5, 9.0)  # voxels
_FLOORS = 7
_FINER = 4  # rounds around the best, of smaller steps each
VESSEL_STEPS = _LIDS * (1 + len(_WALLS) + 4 * _FINER) + 1
_THINNEST = 1.5  # voxels
_LEAST_CAVITY = 300  # nodes; dents are left to digging
_SHOWN = 0.98  # alpha of pixels that show nothing but the object
_NEAR = 1.0  # edges wear: a ray that misses by less counts as off by only _NEARLY
_NEARLY = 0.03
_MISSED = 0.3  # error of a ray that passes what it should have met, besides that of its colour
_PLEASED = 0.28  # a lid is opened if more than this share of its rays' error goes,
_DOUBTED = 0.003  # least error a ray has there, or it is noise; a step of 8 bits is .004
_WIDER = 1.4  # with walls so much thicker too: a vessel's middle is open whatever its walls
_AS_GOOD = 0.995  # of the best gain: among such cavities the smallest is taken


@dataclass(frozen=True, eq=False)
class Trial:
    """A cavity: its surface (X, Y, Z), wall and floor (a height), nodes in it, what it gains.

    gain: the errors of all changed rays before, less those after. share: of those before.
    doubt: those before, a ray.
    """

    sdf: FloatArray
    wall: float
    floor: float
    size: int
    gain: float
    share: float
    doubt: float


def open_vessels(start: FloatArray, sightings: Sightings) -> Iterator[FloatArray]:
    """Hollow out what is under a surface's lids, where the pictures gain clearly.

    start: (X, Y, Z) distance. Yields at most VESSEL_STEPS times: `start` while it searches, and at
    last what it hollowed out, if anything.
    """
    found = start
    layer, lids = find_lids(start)
    for lid in lids:
        trials: list[Trial] = []
        for _ in _search(_Cavities(found, layer, lid, sightings), trials):
            yield start
        if trials and _is_vessel(trials):
            found = _best(trials).sdf
    if found is not start:
        yield found


def _search(cavities: _Cavities, trials: list[Trial]) -> Iterator[None]:
    """Add trials to a list, closer to the best as they go on."""
    yield
    if not cavities.has_room:
        return
    floors, step = np.linspace(cavities.lowest, cavities.highest, _FLOORS, retstep=True)
    for wall in _WALLS:
        trials += [cavities.trial(wall, floor) for floor in floors]
        yield
    if _best(trials).share <= _PLEASED / 2:
        return
    factor, step = 1.25, step / 2
    for _ in range(_FINER):
        best = _best(trials)
        for wall, floor in (
            (best.wall * factor, best.floor),
            (max(best.wall / factor, _THINNEST), best.floor),
            (best.wall, best.floor + step),
            (best.wall, best.floor - step),
        ):
            trials.append(cavities.trial(wall, floor))
            yield
        factor, step = factor**0.5, step / 2


def _best(trials: list[Trial]) -> Trial:
    """The smallest of those that gain most."""
    most = max(trials, key=lambda trial: trial.gain)
    if most.gain <= 0:
        return most
    return min((t for t in trials if t.gain >= _AS_GOOD * most.gain), key=lambda t: t.size)


def _is_vessel(trials: list[Trial]) -> bool:
    best = _best(trials)
    wider = max((t.share for t in trials if t.wall >= _WIDER * best.wall), default=0.0)
    return best.doubt > _DOUBTED and min(best.share, wider) > _PLEASED


def find_lids(sdf: FloatArray) -> tuple[BoolArray, list[BoolArray]]:
    """The layer of nodes just outside the surface, and its level parts, the largest first."""
    slopes = np.gradient(gaussian_filter(sdf, 1.0))
    upness = slopes[1] / np.maximum(np.sqrt(sum(slope**2 for slope in slopes)), 1e-6)
    layer = (sdf >= 0) & (sdf < 1.5)
    parts, count = label(layer & (upness > _LEVEL), _ALL_AROUND)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")[:_LIDS]
    return layer, [parts == part for part in order if sizes[part] >= _LEAST_LID]


class _Cavities:
    """Makes cavities under one lid, and compares them with the lid."""

    def __init__(
        self, start: FloatArray, layer: BoolArray, lid: BoolArray, sightings: Sightings
    ) -> None:
        self._start, self._lid = start, lid
        steps, nearest = distance_transform_edt(~(layer & ~lid), return_indices=True)
        # To the surface but its lid: nodes of the layer lie somewhat outside it.
        depth = (steps - start[tuple(nearest)]).astype(np.float32)
        self._depth = gaussian_filter(depth, 0.7)
        self._sightings = sightings.chosen(sightings.alphas > _SHOWN)
        self._hits = trace(self._sightings.origins, self._sightings.directions, start)
        self._errors = _errors(start, self._sightings, self._hits)
        columns: BoolArray = np.asarray(lid.any(axis=1))
        under = (start < 0) & columns[:, None, :]
        inside = np.flatnonzero(under.any(axis=(0, 2)))
        self.has_room = len(inside) > 0
        if self.has_room:
            self.lowest = float(inside[0] + 2)
            self.highest = float(np.flatnonzero(lid.any(axis=(0, 2)))[-1] - 2)

    def trial(self, wall: float, floor: float) -> Trial:
        """Hollow out, and ask the views."""
        start = self._start
        heights = np.arange(start.shape[1], dtype=np.float32)[None, :, None]
        cavity = np.minimum(self._depth - np.float32(wall), heights - np.float32(floor))
        parts, _ = label(cavity > 0)
        opened = np.unique(parts[binary_dilation(self._lid, _ALL_AROUND, iterations=2)])
        closed = (cavity > 0) & ~np.isin(parts, opened[opened > 0])
        cavity[closed] *= -1
        size = int(((start < 0) & (cavity > 0)).sum())
        if size < _LEAST_CAVITY:
            return Trial(start, wall, floor, 0, 0.0, 0.0, 0.0)
        sdf = redistance(close_border(np.maximum(start, cavity)))
        rays = self._sightings
        hits = trace(rays.origins, rays.directions, sdf)
        far, old_far = (np.where(each < 0, np.float32(1e4), each) for each in (hits, self._hits))
        changed = np.abs(far - old_far) > 1
        rays, old = rays.chosen(changed), self._errors[changed]
        # What only one view sees says nothing for either surface.
        new = _errors(sdf, rays, hits[changed])
        known = np.isfinite(new) & np.isfinite(old)
        before = float((old * rays.trust)[known].sum())
        gain = before - float((new * rays.trust)[known].sum())
        doubt = before / max(int(known.sum()), 1)
        return Trial(sdf, wall, floor, size, gain, gain / max(before, 1e-6), doubt)


def _errors(sdf: FloatArray, rays: Sightings, hits: FloatArray) -> FloatArray:
    """(R,) those of `held_out_errors`, and of rays that miss, whose pixels show the object."""
    errors = held_out_errors(sdf, rays, hits)
    missed = np.flatnonzero(hits < 0)
    if len(missed):
        errors[missed] = _NEARLY
        past = missed[trace(rays.origins[missed], rays.directions[missed], sdf - _NEAR) < 0]
        errors[past] = np.abs(1 - rays.colors[past]).mean(axis=1) + np.float32(_MISSED)
    return errors
