"""Numbers as vectors: the sinusoidal embeddings that tell the UNet elevation, noise and beauty.

Letters: N orbits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WIDTH = 256  # of each number's embedding in the UNet's vector


def sinusoidal(values: Tensor, channels: int) -> Tensor:
    """Cosines, then sines, of the values at falling frequencies, as for timesteps in DDPM.

    values: (N,). Returns (N, channels) float32; an odd width ends in a zero.
    """
    half = channels // 2
    frequencies = torch.exp(
        -math.log(10_000) * torch.arange(half, dtype=torch.float32, device=values.device) / half
    )
    angles = values.float()[:, None] * frequencies
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
    return torch.nn.functional.pad(embedding, (0, channels % 2))


def aesthetic_embedding(score: Tensor) -> Tensor:
    """The score itself, then 100 times the score embedded. score: (N, 1). Returns (N, 256)."""
    return torch.cat([score.float(), sinusoidal(100 * score.float()[:, 0], _WIDTH - 1)], dim=1)


def orbit_vector(score: Tensor, elevation_degrees: Tensor, cond_aug: Tensor) -> Tensor:
    """Stage 1's vector: aesthetic score, elevation, noise on the conditioning picture.

    score: (N, 1), about 4 to 7. elevation_degrees: (N,). cond_aug: (N,), of pictures in [-1, 1].
    Returns (N, 768) float32.
    """
    return torch.cat([aesthetic_embedding(score), refiner_vector(elevation_degrees, cond_aug)], 1)


def refiner_vector(elevation_degrees: Tensor, cond_aug: Tensor) -> Tensor:
    """Stage 2's vector: elevation and noise on the conditioning frames, both (N,), to (N, 512)."""
    return torch.cat([sinusoidal(elevation_degrees, _WIDTH), sinusoidal(cond_aug, _WIDTH)], dim=1)
