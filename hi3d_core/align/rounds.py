"""Rounds of fitting and aligning, for views that disagree.

Each round fits the surface quickly to the views as they are aligned so far, draws it, and aligns
the views as they were given to that. The first fits are smooth and loose, so that no single view
decides; the last is finer, and smooth flow becomes finer with it. Two to three rounds settle:
measured in `docs/stages/align.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..datatypes import OnPreview, OnStep, OrbitViews
from ..local_views import shrunk
from ..progress import Progress
from ..surface.agreement import doubt, silhouette_agreement
from ..surface.field import Field
from ..surface.field_views import field_views
from ..surface.fit import Level, SurfaceConfig, fit_surface
from ..surface.hull import FloatArray, Placement
from .align import AlignConfig, Alignment, align_views
from .flow import FlowConfig

_VIEWS = 512  # pixels, the width that views are aligned at in the rounds
_DRAWN = 256  # pixels, the width that fits are drawn at
_TOLERANCE = 0.05  # colour difference up to which views may disagree without pulling hard
_FINEST = 8.0  # window of the flow to the final fit, pixels of 512


@dataclass(frozen=True)
class Round:
    """A fit and an alignment: how smooth and loose the one, how wide the other's window."""

    levels: tuple[Level, ...]
    smoothness: float
    slack_pixels: float
    window: float


_COARSE, _FINE = Level(64, 128, 100), Level(128, 256, 120)
ROUNDS = (
    Round((_COARSE,), 0.05, 1.5, 16.0),
    Round((_COARSE,), 0.05, 1.5, 16.0),
    Round((_COARSE, _FINE), 0.02, 0.5, 12.0),
)


def align_in_rounds(
    given: OrbitViews,
    placement: Placement,
    config: SurfaceConfig,
    *,
    rounds: tuple[Round, ...] = ROUNDS,
    seed: int = 0,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
) -> tuple[OrbitViews, FloatArray]:
    """Bring views to what they have in common.

    given: in the placement's local frame, as they came. config: of the fits, but for what a round
    says. Returns the views aligned, at most about 512 pixels wide, and the trust in their pixels
    (V, H, W), which each round's fit goes by too. on_preview, and what is raised: as `fit_surface`.
    """
    small = shrunk(given, _VIEWS)
    views, trust = small, np.ones(small.alphas.shape, np.float32)
    progress = Progress(on_step, sum(_fit_steps(each) + 2 * len(given) for each in rounds))
    for each in rounds:
        quick = replace(
            config,
            levels=each.levels,
            smoothness_weight=each.smoothness,
            slack_pixels=each.slack_pixels,
            huber=_TOLERANCE,
            cavity_rounds=0,
        )
        field = fit_surface(
            views,
            placement,
            quick,
            trust=trust,
            seed=seed,
            on_step=progress.part(),
            on_preview=on_preview,
        )
        found = _aligned(small, field, each.window, progress.part())
        # Where the views agree by now, distrust would only keep the fit's own errors.
        views, share = found.views, doubt(silhouette_agreement(found.views, placement))
        trust = (1 - share * (1 - found.trust)).astype(np.float32)
        progress.alive()
    return views, trust


def align_to_field(given: OrbitViews, field: Field, *, on_step: OnStep | None = None) -> Alignment:
    """Align views at their full size to a finished fit, for its texture."""
    return _aligned(given, field, _FINEST, on_step)


def _aligned(given: OrbitViews, field: Field, window: float, on_step: OnStep | None) -> Alignment:
    shape = given.cameras
    cameras = shape.resized(_DRAWN, max(1, round(_DRAWN * shape.height / shape.width)))
    config = AlignConfig(flow=FlowConfig(window=window, outline=5.0))
    progress = Progress(on_step, 2 * len(given))
    drawn = field_views(field, cameras, on_step=lambda done, total: progress.alive())
    return align_views(given, drawn, config, on_step=on_step)


def _fit_steps(each: Round) -> int:
    return sum(level.iterations for level in each.levels)
