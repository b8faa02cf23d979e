"""Augmentations that keep white white and frontal views frontal, on pictures and on latents alike.

The autoencoder's first three latent channels are the picture's colours, averaged over what a latent
covers (see `vae_recipe.py`), and it is taught that the rest knows neither colours nor left from
right. So what changes a picture here changes its latents in the same way, and a ring's variants
need not be encoded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..draws import chance

COLOURS = 3  # channels of a picture, and the first ones of a latent


@dataclass(frozen=True)
class Variant:
    """order: in which the three colours come. mirrored: left and right exchanged."""

    order: tuple[int, int, int]
    mirrored: bool

    def of_frames(self, frames: Tensor) -> Tensor:
        """Single pictures or latents (..., C, h, w), the colours first among their channels."""
        channels = [*self.order, *range(COLOURS, frames.shape[-3])]
        changed = frames[..., channels, :, :]
        return changed.flip(-1) if self.mirrored else changed

    def of_ring(self, ring: Tensor) -> Tensor:
        """A ring (F, C, h, w) of pictures or latents; in the mirror it goes the other way round.

        Frame 0 stays the front, frame n shows what frame F - n showed.
        """
        changed = self.of_frames(ring)
        return torch.cat([changed[:1], changed[1:].flip(0)]) if self.mirrored else changed


def draw_variant(generator: torch.Generator) -> Variant:
    """One of the six orders, mirrored half the time."""
    first, second, third = torch.randperm(COLOURS, generator=generator).tolist()
    return Variant((first, second, third), chance(generator, 0.5))
