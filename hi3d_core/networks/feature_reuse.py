"""Keep the UNet's deep features over a few calls, as they change little from step to step.

DeepCache, Ma et al. 2023 ("Accelerating Diffusion Models for Free"), with its uniform schedule: of
every n calls the first is full, and in the others only the outermost layers run. It changes the
result.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class _Slot:
    calls: int = 0
    features: Tensor | None = None


class FeatureReuse:
    """The features that one sampling run keeps; whoever runs the solver makes one for the run.

    every: of so many calls one is full; 1 makes all full.
    slot: which memory the next call uses. Calls whose rows differ (without the condition, with it)
        need one each; set it before the call.

    Raises ValueError if `every` is below 1.
    """

    def __init__(self, every: int) -> None:
        if every < 1:
            raise ValueError(f"every is {every}, expected at least 1 (1: no call reuses anything)")
        self.every = every
        self.slot: Hashable = None
        self._slots: dict[Hashable, _Slot] = {}

    # Traced, every count of the calls would be compiled anew.
    @torch.compiler.disable
    def recall(self) -> Tensor | None:
        """Count one call in the slot; give the features kept there, or None if it is to be full."""
        slot = self._slots.setdefault(self.slot, _Slot())
        if slot.calls % self.every == 0:
            slot.features = None  # frees them before the full call needs its memory
        slot.calls += 1
        return slot.features

    @torch.compiler.disable
    def keep(self, features: Tensor) -> None:
        """Keep what a full call found, without its gradient, for the next calls in the slot."""
        if self.every > 1:
            self._slots.setdefault(self.slot, _Slot()).features = features.detach()
