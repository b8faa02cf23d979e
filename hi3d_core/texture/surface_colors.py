"""Colours for places on a surface, out of what all views, and a reference picture, show there.

The same steps colour texels and vertices: level the views, blend their votes, let the reference
picture decide where it sees well, and spread colours to what nobody saw.

Letters: P places, V views.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from ..datatypes import Mesh, OrbitViews
from ..progress import Progress
from .config import TextureConfig
from .fill import spread_colors
from .levelling import solve_gains
from .lock import lock_colors
from .shrink import shrunk_to_pixel
from .votes import blend_votes, collect_votes, eased
from .witness import Witness, prepare_witness

_log = logging.getLogger(__name__)

_CHUNK_VOTES = 1 << 19  # that are blended between two calls of `on_step`
_LEVELLING_SAMPLES = 40_000  # surface points at which the views' colours are compared
_SPREADING_SAMPLES = 600_000  # surface points that the colours of unseen parts come from

Picked = slice | np.ndarray
Place = Callable[[Picked], tuple[np.ndarray, np.ndarray]]
"""Points and normals (P, 3) float32 of some of the places, picked by a slice or by indices."""


@dataclass(frozen=True, eq=False)
class Witnesses:
    """All that are asked: the views, and the reference picture or None, and its weight."""

    views: Witness
    reference: Witness | None
    reference_weight: float

    @staticmethod
    def prepare(
        mesh: Mesh,
        views: OrbitViews,
        reference: OrbitViews | None,
        weights: Tensor | None,
        config: TextureConfig,
        progress: Progress,
        *,
        spacing: float = 0.0,
    ) -> Witnesses:
        feather = config.feather_pixels
        asked = prepare_witness(mesh, views, feather, weights=weights, progress=progress)
        if reference is None or config.reference_weight == 0:
            return Witnesses(asked, None, 0.0)
        if len(reference) != 1:
            raise ValueError(f"the reference has {len(reference)} views, expected one picture")
        # Geometry errs by about a pixel of the views', however fine the reference is.
        reference = shrunk_to_pixel(reference, mesh, spacing)
        finer = _mean_focal(reference) / _mean_focal(views)
        wide = max(config.reference_feather * finer, 1.0)
        own = prepare_witness(mesh, reference, wide, progress=progress)
        return Witnesses(asked, own, config.reference_weight)

    def levelled(
        self, points: np.ndarray, normals: np.ndarray, anchor: int | None, share: float
    ) -> Witnesses:
        """The same with gains that make the views agree at some points of the surface, or come
        nearer by a share in [0, 1]."""
        votes = collect_votes(points, normals, *self.views.arrays)
        if self.reference is not None:
            anchor = votes.shape[1]
            theirs = collect_votes(points, normals, *self.reference.arrays)
            votes = np.concatenate([votes, theirs], axis=1)
        gains = solve_gains(votes, anchor)[: len(self.views.gains)]
        if share < 1:
            gains = gains ** np.float32(share)
        _log.debug("gains between %.3f and %.3f", gains.min(), gains.max())
        return replace(self, views=replace(self.views, gains=gains))

    def colors_at(
        self, points: np.ndarray, normals: np.ndarray, spread: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Colours (P, 3) and certainties (P,), both 0 where nobody sees a point."""
        arrays = (points, normals, *self.views.arrays, spread)
        colors, certainties = blend_votes(*arrays)
        if self.reference is None:
            return colors, certainties
        votes = collect_votes(points, normals, *self.reference.arrays)[:, 0]
        return lock_colors(colors, certainties, votes, self.reference_weight)


def color_places(
    place: Place, count: int, witnesses: Witnesses, config: TextureConfig, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours (P, 3) in [0, 1] and certainties (P,) of all places, and the views' gains (V, 3).

    progress: stepped `color_steps(count, V)` times.
    """
    views = len(witnesses.views.gains)
    if config.level > 0:
        some = place(slice(None, None, _stride(count, _LEVELLING_SAMPLES)))
        witnesses = witnesses.levelled(*some, config.anchor_view, config.level)
    progress.step()
    colors = np.empty((count, 3), dtype=np.float32)
    certainties = np.empty(count, dtype=np.float32)
    for chunk in chunks(count, views):
        points, normals = place(chunk)
        colors[chunk], certainties[chunk] = witnesses.colors_at(
            points, normals, config.outlier_spread
        )
        progress.step()
    shown = eased(certainties)
    spread_to_unsure(
        place, colors, certainties, 1 - shown, progress, exact_edges=config.exact_edges
    )
    return np.clip(colors, 0, 1), shown, witnesses.views.gains


def color_steps(count: int, views: int) -> int:
    """How many steps `color_places` tells of."""
    return 2 + len(list(chunks(count, views)))


def spread_to_unsure(
    place: Place,
    colors: np.ndarray,
    certainties: np.ndarray,
    shares: np.ndarray,
    progress: Progress,
    *,
    exact_edges: bool,
) -> None:
    """Mix into `colors` (P, 3), in place, what spreads there from certain places; one step.

    certainties: (P,) of the votes. shares: (P,) in [0, 1] how much of the colour at each place is
    taken from around it. exact_edges: see `TextureConfig`.
    """
    sample = slice(None, None, _stride(len(colors), _SPREADING_SAMPLES))
    points, normals = place(sample)
    around = spread_colors(
        points, normals, colors[sample], certainties[sample], progress, exact_edges=exact_edges
    )
    unsure = np.flatnonzero(shares > 0)
    for chunk in chunks(len(unsure), 8):
        rows = unsure[chunk]
        share = shares[rows, None]
        colors[rows] = (1 - share) * colors[rows] + share * around.at(*place(rows))
        progress.alive()
    progress.step()


def chunks(count: int, views: int) -> Iterator[slice]:
    """Slices that cover `count` places, each small enough to be quick with so many views."""
    length = max(_CHUNK_VOTES // max(views, 1), 4096)
    return (slice(start, start + length) for start in range(0, count, length))


def _stride(count: int, wanted: int) -> int:
    return max(1, count // wanted)


def _mean_focal(views: OrbitViews) -> float:
    return float(views.cameras.intrinsics[:, 0, 0].mean())
