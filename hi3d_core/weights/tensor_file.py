"""Open a checkpoint of any form and read its tensors one by one.

`open_tensors` takes what users have: torch's files, .safetensors, several files with an index, or a
folder of these. The form is told by content. Tensors stay on the disk, mapped, until they are read,
wherever the form allows.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .file_kind import Kind, kind_of
from .mismatch import CheckpointMismatch
from .safetensors_header import read_header
from .sharded import index_of, read_index, weights_in
from .torch_archive import load_archive

_log = logging.getLogger(__name__)

# DeepSpeed and DataParallel put it before every name.
_WRAPPER_PREFIX = "module."


class _Shard(Protocol):
    """One opened file."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]
    metadata: dict[str, str]

    def read(self, name: str) -> Tensor: ...

    def close(self) -> None: ...


class TensorFile:
    """An open checkpoint; a context manager.

    path: the file, or the index of several. files: the files that hold the tensors.
    shapes, dtypes: of each tensor, by its name. A "module." before all names is dropped.
    metadata: the writer's text in a .safetensors file, else empty.
    """

    def __init__(
        self, path: Path, shards: Mapping[Path, _Shard], homes: Mapping[str, Path]
    ) -> None:
        self.path = path
        self.files = tuple(shards)
        self.metadata: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self._shards: dict[Path, _Shard] = dict(shards)
        self._homes: dict[str, tuple[Path, str]] = {}
        for shard in shards.values():
            self.metadata |= shard.metadata
        cut = _common_prefix(homes)
        for name, file in homes.items():
            ours = name[len(cut) :]
            self._homes[ours] = (file, name)
            self.shapes[ours] = shards[file].shapes[name]
            self.dtypes[ours] = shards[file].dtypes[name]

    @property
    def names(self) -> list[str]:
        """The tensors' names, in the file's order."""
        return list(self.shapes)

    def read(self, name: str) -> Tensor:
        """One tensor on the CPU, in the file's number format; mapped from the file if it can be.

        It stays valid after `close`. Raises CheckpointMismatch if there is none of that name,
        ValueError if the file was closed.
        """
        if not self._shards:
            raise ValueError(f"{self.path} was closed: read tensors before that")
        if name not in self._homes:
            near = difflib.get_close_matches(name, self._homes, n=2, cutoff=0.8)
            hint = f"; it has {' and '.join(near)}" if near else ""
            raise CheckpointMismatch(f"{self.path} holds no tensor {name}{hint}")
        file, inner = self._homes[name]
        return self._shards[file].read(inner)

    def close(self) -> None:
        """Let go of the file. What was read stays valid."""
        shards, self._shards = self._shards, {}
        for shard in shards.values():
            shard.close()

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_tensors(path: str | Path) -> TensorFile:
    """Open a checkpoint: a file, an index of several, one of those several, or a folder.

    Taken are the files of torch.save (.pt, .pth, .bin, .ckpt; also from before torch 1.6) and
    .safetensors, whatever their name. Of nested dictionaries in the former, "module", "state_dict"
    and "model" are followed; values that are no tensors are left out.

    Raises ValueError, naming the file and what to do, for files that are no checkpoint, damaged,
    cut off or unsafe (no code of a file is ever run); CheckpointMismatch if several files do not
    hold what their index says.
    """
    path = Path(path)
    if path.is_dir():
        path = weights_in(path)
    kind = kind_of(path)
    index = path if kind == "index" else index_of(path)
    if index is not None:
        if index != path:
            _log.info("%s is a part of %s: all of that is taken", path.name, index)
        return _open_several(index)
    shard = _open_one(path, kind)
    return TensorFile(path, {path: shard}, dict.fromkeys(shard.shapes, path))


def _open_several(index: Path) -> TensorFile:
    homes = read_index(index)
    shards: dict[Path, _Shard] = {}
    try:
        for file in sorted(set(homes.values())):
            shards[file] = _open_one(file, kind_of(file))
        lost = [name for name, file in homes.items() if name not in shards[file].shapes]
        if lost:
            raise CheckpointMismatch(
                f"{index} names {len(lost)} tensors that its files do not hold ({lost[0]} in "
                f"{homes[lost[0]].name}): download all of them again, from one place"
            )
    except BaseException:
        for shard in shards.values():
            shard.close()
        raise
    unlisted = sum(len(shard.shapes) for shard in shards.values()) - len(homes)
    if unlisted:
        _log.info("%s leaves out %d tensors of its files", index, unlisted)
    return TensorFile(index, shards, homes)


def _open_one(path: Path, kind: Kind) -> _Shard:
    if kind == "index":
        raise ValueError(f"{path} is a JSON file, expected weights: download it again")
    return _SafetensorsFile(path) if kind == "safetensors" else _TorchFile(path, kind)


class _SafetensorsFile:
    def __init__(self, path: Path) -> None:
        header = read_header(path)
        self.shapes, self.dtypes, self.metadata = header.shapes, header.dtypes, header.metadata
        try:
            self._file: Any = safe_open(path, framework="pt", device="cpu")
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}): download it again") from error

    def read(self, name: str) -> Tensor:
        return self._file.get_tensor(name)

    def close(self) -> None:
        self._file = None


class _TorchFile:
    def __init__(self, path: Path, kind: Kind) -> None:
        self._tensors = load_archive(path, kind)
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}
        self.dtypes = {name: tensor.dtype for name, tensor in self._tensors.items()}
        self.metadata: dict[str, str] = {}

    def read(self, name: str) -> Tensor:
        return self._tensors[name]

    def close(self) -> None:
        self._tensors = {}


def _common_prefix(names: Mapping[str, Any]) -> str:
    """As many "module." as stand before every name."""
    prefix = ""
    while names and all(name.startswith(f"{prefix}{_WRAPPER_PREFIX}") for name in names):
        prefix += _WRAPPER_PREFIX
    return prefix
