"""Classifier-free guidance whose scale grows along the orbit.

The first frame shows what the picture shows and needs none; the views behind need the most (Stable
Video Diffusion, Blattmann et al. 2023, section 4.3). Letters: F frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def frame_scales(low: float, high: float, frames: int) -> Tensor:
    """Scales from the first frame's to the last one's, evenly apart: (frames,) float32.

    1 is the condition alone. Raises ValueError for scales that are not finite, or no frames.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(
            f"the guidance goes from {low} to {high}, expected numbers of about 1 to 3"
        )
    if frames < 1:
        raise ValueError(f"frames is {frames}, expected at least 1")
    return torch.linspace(low, high, frames, dtype=torch.float32)


def guide(unconditional: Tensor, conditional: Tensor, scales: Tensor) -> Tensor:
    """Go past the unconditional sample, each frame by its own scale (Ho and Salimans 2022, eq. 6).

    unconditional, conditional: (F, C, h, w) or (B, F, C, h, w), denoised. scales: (F,).
    """
    return unconditional + scales[:, None, None, None] * (conditional - unconditional)
