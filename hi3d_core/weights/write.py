"""Write weights as one .safetensors file, one tensor in memory at a time."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..atomic_file import check_writable, replacing
from ..datatypes import OnStep
from .safetensors_header import DTYPES, METADATA_KEY

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class PendingTensor:
    """A tensor to be written: its shape and number format, and what makes it in its turn."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        """How many bytes it takes in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, PendingTensor],
    metadata: Mapping[str, str] | None = None,
    *,
    on_step: OnStep | None = None,
) -> None:
    """Write tensors into one .safetensors file, or nothing.

    tensors: by name; each is made, written and let go of before the next one is made.
    metadata: text that the file shall carry. on_step: gets tensors done, of how many.

    Whatever interrupts it leaves the file that was there before.

    Raises ValueError if the folder can't be written to or has too little space, a number format is
    none of the format's, or a tensor is not what was announced.
    """
    path = Path(path)
    check_writable(path)
    # Wide numbers first, so that each tensor begins at a multiple of its numbers' width.
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)  # stable
    header = _header({name: tensors[name] for name in order}, metadata or {})
    _check_space(path, len(header) + sum(tensor.bytes for tensor in tensors.values()))
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(header)
        for done, name in enumerate(order):
            if on_step is not None:
                on_step(done, len(order))
            file.write(_bytes_of(name, tensors[name]).data)
        if on_step is not None:
            on_step(len(order), len(order))


def sha256_of(path: str | Path, on_step: OnStep | None = None) -> str:
    """A file's SHA-256 as 64 hexadecimal digits. on_step: gets bytes done, of how many."""
    path = Path(path)
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if on_step is not None:
                on_step(done, size)
    return digest.hexdigest()


def _header(tensors: Mapping[str, PendingTensor], metadata: Mapping[str, str]) -> bytes:
    """The length and the table of contents, padded so that the data begins at a multiple of 8."""
    entries: dict[str, Any] = {METADATA_KEY: dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES or name == METADATA_KEY:
            raise ValueError(
                f"{name} of {tensor.dtype} can't be kept in a .safetensors file: give it another "
                f"name or one of the formats {', '.join(DTYPES)}"
            )
        begin, end = end, end + tensor.bytes
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(name: str, pending: PendingTensor) -> np.ndarray:
    tensor = pending.make()
    if tuple(tensor.shape) != pending.shape or tensor.dtype != pending.dtype:
        raise ValueError(
            f"{name} is {tuple(tensor.shape)} of {tensor.dtype}, announced was {pending.shape} of "
            f"{pending.dtype}: make what was announced"
        )
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise ValueError(
            f"{path} needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free: "
            "make space or choose another disk"
        )
