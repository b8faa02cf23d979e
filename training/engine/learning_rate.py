"""The learning rate of a step: a function of the step alone, so nothing of it is stored."""

from __future__ import annotations

import math

from .settings import OptimizerSettings


def learning_rate(settings: OptimizerSettings, step: int, steps: int) -> float:
    """The rate of a step, counted from 0, of a run of `steps`."""
    warm_up = settings.warm_up_steps
    if step < warm_up:
        return settings.learning_rate * (step + 1) / warm_up
    done = min(1.0, (step - warm_up) / max(1, steps - 1 - warm_up))
    left = {"none": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    floor = settings.last_rate if settings.decay != "none" else 0.0
    return settings.learning_rate * (floor + (1 - floor) * left[settings.decay])
