"""Bring views that disagree to a fit of all of them: warped, toned and weighed.

A generator paints each view by itself: features sit a pixel or two from where the other views
have them, and the lighting wanders. The fit is what the views have in common. Optical flow from
the fit to each view says how far the view is off; the view is read through that flow, its mask
along, and its colours are multiplied by the view's gains.

Every alignment starts from the views as they were given, with the whole displacement, so rounds
of fitting and aligning neither blur the pictures nor add up their errors. Only flow above what a
fit of exact views shows moves anything: views that agree come back as they went in.

Letters: V views, H, W the views' size, h, w that of the fit's pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.transform import resize

from ..datatypes import OnStep, OrbitViews
from ..progress import Progress
from ..surface.hull import FloatArray
from .flow import Flow, FlowConfig, optical_flow
from .tones import shading_gains, solve_tones, tone_ratio
from .warp import warp


@dataclass(frozen=True)
class AlignConfig:
    """Settings of `align_views`. Pixels are those of pictures 512 wide, whatever the views'."""

    flow: FlowConfig = FlowConfig(window=16.0, outline=5.0)
    # The orbit's typical rms flow below which nothing moves, and above which all moves fully.
    noise: tuple[float, float] = (0.35, 0.5)
    shading: float = 24.0  # sigma of the gain map that follows each view's shading; 0: none
    spread: float = 8.0  # sigma over which flow spreads from confident pixels to others
    reference_moves: float = 0.0  # share of its flow by which the reference view moves
    gain_noise: float = 0.01  # log gains that all lie below are noise: left at exactly 1
    own_tone: float = 0.0  # share of its tone and shading that a view keeps, in [0, 1]
    unlike: float = 0.1  # local colour difference from the fit at which a pixel's weight is half


@dataclass(frozen=True, eq=False)
class Alignment:
    """Views brought to a fit.

    views: the warped and toned views at their full size, over white; their depths are dropped if
    anything moved. shifts: (V,) rms of the displacement applied, pixels of the views. gains:
    (V, 3). trust: (V, H, W) in [0, 1], how well each pixel agrees with the fit; 1 where a view
    shows the object and the fit does not. displacements: (V, h, w, 2) how far off each view was,
    pixels of the fit's pictures; the reference's too, by which it may not have moved.
    confidences: (V, h, w) in [0, 1], of those.
    """

    views: OrbitViews
    shifts: FloatArray
    gains: FloatArray
    trust: FloatArray
    displacements: FloatArray
    confidences: FloatArray


def align_views(
    views: OrbitViews,
    rendered: OrbitViews,
    config: AlignConfig | None = None,
    *,
    reference: int | None = 0,
    on_step: OnStep | None = None,
) -> Alignment:
    """Warp and tone the views towards pictures of their fit from the same cameras.

    views: as they were given, never aligned before. rendered: the fit, of any size with the same
    shape. reference: the view that keeps its gain of 1 and moves by `config.reference_moves` of
    its flow: the user's own picture. None treats all views alike. `on_step` counts
    each view twice.

    Views whose flow is all noise and whose gains are all near 1 come back bitwise the same.

    Raises ValueError for pictures that do not belong together.
    """
    config = config or AlignConfig()
    _check(views, rendered, reference)
    height, width = rendered.images.shape[1:3]
    fit_images, fit_alphas = _arrays(rendered)
    images, alphas = _arrays(views)
    progress = Progress(on_step, 2 * len(views))
    small_images = np.empty_like(fit_images)
    small_alphas = np.empty_like(fit_alphas)
    for view in range(len(views)):
        progress.alive()
        small_images[view] = _resized(images[view], height, width)
        small_alphas[view] = _resized(alphas[view], height, width)
    progress.alive()

    gains = solve_tones(small_images, small_alphas, fit_images, fit_alphas, reference=reference)
    if np.abs(np.log(gains)).max() < config.gain_noise:
        gains = np.ones_like(gains)
    flows = []
    for view in range(len(views)):
        progress.alive()
        toned = _toned(small_images[view], small_alphas[view], gains[view])
        flows.append(
            optical_flow(
                fit_images[view],
                toned,
                fit_alphas[view],
                small_alphas[view],
                replace(config.flow, window=config.flow.window * width / 512),
            )
        )
        progress.step()

    # The fit has the mean of all views' tones: shading is compared in the reference's.
    target = _in_tone_of(reference, small_images, small_alphas, fit_images, fit_alphas)
    share = np.float32(_share_to_move(flows, width, reference, config))
    displacements = np.zeros((len(views), height, width, 2), np.float32)
    shares = np.full(len(views), share, np.float32)
    if reference is not None:
        shares[reference] *= config.reference_moves
    new_images, new_alphas = images.copy(), alphas.copy()
    shifts = np.zeros(len(views), np.float32)
    trust = np.empty(alphas.shape, np.float32)
    for view, flow in enumerate(flows):
        picture = _View(images[view], alphas[view])
        if share > 0:
            displacements[view] = share * _spread(flow, config.spread * width / 512)
        if shares[view] > 0:
            displacement = (shares[view] / share) * displacements[view]
            scale = np.float32(alphas.shape[2] / width)
            shifts[view] = scale * replace(flow, displacement=displacement).rms
            picture = picture.moved(scale * _resized(displacement, *alphas.shape[1:]))
        untoned = picture
        if (gains[view] != 1).any():
            picture = picture.toned(gains[view])
        if shares[view] > 0 and config.shading > 0:
            maps = picture.shading(target[view], fit_alphas[view], config.shading * width / 512)
            picture = picture.toned(maps ** shares[view])
        new_images[view], new_alphas[view] = picture.image, picture.alpha
        if config.own_tone > 0:
            new_images[view] += config.own_tone * (untoned.image - picture.image)
        trust[view] = _trust(picture, target[view], fit_alphas[view], config)
        progress.step()
    aligned = OrbitViews(
        torch.from_numpy(new_images).to(views.images),
        torch.from_numpy(new_alphas).to(views.alphas),
        views.cameras,
        None if shares.any() else views.depths,
    )
    confidences = np.stack([flow.confidence for flow in flows])
    return Alignment(aligned, shifts, gains, trust, displacements, confidences)


@dataclass(frozen=True, eq=False)
class _View:
    """One view on its way: image (H, W, 3) over white, alpha (H, W)."""

    image: FloatArray
    alpha: FloatArray

    def moved(self, displacement: FloatArray) -> _View:
        both = np.concatenate([self.image, self.alpha[..., None]], axis=2)
        seen = np.clip(warp(both, displacement), 0, 1)
        return _View(seen[..., :3], seen[..., 3])

    def toned(self, gains: FloatArray) -> _View:
        return _View(_toned(self.image, self.alpha, gains), self.alpha)

    def shading(self, target: FloatArray, target_alpha: FloatArray, sigma: float) -> FloatArray:
        """Gains (H, W, 3) towards the shading of a target of any size."""
        size = target_alpha.shape
        maps = shading_gains(
            _resized(self.image, *size), _resized(self.alpha, *size), target, target_alpha, sigma
        )
        return _resized(maps, *self.alpha.shape)


def _check(views: OrbitViews, rendered: OrbitViews, reference: int | None) -> None:
    if len(views) != len(rendered):
        raise ValueError(
            f"there are {len(views)} views and {len(rendered)} pictures of the fit: draw the fit "
            "from the views' own cameras"
        )
    cameras, others = views.cameras, rendered.cameras
    if abs(cameras.width * others.height - cameras.height * others.width) > max(
        cameras.width, cameras.height
    ):
        raise ValueError(
            f"the fit's pictures are {others.width} x {others.height}, the views {cameras.width} "
            f"x {cameras.height}: draw the fit at the same width to height"
        )
    if reference is not None and not 0 <= reference < len(views):
        raise ValueError(f"reference is {reference}, expected 0 to {len(views) - 1}, or None")


def _arrays(views: OrbitViews) -> tuple[FloatArray, FloatArray]:
    return (
        views.images.detach().cpu().float().numpy(),
        views.alphas.detach().cpu().float().numpy(),
    )


def _resized(picture: FloatArray, height: int, width: int) -> FloatArray:
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = height < picture.shape[0]
    return resize(picture, (height, width), order=1, mode="edge", anti_aliasing=shrinks).astype(
        np.float32
    )


def _share_to_move(
    flows: list[Flow], width: int, reference: int | None, config: AlignConfig
) -> float:
    """0 if the views' flow is noise, 1 if it surely isn't, a ramp between.

    All views together are asked: a fit that fails in one place shifts few of them, and views
    that disagree do so nearly all.
    """
    others = [flow.rms for view, flow in enumerate(flows) if view != reference]
    if not others:
        return 0.0
    low, high = config.noise
    return float(np.clip((np.median(others) * 512 / width - low) / (high - low), 0, 1))


def _spread(flow: Flow, sigma: float) -> FloatArray:
    """The displacement (h, w, 2), where confidence lacks replaced by that of its neighbours."""
    confidence = flow.confidence[..., None]
    certain, known = flow.displacement * confidence, confidence
    total, weight = np.zeros_like(certain), np.zeros_like(known)
    share = 1.0
    for octave in range(4):
        reach = (sigma * 2**octave, sigma * 2**octave, 0)
        total += np.float32(share) * gaussian_filter(certain, reach, truncate=2.5)
        weight += np.float32(share) * gaussian_filter(known, reach, truncate=2.5)
        share *= 0.05
    around = total / np.maximum(weight, 1e-9)
    return (confidence * flow.displacement + (1 - confidence) * around).astype(np.float32)


def _in_tone_of(
    reference: int | None,
    images: FloatArray,
    alphas: FloatArray,
    fit_images: FloatArray,
    fit_alphas: FloatArray,
) -> FloatArray:
    """The fit's pictures with the tone of the reference view."""
    if reference is None:
        return fit_images
    gains = tone_ratio(
        fit_images[reference], fit_alphas[reference], images[reference], alphas[reference]
    )
    if gains is None:
        return fit_images
    return np.stack(
        [_toned(image, alpha, gains) for image, alpha in zip(fit_images, fit_alphas, strict=True)]
    )


def _toned(image: FloatArray, alpha: FloatArray, gains: FloatArray) -> FloatArray:
    """Gains on the object alone; the white that shows through stays white."""
    return np.clip(image * gains + (1 - alpha[..., None]) * (1 - gains), 0, 1).astype(np.float32)


def _trust(
    picture: _View, fit: FloatArray, fit_alpha: FloatArray, config: AlignConfig
) -> FloatArray:
    """How well a view agrees with the fit, pixel by pixel, (H, W).

    Fits lose thin parts that views place differently, and only pixels that show such a part can
    bring it back: they keep their full trust.
    """
    size = picture.alpha.shape
    fit, fit_alpha = _resized(fit, *size), _resized(fit_alpha, *size)
    sigma = 2.0 * size[1] / 512
    squares = gaussian_filter(((picture.image - fit) ** 2).mean(axis=2), sigma, truncate=3)
    lost = (picture.alpha > fit_alpha) & (fit_alpha < 0.5)
    return np.where(lost, 1, 1 / (1 + squares / config.unlike**2)).astype(np.float32)
