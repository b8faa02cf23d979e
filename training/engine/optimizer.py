"""AdamW, whole or with 8-bit moments."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

import torch

from hi3d_core.optional import MissingDependency

from .settings import OptimizerSettings

_CLASSES = {"adamw8bit": "AdamW8bit", "paged_adamw8bit": "PagedAdamW8bit"}


def build_optimizer(
    settings: OptimizerSettings, parameters: Iterable[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer that the settings name.

    Raises MissingDependency if it needs bitsandbytes, which can't be imported.
    """
    kind: type[torch.optim.Optimizer] = torch.optim.AdamW
    if settings.name != "adamw":
        try:
            kind = getattr(importlib.import_module("bitsandbytes.optim"), _CLASSES[settings.name])
        except ImportError as error:
            raise MissingDependency(
                f"optimizer.name {settings.name} needs the package bitsandbytes, which can't be "
                f"imported ({error}): pip install bitsandbytes, or set optimizer.name to adamw"
            ) from error
    return kind(
        list(parameters),
        lr=settings.learning_rate,  # type: ignore[call-arg]
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
