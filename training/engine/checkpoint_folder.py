"""Where checkpoints lie: one folder each, whole or not there at all."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

_NAME = re.compile(r"step_(\d+)")
_ASIDE = ".hi3d-"


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after so many steps lies."""
    return folder / f"step_{step:07d}"


def checkpoints_in(folder: Path) -> list[Path]:
    """All checkpoints of a run, the oldest first."""
    if not folder.is_dir():
        return []
    found = [each for each in folder.iterdir() if _NAME.fullmatch(each.name) and each.is_dir()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """How many steps were done, by the name; ValueError if it is no checkpoint's."""
    match = _NAME.fullmatch(checkpoint.name)
    if match is None:
        raise ValueError(f"{checkpoint} is no checkpoint: give a folder named step_0000100")
    return int(match[1])


def write_aside(target: Path, write: Callable[[Path], None]) -> None:
    """Have a folder written beside its place, and put it there only when it is whole.

    Whatever interrupts it leaves nothing at `target`. Raises what `write` raises.
    """
    aside = target.parent / f"{_ASIDE}{secrets.token_hex(8)}"
    aside.mkdir(parents=True)
    try:
        write(aside)
        aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def keep_last(folder: Path, count: int) -> None:
    """Delete all but the last checkpoints."""
    for old in checkpoints_in(folder)[:-count]:
        # First out of sight: a folder that is half deleted is no checkpoint.
        aside = folder / f"{_ASIDE}{secrets.token_hex(8)}"
        old.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Delete what killed runs left half-written; no other run may write there at the time."""
    for left in folder.glob(f"{_ASIDE}*"):
        shutil.rmtree(left, ignore_errors=True)
