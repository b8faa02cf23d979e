"""Read what a pickle would do, without doing it.

A pickle is a program for a small stack machine. `scan_pickle` follows that program symbolically:
it keeps plain numbers, strings and tuples, and where the program would import or call something it
only notes the name. So a checkpoint is known to ask for nothing but tensors, and how large each is,
before torch sees it; torch then loads it with `weights_only=True`, which refuses code once more.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch

# Bytes of one element of each kind of storage.
_ELEMENT_BYTES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
    "UntypedStorage": 1,
}
_STORAGE_MODULES = ("torch.", "torch.cuda.", "torch.storage.")

_REBUILD = {
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
}
# Everything that state dictionaries of tensors are made with.
_ALLOWED = _REBUILD | {
    "collections.OrderedDict",
    "torch._utils._rebuild_parameter",
    "torch.nn.parameter.Parameter",
    "torch.Size",
    "torch.device",
    "_codecs.encode",  # bytes, as protocol 2 writes them
    "builtins.set",
    "__builtin__.set",
}


# A tensor may repeat its data (strides of 0), which takes no space until it is copied.
_MOST_REPEATED = 2**20
_MOST_DIMENSIONS = 64
_MOST_PARTS = 10_000  # of a tuple; a tensor's description has about 20


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    elements: int
    bytes: int


class _Tuple(tuple[Any, ...]):
    """A tuple that knows how many things it is made of, those within its parts included."""

    parts: int


_OPAQUE = object()
_MARK = object()


@dataclass
class _Machine:
    """The stack, the memo and what was noted so far; `refused` is what no weights need."""

    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def push_tuple(self, items: Sequence[Any]) -> None:
        made = _Tuple(items)
        made.parts = 1 + sum(item.parts if isinstance(item, _Tuple) else 1 for item in items)
        # Pairs of pairs of pairs of one tuple are few bytes and take for ever to hash or print.
        if made.parts > _MOST_PARTS:
            raise ValueError("nested tuples without end")
        self.stack.append(made)

    def pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]


def scan_pickle(file: BinaryIO, path: Path) -> dict[str, int]:
    """Follow one pickle up to its end, executing nothing.

    path: whose pickle it is, for the messages.

    Returns the bytes that each of torch's storages needs, by its key. The file is left behind the
    pickle.

    Raises ValueError, naming what it asks for, if it would import or call anything but what makes
    tensors, or would make tensors that reach beyond their storage; and if it is damaged.
    """
    machine = _Machine()
    damage = _follow(machine, file)
    if machine.refused:
        names = list(dict.fromkeys(machine.refused))
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise ValueError(
            f"{path} asks for {shown}, which weights do not need: loading it could run code, so "
            "nothing of it was loaded. Get the weights from their authors; or, if you made the "
            "file, save its plain state_dict again with torch.save, or better as .safetensors"
        )
    if damage is not None:
        raise ValueError(
            f"{path} is damaged or cut off (its pickle: {damage}): download it again"
        ) from damage
    return machine.storages


def _follow(machine: _Machine, file: BinaryIO) -> Exception | None:
    """Run the pickle's instructions on the machine; returns what stopped it, if not its end."""
    try:
        for opcode, argument, _ in pickletools.genops(file):
            step = _STEPS.get(opcode.name)
            if step is None:
                # Of other protocols than torch's own, or of none that torch reads.
                machine.refused.append(f"the pickle instruction {opcode.name}")
                break
            step(machine, argument)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return error
    return None


def _push(machine: _Machine, argument: Any) -> None:
    machine.stack.append(argument)


def _push_empty(machine: _Machine, _: Any) -> None:
    machine.stack.append(_OPAQUE)


def _push_mark(machine: _Machine, _: Any) -> None:
    machine.stack.append(_MARK)


def _push_empty_tuple(machine: _Machine, _: Any) -> None:
    machine.push_tuple(())


def _make_tuple(machine: _Machine, _: Any) -> None:
    machine.push_tuple(machine.pop_to_mark())


def _make_short_tuple(length: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        items = machine.stack[-length:]
        del machine.stack[-length:]
        machine.push_tuple(items)

    return step


def _drop(count: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        for _item in range(count):
            machine.stack.pop()

    return step


def _drop_to_mark(machine: _Machine, _: Any) -> None:
    machine.pop_to_mark()


def _put(machine: _Machine, slot: int) -> None:
    machine.memo[slot] = machine.stack[-1]


def _get(machine: _Machine, slot: int) -> None:
    machine.stack.append(machine.memo[slot])


def _import(machine: _Machine, argument: str) -> None:
    name = argument.replace(" ", ".", 1)
    if name not in _ALLOWED and _element_bytes(name) is None and _dtype(name) is None:
        machine.refused.append(f"`{name}`")
    machine.stack.append(_Global(name))


def _call(machine: _Machine, _: Any) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    name = function.name if isinstance(function, _Global) else "a call of what it made itself"
    if name not in _ALLOWED:
        machine.refused.append(f"`{name}`")
    elif name in _REBUILD:
        _check_extent(machine, arguments)
    machine.stack.append(_OPAQUE)


def _load_storage(machine: _Machine, _: Any) -> None:
    # ("storage", its type, key, device, elements), and in the old format a view of it.
    kind, type_, key, _location, elements, *view = machine.stack.pop()
    width = _element_bytes(type_.name) if isinstance(type_, _Global) else None
    well_formed = kind == "storage" and isinstance(key, str) and _are_counts([elements])
    if width is None or not well_formed:
        machine.refused.append("an object beside it that is no tensor")
        machine.stack.append(_OPAQUE)
        return
    needed = elements * width
    if machine.storages.setdefault(key, needed) != needed:
        raise ValueError(f"two sizes for the data {key}")
    if view and view[0] is not None:
        _, offset, elements = view[0]
        if not _are_counts([offset, elements]) or (offset + elements) * width > needed:
            raise ValueError(f"a view reaches beyond the data {key}")
    machine.stack.append(_Storage(elements, elements * width))


def _check_extent(machine: _Machine, arguments: tuple[Any, ...]) -> None:
    """A tensor must lie within its storage: torch would allocate what is missing, however much."""
    storage, offset, shape, strides = arguments[:4]
    dtype = _dtype(arguments[6].name) if len(arguments) > 6 else None
    elements = storage.elements if dtype is None else storage.bytes // dtype.itemsize
    if len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"a tensor has {len(shape)} sides and {len(strides)} strides")
    if not _are_counts([offset, *shape, *strides]):
        raise ValueError("a tensor's sides or strides are no numbers from 0 on")
    if 0 in shape:
        return
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if last >= elements or math.prod(shape) > max(elements, _MOST_REPEATED):
        machine.refused.append(f"a tensor of shape {tuple(shape)} from only {elements} numbers")


def _are_counts(values: Sequence[Any]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _element_bytes(name: str) -> int | None:
    for module in _STORAGE_MODULES:
        if name.startswith(module) and name.removeprefix(module) in _ELEMENT_BYTES:
            return _ELEMENT_BYTES[name.removeprefix(module)]
    return None


def _dtype(name: str) -> torch.dtype | None:
    if not name.startswith("torch."):
        return None
    found = getattr(torch, name.removeprefix("torch."), None)
    return found if isinstance(found, torch.dtype) else None


def _nothing(_machine: _Machine, _: Any) -> None:
    pass


# Torch's restricted reader knows no other instructions either.
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(["PROTO", "STOP"], _nothing),
    **dict.fromkeys(
        ["BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"],
        _push,
    ),
    **dict.fromkeys(["NONE", "NEWTRUE", "NEWFALSE"], _push),
    **dict.fromkeys(["EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"], _push_empty),
    "EMPTY_TUPLE": _push_empty_tuple,
    "MARK": _push_mark,
    "TUPLE": _make_tuple,
    "TUPLE1": _make_short_tuple(1),
    "TUPLE2": _make_short_tuple(2),
    "TUPLE3": _make_short_tuple(3),
    "APPEND": _drop(1),
    "SETITEM": _drop(2),
    "BUILD": _drop(1),
    **dict.fromkeys(["APPENDS", "SETITEMS"], _drop_to_mark),
    **dict.fromkeys(["BINPUT", "LONG_BINPUT"], _put),
    **dict.fromkeys(["BINGET", "LONG_BINGET"], _get),
    "GLOBAL": _import,
    **dict.fromkeys(["REDUCE", "NEWOBJ"], _call),
    "BINPERSID": _load_storage,
}
