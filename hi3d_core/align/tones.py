"""Each view's gain and tint against pictures of the fit from the same cameras.

A generator's lighting wanders around the orbit. Three gains a view, one a channel, bring it back:
the median of log(fit / view) over pixels where both show the object and are neither dark nor
burnt out. Medians shrug off what doesn't match. The fit has the mean of all views' tones; the
gains are divided by the reference view's, so that its colours stay what they are.

Light that turns with the camera also differs from place to place within a view. `shading_gains`
follows it with a gain map too smooth to hold any texture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ..surface.hull import FloatArray

_DARKEST, _BRIGHTEST = 0.04, 0.97  # outside, a ratio says little
_COVERED = 0.95  # alpha above which a pixel shows nothing of the background
_LEAST_PIXELS = 50  # that a view needs to be compared
_LARGEST = 0.4  # of log gains


def solve_tones(
    images: FloatArray,
    alphas: FloatArray,
    rendered_images: FloatArray,
    rendered_alphas: FloatArray,
    weights: FloatArray | None = None,
    *,
    reference: int | None = 0,
) -> FloatArray:
    """Gains by which to multiply the views' colours, (V, 3) float32.

    images, rendered_images: (V, H, W, 3) in [0, 1] over white; alphas (V, H, W): the views and
    the fit from the same cameras. weights: (V, H, W) in [0, 1], how much to trust a pixel.
    reference: the view whose gain is exactly 1, or None: then the gains' geometric mean is 1.

    A view that shows too little of what the fit does gets the gain of the mean.
    """
    views = len(images)
    logs = np.zeros((views, 3))
    known = np.zeros(views, bool)
    for view in range(views):
        gains = tone_ratio(
            images[view],
            alphas[view],
            rendered_images[view],
            rendered_alphas[view],
            None if weights is None else weights[view],
        )
        if gains is not None:
            known[view], logs[view] = True, np.log(gains)
    if not known.any():
        return np.ones((views, 3), np.float32)
    mean = logs[known].mean(axis=0)
    logs[~known] = mean
    logs -= logs[reference] if reference is not None else mean
    return np.exp(np.clip(logs, -_LARGEST, _LARGEST)).astype(np.float32)


def tone_ratio(
    image: FloatArray,
    alpha: FloatArray,
    target: FloatArray,
    target_alpha: FloatArray,
    weight: FloatArray | None = None,
) -> FloatArray | None:
    """The three gains that give `image` the tone of `target`, None if too little is comparable.

    image, target: (H, W, 3) over white; alphas and weight (H, W).
    """
    usable = _comparable(image, alpha, target, target_alpha)
    if weight is not None:
        usable &= weight > 0.5
    if int(usable.sum()) < _LEAST_PIXELS:
        return None
    return np.exp(np.median(np.log(target[usable] / image[usable]), axis=0)).astype(np.float32)


def shading_gains(
    image: FloatArray,
    alpha: FloatArray,
    target: FloatArray,
    target_alpha: FloatArray,
    sigma: float,
) -> FloatArray:
    """A smooth map of gains by which `image` takes on the shading of `target`, (H, W, 3).

    image, target: (H, W, 3) over white, aligned to each other; alphas (H, W). sigma: of the
    window in pixels. Where little can be compared the map goes to 1.
    """
    usable = _comparable(image, alpha, target, target_alpha)[..., None].astype(np.float32)
    floor = np.float32(_DARKEST)
    logs = np.log(np.maximum(target, floor) / np.maximum(image, floor)) * usable
    reach = (sigma, sigma, 0)
    known = gaussian_filter(usable, reach, truncate=2.5)
    # A twentieth of a window's pixels must be usable before its mean counts for half.
    mean = gaussian_filter(np.clip(logs, -_LARGEST, _LARGEST), reach, truncate=2.5) / (known + 0.05)
    return np.exp(mean).astype(np.float32)


def _comparable(
    image: FloatArray, alpha: FloatArray, other: FloatArray, other_alpha: FloatArray
) -> NDArray[np.bool_]:
    usable = np.minimum(alpha, other_alpha) > _COVERED
    for picture in (image, other):
        usable &= (picture > _DARKEST).all(axis=2) & (picture < _BRIGHTEST).all(axis=2)
    return usable
