"""An augmentation that keeps white white: the colour channels change places."""

from __future__ import annotations

import torch
from torch import Tensor


def swap_colours(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Frames (..., 3, S, S) with their channels in one of the six orders, the same for all."""
    return frames[..., torch.randperm(3, generator=generator), :, :]


def mirror(frames: Tensor) -> Tensor:
    """A ring (F, 3, S, S) of the object in the mirror: it goes the other way round.

    Frame 0 stays the front, frame n shows what frame F - n showed, left and right exchanged.
    """
    return torch.cat([frames[:1], frames[1:].flip(0)]).flip(-1)
