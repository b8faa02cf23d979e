"""Gaussian splats as PLY files, in the layout of 3D Gaussian Splatting that viewers read.

One `vertex` element of little-endian floats: x y z, nx ny nz (unused, 0), f_dc_0..2,
f_rest_* (channel by channel: all of red's terms, then green's, then blue's), opacity as a logit,
scale_0..2 as logarithms, rot_0..3 with w first.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from ..atomic_file import replacing
from ..datatypes import Gaussians

_LONGEST_HEADER = 64 * 1024  # bytes
_FLOATS = {"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8"}
_INTEGERS = {
    "char": "<i1", "int8": "<i1", "uchar": "<u1", "uint8": "<u1",
    "short": "<i2", "int16": "<i2", "ushort": "<u2", "uint16": "<u2",
    "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4",
}  # fmt: skip
_TYPES = {**_FLOATS, **_INTEGERS}
# The largest logit whose sigmoid float32 tells from 1: beyond it nothing survives a round trip.
_LARGEST_LOGIT = 16.0
_REST_TERMS = {0: 1, 9: 4, 24: 9, 45: 16}  # f_rest properties -> spherical-harmonics terms


def write_gaussian_ply(gaussians: Gaussians, path: str | Path) -> None:
    """Write a splat; what is at `path` is replaced only when all is written.

    Raises ValueError if the folder is missing or not writable.
    """
    terms = gaussians.sh.shape[1]
    names = _property_names(terms)
    count = len(gaussians)
    values = np.zeros((count, len(names)), "<f4")
    column = {name: index for index, name in enumerate(names)}

    def put(first: str, tensor: torch.Tensor) -> None:
        block = tensor.detach().cpu().float().reshape(count, math.prod(tensor.shape[1:])).numpy()
        values[:, column[first] : column[first] + block.shape[1]] = block

    put("x", gaussians.means)
    put("f_dc_0", gaussians.sh[:, 0])
    if terms > 1:
        put("f_rest_0", gaussians.sh[:, 1:].transpose(1, 2))
    # In float64: near 1 the logit is far finer than float32 opacities.
    logits = torch.logit(gaussians.opacities.double()).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
    put("opacity", logits)
    put("scale_0", gaussians.scales.double().log())
    put("rot_0", gaussians.quaternions)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header += [f"property float {name}" for name in names]
    with replacing(path) as temporary:
        text = "\n".join([*header, "end_header\n"]).encode("ascii")
        temporary.write_bytes(text + values.tobytes())


def read_gaussian_ply(path: str | Path) -> Gaussians:
    """Read a splat written by this or another program.

    Properties may come in any order and be float or double; others are ignored. Quaternions are
    normalised.

    Raises ValueError, naming the file, if it is missing, not such a PLY, cut off, longer than
    its header says, or holds values that are not finite or out of range. Nothing is allocated
    on the word of a header that the file's size does not bear out.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    with path.open("rb") as file:
        count, row = _read_header(file, path)
        expected = count * row.itemsize
        found = path.stat().st_size - file.tell()
        if found != expected:
            problem = "is cut off" if found < expected else "is longer than its header says"
            raise ValueError(
                f"{path} {problem}: {count} Gaussians of {row.itemsize} bytes make {expected} "
                f"bytes of data, the file has {found}"
            )
        rows = np.frombuffer(file.read(expected), dtype=row, count=count)
    try:
        return _gaussians_from_rows(rows)
    except ValueError as error:
        raise ValueError(f"{path} holds no usable splat: {error}") from error


def _property_names(terms: int) -> list[str]:
    rest = [f"f_rest_{index}" for index in range(3 * (terms - 1))]
    return [
        "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity",
        "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
    ]  # fmt: skip


def _read_header(file: BinaryIO, path: Path) -> tuple[int, np.dtype]:
    """The number of vertices and the type of a row; leaves the file at the data."""
    lines = []
    while True:
        line = file.readline(1024)
        if not line.endswith(b"\n") or file.tell() > _LONGEST_HEADER:
            raise ValueError(f"{path} is not a PLY file: its header has no end")
        lines.append(line.decode("ascii", errors="replace").strip())
        if lines[0] != "ply":
            raise ValueError(f"{path} is not a PLY file: it does not begin with 'ply'")
        if lines[-1] == "end_header":
            break
    words = [line.split() for line in lines[1:-1] if line]
    words = [w for w in words if w[0] not in ("comment", "obj_info")]
    if not words or words[0] != ["format", "binary_little_endian", "1.0"]:
        got = " ".join(words[0]) if words else "nothing"
        raise ValueError(f"{path} says '{got}', expected 'format binary_little_endian 1.0'")
    elements = [w for w in words if w[0] == "element"]
    if len(elements) != 1 or elements[0][1:2] != ["vertex"] or words[1] != elements[0]:
        raise ValueError(
            f"{path} is no Gaussian splat: expected one element, 'vertex', got "
            f"{[' '.join(w[1:]) for w in elements]} (a mesh, perhaps)"
        )
    if len(elements[0]) != 3 or not elements[0][2].isdecimal():
        raise ValueError(f"{path} has a bad line '{' '.join(elements[0])}'")
    fields = []
    for w in words[2:]:
        if len(w) != 3 or w[0] != "property" or w[1] not in _TYPES:
            raise ValueError(f"{path} has a line it should not have: '{' '.join(w)}'")
        fields.append((w[2], _TYPES[w[1]]))
    _check_fields(fields, path)
    return int(elements[0][2]), np.dtype(fields)


def _check_fields(fields: list[tuple[str, str]], path: Path) -> None:
    types = dict(fields)
    if len(types) != len(fields):
        raise ValueError(f"{path} names a property twice")
    rest = sum(name.startswith("f_rest_") for name in types)
    if rest not in _REST_TERMS:
        raise ValueError(f"{path} has {rest} f_rest properties, expected 0, 9, 24 or 45")
    needed = [n for n in _property_names(_REST_TERMS[rest]) if not n.startswith("n")]
    missing = [name for name in needed if name not in types]
    if missing:
        raise ValueError(f"{path} is no Gaussian splat: it has no property {', '.join(missing)}")
    wrong = [name for name in needed if types[name] not in _FLOATS.values()]
    if wrong:
        raise ValueError(f"{path} stores {', '.join(wrong)} as integers, expected floats")


def _gaussians_from_rows(rows: NDArray[np.void]) -> Gaussians:
    names = rows.dtype.names or ()

    def get(*wanted: str) -> torch.Tensor:
        columns = [rows[name].astype(np.float64) for name in wanted]
        return torch.from_numpy(np.stack(columns, axis=1))

    rest = sum(name.startswith("f_rest_") for name in names)
    sh = get("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    if rest:
        by_channel = get(*(f"f_rest_{index}" for index in range(rest)))
        sh = torch.cat([sh, by_channel.reshape(len(rows), 3, rest // 3).transpose(1, 2)], dim=1)
    quaternions = get("rot_0", "rot_1", "rot_2", "rot_3")
    lengths = quaternions.norm(dim=1, keepdim=True)
    if len(rows) and not float(lengths.min()) > 0:
        raise ValueError("a rotation is zero or not a number")
    opacity_logits = get("opacity")[:, 0]
    if not torch.isfinite(opacity_logits).all():
        raise ValueError("opacities hold values that are NaN or infinite")
    return Gaussians(
        means=get("x", "y", "z").float(),
        scales=get("scale_0", "scale_1", "scale_2").exp().float(),
        quaternions=(quaternions / lengths).float(),
        opacities=torch.sigmoid(opacity_logits).float(),
        sh=sh.float(),
    )
