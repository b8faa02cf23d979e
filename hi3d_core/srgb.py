"""The sRGB transfer curve: our colours are sRGB, as in pictures; glTF's factors are linear."""

from __future__ import annotations

import torch
from torch import Tensor


def srgb_to_linear(values: Tensor) -> Tensor:
    """sRGB in [0, 1], any shape, to linear light (IEC 61966-2-1)."""
    dark = values / 12.92
    return torch.where(values <= 0.04045, dark, ((values.clamp(min=0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(values: Tensor) -> Tensor:
    """Linear light in [0, 1], any shape, to sRGB; inverse of `srgb_to_linear`."""
    bright = 1.055 * values.clamp(min=1e-8) ** (1 / 2.4) - 0.055
    return torch.where(values <= 0.0031308, values * 12.92, bright)
