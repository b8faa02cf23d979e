"""How much memory there is, and how much was used."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

if sys.platform != "win32":
    import resource


def available_bytes() -> int:
    """Memory that this process could still take, a container's limit included."""
    return min(int(psutil.virtual_memory().available), _left_in_container())


def peak_memory_bytes() -> int:
    """The most memory that this process has held at once so far (resident set)."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def _left_in_container() -> int:
    # Control groups, version 2: psutil tells the machine's memory, not the container's share.
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # no such file, or "max": no limit
        return sys.maxsize
    return max(limit - used, 0)
