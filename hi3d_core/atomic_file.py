"""Write files so that an interrupted write never leaves a broken or half-written one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, renamed onto it only if the block succeeds.

    The temporary file keeps the suffix, since writers choose the format by it. On any error or
    interrupt it is removed and what was at `path` before is untouched.

    Raises ValueError if the folder does not exist or can't be written to.
    """
    path = Path(path)
    check_writable(path)
    temporary = path.with_name(f".hi3d-{secrets.token_hex(8)}{path.suffix}")
    # Not tempfile's: its files are readable by their owner alone, and a product should have the
    # usual mode.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def check_writable(path: str | Path) -> None:
    """Refuse an output path early, before minutes of work; ValueError says why."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file to write")
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist: make it first")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ValueError(f"no permission to write {path}: choose another place")
