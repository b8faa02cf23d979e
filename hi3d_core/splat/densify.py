"""Move Gaussians that have faded away to where they are of use.

"3D Gaussian Splatting as Markov Chain Monte Carlo" (Kheradmand et al. 2024), eq. 9: a dead
Gaussian becomes a copy of a living one, and opacity and scale of all copies are set so that
together they draw what the one did before. The count never changes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MOST_COPIES = 16


def relocated(opacities: Tensor, scales: Tensor, copies: Tensor) -> tuple[Tensor, Tensor]:
    """Opacities (N,) and scales (N, 3) of each Gaussian if `copies` of it share its place.

    copies: (N,) int64, at least 1; 1 changes nothing.
    """
    copies = copies.clamp_max(_MOST_COPIES)
    shared = 1 - (1 - opacities) ** (1 / copies)
    # What the copies' blend sums to along a line: sum over i, k of
    # binomial(i, k) (-1)^k shared^(k + 1) / sqrt(k + 1).
    terms = torch.arange(_MOST_COPIES, device=opacities.device)
    inner = torch.zeros_like(opacities)
    for i in range(_MOST_COPIES):
        binomials = [math.comb(i, k) * (-1) ** k / math.sqrt(k + 1) for k in range(i + 1)]
        powers = shared[:, None] ** (terms[: i + 1] + 1)
        row = (powers * powers.new_tensor(binomials)).sum(dim=1)
        inner = inner + torch.where(copies > i, row, torch.zeros_like(row))
    return shared, scales * (opacities / inner)[:, None]


def choose_targets(
    dead: Tensor, weights: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """For every dead Gaussian a living one, at random with probability proportional to weight.

    dead: (N,) bool. weights: (N,) not negative. generator: on the CPU, so that a seed draws the
    same on every device. Returns the indices of the dead and of their targets (both (D,)); empty
    if none is dead or none lives.
    """
    alive_weights = torch.where(dead, torch.zeros_like(weights), weights).cpu().double()
    dead_indices = dead.nonzero()[:, 0]
    total = float(alive_weights.sum())
    if len(dead_indices) == 0 or not total > 0:
        return dead_indices[:0], dead_indices[:0]
    # By inversion: torch.multinomial is limited in the number of categories.
    draws = torch.rand(len(dead_indices), generator=generator, dtype=torch.float64) * total
    targets = torch.searchsorted(alive_weights.cumsum(dim=0), draws, right=True)
    # Rounding may push a draw past the end.
    targets = targets.clamp_max(int(alive_weights.nonzero().max()))
    return dead_indices, targets.to(dead.device)
