"""Cut an object out of a plain background, in each view by itself.

A plain background is one smooth colour: white, grey, a green screen, a studio's gradient. The
steps for a view, all in 8-bit terms since that is how such pictures come:

1. Fit the background to the picture's border robustly, measure its noise there.
2. Pixels near the background's colour that are connected to the border are background, if the
   way to them is wide; enclosed ones only if a hard edge of the object surrounds them. So white
   parts inside an object stay.
3. Take off soft shadows: darkened background without an edge of its own.
4. Drop crumbs, then solve the mixing equation  pixel = a foreground + (1 - a) background  for a
   along the outline, with the foreground's colour taken from just inside.

Letters: H and W the picture's height and width, B the background, F the foreground.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_LEVEL = 1 / 255
_EIGHT = np.ones((3, 3), bool)
# RGB to luminance and two colour differences. Video stores the differences at half size, so
# they are blurred at an outline and count less.
_TO_OPPONENT = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
_OPPONENT_WEIGHTS = np.array([1.0, 0.4, 0.4])


@dataclass(frozen=True)
class KeyingConfig:
    """What counts as background. Lengths are pixels of a 512-pixel picture and scale with it."""

    border: float = 8.0  # width of the frame around the picture in which background is expected
    plain_share: float = 0.8  # of the border's pixels must fit a smooth background
    plain_spread: float = 16.0  # 8-bit levels that such a pixel may be off
    least_threshold: float = 4.0  # 8-bit levels that tell object from a noiseless background
    most_threshold: float = 24.0  # and from a noisy one
    ringing: float = 0.15  # of an edge's contrast: weaker differences beside it are compression
    leak_width: float = 4.0  # background doesn't flow through gaps narrower than this
    hole_contrast: float = 24.0  # 8-bit levels between a hole and the object around it
    hole_hardness: float = 0.7  # share of that contrast reached within 3 pixels, of that within 8
    hole_area: float = 48.0  # square pixels of the smallest hole
    shadow_depth: float = 0.6  # of the background's brightness, that a shadow takes at most
    shadow_tint: float = 0.035  # share by which a shadow may dim one channel more than others
    shadow_slope: float = 6.0  # 8-bit levels a pixel, over which a shadow's edge would be one
    shadow_least: float = 0.06  # of the brightness: fainter ones can't be told from white things
    shadow_share: float = 0.6  # of the object with its shadow, that the shadow may be
    crumb_share: float = 0.005  # of the largest part's area: smaller parts are dropped


@dataclass(frozen=True, eq=False)
class Background:
    """A plain background. color: (H, W, 3) float32. noise: the deviation, in [0, 1], that 99 %
    of the border stays below. share: of the border's pixels that fit."""

    color: np.ndarray
    noise: float
    share: float


def fit_background(image: np.ndarray, config: KeyingConfig | None = None) -> Background:
    """Fit a smooth background to the border of a picture, robust to an object that touches it.

    image: (H, W, 3) float32 in [0, 1]. Whether it is plain is for the caller to judge by `share`.
    """
    config = config or KeyingConfig()
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=2)
    band = max(2, round(config.border * _scale(image)))
    border = np.ones((height, width), bool)
    border[band:-band, band:-band] = False
    values, basis = image[border].astype(np.float64), terms[border].astype(np.float64)
    step = max(1, len(values) // 20000)
    values, basis = values[::step], basis[::step]
    coefficients = np.zeros((6, 3))
    coefficients[0] = np.median(values, axis=0)
    # From a constant to a gradient to a vignette, with ever less tolerance.
    for count, tolerance in ((3, 40.0), (3, 24.0), (6, 24.0), (6, config.plain_spread)):
        residual = np.abs(values - basis @ coefficients).max(axis=1)
        fits = residual <= tolerance * _LEVEL
        if fits.mean() < 0.5:
            break
        solution = np.linalg.lstsq(basis[fits, :count], values[fits], rcond=None)[0]
        coefficients = np.zeros((6, 3))
        coefficients[:count] = solution
    residual = np.abs(values - basis @ coefficients).max(axis=1)
    fits = residual <= config.plain_spread * _LEVEL
    noise = float(np.quantile(residual[fits], 0.99)) if fits.any() else 1.0
    color = np.clip(terms @ coefficients, 0, 1).astype(np.float32)
    return Background(color, noise, float(fits.mean()))


def key_view(
    image: np.ndarray, background: Background, config: KeyingConfig | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage of the object in a picture with a plain background.

    image: (H, W, 3) float32 in [0, 1]. Returns the alpha (H, W) float32 in [0, 1] and the
    background (H, W, 3), followed more closely than the border alone can tell.
    """
    config = config or KeyingConfig()
    threshold = float(
        np.clip(
            1.3 * background.noise + _LEVEL,
            config.least_threshold * _LEVEL,
            config.most_threshold * _LEVEL,
        )
    )
    difference = np.abs(image - background.color).max(axis=2)
    color = _follow(image, _flood(difference, threshold, config), background.color)
    difference = np.abs(image - color).max(axis=2)
    # Compression rings around strong edges, up to a block of 8 pixels away.
    ringing = config.ringing * ndimage.maximum_filter(difference, 17)
    thresholds = np.maximum(threshold, ringing)
    inside = _drop_crumbs(~_flood(difference, thresholds, config), config)
    if not inside.any():
        return np.zeros(difference.shape, np.float32), color
    shadow = _soft_shadow(image, color, inside, config)
    if shadow.any():
        # Anew, for background that only the shadow cut off from the rest: between legs.
        difference = np.where(shadow, 0, difference)
        inside = _drop_crumbs(~_flood(difference, thresholds, config) & inside, config)
        color = _paint_shadow(image, color, inside, shadow)
    # The rest happens around the object only.
    rows, columns = _bounding_slices(inside, 12)
    alpha = np.zeros(difference.shape, np.float32)
    alpha[rows, columns] = solve_alpha(
        image[rows, columns], color[rows, columns], inside[rows, columns]
    )
    return alpha, color


def solve_alpha(image: np.ndarray, background: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Soft coverage along an outline that is known to a few pixels.

    image, background: (H, W, 3) in [0, 1]. inside: (H, W) bool. Solves the mixing equation for a
    with the foreground of the nearest pixel well inside, in a space where luminance counts most;
    where foreground and background hardly differ the outline is kept and only smoothed.

    Returns (H, W) float32 in [0, 1].
    """
    alpha = inside.astype(np.float32)
    for depth in (3, 2):
        sure = alpha > 0.5
        if not sure.any():
            break
        foreground = _foreground_colors(image, background, sure, depth)
        alpha = _mix(image, foreground, background, sure, depth)
        # Only parts of the outline known before: no new islands out in the background.
        alpha *= ndimage.binary_dilation(sure, _EIGHT, iterations=2)
    return alpha


def _mix(
    image: np.ndarray,
    foreground: np.ndarray,
    background: np.ndarray,
    inside: np.ndarray,
    depth: int,
) -> np.ndarray:
    to_space = (_TO_OPPONENT * _OPPONENT_WEIGHTS[:, None]).T.astype(np.float32)
    contrast = (foreground - background) @ to_space
    power = (contrast**2).sum(axis=2)
    solved = ((image - background) @ to_space * contrast).sum(axis=2) / np.maximum(power, 1e-8)
    smooth = ndimage.gaussian_filter(inside.astype(np.float32), 0.7)
    trust = power / (power + (6 * _LEVEL) ** 2)
    alpha = trust * np.clip(solved, 0, 1) + (1 - trust) * smooth
    deep = ndimage.distance_transform_edt(inside) > depth
    far = ndimage.distance_transform_edt(~inside) > 2
    return np.where(deep, 1, np.where(far, 0, alpha)).astype(np.float32)


def _foreground_colors(
    image: np.ndarray, background: np.ndarray, inside: np.ndarray, depth: int
) -> np.ndarray:
    """For each pixel the colour of the nearest one that the object covers fully."""
    difference = np.abs(image - background).max(axis=2) * inside
    # Well inside; or, in parts too thin for that, what differs most from the background around.
    core = ndimage.distance_transform_edt(inside) > depth
    reach = ndimage.binary_dilation(core, _EIGHT, iterations=depth + 1)
    peak = ndimage.maximum_filter(difference, 2 * depth + 1)
    core |= inside & ~reach & (difference >= 0.9 * peak)
    weight = ndimage.gaussian_filter(core.astype(np.float32), 1.0)
    blurred = ndimage.gaussian_filter(image * core[..., None], (1.0, 1.0, 0))
    colors = blurred / np.maximum(weight, 1e-6)[..., None]
    nearest = ndimage.distance_transform_edt(~core, return_distances=False, return_indices=True)
    return colors[nearest[0], nearest[1]]


def _flood(
    difference: np.ndarray, threshold: np.ndarray | float, config: KeyingConfig
) -> np.ndarray:
    """(H, W) bool: background, from the distances to its colour."""
    scale = _scale(difference)
    near = difference < threshold
    # Padded with background, so that an object that touches the border does not divide it.
    radius = max(1, round(config.leak_width * scale / 2))
    padded = np.pad(near, 2 * radius + 2, constant_values=True)
    wide = ndimage.distance_transform_edt(padded) > radius
    labels, _ = ndimage.label(wide, _EIGHT)
    flooded = ndimage.distance_transform_edt(labels != labels[0, 0]) <= radius + 1
    margin = 2 * radius + 2
    outside = (flooded & padded)[margin:-margin, margin:-margin]
    least = float(np.min(threshold))
    return outside | _holes(difference, near & ~outside, outside, least, config)


def _holes(
    difference: np.ndarray,
    enclosed: np.ndarray,
    outside: np.ndarray,
    least: float,
    config: KeyingConfig,
) -> np.ndarray:
    """Those of the enclosed regions through which the background shows.

    They have its very colour and a hard edge all around; an object's white parts blend into it.
    """
    labels, count = ndimage.label(enclosed, _EIGHT)
    if count == 0:
        return np.zeros_like(enclosed)
    scale = _scale(difference)
    index = np.arange(1, count + 1)
    area = ndimage.sum_labels(np.ones_like(difference), labels, index)
    # Not the mean: compression rings into a hole from all its sides.
    typical = _label_quantile(difference, labels, count, 0.2)
    # The object's difference around: the largest within reach, as the nearest pixels are mixed.
    near, far = max(2, round(3 * scale)), max(4, round(8 * scale))
    around = ndimage.maximum_filter(difference, 2 * near + 1)
    beyond = ndimage.maximum_filter(difference, 2 * far + 1)
    filled = ndimage.binary_fill_holes(enclosed)  # specks of noise within have no say
    edge = np.where(filled & ~ndimage.binary_erosion(filled, _EIGHT), labels, 0)
    contrast = _label_quantile(around, edge, count, 0.1)
    # A hard edge has reached its full contrast there; a highlight fades on.
    hardness = _label_quantile(around / np.maximum(beyond, 1e-6), edge, count, 0.5)
    touches = ndimage.maximum(ndimage.binary_dilation(outside, _EIGHT), labels, index) > 0
    large = (area >= config.hole_area * scale**2) | touches
    hole = (
        large
        & (typical < max(0.6 * least, 6 * _LEVEL))
        & (contrast > config.hole_contrast * _LEVEL)
        & (hardness > config.hole_hardness)
    )
    return np.concatenate([[False], hole])[labels]


def _label_quantile(values: np.ndarray, labels: np.ndarray, count: int, q: float) -> np.ndarray:
    result = np.zeros(count)
    chosen = labels > 0
    label, value = labels[chosen], values[chosen]
    order = np.lexsort((value, label))
    label, value = label[order], value[order]
    starts = np.searchsorted(label, np.arange(1, count + 2))
    sizes = np.diff(starts)
    there = sizes > 0
    result[there] = value[starts[:-1][there] + (q * (sizes[there] - 1)).astype(int)]
    return result


def _follow(image: np.ndarray, outside: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    """The background's slow changes: a wide blur over the pixels known to be background."""
    sure = ndimage.binary_erosion(outside, _EIGHT, iterations=3, border_value=1)
    height, width = outside.shape
    step = max(1, min(height, width) // 128)  # a wide blur needs no more
    rows, columns = -(-height // step), -(-width // step)
    padding = ((0, rows * step - height), (0, columns * step - width))
    blocks = (rows, step, columns, step)
    weight = np.pad(sure, padding).astype(np.float32).reshape(blocks).mean(axis=(1, 3))
    offset = np.pad((image - fallback) * sure[..., None], (*padding, (0, 0)))
    offset = offset.reshape(*blocks, 3).mean(axis=(1, 3))
    sigma = max(rows, columns) / 24
    weight = ndimage.gaussian_filter(weight, sigma)
    offset = ndimage.gaussian_filter(offset, (sigma, sigma, 0))
    # Where no background is near, the fit to the border stands.
    offset /= weight[..., None] + 0.02
    zoomed = ndimage.zoom(offset, (step, step, 1), order=1, grid_mode=True, mode="nearest")
    return np.clip(fallback + zoomed[:height, :width], 0, 1).astype(np.float32)


def _soft_shadow(
    image: np.ndarray, background: np.ndarray, inside: np.ndarray, config: KeyingConfig
) -> np.ndarray:
    """(H, W) bool: the part of `inside` that is background, only darker, and has no edge.

    A shadow dims all channels alike and fades in over many pixels; an object's outline, even of
    the same colour, is a step. It lies low: what would take away more than a share of the
    object, or its upper half, is the object.
    """
    ratio = image / np.maximum(background, 0.05)
    dim = ratio.mean(axis=2)
    neutral = np.abs(ratio - dim[..., None]).max(axis=2) < config.shadow_tint
    slope = ndimage.gaussian_gradient_magnitude(dim, 1.0)
    darker = 1 - dim
    soft = slope < np.clip(0.35 * darker, 1.5 * _LEVEL, config.shadow_slope * _LEVEL)
    candidate = neutral & soft & (darker < config.shadow_depth)
    # Flow in from the background through ways wider than three pixels.
    passable = ndimage.binary_opening(candidate | ~inside, _EIGHT)
    labels, count = ndimage.label(passable, _EIGHT)
    outside = np.bincount(labels[~inside], minlength=count + 1)
    outside[0] = 0
    shadow = inside & (outside > 0)[labels]
    # Give back what is not shadow's width: the blurred side of the object's own outline.
    shadow = ndimage.binary_opening(shadow, _EIGHT, iterations=2)
    shadow = _fading_parts(shadow, inside, slope, darker, config)
    rest = ndimage.binary_opening(inside & ~shadow, _EIGHT)
    if not shadow.any() or not rest.any():
        return np.zeros_like(inside)
    rows = np.nonzero(rest.any(axis=1))[0]
    low = np.nonzero(shadow)[0].mean() > (rows[0] + rows[-1]) / 2
    if not low or shadow.sum() > config.shadow_share * inside.sum():
        return np.zeros_like(inside)
    # The rim between the shadow's core and the clean background goes too.
    rim = ndimage.binary_dilation(shadow, _EIGHT, iterations=3) & inside & (darker < 0.12)
    return shadow | (rim & neutral)


def _fading_parts(
    shadow: np.ndarray,
    inside: np.ndarray,
    slope: np.ndarray,
    darker: np.ndarray,
    config: KeyingConfig,
) -> np.ndarray:
    """The connected parts that are dark enough to be told and fade out all along their rim."""
    labels, count = ndimage.label(shadow, _EIGHT)
    if count == 0:
        return shadow
    steepest = ndimage.maximum_filter(slope, 7)
    rim = inside & ndimage.binary_dilation(~inside, _EIGHT)
    near = ndimage.maximum_filter(labels, 9)  # a part's number, a few pixels beyond it
    along = np.where(rim, near, 0).ravel()
    soft = (steepest < config.shadow_slope * _LEVEL).ravel()
    total = np.bincount(along, minlength=count + 1)[1:]
    fades = np.bincount(along, weights=soft, minlength=count + 1)[1:] / np.maximum(total, 1)
    depth = _label_quantile(darker, labels, count, 0.9)
    kept = (fades > 0.8) & (depth > config.shadow_least)
    return np.concatenate([[False], kept])[labels]


def _paint_shadow(
    image: np.ndarray, background: np.ndarray, inside: np.ndarray, shadow: np.ndarray
) -> np.ndarray:
    """The background with its shadow, carried on under the outline of the object."""
    sure = ~ndimage.binary_dilation(inside, _EIGHT, iterations=2)
    painted = np.where(shadow[..., None], image, background)
    distance, nearest = ndimage.distance_transform_edt(~sure, return_indices=True)
    carried = painted[nearest[0], nearest[1]]
    return np.where((distance < 8)[..., None], carried, background).astype(np.float32)


def _bounding_slices(inside: np.ndarray, margin: int) -> tuple[slice, slice]:
    slices = []
    for axis in (1, 0):
        there = np.nonzero(inside.any(axis=axis))[0]
        slices.append(slice(max(int(there[0]) - margin, 0), int(there[-1]) + margin + 1))
    return slices[0], slices[1]


def _drop_crumbs(inside: np.ndarray, config: KeyingConfig) -> np.ndarray:
    labels, count = ndimage.label(inside, _EIGHT)
    if count < 2:
        return inside
    area = np.bincount(labels.ravel())
    area[0] = 0
    return (area >= config.crumb_share * area.max())[labels] & inside


def _scale(picture: np.ndarray) -> float:
    return min(picture.shape[:2]) / 512
