"""What a network would cost on a GPU, from a run on the meta device, which computes nothing.

Every operation tells its shapes. From them come its FLOPs, the bytes that it reads and writes, and
how much memory is held at once. Time is a roofline: an operation takes as long as its arithmetic or
its memory traffic, whichever is longer, on a `Card`.

Not seen: work space of kernels, fragmentation, and fusion (torch.compile fuses elementwise work,
which here counts in full).
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Card:
    """What a GPU sustains, below its data sheet's peaks.

    half_tflops, float_tflops: of matrix work in half precision and in float32 without TF32.
    terabytes_per_second: of memory traffic. launch_microseconds: of an operation, at least.
    """

    half_tflops: float
    float_tflops: float
    terabytes_per_second: float
    launch_microseconds: float


# The data sheet says 989 and 67 TFLOP/s and 4.8 TB/s.
H200_CLASS = Card(400.0, 45.0, 3.5, 3.0)


class FusedAttention(TorchFunctionMode):
    """Count attention as one fused kernel, as it is on a GPU.

    On the meta device torch takes the plain formula instead, whose table of scores no GPU holds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Exchange the one function."""
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, key, value, *rest = args
            if any(each is not None for each in (*rest[:1], kwargs.get("attn_mask"))):
                raise ValueError(
                    "attention got a mask, expected none, as in all networks here: the fused "
                    "kernel's cost would be counted wrongly"
                )
            return torch.ops.aten._scaled_dot_product_efficient_attention(
                query, key, value, None, False, scale=kwargs.get("scale")
            )[0]
        return func(*args, **kwargs)


class Meter(TorchDispatchMode):
    """Counts while it is entered; `restart` sets the counts to zero but for the memory held.

    flops, moved_bytes, seconds. held_bytes: in tensors made since it was entered and still alive;
    peak_bytes: the most that were.
    """

    def __init__(self, card: Card = H200_CLASS) -> None:
        super().__init__()
        self.card = card
        self.held_bytes = 0
        self._alive: set[int] = set()
        self.restart()

    def restart(self) -> None:
        """Begin to count anew."""
        self.flops, self.moved_bytes, self.seconds = 0, 0, 0.0
        self.peak_bytes = self.held_bytes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation and count it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = _tensors((args, kwargs))
        made = _tensors(result)
        known = {each.untyped_storage()._cdata for each in given}
        fresh = [each for each in made if each.untyped_storage()._cdata not in known]
        for tensor in fresh:
            self._hold(tensor.untyped_storage())
        if fresh or func._schema.is_mutable:  # else a view, which costs nothing
            self._count(func, args, kwargs, result, given + made)
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._alive.add(key)
        weakref.finalize(storage, self._release, key, size)
        self.held_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)

    def _release(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.held_bytes -= size

    def _count(self, func: Any, args: Any, kwargs: Any, result: Any, touched: list[Tensor]) -> None:
        formula = flop_registry.get(func.overloadpacket)
        flops = 0 if formula is None else formula(*args, **kwargs, out_val=result)
        moved = sum(each.numel() * each.element_size() for each in touched)
        self.flops += flops
        self.moved_bytes += moved
        # The first tensor's: attention in half precision also returns sums in float32.
        single = touched[0].dtype == torch.float32
        card = self.card
        self.seconds += 1e-6 * card.launch_microseconds + 1e-12 * max(
            flops / (card.float_tflops if single else card.half_tflops),
            moved / card.terabytes_per_second,
        )


def _tensors(tree: Any) -> list[Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, Tensor)]
