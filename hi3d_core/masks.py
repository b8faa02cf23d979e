"""Which pixels show the object: from its alpha channel, a user's mask, a plain background or,
last, a small network.

Letters: V views, H and W the pictures' height and width.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .keying import Background, KeyingConfig, fit_background, key_view
from .mask_network import network_alphas

_log = logging.getLogger(__name__)

_PIXELS_AT_ONCE = 2**23
_EMPTY_SHARE = 1e-4  # of the picture: what covers less is no object


def cut_out(
    images: Tensor,
    alphas: Tensor | None = None,
    *,
    straight: bool = False,
    config: KeyingConfig | None = None,
) -> tuple[Tensor, Tensor]:
    """Cut the object out of its pictures and put it on white.

    images: (V, H, W, 3) float in [0, 1].
    alphas: (V, H, W) in [0, 1] if known. Else a plain background is keyed, and if the background
        is not plain the network looks for the object.
    straight: the images are the object's own colours (as in a file with alpha), not yet mixed
        with a background.

    Returns images over white (V, H, W, 3), freed of what the old background mixed into the
    outline, and alphas (V, H, W), on the images' device.

    Raises ValueError for shapes that disagree and alphas that `check_alphas` refuses;
    MissingDependency if the network is needed and its package is missing.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or len(images) == 0:
        raise ValueError(f"images is {tuple(images.shape)}, expected (V, H, W, 3), V at least 1")
    if alphas is not None:
        if alphas.shape != images.shape[:3]:
            raise ValueError(
                f"alphas is {tuple(alphas.shape)}, expected {tuple(images.shape[:3])}: "
                "one mask for each picture, of the same size"
            )
        check_alphas(alphas)
        alphas = alphas.to(images).clamp(0, 1)
        if straight:
            return images * alphas[..., None] + (1 - alphas[..., None]), alphas
    pictures = images.detach().cpu().float().numpy()
    given = None if alphas is None else alphas.detach().cpu().float().numpy()
    over_white = np.empty_like(pictures)
    found = np.empty(pictures.shape[:3], np.float32)
    views = _cut_views(pictures, given, config or KeyingConfig())
    for view, (alpha, image) in enumerate(views):
        found[view], over_white[view] = alpha, image
    result = torch.from_numpy(found)
    if alphas is None:
        _check_found(result)
    return torch.from_numpy(over_white).to(images), result.to(images)


def check_alphas(alphas: Tensor) -> None:
    """Refuse masks that can't be an object's.

    alphas: (V, H, W). Raises ValueError, naming the view, for values that are NaN or outside
    [0, 1], for views without any object or with nothing else, and for masks that are white
    around the object instead of on it.
    """
    for view, alpha in enumerate(alphas):
        bad = int((~torch.isfinite(alpha)).sum())
        if bad:
            raise ValueError(
                f"the mask of view {view} holds {bad} values that are NaN or infinite: "
                "export it again, black (0) around the object and white (1) on it"
            )
        low, high = float(alpha.min()), float(alpha.max())
        if low < -1e-4 or high > 1 + 1e-4:
            raise ValueError(
                f"the mask of view {view} lies in [{low:g}, {high:g}], expected [0, 1]: "
                "divide it by its largest value"
            )
    covered = [float((alpha > 0.5).float().mean()) for alpha in alphas]
    empty = [view for view, share in enumerate(covered) if share < _EMPTY_SHARE]
    full = [view for view, share in enumerate(covered) if share > 1 - _EMPTY_SHARE]
    if empty:
        raise ValueError(
            f"the mask of {_name_views(empty, len(alphas))} is empty (black or transparent "
            "throughout): every view must show the object"
        )
    if full:
        raise ValueError(
            f"the mask of {_name_views(full, len(alphas))} is full (white or opaque throughout): "
            "it must be black or transparent around the object"
        )
    inverted = [view for view, alpha in enumerate(alphas) if _looks_inverted(alpha)]
    if len(inverted) > len(alphas) / 2:
        raise ValueError(
            f"the masks look inverted ({len(inverted)} of {len(alphas)} are white along the "
            "picture's border and black within): they must be white on the object, so invert them"
        )


def _cut_views(
    pictures: np.ndarray, given: np.ndarray | None, config: KeyingConfig
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each view its alpha and the picture over white."""

    def key(view: int) -> tuple[np.ndarray, np.ndarray]:
        if given is not None:
            return given[view], _onto_white(pictures[view], given[view], backgrounds[view].color)
        alpha, color = key_view(pictures[view], backgrounds[view], config)
        return alpha, _onto_white(pictures[view], alpha, color)

    # Scipy's filters let other threads run; large pictures take turns, as each needs much memory.
    fitting = max(1, _PIXELS_AT_ONCE // (pictures.shape[1] * pictures.shape[2]))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1, fitting)) as pool:
        backgrounds = list(pool.map(lambda picture: fit_background(picture, config), pictures))
        if _are_plain(backgrounds, config):
            yield from pool.map(key, range(len(pictures)))
            return
    if given is None:
        _log.info("the background is not plain: the network looks for the object")
    alphas = network_alphas(pictures) if given is None else given
    for picture, alpha in zip(pictures, alphas, strict=True):
        yield alpha, _fill_outline(picture, alpha)


def _are_plain(backgrounds: list[Background], config: KeyingConfig) -> bool:
    # Most views must show it; in a few the object may touch the border.
    return float(np.median([b.share for b in backgrounds])) >= config.plain_share


def _onto_white(picture: np.ndarray, alpha: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Exchange a known background for white: the mixing equation, solved for a F."""
    alpha = alpha[..., None]
    return np.clip(picture - (1 - alpha) * background, 0, alpha) + (1 - alpha)


def _fill_outline(picture: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Put an object on white whose old background is unknown: mixed pixels take their colour
    from the object's fully covered ones nearby."""
    sure = alpha > 0.95
    if not sure.any():
        sure = alpha >= alpha.max()
    nearest = ndimage.distance_transform_edt(~sure, return_distances=False, return_indices=True)
    colors = picture[nearest[0], nearest[1]]
    return colors * alpha[..., None] + (1 - alpha[..., None])


def _check_found(alphas: Tensor) -> None:
    """As `check_alphas`, in the words of someone who gave no masks."""
    try:
        check_alphas(alphas)
    except ValueError as error:
        raise ValueError(
            f"no object could be told from the background ({error}); give masks of your own, "
            "pictures with an alpha channel, or a background of another colour"
        ) from error


def _looks_inverted(alpha: Tensor) -> bool:
    border = torch.cat([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    height, width = alpha.shape
    middle = alpha[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None]
    return (
        float((border > 0.5).float().mean()) > 0.9 and float((middle <= 0.5).float().mean()) > 0.1
    )


def _name_views(views: list[int], total: int) -> str:
    if total == 1:
        return "the picture"
    if len(views) == total:
        return f"all {total} views"
    shown = ", ".join(str(view) for view in views[:8])
    return f"view{'s' if len(views) > 1 else ''} {shown}{', ...' if len(views) > 8 else ''}"
