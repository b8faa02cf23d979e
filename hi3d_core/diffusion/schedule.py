"""The noise levels that a solver visits, from pure noise to none.

Letters: N steps; sigma a noise level, the standard deviation of the noise on unit-variance latents.
Every schedule has N + 1 levels, falling, the last 0; step i goes from level i to level i + 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 700.0, 7.0

# Align Your Steps, Sabour et al. 2024: the levels for Stable Video Diffusion in 10 steps.
_ALIGNED = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)
_MOST_STEPS = 1000


def edm_sigmas(
    steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX, rho: float = RHO
) -> Tensor:
    """EDM's schedule (Karras et al. 2022, eq. 5), the official one.

    Returns (steps + 1,) float32. Raises ValueError for steps outside 1 to 1000 and levels that
    don't fall.
    """
    _check_steps(steps)
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"sigma_min is {sigma_min:g} and sigma_max {sigma_max:g}, expected 0 < sigma_min < "
            "sigma_max"
        )
    ramp = torch.linspace(0, 1, steps, dtype=torch.float32)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _ending_in_zero((high + ramp * (low - high)) ** rho)


def align_your_steps_sigmas(steps: int) -> Tensor:
    """The schedule that Align Your Steps (Sabour et al. 2024) optimized for SVD.

    With 10 steps these are the published levels, the last exchanged for 0; with others they are
    interpolated linearly in the logarithm of sigma, as the authors advise.

    Returns (steps + 1,) float32. Raises ValueError for steps outside 1 to 1000.
    """
    _check_steps(steps)
    knots = torch.tensor(_ALIGNED, dtype=torch.float64).log()
    place = torch.linspace(0, len(knots) - 1, steps + 1, dtype=torch.float64)[:-1]
    before = place.long()
    levels = torch.lerp(knots[before], knots[before + 1], place - before).exp()
    return _ending_in_zero(levels.float())


def edm_position(sigmas: Tensor) -> Tensor:
    """Where levels lie on EDM's ramp, 0 at sigma_max to 1 at sigma_min: eq. 5 turned round.

    sigmas: any shape. Returns float64 on the CPU.
    """
    high, low = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    return (high - sigmas.cpu().double() ** (1 / RHO)) / (high - low)


def _ending_in_zero(levels: Tensor) -> Tensor:
    return torch.cat([levels, levels.new_zeros(1)])


def _check_steps(steps: int) -> None:
    if not 1 <= steps <= _MOST_STEPS:
        raise ValueError(f"steps is {steps}, expected 1 to {_MOST_STEPS} (officially 25)")
