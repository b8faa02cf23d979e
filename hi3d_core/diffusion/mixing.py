"""How firmly the refiner holds on to the coarse frames while it denoises.

Before step i the sample x becomes (1 - alpha_i) x + alpha_i (z + sigma_i n), with z the coarse
frames' latents and n the noise that sampling began with. Letters: N steps; alpha a weight, 0 to 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .schedule import edm_position


def mixing_weights(steps: int, strength: float = 1.0, sharpness: float = 40.0) -> Tensor:
    """The official weights: alpha_i = strength ((1 + cos(i / N)) / 2)^sharpness, (steps,) float32.

    The angle is i / N radians, without the pi that one would expect: the weights were made so.
    """
    return torch.tensor([_weight(i / steps, strength, sharpness) for i in range(steps)])


def mixing_weights_at(
    sigmas: Tensor,
    strength: float = 1.0,
    sharpness: float = 40.0,
    official_steps: int | None = None,
) -> Tensor:
    """Weights for any schedule, with the pull that the official one has at the same noise levels.

    sigmas: (N + 1,) falling, the last 0. official_steps: of the EDM schedule to be imitated; None
    takes N. Returns (N,) float32; for EDM's own levels and count these are `mixing_weights`.

    `edm_position` says at which official step a level lies, whole or not. Where a step of ours
    spans k official ones, x keeps the share (1 - alpha)^k of itself: k mixings in one.
    """
    count = official_steps or len(sigmas) - 1
    # Rounded, since levels are float32 and those of the official steps should be found exactly.
    places = [round(place, 3) for place in (edm_position(sigmas[:-1]) * (count - 1)).tolist()]
    weights = [_weight(place / count, strength, sharpness) for place in places]
    spans = [end - start for start, end in zip(places, [*places[1:], count], strict=True)]
    return torch.tensor([1 - (1 - a) ** k for a, k in zip(weights, spans, strict=True)])


def _weight(place: float, strength: float, sharpness: float) -> float:
    """The weight at a share `place` of the way, 0 to 1."""
    return strength * (0.5 * (1 + math.cos(place))) ** sharpness
