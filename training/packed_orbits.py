"""Objects in tar files, as `rendering/shards.py` packs them, read in any order.

The WebDataset package reads such files from front to back and mixes in a buffer. Here every sample
is decided by seed and step alone, so that a run resumes exactly, and that wants any frame at any
time: plain tars allow it, as their members lie uncompressed at known places. These places are
listed once and kept beside the tars (`index.json`), where that can be written.
"""

from __future__ import annotations

import io
import json
import logging
import tarfile
from dataclasses import dataclass
from pathlib import Path

from hi3d_core.atomic_file import replacing

_log = logging.getLogger(__name__)

INDEX = "index.json"
Places = dict[str, tuple[int, int]]
"""Where members of a tar lie: first byte and how many, by name."""


@dataclass(frozen=True)
class PackedFile:
    """One member of a tar: it reads like a file."""

    tar: Path
    name: str
    start: int
    size: int

    @property
    def stem(self) -> str:
        """Its name within its object, without the suffix: "003"."""
        return self.name.split(".")[1]

    def read_bytes(self) -> bytes:
        """What is in it. Raises OSError if the tar can't be read."""
        with self.tar.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)

    def open(self) -> io.BytesIO:
        """It as a file in memory."""
        return io.BytesIO(self.read_bytes())

    def __str__(self) -> str:
        return f"{self.name} in {self.tar}"


def is_packed(folder: Path) -> bool:
    """Whether a folder holds tars of objects."""
    return any(folder.glob("*.tar"))


def packed_objects(folder: Path) -> dict[str, list[PackedFile]]:
    """The files of each object in a folder's tars, by the object's name, both in order.

    Raises ValueError for a tar that can't be read, naming it, and an object in two tars.
    """
    found: dict[str, list[PackedFile]] = {}
    homes: dict[str, Path] = {}
    for tar, places in _index(folder).items():
        for name, (start, size) in places.items():
            owner = name.split(".")[0]
            if homes.setdefault(owner, tar) != tar:
                raise ValueError(
                    f"the object {owner} lies in {homes[owner].name} and in {tar.name} of "
                    f"{folder}: remove one of them"
                )
            found.setdefault(owner, []).append(PackedFile(tar, name, start, size))
    return {
        owner: sorted(files, key=lambda file: file.name) for owner, files in sorted(found.items())
    }


def _index(folder: Path) -> dict[Path, Places]:
    """The places in all tars, from the kept index where a tar is as it was."""
    kept = _kept(folder / INDEX)
    index, told, is_new = {}, {}, False
    for tar in sorted(folder.glob("*.tar")):
        status = tar.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        entry = kept.get(tar.name)
        if entry is None or entry["stamp"] != stamp:
            entry, is_new = {"stamp": stamp, "places": _listed(tar)}, True
        told[tar.name] = entry
        index[tar] = {name: (place[0], place[1]) for name, place in entry["places"].items()}
    if is_new or set(kept) != set(told):
        try:
            with replacing(folder / INDEX) as temporary:
                temporary.write_text(json.dumps(told), encoding="utf-8")
        except (OSError, ValueError) as error:  # listed anew by the next run
            _log.info("the index of %s is not kept: %s", folder, error)
    return index


def _kept(path: Path) -> dict[str, dict]:
    """The index of an earlier run; nothing if there is none, or not of our making."""
    try:
        kept = json.loads(path.read_text("utf-8"))
        for entry in kept.values():
            for start, size in entry["places"].values():
                if not (type(start) is int and type(size) is int and start >= 0 and size >= 0):
                    return {}
            entry["stamp"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    return kept


def _listed(path: Path) -> Places:
    try:
        with tarfile.open(path, "r:") as tar:  # compressed ones allow no reading in any order
            return {each.name: (each.offset_data, each.size) for each in tar if each.isfile()}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} can't be read as a plain tar ({error}): pack the dataset again"
        ) from error
