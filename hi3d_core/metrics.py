"""How alike two pictures, or two masks, are.

Letters: H and W the picture's height and width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Pictures that agree better than this are called equal, so that a mean over views stays finite.
_MAX_PSNR = 100.0
_SSIM_WINDOW = 7


def psnr(image: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures with values in [0, 1].

    Any shape, the same for both; the squared error is averaged over all of it. 100 dB at most.
    Raises ValueError for shapes that differ, empty pictures or values that are not finite.
    """
    _check_pair(image, reference)
    error = float(((image.double() - reference.to(image.device).double()) ** 2).mean())
    return _MAX_PSNR if error <= 0 else min(_MAX_PSNR, -10 * math.log10(error))


def ssim(image: Tensor, reference: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), 1 for equal pictures, mean over the channels.

    image, reference: (H, W, 3) in [0, 1], at least 7 pixels a side: uniform 7 x 7 windows with
    the sample covariance, as skimage has them by default.
    Raises ValueError for other shapes, or values that are not finite.
    """
    from skimage.metrics import structural_similarity

    _check_pair(image, reference)
    if image.ndim != 3 or min(image.shape[:2]) < _SSIM_WINDOW:
        raise ValueError(
            f"the pictures are {tuple(image.shape)}, expected (H, W, 3) with at least "
            f"{_SSIM_WINDOW} pixels a side"
        )
    first, second = (x.detach().cpu().numpy() for x in (image, reference.to(image.dtype)))
    return float(structural_similarity(first, second, channel_axis=2, data_range=1.0))


def mask_iou(mask: Tensor, reference: Tensor, threshold: float = 0.5) -> float:
    """Intersection over union of what two masks cover by more than `threshold`.

    Any shape, the same for both; 1 if both are empty. Raises ValueError for shapes that differ or
    values that are not finite.
    """
    _check_pair(mask, reference)
    first, second = mask > threshold, reference.to(mask.device) > threshold
    union = int((first | second).sum())
    return 1.0 if union == 0 else int((first & second).sum()) / union


def _check_pair(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"the pictures are {tuple(first.shape)} and {tuple(second.shape)}: "
            "compare pictures of one size"
        )
    if first.numel() == 0:
        raise ValueError("the pictures are empty")
    if not (torch.isfinite(first).all() and torch.isfinite(second).all()):
        raise ValueError("the pictures hold values that are NaN or infinite")
