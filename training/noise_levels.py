"""How much noise a training video gets, and how much its conditioning picture.

Both are log-normal (EDM, Karras et al. 2022, table 1). A whole video has one level, as its frames
are denoised together. Letters: B videos, F frames; sigma a noise level, the standard deviation of
the noise on unit-variance latents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogNormal:
    """exp(mean + deviation * n) of a unit normal n.

    Raises ValueError for numbers that are not finite or a negative deviation.
    """

    mean: float
    deviation: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0 <= self.deviation < math.inf):
            raise ValueError(
                f"the log-normal has mean {self.mean} and deviation {self.deviation}, expected "
                "finite numbers, the deviation 0 or more"
            )

    def of(self, normal: Tensor) -> Tensor:
        """Levels from unit normals, of the same shape."""
        return (self.mean + self.deviation * normal).exp()

    def draw(self, generator: torch.Generator) -> Tensor:
        """One level, (1,) float32 on the CPU."""
        return self.of(torch.randn(1, generator=generator))

    def density(self, sigma: Tensor) -> Tensor:
        """How densely levels lie at `sigma` (positive), per unit of sigma."""
        if self.deviation == 0:
            raise ValueError("a log-normal of deviation 0 has no density")
        place = (sigma.log() - self.mean) / self.deviation
        return torch.exp(-0.5 * place**2) / (sigma * self.deviation * math.sqrt(2 * math.pi))


SIGMA = LogNormal(1.0, 1.6)
"""The official levels of the noise on latents, in both stages."""

COND_AUG = LogNormal(-3.0, 0.5)
"""The official levels of the noise on conditioning pictures, whose range is [-1, 1] (as in SVD)."""


def v_weight(sigma: Tensor) -> Tensor:
    """What the squared error of the clean sample weighs: (sigma^2 + 1) / sigma^2.

    With it the loss is the plain squared error of the network's v. sigma: positive, any shape.
    """
    return (sigma**2 + 1) / sigma**2


def keep_mask(count: int, dropped: float, generator: torch.Generator) -> Tensor:
    """1 for what stays and 0 for what is dropped, (count,) float32.

    Raises ValueError for a share outside [0, 1].
    """
    if not 0 <= dropped <= 1:
        raise ValueError(f"the share to be dropped is {dropped}, expected 0 to 1")
    return torch.bernoulli(torch.full((count,), 1 - dropped), generator=generator)
