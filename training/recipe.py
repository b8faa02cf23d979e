"""What a training recipe offers to the engine that runs it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Recipe(Protocol):
    """One thing to train: its networks, its data and its loss.

    The engine owns the optimiser, the step count, the processes and the files; a
    recipe owns everything that depends on what is trained.
    """

    def networks(self) -> torch.nn.Module:
        """What is trained: the parameters with ``requires_grad`` and nothing else."""
        ...

    def batch(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """This rank's share of the batch of a step.

        It is decided by (seed, step, rank, world) alone, so that a resumed run sees the
        same data, and ``world`` processes together see what one would with the whole
        batch.
        """
        ...

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """A scalar to minimise (the mean over the batch) and named terms for the log.

        Noise comes from generators in the batch, never from the global one.
        """
        ...

    def samples(self) -> Tensor | None:
        """Pictures for the log, (N, H, W, 3) in [0, 1], or None."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Weights under the names that ``hi3d_core.weights.load`` reads."""
        ...
