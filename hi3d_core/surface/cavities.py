"""Concave places that silhouettes can't show: dug out where the views disagree, then checked.

The visual hull closes a bowl with a lid and a seat with a wedge, and an image fit that starts
there stays there: near the lid, no small step makes the pictures fit better. Where the pictures
want a lid's inside hollowed out as a whole (`vessels.py`), that is all. Else
    1. propose: a fog is fitted inside the surface, which thins out where nothing is (`fog.py`);
       in later rounds surface whose colour the views disagree on sinks, half a voxel a step, until
       they agree or nothing is left that several views see (space carving: Kutulakos and Seitz
       2000, on a level set instead of voxels),
    2. fit: the proposed surface is fitted to the pictures for a few iterations, as the one before
       was,
    3. check: along every ray that ends elsewhere than before, the two fits' errors are compared,
       and places where the proposal made the pictures fit worse are filled again.
So convex things, and views that disagree everywhere, keep the surface that they had.

Lengths in voxels, positions in node coordinates. Letters: R rays, B surface nodes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from ..jit import njit
from .consistency import Sightings, Verdict, judge, trace
from .field import Field, close_border, redistance
from .fog import FOG_STEPS, clear_fog
from .hull import FloatArray
from .recolor import COLORING_ITERATIONS, Refit, in_views_colors, recolored
from .render import COLUMNS, accumulate_gradients, clip_to_grid
from .vessels import VESSEL_STEPS, open_vessels

DIG_STEPS, CANDIDATE_ITERATIONS, SETTLE_ITERATIONS = 30, 40, 30
_FITTING = CANDIDATE_ITERATIONS + SETTLE_ITERATIONS

_FASTEST = 0.5  # voxels that surface sinks in a step
# A spread counts as disagreement from this many times that of the quarter of the surface that the
# views agree on best, or from the change of colour within a pixel, where that is more.
_FACTOR, _QUARTER = 8.0, 25
_LEAST_SPREAD = 6e-4  # of colours with 8 bits
_BESIDE = 0.4  # sigma in voxels: nodes next to a judged one sink with it
_BROKEN_OFF = 0.02  # pieces smaller than this share of what they broke off fall away
_INSIDE = 0.98  # alpha of pixels that show nothing but the object
_WORTHWHILE = 0.1  # of a ray's median error: gains below it are noise, and change nothing
_MASK_WEIGHT = 0.3  # of a difference in coverage, in the comparison of two fits
_WORTH_A_LOOK = 20  # nodes that must change for a round to have been of use


def steps_of(rounds: int, vessels: bool = True) -> int:
    """The most steps that `open_cavities` takes."""
    if rounds == 0:
        return 0
    lids = VESSEL_STEPS + COLORING_ITERATIONS if vessels else 0
    return lids + FOG_STEPS + _FITTING + rounds * (DIG_STEPS + _FITTING)


def open_cavities(
    field: Field,
    sightings: Sightings,
    refit: Refit,
    rounds: int,
    seed: int = 0,
    *,
    vessels: bool = True,
) -> Iterator[tuple[Field, int]]:
    """Open vessels, if those are looked for; or clear by fog, then dig `rounds` times, fit, check.

    field: fitted to the sightings' views already. Ends early when a vessel is found, or when
    digging changes nothing. Yields (the field so far, steps done).
    """
    done = 0
    vessel = field.sdf
    for found in open_vessels(field.sdf, sightings) if vessels else ():
        vessel = found
        done += 1
        yield field, done
    if vessel is not field.sdf:
        for opened in recolored(field, vessel, sightings, refit):
            done += 1
            yield opened, done
        return
    for number in range(rounds + 1):
        sdf = field.sdf
        by_fog = number == 0
        proposals = clear_fog(sdf, sightings, seed) if by_fog else dig(sdf, sightings)
        for proposed in proposals:
            sdf = proposed
            done += 1
            yield field, done
        sdf = _without_broken_pieces(field.sdf, sdf)
        if not (sdf < 0).any():
            if by_fog:
                continue
            return
        candidate = in_views_colors(field, sdf, sightings)
        yield field, done
        for _ in refit(candidate, CANDIDATE_ITERATIONS):
            done += 1
            yield field, done
        field, changed = better_of(field, candidate, sightings)
        yield field, done
        if changed < _WORTH_A_LOOK and not by_fog:
            return
        for _ in refit(field, SETTLE_ITERATIONS):
            done += 1
            yield field, done


def dig(start: FloatArray, sightings: Sightings) -> Iterator[FloatArray]:
    """Let surface sink where the views disagree; yields the distance (X, Y, Z) after each step."""
    sdf, agreed = start, 0.0
    for _ in range(DIG_STEPS):
        verdict = judge(sdf, sightings)
        if not verdict.judged.any():
            return
        if agreed == 0:
            quarter = np.percentile(verdict.spreads[verdict.judged], _QUARTER)
            agreed = max(float(quarter), _LEAST_SPREAD)
        limit = np.hypot(_FACTOR * agreed, verdict.contrasts)
        speed = np.clip(verdict.spreads / limit - 1, 0, 1).astype(np.float32)
        if not speed[verdict.judged].any():
            return
        sdf = redistance(sdf + _FASTEST * _extended(speed, verdict, sdf))
        if not (sdf < 0).any():
            return
        yield sdf


def _extended(speed: FloatArray, verdict: Verdict, sdf: FloatArray) -> FloatArray:
    """The judged nodes' speed on the grid (X, Y, Z), and on nodes beside them what they say."""
    i, j, k = verdict.nodes[verdict.judged].T
    weights = verdict.weights[verdict.judged]
    total, known = np.zeros_like(sdf), np.zeros_like(sdf)
    total[i, j, k], known[i, j, k] = speed[verdict.judged] * weights, weights
    total, known = gaussian_filter(total, _BESIDE), gaussian_filter(known, _BESIDE)
    return np.where(known > 1e-3, total / np.maximum(known, 1e-3), 0)


def _without_broken_pieces(before: FloatArray, after: FloatArray) -> FloatArray:
    """`after` without the small pieces that came loose from a larger one in `before`."""
    whole, _ = label(before < 0)
    pieces, count = label(after < 0)
    if count < 2:
        return after
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    owner = np.zeros(count + 1, np.int64)
    owner[pieces.ravel()] = whole.ravel()
    owner[0] = 0
    largest = np.zeros(int(whole.max()) + 1, np.int64)
    np.maximum.at(largest, owner, sizes)
    loose = sizes < _BROKEN_OFF * largest[owner]
    loose[0] = False
    return redistance(np.where(loose[pieces], np.abs(after), after)) if loose.any() else after


def better_of(old: Field, new: Field, sightings: Sightings) -> tuple[Field, int]:
    """The new field, but the old one where that explains the pictures better.

    Returns it and how many nodes are inside one and outside the other because of the new field.
    """
    before = _errors(old, sightings)
    gain = before - _errors(new, sightings)
    o, d = sightings.origins, sightings.directions
    votes, counts = np.zeros_like(old.sdf), np.zeros_like(old.sdf)
    _vote(o, d, trace(o, d, old.sdf), trace(o, d, new.sdf), gain, votes, counts)
    votes, counts = gaussian_filter(votes, 1.5), gaussian_filter(counts, 1.5)
    gains = votes / np.maximum(counts, 1e-3)
    enough = _WORTHWHILE * float(np.median(before[sightings.alphas > _INSIDE]))
    dug = (old.sdf < 0) & (new.sdf >= 0)
    filled = (old.sdf >= 0) & (new.sdf < 0)
    heard = counts > 0.02
    taken = heard & ((dug & (gains > enough)) | (filled & (gains < -enough)))
    share = np.clip(2.5 * gaussian_filter(taken.astype(np.float32), 1.0), 0, 1)
    sdf = redistance(close_border(old.sdf * (1 - share) + new.sdf * share))
    colors = old.colors * (1 - share[..., None]) + new.colors * share[..., None]
    seen = np.maximum(old.seen, new.seen)
    return Field(old.grid, sdf, colors.astype(np.float32), seen), int(taken.sum())


def _errors(field: Field, sightings: Sightings) -> FloatArray:
    """(R,) mean absolute difference of the channels, and of the coverage by its weight.

    All of it times the rays' trust.
    """
    rays = len(sightings.origins)
    rendered = np.empty((rays, 4), np.float32)
    no_nodes = np.full(field.sdf.shape, -1, np.int32)
    unused = np.zeros((2, 1, COLUMNS), np.float32)
    accumulate_gradients(
        sightings.origins,
        sightings.directions,
        sightings.colors,
        sightings.alphas,
        sightings.trust,
        field.sdf,
        field.colors,
        no_nodes,
        8.0,
        _MASK_WEIGHT,
        0.05,
        unused,
        rendered,
    )
    colors = np.abs(rendered[:, :3] - sightings.colors).mean(axis=1)
    errors = colors + _MASK_WEIGHT * np.abs(rendered[:, 3] - sightings.alphas)
    return errors * sightings.trust


@njit(cache=True)
def _vote(
    origins: FloatArray,
    directions: FloatArray,
    old_hits: FloatArray,
    new_hits: FloatArray,
    gain: FloatArray,
    votes: FloatArray,  # (X, Y, Z) added to: positive where nodes had better be outside
    counts: NDArray[np.float32],  # (X, Y, Z) added to
) -> None:
    """Each ray votes along the stretch between where it ended and where it ends now."""
    for r in range(len(origins)):
        o, d = origins[r], directions[r]
        _, leave = clip_to_grid(o, d, votes.shape)
        old = old_hits[r] if old_hits[r] >= 0 else leave
        new = new_hits[r] if new_hits[r] >= 0 else leave
        if abs(old - new) < 1 or leave < 0:
            continue
        vote = gain[r] if new > old else -gain[r]
        t = min(old, new) + 0.25
        while t < max(old, new):
            i, j, k = (
                int(o[0] + t * d[0] + 0.5),
                int(o[1] + t * d[1] + 0.5),
                int(o[2] + t * d[2] + 0.5),
            )
            votes[i, j, k] += vote
            counts[i, j, k] += 1
            t += 1
