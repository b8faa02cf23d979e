"""Rounds of fitting and aligning, for views that disagree.

Each round fits the surface quickly to the views as they are aligned so far, draws it, and aligns
the views as they were given to that. The first fits are smooth and loose, so that no single view
decides; the last is finer, and smooth flow becomes finer with it. Two to three rounds settle:
measured in `docs/stages/align.md`. The finished mesh is moved to where the views show it on
average (`settle.py`), and they are aligned to it once more for its texture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..cameras import Cameras
from ..datatypes import Mesh, OnPreview, OnStep, OrbitViews
from ..local_views import shrunk
from ..progress import Progress
from ..render import render_mesh
from ..surface.agreement import doubt, silhouette_agreement
from ..surface.field import Field
from ..surface.field_views import field_views
from ..surface.fit import Level, SurfaceConfig, fit_surface
from ..surface.hull import FloatArray, Placement
from .align import AlignConfig, Alignment, align_views
from .flow import FlowConfig
from .settle import settled

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
    device: torch.device | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
) -> tuple[OrbitViews, FloatArray]:
    """Bring views to what they have in common.

    given: in the placement's local frame, as they came. config: of the fits, but for what a round
    says. Returns the views aligned, at most about 512 pixels wide, and the trust in their pixels
    (V, H, W), which each round's fit goes by too. device, on_preview, and what is raised: as
    `fit_surface`.
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
            sweeps=0,
        )
        field = fit_surface(
            views,
            placement,
            quick,
            trust=trust,
            device=device,
            seed=seed,
            on_step=progress.part(),
            on_preview=on_preview,
        )
        drawn = field_views(
            field, _drawing_cameras(given), on_step=lambda done, total: progress.alive()
        )
        found = _aligned(small, drawn, each.window, progress.part())
        # Where the views agree by now, distrust would only keep the fit's own errors.
        views = found.views
        share = doubt(silhouette_agreement(views, placement), aligned=True)
        trust = (1 - share * (1 - found.trust)).astype(np.float32)
        progress.alive()
    return views, trust


def align_to_mesh(
    given: OrbitViews,
    field: Field,
    mesh: Mesh,
    doubtful: float,
    *,
    on_step: OnStep | None = None,
) -> tuple[Mesh, Alignment]:
    """Align views at their full size to a finished fit, for its texture.

    field, mesh: the fit, and its surface in the same frame. doubtful: in [0, 1], how much the
    views still disagree (`surface.agreement.doubt`). By that share the mesh is moved to where the
    views show it on average, and the views keep their own tone.

    Returns the mesh, the same if nothing is doubtful, and the alignment.
    """
    progress = Progress(on_step, 2 * len(given) * (2 if doubtful > 0 else 1))
    cameras = _drawing_cameras(given)
    drawn = field_views(field, cameras, on_step=lambda done, total: progress.alive())
    if doubtful > 0:
        found = _aligned(shrunk(given, _DRAWN), drawn, _FINEST, progress.part())
        moved = settled(mesh, cameras, doubtful * found.displacements, found.confidences)
        progress.alive()
        colors = torch.from_numpy(field.colors_at(mesh.vertices.cpu().numpy())).clamp(0, 1)
        mesh, painted = moved, replace(moved, vertex_colors=colors)
        drawn = render_mesh(painted, cameras, on_step=lambda done, total: progress.alive())
    return mesh, _aligned(given, drawn, _FINEST, progress.part(), own_tone=doubtful)


def _drawing_cameras(given: OrbitViews) -> Cameras:
    shape = given.cameras
    return shape.resized(_DRAWN, max(1, round(_DRAWN * shape.height / shape.width)))


def _aligned(
    given: OrbitViews,
    drawn: OrbitViews,
    window: float,
    on_step: OnStep | None,
    own_tone: float = 0.0,
) -> Alignment:
    config = AlignConfig(flow=FlowConfig(window=window, outline=5.0), own_tone=own_tone)
    return align_views(given, drawn, config, on_step=on_step)


def _fit_steps(each: Round) -> int:
    return sum(level.iterations for level in each.levels)
