"""Start runs in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .machine import ROOT, commit

Run = dict[str, Any]


def launch(kind: str, limit: float = 1800, **arguments: Any) -> Run:
    """Run a job of `worker.py` in a fresh process; "failed" holds the last line of an error.

    limit: seconds after which it is stopped, and failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        job, result = Path(scratch) / "job.json", Path(scratch) / "result.json"
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in arguments.items()}
        job.write_text(json.dumps({"kind": kind, **plain}), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.reconstruction.worker", str(job), str(result)]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, "OMP_WAIT_POLICY": "passive"},  # as the command line sets it
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {limit:g} seconds"}
        if done.returncode or not result.exists():
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return {"failed": lines[-1]}
        return dict(json.loads(result.read_text(encoding="utf-8")))


def stamped(task: Run, code: str, outcome: Run) -> Run:
    """A journal's entry: what was asked for, of which code and when, and what came of it."""
    today = time.strftime("%Y-%m-%d")
    return {"task": task, "code": code, "commit": commit(), "date": today, **outcome}


def warm_up(folder: Path, quality: str) -> None:
    """Fill numba's cache, so that no run is charged for compiling. Prints what it took."""
    print(f"warming up on {folder.name} (numba compiles into its cache; not timed)", flush=True)
    outcome = launch("warm-up", folder=folder, quality=quality)
    if "failed" in outcome:
        sys.exit(f"the warm-up failed: {outcome['failed']}")
