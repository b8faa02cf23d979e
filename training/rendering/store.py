"""A dataset's folder: what is in it, and how an object gets there whole or not at all.

    dataset.json                      how everything here was drawn
    images/<name>/000.png ...         RGBA frames with straight alpha, ring by ring, 16 a ring
    extras/<name>/manifest.json       source, rings; the object is finished if it is there
    extras/<name>/transforms.json     cameras in NeRF's convention
    extras/<name>/depths/000.png ...  16 bits of z-depth     extras/<name>/normals/000.png ...
    skipped.json                      broken meshes and what is wrong with them
    shards/00000.tar ...              the same as WebDataset, if asked for
    .lock                             held by the run that is drawing

Objects are drawn into .unfinished/<name> and then renamed, the extras last.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hi3d_core.atomic_file import replacing

from .plan import AZIMUTHS, Plan
from .sources import Task

_MARK = "hi3d_dataset"  # under which the plan stands, so that a folder is known as ours
_STALE_SECONDS = 3600
_RECORD, _MANIFEST, _SKIPPED = "dataset.json", "manifest.json", "skipped.json"


@dataclass(frozen=True)
class Store:
    """The folder of a dataset that `open_store` has checked."""

    path: Path

    @property
    def shards(self) -> Path:
        return self.path / "shards"

    def images(self, name: str) -> Path:
        return self.path / "images" / name

    def extras(self, name: str) -> Path:
        return self.path / "extras" / name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out, which would draw into the same unfinished objects.

        A run that is killed frees it. Raises ValueError while another run holds it.
        """
        try:
            with FileLock(self.path / ".lock", timeout=0):
                yield
        except Timeout as error:
            raise ValueError(
                f"another run is drawing into {self.path}: wait for it, or share the work by "
                "--workers or --ray"
            ) from error

    def is_finished(self, task: Task) -> bool:
        """Whether an object is there with all its frames.

        Raises ValueError if one of its name was made from something else.
        """
        path = self.extras(task.name) / _MANIFEST
        if not path.is_file():
            return False
        manifest = json.loads(path.read_text("utf-8"))
        if manifest.get("source") != task.source:
            raise ValueError(
                f"{path.parent} was made from {manifest.get('source')}, now {task.source} has its "
                "name: write into another folder"
            )
        frames = list(self.images(task.name).glob("*.png"))
        return len(frames) == AZIMUTHS * len(manifest["elevations"])

    def begin(self, name: str) -> Path:
        """An empty folder to draw an object into; what a killed run left there is removed."""
        folder = self.path / ".unfinished" / name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "images").mkdir(parents=True)
        (folder / "extras").mkdir()
        return folder

    def finish(self, name: str, manifest: dict[str, Any]) -> None:
        """Put an object in place, its manifest last."""
        folder = self.path / ".unfinished" / name
        write_json(folder / "extras" / _MANIFEST, manifest)
        # Without a manifest beside it, a folder of frames is what a killed run left.
        for old in (self.extras(name), self.images(name)):
            if old.exists():
                shutil.rmtree(old)
            old.parent.mkdir(exist_ok=True)
        (folder / "images").replace(self.images(name))
        (folder / "extras").replace(self.extras(name))
        folder.rmdir()

    def give_up(self, name: str) -> None:
        """Remove an object that could not be drawn."""
        shutil.rmtree(self.path / ".unfinished" / name, ignore_errors=True)

    def close(self) -> None:
        """Remove the folder of unfinished objects if nothing is in it."""
        with suppress(OSError):
            (self.path / ".unfinished").rmdir()

    def write_skipped(self, tasks: Sequence[Task], reasons: dict[str, str]) -> None:
        """List the broken ones of this run, and those of earlier runs that it did not try again."""
        path = self.path / _SKIPPED
        tried = {task.name: task.source for task in tasks}
        rows = {}
        if path.is_file():
            earlier = json.loads(path.read_text("utf-8"))["skipped"]
            rows = {row["name"]: row for row in earlier if row["name"] not in tried}
        for name, reason in reasons.items():
            rows[name] = {"name": name, "source": tried[name], "reason": reason}
        with replacing(path) as temporary:
            write_json(temporary, {"skipped": [rows[name] for name in sorted(rows)]})


def open_store(path: Path, plan: Plan) -> Store:
    """Make the folder, or go on in one that a run with the same plan has made.

    Raises ValueError for a file, a folder of other things, or one drawn by another plan (the
    differences are named).
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file: name a folder for the dataset")
    record = path / _RECORD
    _remove_stale(path)
    if record.is_file():
        try:
            earlier = dict(json.loads(record.read_text("utf-8"))[_MARK])
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(
                f"{record} is not of this script's making, or damaged ({error}): choose another "
                "folder"
            ) from error
        differences = plan.differences(earlier)
        if differences:
            raise ValueError(
                f"{path} was drawn otherwise: {'; '.join(differences)}. Give the same settings or "
                "choose another folder"
            )
        return Store(path)
    if path.is_dir() and any(not _is_temporary(each) for each in path.iterdir()):
        raise ValueError(f"{path} holds other things than a dataset: choose another folder")
    path.mkdir(parents=True, exist_ok=True)
    with replacing(record) as temporary:
        write_json(temporary, {_MARK: plan.record()})
    return Store(path)


def _is_temporary(path: Path) -> bool:
    """Whether `atomic_file.replacing` made it, for a file that was never finished."""
    return path.name.startswith(".hi3d-")


def _remove_stale(folder: Path) -> None:
    """Remove what killed runs left, but not what another run may be writing right now."""
    for path in [*folder.glob(".hi3d-*"), *folder.glob("shards/.hi3d-*")]:
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def write_json(path: Path, value: Any) -> None:
    """The same value gives the same bytes."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
