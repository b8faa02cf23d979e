"""Tensors of which every process holds a part (FSDP 2 keeps parameters so, as DTensors)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole tensors, on the CPU where they were in parts; else as they are.

    All processes must call it together.
    """
    return {
        name: tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
        for name, tensor in tensors.items()
    }


def divided_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor in parts, if `like` is; a scalar stays whole."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    local = value.to(like.device)
    return distribute_tensor(local, like.device_mesh, like.placements)


def place_of(tensor: Tensor) -> tuple[object, ...]:
    """What two names of the same numbers have in common."""
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.data_ptr(), tuple(tensor.shape), local.stride(), local.dtype, local.device


def is_divided(tensors: Iterable[Tensor]) -> bool:
    """Whether any of them is held in parts."""
    return any(isinstance(tensor, DTensor) for tensor in tensors)
