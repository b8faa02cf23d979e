"""Checkpoints that `torch.save` wrote: zip archives, and the format before torch 1.6.

Both hold a pickle, which describes the tensors, and the tensors' bytes. Nothing is loaded before
the pickle was followed without executing it (`pickle_scan`) and the bytes were found to be there;
and then only by torch's reader of tensors alone (`weights_only=True`). There is no other way in.
"""

from __future__ import annotations

import io
import logging
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..memory import available_bytes
from .file_kind import Kind
from .pickle_scan import scan_pickle
from .zip_directory import open_archive

_log = logging.getLogger(__name__)

# That of a full checkpoint with 2,700 tensors has 0.4 MB.
_MOST_PICKLE_BYTES = 8 * 2**20
_WRAPPERS = ("module", "state_dict", "model")
_WEIGHTS_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")


def load_archive(path: Path, kind: Kind) -> dict[str, Tensor]:
    """All tensors of a file that torch.save wrote, on the CPU, by their names in the file.

    kind: "torch_zip" or "torch_legacy", from `file_kind.kind_of`. Tensors of a zip archive without
    compression (torch's own always are) stay in the file, mapped: memory fills as they are read.

    Wrappers ({"module": ...}, {"state_dict": ...}, {"model": ...}) are taken off; what is no tensor
    is left out.

    Raises ValueError, before anything is loaded, for damaged, dangerous and foreign files.
    """
    if path.suffix == ".safetensors":
        raise ValueError(
            f"{path} is a file of torch.save under the wrong name: rename it to {path.stem}.pt"
        )
    mapped = _check_zip(path) if kind == "torch_zip" else _check_legacy(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises whatever damaged bytes lead it to
        raise ValueError(
            f"{path} is a torch checkpoint that can't be read as plain tensors "
            f"({type(error).__name__}): download it again, or save its state_dict as .safetensors "
            "where it can be read"
        ) from error
    return _unwrap(loaded, path)


def _check_zip(path: Path) -> bool:
    """Refuse bad archives; whether all of its tensors can stay in the file."""
    with open_archive(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        folder = archive.infolist()[0].filename.partition("/")[0] if entries else ""
        description = entries.get(f"{folder}/data.pkl")
        if f"{folder}/constants.pkl" in entries:
            raise ValueError(
                f"{path} is a TorchScript program, not plain weights: it would run code. Give the "
                "weights as .safetensors or as a saved state_dict"
            )
        if description is None:
            raise ValueError(f"{path} is a zip archive, not a checkpoint: {_advise(entries)}")
        if description.file_size > _MOST_PICKLE_BYTES:
            raise _too_long(path)
        try:
            pickled = archive.read(description)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, zlib.error) as error:
            raise ValueError(
                f"{path} is damaged ({description.filename}: {error}): download it again"
            ) from error
        storages = scan_pickle(io.BytesIO(pickled), path)
        for key, needed in storages.items():
            entry = entries.get(f"{folder}/data/{key}")
            there = 0 if entry is None else entry.file_size
            if there < needed:
                raise ValueError(
                    f"{path} is damaged: {folder}/data/{key} has {there} bytes, its tensors need "
                    f"{needed}: download it again"
                )
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries.values())


def _check_legacy(path: Path) -> bool:
    """Refuse bad files; False, as this format can't be mapped."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = io.BytesIO(file.read(_MOST_PICKLE_BYTES))
    storages: dict[str, int] = {}
    # Magic number, version, system, the object, the order of the storages.
    for _ in range(5):
        try:
            storages |= scan_pickle(head, path)
        except ValueError:
            if head.tell() == _MOST_PICKLE_BYTES < size:
                raise _too_long(path) from None
            raise
    needed = head.tell() + sum(8 + storage for storage in storages.values())
    if size < needed:
        raise ValueError(f"{path} is cut off ({size} of {needed} bytes): download it again")
    if needed > available_bytes():
        raise ValueError(
            f"{path} is in torch's old format, which is read as a whole: {needed / 2**30:.1f} GiB, "
            f"{available_bytes() / 2**30:.1f} GiB are available. Save it again with a torch of "
            "today, or as .safetensors, on a larger machine"
        )
    return False


def _unwrap(loaded: Any, path: Path) -> dict[str, Tensor]:
    for _ in range(len(_WRAPPERS)):
        inner = [loaded[key] for key in _WRAPPERS if _holds_dict(loaded, key)]
        if not inner:
            break
        loaded = inner[0]
    if not isinstance(loaded, dict):
        raise ValueError(
            f"{path} holds a {type(loaded).__name__}, expected named tensors: save the network's "
            "state_dict"
        )
    # dict's own, as an OrderedDict from a file may bring attributes of those names.
    pairs = list(dict.items(loaded))
    tensors = {
        name: value.detach()
        for name, value in pairs
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise ValueError(
            f"{path} holds no tensors ({len(pairs)} other values): give the file with the weights"
        )
    if len(tensors) < len(pairs):
        _log.info("%s: %d values beside the tensors left out", path, len(pairs) - len(tensors))
    return tensors


def _holds_dict(loaded: Any, key: str) -> bool:
    return isinstance(loaded, dict) and isinstance(dict.get(loaded, key), dict)


def _advise(entries: dict[str, zipfile.ZipInfo]) -> str:
    weights = [name for name in entries if name.endswith(_WEIGHTS_SUFFIXES)]
    if weights:
        return f"unpack it and give one of its files ({', '.join(weights[:5])})"
    return "give a .pt, .pth, .ckpt, .bin or .safetensors file"


def _too_long(path: Path) -> ValueError:
    return ValueError(
        f"{path} describes its tensors in more than {_MOST_PICKLE_BYTES // 2**20} MiB, as no "
        "checkpoint of networks does: save its state_dict alone, best as .safetensors"
    )
