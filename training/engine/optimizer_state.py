"""An optimizer's moments as named tensors, and back: no pickle is needed to keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .sharding import divided_like

_BEGIN = "optimizer."
Numbers = dict[str, float | int | bool | None]


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> tuple[dict[str, Tensor], Numbers]:
    """What the optimizer remembers of each parameter: "optimizer.<moment>.<parameter>" -> value.

    Returns the tensors, and the plain numbers.
    """
    tensors: dict[str, Tensor] = {}
    numbers: Numbers = {}
    for name, parameter in parameters.items():
        for moment, value in sorted(optimizer.state.get(parameter, {}).items()):
            kind: dict[str, Any] = tensors if isinstance(value, Tensor) else numbers
            kind[f"{_BEGIN}{moment}.{name}"] = value
    return tensors, numbers


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    values: Mapping[str, Any],
) -> None:
    """Give an optimizer back what `optimizer_tensors` told, both kinds in `values`.

    Raises ValueError if it is of other parameters.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    groups = optimizer.state_dict()["param_groups"]
    order = [
        (index, parameter)
        for group, listed in zip(optimizer.param_groups, groups, strict=True)
        for parameter, index in zip(group["params"], listed["params"], strict=True)
    ]
    state: dict[int, dict[str, Any]] = {}
    moments_of: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        moment, _, name = key.removeprefix(_BEGIN).partition(".")
        moments_of.setdefault(name, {})[moment] = value
    for index, parameter in order:
        moments = moments_of.pop(names[id(parameter)], {})
        state[index] = {
            moment: divided_like(value, parameter) if isinstance(value, Tensor) else value
            for moment, value in moments.items()
        }
    if moments_of:
        raise ValueError(
            f"the checkpoint's optimizer knows {next(iter(moments_of))}, which is not trained "
            "here: it is of another network"
        )
    optimizer.load_state_dict({"state": state, "param_groups": groups})
