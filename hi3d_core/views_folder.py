"""A folder that keeps the orbits of a run, stage by stage, so that a later run goes on from there.

    settings.json                  what each stage was made from
    picture.png                    what the networks were shown, for the eye
    orbit/000.png ... 015.png      stage 1
    refined/000.png ... 015.png    stage 2

A stage's folder is there only when it is complete: frames are written into a hidden folder beside,
which is then renamed. Frames are read back from the pictures, so that they may be retouched.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor

from .export.checks import to_bytes
from .read.pictures import read_picture

StageName = Literal["orbit", "refined"]
STAGES: tuple[StageName, ...] = ("orbit", "refined")  # in the order in which they are made
FRAMES = 16
PICTURE_NAME = "picture.png"

_SETTINGS = "settings.json"
_MARK = "hi3d_views"  # under which the records stand, so that they are known as ours
_NAMES = tuple(f"{index:03d}.png" for index in range(FRAMES))
_TEMPORARY = re.compile(r"\.hi3d-views-(\d{1,9})-[0-9a-f]{16}")
_BY_SYSTEM = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # that file managers leave


@dataclass(frozen=True)
class ViewsFolder:
    """Where the stages of one run are kept.

    path: the folder; it is made when the first stage is done. overwrite: stages that were made from
    other settings are made again, instead of refused.

    What killed runs left behind is removed. Nothing else is, nor overwritten, that no run has made.

    Raises ValueError if the path is a file, its parent is not there, it can't be written to, or
    it holds files of these names that are not such a run's.
    """

    path: Path
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file: name a folder to keep the views in")
        if not self.path.parent.is_dir():
            raise ValueError(f"the folder {self.path.parent} does not exist: make it first")
        nearest = self.path if self.path.exists() else self.path.parent
        if not os.access(nearest, os.W_OK):
            raise ValueError(f"no permission to write into {nearest}: choose another folder")
        _remove_stale(self.path)
        if not self._records() and (self.path / PICTURE_NAME).exists():
            raise ValueError(
                f"{self.path / PICTURE_NAME} is not of this command's making and would be "
                "overwritten: move it away or choose another folder"
            )

    def is_done(self, stage: StageName, settings: Mapping[str, Any]) -> bool:
        """Whether a stage is there, made from these settings.

        settings: plain values; one that is None is not compared. A stage that was made from others
        raises ValueError, which names them, or counts as not done if it may be overwritten.
        Raises ValueError too for a folder of the stage's name that no run has made, and before
        overwriting one that holds other things than frames.
        """
        folder = self.path / stage
        if not folder.exists():
            return False
        record = self._records().get(stage)
        if record is None:
            raise ValueError(
                f"{folder} was not made by this command ({self.path / _SETTINGS} says nothing of "
                "it): choose another folder"
            )
        differences = _differences(record, settings)
        missing = [name for name in _NAMES if not (folder / name).is_file()]
        if not differences and not missing:
            return True
        if not self.overwrite:
            if differences:
                raise ValueError(
                    f"{folder} was made from other settings: {'; '.join(differences)}. Give the "
                    "same ones, choose another folder, or let it be made again (--overwrite)"
                )
            raise ValueError(
                f"{folder} lacks {', '.join(missing)}: put them back, choose another folder, or "
                "let it be made again (--overwrite)"
            )
        for later in STAGES[STAGES.index(stage) :]:
            self._check_only_frames(later)
        return False

    def record(self, stage: StageName) -> dict[str, Any]:
        """What a stage that is done was made from."""
        return dict(self._records()[stage])

    def read(self, stage: StageName) -> Tensor:
        """The frames of a stage that is done, (16, S, S, 3) float32 in multiples of 1/255.

        Transparent parts of retouched frames are filled with white.
        Raises ValueError for frames that can't be read, are no squares or differ in size.
        """
        frames = [_on_white(read_picture(self.path / stage / name)) for name in _NAMES]
        sizes = {(frame.shape[1], frame.shape[0]) for frame in frames}
        if len(sizes) > 1 or any(width != height for width, height in sizes):
            listed = ", ".join(f"{width} x {height}" for width, height in sorted(sizes))
            raise ValueError(
                f"the frames in {self.path / stage} are {listed} pixels: expected squares of one "
                "size"
            )
        return as_stored(torch.from_numpy(np.stack(frames)))

    def write(
        self,
        stage: StageName,
        frames: Tensor,
        settings: Mapping[str, Any],
        picture: Tensor | None = None,
    ) -> None:
        """Keep a stage and what it was made from; it appears whole or not at all.

        frames: (16, S, S, 3) in [0, 1]. picture: the prepared input picture (S, S, 3), kept to look
        at and not read back. If stages may be overwritten, this one is replaced, and later ones,
        which were made from it, are removed.

        Raises ValueError for another number of frames, and for folders that hold other things.
        """
        if frames.ndim != 4 or len(frames) != FRAMES or frames.shape[-1] != 3:
            raise ValueError(f"frames is {tuple(frames.shape)}, expected ({FRAMES}, S, S, 3)")
        replaced = STAGES[STAGES.index(stage) :] if self.overwrite else (stage,)
        for name in replaced:
            self._check_only_frames(name)
        kept = {name: record for name, record in self._records().items() if name not in replaced}
        records = {_MARK: {**kept, stage: dict(settings)}}
        with self._temporary() as temporary:
            new = temporary / stage
            new.mkdir()
            for file_name, frame in zip(_NAMES, frames, strict=True):
                Image.fromarray(to_bytes(frame)).save(new / file_name)
            (temporary / _SETTINGS).write_text(json.dumps(records, indent=2) + "\n", "utf-8")
            # A record without its folder says nothing, a folder with another's record would lie:
            # so old folders go first and the new one comes last.
            for name in replaced:
                if (self.path / name).exists():
                    (self.path / name).replace(temporary / f"old-{name}")
            (temporary / _SETTINGS).replace(self.path / _SETTINGS)
            if picture is not None:
                Image.fromarray(to_bytes(picture)).save(temporary / PICTURE_NAME)
                (temporary / PICTURE_NAME).replace(self.path / PICTURE_NAME)
            new.replace(self.path / stage)

    def _records(self) -> dict[str, Any]:
        path = self.path / _SETTINGS
        if not path.exists():
            return {}
        try:
            records = json.loads(path.read_text("utf-8"))[_MARK]
            if not all(isinstance(records[name], dict) for name in records):
                raise TypeError("it holds something else")
        except (ValueError, OSError, LookupError, TypeError) as error:
            raise ValueError(
                f"{path} is not of this command's making, or damaged ({error}): choose another "
                "folder"
            ) from error
        return records

    def _check_only_frames(self, stage: StageName) -> None:
        """Refuse to replace a folder that holds anything but what a run wrote into it."""
        folder = self.path / stage
        if not folder.exists():
            return
        held = {each.name for each in folder.iterdir()} if folder.is_dir() else {stage}
        others = held - set(_NAMES) - _BY_SYSTEM
        if others or stage not in self._records():
            what = ", ".join(sorted(others)[:4]) or "what this command didn't write"
            raise ValueError(
                f"{folder} holds {what}, which would be lost: move it away or choose another folder"
            )

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A hidden folder inside, removed at the end whatever happens."""
        # Inside, as what is beside may be another file system, across which nothing moves.
        is_new = not self.path.exists()
        self.path.mkdir(exist_ok=True)
        temporary = self.path / f".hi3d-views-{os.getpid()}-{secrets.token_hex(8)}"
        try:
            temporary.mkdir()
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if is_new and not any(self.path.iterdir()):
                self.path.rmdir()


def as_stored(frames: Tensor) -> Tensor:
    """Frames as they come back from 8-bit files: a run that goes on equals one without a break."""
    return torch.from_numpy(to_bytes(frames)).float() / 255


def frames_digest(frames: Tensor) -> str:
    """16 hexadecimal digits that change when any pixel changes by a level."""
    pixels = to_bytes(frames)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:16]


def _differences(record: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    plain = json.loads(json.dumps(dict(settings)))
    return [
        f"{name.replace('_', ' ')} was {record.get(name)}, now {value}"
        for name, value in plain.items()
        if value is not None and record.get(name) != value
    ]


def _remove_stale(folder: Path) -> None:
    """Remove hidden folders of runs that are no more."""
    if not folder.is_dir():
        return
    for each in folder.iterdir():
        match = _TEMPORARY.fullmatch(each.name)
        # In containers process numbers repeat, so our own may be a predecessor's.
        if match and (int(match[1]) == os.getpid() or not psutil.pid_exists(int(match[1]))):
            shutil.rmtree(each, ignore_errors=True)


def _on_white(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[2] == 3:
        return pixels
    alpha = pixels[..., 3:]
    return pixels[..., :3] * alpha + (1 - alpha)
