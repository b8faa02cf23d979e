"""Read and check a .safetensors file's table of contents, without its tensors.

The format (Hugging Face): 8 bytes, little-endian, that say how long the header is; the header, JSON
text {name: {"dtype", "shape", "data_offsets": [begin, end]}}; then all the tensors' bytes, without
holes. The entry "__metadata__" holds text of the writer's.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

METADATA_KEY = "__metadata__"
# A full checkpoint's header has 0.5 MB.
_MOST_HEADER_BYTES = 16 * 2**20

_TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
# Older versions of torch lack some.
DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, torch_name)
    for name, torch_name in _TORCH_NAMES.items()
    if hasattr(torch, torch_name)
}


@dataclass(frozen=True)
class Header:
    """What a file holds: shapes and number formats by name, and the writer's text."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The table of contents of a .safetensors file.

    Raises ValueError if it is cut off, too long, no JSON of the expected form, or if tensors
    overlap or lie outside the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise ValueError(
                f"{path} is cut off (its header alone should have {length} bytes, the file has "
                f"{size}): download it again"
            )
        if length > _MOST_HEADER_BYTES:
            raise _damaged(path, f"its header has {length} bytes, more than any network's")
        text = file.read(length)
    entries = _parse(text, path)
    metadata = _check_metadata(entries.pop(METADATA_KEY, {}), path)
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, torch.dtype] = {}
    ranges = []
    for name, entry in entries.items():
        shapes[name], dtypes[name], begin, end = _read_entry(name, entry, path)
        ranges.append((begin, end, name))
    if not ranges:
        raise ValueError(f"{path} holds no tensors: give the file with the weights")
    _check_ranges(ranges, size - 8 - length, path)
    return Header(shapes, dtypes, metadata)


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    def to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name stands twice")
        return found

    try:
        entries = json.loads(text, object_pairs_hook=to_dict)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is no table of tensors: {error}") from error
    if not isinstance(entries, dict):
        raise _damaged(path, "its header is no table of tensors")
    return entries


def _check_metadata(metadata: Any, path: Path) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _damaged(path, "its metadata is not text by name")
    return metadata


def _read_entry(name: str, entry: Any, path: Path) -> tuple[tuple[int, ...], torch.dtype, int, int]:
    """One tensor's shape, number format, and where its bytes begin and end."""
    try:
        dtype_name, shape = entry["dtype"], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"{_shorten(name)} is not described in full") from error
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise _damaged(path, f"{_shorten(name)} has a shape or place that is no number from 0 on")
    dtype = DTYPES.get(dtype_name) if isinstance(dtype_name, str) else None
    if dtype is None:
        raise ValueError(
            f"{path} keeps {_shorten(name)} in the number format {_shorten(str(dtype_name))}, "
            f"which this torch does not know: take a copy in {', '.join(list(DTYPES)[1:4])}"
        )
    needed = math.prod(shape) * dtype.itemsize
    if end - begin != needed:
        raise _damaged(path, f"{_shorten(name)} has {end - begin} bytes, its shape needs {needed}")
    return shape, dtype, begin, end


def _check_ranges(ranges: list[tuple[int, int, str]], data_bytes: int, path: Path) -> None:
    """The tensors must fill the file, one after the other."""
    previous_end = 0
    for begin, end, name in sorted(ranges):
        if begin != previous_end:
            raise _damaged(path, f"{_shorten(name)} overlaps another tensor or leaves a gap")
        previous_end = end
    if previous_end > data_bytes:
        raise ValueError(
            f"{path} is cut off ({data_bytes} of {previous_end} bytes of tensors are there): "
            "download it again"
        )
    if previous_end < data_bytes:
        raise _damaged(path, f"{data_bytes - previous_end} bytes follow the last tensor")


def _shorten(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}..."


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} is damaged ({what}): download it again")
