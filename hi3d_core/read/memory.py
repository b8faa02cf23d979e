"""Refuse pictures that won't fit into memory, before allocating for them."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

# What reading and keying hold at their peak for each pixel of each view, in bytes: colours and
# alpha as float32, once as read and once composited, and what the conversion to torch keeps.
_BYTES_PER_PIXEL = 40


def check_memory(views: int, width: int, height: int, name: str) -> None:
    """Raise ValueError if `views` pictures of this size need more memory than is available.

    The message says how much is needed and there, and what to do. Where the system does not tell
    how much is available nothing is refused.
    """
    needed = views * width * height * _BYTES_PER_PIXEL
    available = available_bytes()
    if available is not None and needed > available:
        raise ValueError(
            f"{name}: {views} frames of {width} x {height} pixels need about "
            f"{needed / 2**30:.1f} GiB of memory, {available / 2**30:.1f} GiB are available: "
            "scale the frames down (max_size) or use fewer of them (max_views)"
        )


def available_bytes() -> int | None:
    """Memory that this process could still take, or None where the system does not tell."""
    if sys.platform == "win32":
        return _available_on_windows()
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return min(int(line.split()[1]) * 1024, _left_in_container())
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _left_in_container() -> int:
    # A container's limit (control groups, version 2) may be far below the machine's memory.
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # no such file, or "max": no limit
        return sys.maxsize
    return max(limit - used, 0)


def _available_on_windows() -> int | None:
    class MemoryStatus(ctypes.Structure):
        _fields_ = [
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            ("total", ctypes.c_ulonglong),
            ("available", ctypes.c_ulonglong),
            ("rest", ctypes.c_ulonglong * 5),
        ]

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 (exists on Windows only)
    if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.available)
