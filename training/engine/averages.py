"""Averages of the weights over the last steps (EMA), which draw better than the weights of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Averages:
    """Exponential moving averages of parameters, in float32.

    values: by the parameters' names, beginning as the parameters are.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], decay: float, *, warm_up: bool = True
    ) -> None:
        self._decay, self._warm_up = decay, warm_up
        self.values: dict[str, Tensor] = {
            name: parameter.detach().float().clone() for name, parameter in parameters.items()
        }

    def decay(self, step: int) -> float:
        """What is left of the average at a step, counted from 0."""
        return min(self._decay, (1 + step) / (10 + step)) if self._warm_up else self._decay

    @torch.no_grad()
    def update(self, parameters: Mapping[str, nn.Parameter], step: int) -> None:
        """Take in the parameters after a step, counted from 0."""
        weight = 1 - self.decay(step)
        for name, value in self.values.items():
            value.lerp_(parameters[name].to(value.dtype), weight)

    @contextmanager
    def swapped_in(self, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """Within, the parameters are the averages; after it, bit for bit what they were."""
        # On the CPU: a GPU that trains may have no room for a copy of all.
        kept = {
            name: parameter.detach().to("cpu", copy=True) for name, parameter in parameters.items()
        }
        with torch.no_grad():
            try:
                for name, value in self.values.items():
                    parameters[name].copy_(value)
                yield
            finally:
                for name, value in kept.items():
                    parameters[name].copy_(value)
