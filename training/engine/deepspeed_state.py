"""What DeepSpeed's ZeRO keeps in parts and out of sight: exact weights, and moments.

Its own checkpoints are pickles. Its functions for single parameters give and take whole tensors;
all processes must call them together.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor

from .prepared import Prepared

_MOMENTS = ("exp_avg", "exp_avg_sq")


def is_used(run: Prepared) -> bool:
    """Whether the run is DeepSpeed's."""
    return run.accelerator.distributed_type == DistributedType.DEEPSPEED


def tensors(run: Prepared) -> dict[str, Tensor]:
    """Exact weights and moments, whole, on the CPU."""
    deepspeed = _functions()
    found: dict[str, Tensor] = {}
    for name, parameter in run.parameters.items():
        found[f"master.{name}"] = deepspeed.safe_get_full_fp32_param(parameter).cpu().clone()
        for moment in _MOMENTS:
            value = deepspeed.safe_get_full_optimizer_state(parameter, moment)
            found[f"optimizer.{moment}.{name}"] = value.cpu().clone()
    return found


def make_moments(run: Prepared) -> None:
    """Have DeepSpeed lay out its moments, which it else does in the first step.

    It takes a step at the rate 0 along gradients that are 0: weights and moments stay.
    """
    for group in run.optimizer.param_groups:
        group["lr"] = 0.0
    nothing = [parameter.float().sum() * 0 for parameter in run.parameters.values()]
    run.accelerator.backward(torch.stack(nothing).sum())
    run.optimizer.zero_grad()


def restore_moments(run: Prepared, moments: Mapping[str, Tensor], steps: int) -> None:
    """Give the moments back, and how many steps they have seen."""
    deepspeed = _functions()
    for name, parameter in run.parameters.items():
        for moment in _MOMENTS:
            value = moments[f"optimizer.{moment}.{name}"].to(parameter.device)
            deepspeed.safe_set_full_optimizer_state(parameter, value, moment)
    optimizer: Any = run.optimizer
    while hasattr(optimizer, "optimizer"):  # accelerate's holds DeepSpeed's, that holds torch's
        optimizer = optimizer.optimizer
    for state in optimizer.state.values():
        state["step"] = torch.full_like(torch.as_tensor(state["step"]), steps)


def restore_masters(run: Prepared, read: Callable[[str], Tensor]) -> None:
    """Give the exact weights back."""
    deepspeed = _functions()
    for name, parameter in run.parameters.items():
        value = read(f"master.{name}").to(parameter.device)
        deepspeed.safe_set_full_fp32_param(parameter, value)


def _functions() -> Any:
    return importlib.import_module("deepspeed.utils")
