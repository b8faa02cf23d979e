"""Fit the signed distance to the views, coarse to fine, starting from their visual hull.

The loss is NeuS's (Wang et al. 2021, eq. 14: colour, mask, eikonal) on an explicit grid, plus a
second-difference smoothness, so it runs in seconds on a CPU; see `docs/stages/surface.md`. After
the coarsest level, concave places are dug out (`cavities.py`) and surface that no view sees is
relaxed (`relax.py`); after all but the last, surface is searched for further away than a fit's
small steps go (`sweep.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..cameras import Cameras
from ..datatypes import OnPreview, OnStep, OrbitViews
from ..progress import Progress
from .backend import begin_fit
from .cavities import open_cavities, steps_of
from .consistency import Sightings
from .field import Field, FloatArray
from .field_views import field_views
from .hull import Placement, hull_distance
from .priors import PriorPoints, SurfacePriors
from .rays import Rays
from .relax import relax_hidden
from .sweep import SWEEP_STEPS, sweep_surface

_PREVIEW = 256  # pixels
_PRIOR_SHARE = 3  # rays for each point of a prior that joins a batch


@dataclass(frozen=True)
class Level:
    """One step of coarse to fine: grid nodes on the longest side, picture width, iterations."""

    nodes: int
    picture: int
    iterations: int


@dataclass(frozen=True)
class SurfaceConfig:
    """How the surface is fitted. The defaults are the standard quality."""

    levels: tuple[Level, ...] = (Level(64, 128, 100), Level(128, 256, 120), Level(192, 512, 130))
    rays: int = 49152  # a batch, drawn without replacement
    sdf_rate: float = 0.8  # Adam's step at a level's start, voxels, before it is spread
    color_rate: float = 0.05  # likewise, in units of colour
    final_rate: float = 0.3  # share of both left at a level's end
    sharpness: tuple[float, float] = (1.0, 8.0)  # of Phi, per voxel, first and last in a level;
    continued: float = 0.4  # of the last one, to begin with where a fit goes on from another
    # Colour difference from which the loss grows linearly. Small, as the shading of plain, slightly
    # hollow places tells their shape by less than a hundredth.
    huber: float = 0.01
    # Likewise at the first level, where what is finer than its pixels, a weave, aliases by more.
    coarse_huber: float = 0.05
    mask_weight: float = 0.3
    eikonal_weight: float = 0.02
    smoothness_weight: float = 0.003
    spreading: int = 4  # rounds in which each node's step is averaged with its neighbours'
    curvature_rate: float = 0.5  # of the prior on unseen surface, in (0, 1]
    band: float = 5.0  # nodes this near to the surface are fitted, voxels
    refresh: int = 20  # iterations between looking for the band anew
    slack_pixels: float = 0.0  # silhouettes are grown by this for the hull
    cavity_rounds: int = 3  # of digging where views disagree, after the first level
    vessels: bool = True  # before that, lids are opened as a whole; only if cavity_rounds
    sweeps: int = 2  # after so many levels, but the last, surface is searched for far away
    depth_weight: float = 0.03  # of priors, where there are any, relative to a ray's loss
    normal_weight: float = 0.1

    def __post_init__(self) -> None:
        if not self.levels:
            raise ValueError("SurfaceConfig.levels is empty: give at least one level")


def fit_surface(
    views: OrbitViews,
    placement: Placement,
    config: SurfaceConfig | None = None,
    *,
    between: OrbitViews | None = None,
    between_share: float = 1.0,
    trust: FloatArray | None = None,
    priors: SurfacePriors | None = None,
    device: torch.device | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
) -> Field:
    """Fit a signed distance field to posed views with masks.

    views: in the placement's local frame (`Cameras.in_frame`). between: further views, rendered
    and not seen; `between_share` of their rays join the batches, which grow by as much, and they
    don't carve the hull. trust: (V, H, W) in [0, 1], how much each pixel of the views counts, as
    `align.rounds` finds it. priors: estimated depths and normals of the views, which pull gently.
    device: the CPU, or a CUDA device that `backend.can_fit_on`; the CPU if None. On the CPU
    deterministic for a seed and a thread count, on CUDA but for the last digits. on_preview:
    shown the views one after the other, as the field draws them by then.

    Raises FloatingPointError when the loss is no longer finite, and ValueError for trust of
    another shape than the views'.
    """
    if trust is not None and trust.shape != tuple(views.alphas.shape):
        raise ValueError(
            f"trust is {trust.shape}, expected {tuple(views.alphas.shape)}, as the views"
        )
    config = config or SurfaceConfig()
    dug = steps_of(config.cavity_rounds, config.vessels)
    sweeps = min(config.sweeps, len(config.levels) - 1)
    total = dug + sweeps * SWEEP_STEPS + sum(level.iterations for level in config.levels)
    progress = Progress(on_step, total)
    done = 0
    field: Field | None = None
    rng = np.random.default_rng(seed)
    for number, level in enumerate(config.levels):
        grid = placement.grid(level.nodes)
        if field is None:
            hull = hull_distance(views, grid, slack_pixels=config.slack_pixels)
            field = Field.from_distance(grid, hull)
        else:
            field = field.resampled(grid, progress.alive)
        progress.alive()
        given = Rays.from_views(views, level.picture, trust).in_grid(grid)
        rays, batch = given, config.rays
        if between is not None:
            more = Rays.from_views(between, level.picture).thinned(between_share, rng)
            rays = given.joined(more.in_grid(grid))
            batch = config.rays * len(rays.view) // len(given.view)
        points = None if priors is None else priors.points(field)
        fit = _LevelFit(
            level,
            config if number else replace(config, huber=max(config.huber, config.coarse_huber)),
            rays,
            batch,
            points,
            rng,
            progress.alive,
            device or torch.device("cpu"),
            on_preview is not None,
        )
        steps = (
            fit.run(field, level.iterations) if number == 0 else fit.go_on(field, level.iterations)
        )
        for iteration in steps:
            progress.reach(done + iteration)
            if on_preview is not None and _shows(iteration, config):
                on_preview(_drawn(field, views.cameras, (done + iteration) // config.refresh))
        done += level.iterations
        if number == 0 and config.cavity_rounds:
            sightings = Sightings.of(given)
            progress.alive()
            openings = open_cavities(
                field, sightings, fit.go_on, config.cavity_rounds, seed, vessels=config.vessels
            )
            for opened, step in openings:
                field = opened
                progress.reach(done + step)
            done += dug
        if number < sweeps:
            sightings = Sightings.of(given)
            progress.alive()
            searches = sweep_surface(field, views, sightings, fit.go_on, progress.alive)
            for found, step in searches:
                field = found
                progress.reach(done + step)
            done += SWEEP_STEPS
        if number == 0:
            relax_hidden(field, config.band, progress.alive)
    assert field is not None  # a config has at least one level
    return field


def _shows(iteration: int, config: SurfaceConfig) -> bool:
    return iteration % config.refresh == 1


def _drawn(field: Field, cameras: Cameras, turn: int) -> Tensor:
    """One small picture (1, h, w, 3), each turn from the next camera."""
    height = max(1, round(_PREVIEW * cameras.height / cameras.width))
    return field_views(field, cameras[[turn % len(cameras)]].resized(_PREVIEW, height)).images


@dataclass
class _LevelFit:
    """What a level is fitted to, and how."""

    level: Level
    config: SurfaceConfig
    rays: Rays
    batch: int
    priors: PriorPoints | None
    rng: np.random.Generator
    alive: Callable[[], None]  # called between parts of long steps; may raise to cancel
    device: torch.device
    shown: bool  # whether the field is looked at while it is fitted

    def run(self, field: Field, iterations: int) -> Iterator[int]:
        """Fit a field in place; yields how many iterations are done."""
        yield from _fit_level(field, self, iterations, self.config.sharpness)

    def go_on(self, field: Field, iterations: int) -> Iterator[int]:
        """Fit on from a coarser fit: begun blurred again, it would lose thin parts and edges."""
        last = self.config.sharpness[1]
        yield from _fit_level(field, self, iterations, (self.config.continued * last, last))


def _fit_level(
    field: Field,
    fit: _LevelFit,
    iterations: int,
    sharpness: tuple[float, float],
) -> Iterator[int]:
    config = fit.config
    backend = begin_fit(fit.device, field, fit.rays, config)
    batches = fit.rays.batches(fit.batch, fit.rng)
    for iteration in range(iterations):
        if iteration and iteration % config.refresh == 0:
            backend.refresh(fit.alive)
            fit.alive()
        progress = iteration / max(iterations - 1, 1)
        steepness = sharpness[0] * (sharpness[1] / sharpness[0]) ** progress
        decay = config.final_rate**progress
        batch = next(batches)
        loss = backend.add_rays(batch, steepness)
        if fit.priors is not None and len(fit.priors):
            loss += backend.add_priors(fit.priors.drawn(len(batch) // _PRIOR_SHARE, fit.rng))
        backend.step(iteration + 1, len(batch), decay)
        if not np.isfinite(loss):
            raise FloatingPointError("the surface fit's image and mask loss is not finite")
        if fit.shown and _shows(iteration + 1, config):
            backend.store()
        yield iteration + 1
    backend.finish(fit.alive)
