"""Fit Gaussians to posed views.

Adam on one view a step, with L1 and SSIM on the colours and L1 on the coverage. Colour does not
depend on the direction: with 16 views that only over-fits. The count stays what it was at the
start; Gaussians that fade away are moved to where they are of use (`densify.py`).

Letters: N Gaussians, V views, H and W the picture's height and width.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..cameras import Cameras
from ..datatypes import Gaussians, OnPreview, OnStep, OrbitViews
from ..threads import one_torch_thread
from .densify import choose_targets, relocated
from .initialize import initial_gaussians
from .interpolate import render_views
from .rasterize import rasterize
from .spherical_harmonics import SH_0, sh_from_colors
from .structural_similarity import structural_similarity

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplatConfig:
    """Settings of `fit_gaussians`."""

    count: int = 20_000  # Gaussians; the caller draws this many points
    size: int = 512  # pixels, the longer side of the pictures that are fitted at the end
    iterations: int = 1000  # one view each
    coarse_share: float = 0.7  # of the iterations, at half the size
    mean_rate: float = 1.6e-3  # learning rates: of means in world units,
    scale_rate: float = 2e-2  # of the logarithm of scales,
    quaternion_rate: float = 5e-3  # of unit quaternions,
    opacity_rate: float = 4e-2  # of the logit of opacities,
    color_rate: float = 1e-2  # of colours in [0, 1]
    final_rate: float = 0.1  # share of all rates that is left at the last iteration
    ssim_weight: float = 0.2  # of 1 - SSIM; L1 of colours has the rest
    alpha_weight: float = 0.5  # of L1 between coverage and masks
    relocate_every: int = 50  # iterations
    dead_opacity: float = 0.01  # below it a Gaussian is moved


# About 4, 21 and 90 seconds on two idle cores, after the first compilation; what they reach is in
# docs/stages/splat.md.
PREVIEW = SplatConfig(count=10_000, iterations=250, coarse_share=0.8)
STANDARD = SplatConfig()
HIGH = SplatConfig(count=40_000, iterations=1800, coarse_share=0.5)


def fit_gaussians(
    views: OrbitViews,
    points: Tensor,
    config: SplatConfig | None = None,
    *,
    seed: int = 0,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
) -> Gaussians:
    """Fit a splat to views of one object.

    views: pictures over white, with masks. points: (N, 3) on the object's surface or its visual
    hull's, in the world; one Gaussian starts at each. The object should be about 1 across, which
    the learning rates assume. Runs where `views` are; on the CPU a seed gives the same splat
    every time.

    Returns N Gaussians of spherical-harmonics degree 0. `on_step` may raise to cancel.
    `on_preview` is shown the views one after the other, as they are drawn by then.

    Raises ValueError for bad points (see `initial_gaussians`), and FloatingPointError, naming
    the term, if the loss is no longer finite.
    """
    config = config or SplatConfig()
    start = initial_gaussians(points.to(views.images.device), views)
    with one_torch_thread(), torch.enable_grad():
        fit = _Fit(start, config, seed)
        coarse_until = round(config.coarse_share * config.iterations)
        pictures = _pictures(views, config.size // 2 if coarse_until else config.size)
        order: list[int] = []
        for step in range(config.iterations):
            if step == coarse_until and step > 0:
                pictures = _pictures(views, config.size)
            if not order:
                order = fit.rng.permutation(len(pictures)).tolist()
            fit.step(pictures[order.pop()], step)
            if on_step is not None:
                on_step(step + 1, config.iterations)
            if on_preview is not None and step % _PREVIEW_EVERY == 0:
                on_preview(fit.drawn(views.cameras, step // _PREVIEW_EVERY))
        return fit.result()


@dataclass(frozen=True, eq=False)
class _Picture:
    """What one step compares with: a view, cut to the object's surroundings."""

    image: Tensor  # (h, w, 3) over white
    alpha: Tensor  # (h, w)
    camera: Cameras  # one


_PREVIEW_EVERY, _PREVIEW = 25, 256  # steps; pixels
_MARGIN = 0.06  # of the picture's longer side, kept around the object


def _pictures(views: OrbitViews, size: int) -> list[_Picture]:
    """The views at a size (never enlarged), cut to where the object is."""
    factor = min(1.0, size / max(views.cameras.width, views.cameras.height))
    width = max(1, round(views.cameras.width * factor))
    height = max(1, round(views.cameras.height * factor))
    images, alphas = views.images.float(), views.alphas.float()
    if factor < 1:
        stacked = torch.cat([images, alphas[..., None]], dim=-1).permute(0, 3, 1, 2)
        # Averaging over areas is right for pictures composited over white, and for coverage.
        stacked = torch.nn.functional.interpolate(stacked, (height, width), mode="area")
        images, alphas = stacked[:, :3].permute(0, 2, 3, 1), stacked[:, 3]
    cameras = views.cameras.resized(width, height)
    margin = math.ceil(_MARGIN * max(width, height))
    return [_cut(images[v], alphas[v], cameras[[v]], margin) for v in range(len(views))]


def _cut(image: Tensor, alpha: Tensor, camera: Cameras, margin: int) -> _Picture:
    covered = alpha > 0.02
    rows, columns = covered.any(dim=1).nonzero(), covered.any(dim=0).nonzero()
    if len(rows) == 0:
        return _Picture(image.contiguous(), alpha.contiguous(), camera)
    top = max(0, int(rows[0]) - margin)
    bottom = min(camera.height, int(rows[-1]) + margin + 1)
    left = max(0, int(columns[0]) - margin)
    right = min(camera.width, int(columns[-1]) + margin + 1)
    intrinsics = camera.intrinsics.clone()
    intrinsics[:, 0, 2] -= left
    intrinsics[:, 1, 2] -= top
    return _Picture(
        image[top:bottom, left:right].contiguous(),
        alpha[top:bottom, left:right].contiguous(),
        Cameras(camera.camera_to_world, intrinsics, right - left, bottom - top),
    )


class _Fit:
    """The parameters as they are optimised (logits, log-scales), and their optimiser."""

    def __init__(self, start: Gaussians, config: SplatConfig, seed: int) -> None:
        self.config = config
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.white = torch.ones(3, device=start.means.device)
        raw = {
            "means": (start.means, config.mean_rate),
            "log_scales": (start.scales.log(), config.scale_rate),
            "quaternions": (start.quaternions, config.quaternion_rate),
            "logits": (torch.logit(start.opacities, eps=1e-4), config.opacity_rate),
            "colors": (0.5 + SH_0 * start.sh[:, 0], config.color_rate),
        }
        self.parameters = {
            name: value.detach().clone().requires_grad_() for name, (value, _) in raw.items()
        }
        self.optimizer = torch.optim.Adam(
            [
                {"params": [self.parameters[name]], "lr": rate, "start": rate}
                for name, (_, rate) in raw.items()
            ],
            betas=(0.9, 0.99),
            eps=1e-15,
            fused=True,
        )

    def step(self, picture: _Picture, step: int) -> None:
        config, p = self.config, self.parameters
        decay = config.final_rate ** (step / max(1, config.iterations - 1))
        for group in self.optimizer.param_groups:
            group["lr"] = group["start"] * decay
        scales, opacities = p["log_scales"].exp(), p["logits"].sigmoid()
        drawn = rasterize(
            p["means"], scales, p["quaternions"], opacities, p["colors"], picture.camera, self.white
        )
        colors, alphas = drawn.colors[0], drawn.alphas[0]
        terms = {
            "colour": (1 - config.ssim_weight) * (colors - picture.image).abs().mean(),
            "ssim": config.ssim_weight * (1 - structural_similarity(colors, picture.image)),
            "alpha": config.alpha_weight * (alphas - picture.alpha).abs().mean(),
        }
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            bad = {name: value.item() for name, value in terms.items() if not value.isfinite()}
            name, value = next(iter(bad.items()), ("total", loss.item()))
            raise FloatingPointError(
                f"the splat fit diverged: its {name} loss is {value} at step {step}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if (step + 1) % config.relocate_every == 0 and step < 0.8 * config.iterations:
            self._relocate()

    @torch.no_grad()
    def drawn(self, cameras: Cameras, turn: int) -> Tensor:
        """One small picture (1, h, w, 3), each turn from the next camera."""
        height = max(1, round(_PREVIEW * cameras.height / cameras.width))
        camera = cameras[[turn % len(cameras)]].resized(_PREVIEW, height)
        return render_views(self.result(), camera).images.cpu()

    @torch.no_grad()
    def _relocate(self) -> None:
        p = self.parameters
        opacities = p["logits"].sigmoid()
        dead, targets = choose_targets(
            opacities < self.config.dead_opacity, opacities, self.generator
        )
        _log.debug("moved %d of %d Gaussians", len(dead), len(opacities))
        if len(dead) == 0:
            return
        copies = torch.bincount(targets, minlength=len(opacities)) + 1
        shared, scales = relocated(opacities, p["log_scales"].exp(), copies)
        changed = torch.unique(targets)
        p["logits"][changed] = torch.logit(shared[changed], eps=1e-4)
        p["log_scales"][changed] = scales[changed].log()
        for parameter in p.values():
            parameter[dead] = parameter[targets]
            state = self.optimizer.state[parameter]
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment][dead] = 0
                state[moment][changed] = 0

    @torch.no_grad()
    def result(self) -> Gaussians:
        p = self.parameters
        return Gaussians(
            means=p["means"].detach().clone(),
            scales=p["log_scales"].exp().clamp_min(1e-12),
            quaternions=torch.nn.functional.normalize(p["quaternions"], dim=1),
            opacities=p["logits"].sigmoid(),
            sh=sh_from_colors(p["colors"].clamp(0, 1)),
        )
