"""What figures depend on: the machine, the versions, and the code that was measured."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import numba
import psutil
import torch

ROOT = Path(__file__).resolve().parents[2]


def machine() -> dict[str, object]:
    """Processor, cores, memory, versions; the same for all runs of one file."""
    found: dict[str, object] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numba", "numpy", "scikit-image", "xatlas")},
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def circumstances() -> dict[str, object]:
    """What may differ from run to run on one machine: threads, and how busy it was."""
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return {"threads": numba.get_num_threads(), "load_at_start": load}


def code_version() -> str:
    """Ten hex digits that change with any source of the library or of these benchmarks.

    A commit would not tell two states of a changed working tree apart.
    """
    sources = [*(ROOT / "hi3d_core").rglob("*.py"), *Path(__file__).parent.glob("*.py")]
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:10]


def commit() -> str:
    """The short hash of the checked out commit, with a plus where the tree has changes."""
    short = _git("rev-parse", "--short", "HEAD")
    return short + "+" if short and _git("status", "--porcelain", "hi3d_core") else short


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:  # no git on this machine
        return ""
    return done.stdout.strip()


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    named = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
