"""Checkpoints in several files, and folders of files.

An index (`*.index.json`) says which tensor lies in which file: {"weight_map": {name: file name}}.
The files must lie beside it: an index is a download too, and must not reach other places.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

_log = logging.getLogger(__name__)

_MOST_INDEX_BYTES = 16 * 2**20
_INDEX = re.compile(r".+\.index(\.[^.]+)?\.json")
_WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_SHARD = re.compile(r".+-\d{5}-of-\d{5}(\.[^.]+)+")
# A folder of diffusers' or transformers' often holds the same weights several times.
_USUAL_NAMES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)


def read_index(path: Path) -> dict[str, Path]:
    """Which file holds each tensor, by an index; all of them exist and lie beside it.

    Raises ValueError if the file is no index, names files elsewhere, or if files are missing.
    """
    names = _parse(path)
    files = {name: path.parent / name for name in sorted(set(names.values()))}
    for name, file in files.items():
        _check_beside(name, file, path)
    missing = [name for name, file in files.items() if not file.is_file()]
    if missing:
        raise ValueError(
            f"{path} needs {len(files)} files beside it, {len(missing)} are missing "
            f"({', '.join(missing[:5])}): download them into the same folder"
        )
    return {tensor: files[name] for tensor, name in names.items()}


def weights_in(folder: Path) -> Path:
    """The one checkpoint of a folder: its index, or its only file of weights.

    If there are several, one of the usual names of diffusers and transformers is taken, and said
    in the log. Raises ValueError if there is none, or no telling which.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    weights = [path for path in files if path.suffix.lower() in _WEIGHTS_SUFFIXES]
    shards = [path for path in weights if _SHARD.fullmatch(path.name)]
    found = [path for path in files if _INDEX.fullmatch(path.name)]
    found += [path for path in weights if path not in shards]
    if len(found) == 1:
        return found[0]
    for name in _USUAL_NAMES:
        if (folder / name) in found:
            _log.info("%s holds %d checkpoints: %s is taken", folder, len(found), name)
            return folder / name
    if found:
        raise ValueError(
            f"{folder} holds {len(found)} checkpoints "
            f"({', '.join(path.name for path in found[:8])}): name the file to take"
        )
    if shards:
        raise _lost_index(shards[0])
    inner = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    hint = f"; it holds the folders {', '.join(inner[:8])}" if inner else ""
    raise ValueError(
        f"{folder} holds no weights ({', '.join(_WEIGHTS_SUFFIXES)}): name the file to take{hint}"
    )


def index_of(shard: Path) -> Path | None:
    """The index that a shard (`...-00001-of-00002...`) belongs to; None for other files.

    Raises ValueError if it is a shard and there is no index beside it.
    """
    if _SHARD.fullmatch(shard.name) is None:
        return None
    for beside in sorted(shard.parent.iterdir()):
        if _INDEX.fullmatch(beside.name) and shard.name in _parse(beside).values():
            return beside
    raise _lost_index(shard)


def _parse(path: Path) -> dict[str, str]:
    """Tensor name -> file name, as the index says."""
    if path.stat().st_size > _MOST_INDEX_BYTES:
        raise ValueError(f"{path} is text of {path.stat().st_size} bytes, too long for an index")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is no checkpoint and no index of one ({error}): download it again"
        ) from error
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names:
        raise ValueError(
            f"{path} is a JSON file that lists no weights (weight_map): name the weights beside it"
        )
    if not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{path} names files that are no text: download it again")
    return names


def _check_beside(name: str, file: Path, index: Path) -> None:
    """Refuse files in other places, links to them included.

    In the Hugging Face cache every file is a link into one folder, the index too: so a shard may
    also lie where the index itself does.
    """
    plain = name not in ("", ".", "..") and not any(sign in name for sign in "/\\:\0")
    try:
        if plain and file.resolve().parent in (index.parent.resolve(), index.resolve().parent):
            return
    except (OSError, RuntimeError):  # links in a circle
        pass
    raise ValueError(
        f"{index} names the file {name!r:.100}, which does not lie beside it: download the "
        "checkpoint again, all of its files into one folder"
    )


def _lost_index(shard: Path) -> ValueError:
    return ValueError(
        f"{shard} is one part of a checkpoint in several files, and its index "
        "(*.index.json) is not beside it: download that and all parts into one folder"
    )
