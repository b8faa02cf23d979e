"""Single random numbers from an explicit generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """A number between low and high."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def chance(generator: torch.Generator, share: float) -> bool:
    """True this often."""
    return uniform(generator, 0, 1) < share


def choice(
    generator: torch.Generator, items: Sequence[Item], shares: Sequence[float] | None = None
) -> Item:
    """One of the items, all equally often or with these shares."""
    if shares is None:
        return items[int(torch.randint(len(items), (), generator=generator))]
    weights = torch.tensor(shares, dtype=torch.float64)
    return items[int(torch.multinomial(weights, 1, generator=generator))]
