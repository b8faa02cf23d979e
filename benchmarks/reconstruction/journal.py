"""The JSON file of runs: one entry for each object, method and settings; resumable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hi3d_core.atomic_file import replacing

Run = dict[str, Any]


class Journal:
    """Runs in a JSON file, which is written whole after each one.

    Each run holds a "task" (what was asked for), "code" (see `machine.code_version`), and what
    came of it. A task is there once: a new run of it takes the old one's place.

    Raises ValueError for a file that is no such journal.
    """

    def __init__(self, path: Path, machine: dict[str, object]) -> None:
        self.path = path
        self.runs: list[Run] = []
        self._machine = machine
        if not path.exists():
            return
        before = read_journal(path)
        if before["machine"] != machine:
            raise ValueError(
                f"{path} holds runs of another machine or other versions ({before['machine']}, "
                f"this is {machine}): name another file with --out, or remove it"
            )
        self.runs = before["runs"]

    def has(self, task: Run, code: str) -> bool:
        """Whether this task was done by this code, and did not fail."""
        return any(
            run["task"] == task and run["code"] == code and "failed" not in run for run in self.runs
        )

    def add(self, run: Run) -> None:
        """Put a run in, in place of an older one of the same task, and write the file."""
        kept = [other for other in self.runs if other["task"] != run["task"]]
        self.runs = sorted([*kept, run], key=lambda each: json.dumps(each["task"]))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": self._machine, "runs": self.runs}, indent=1)
        with replacing(self.path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def read_journal(path: Path) -> dict[str, Any]:
    """{"machine": ..., "runs": [...]} of a file. Raises ValueError if it is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as a benchmark's JSON: {error}") from error
    if not isinstance(data, dict) or not {"machine", "runs"} <= data.keys():
        raise ValueError(f'{path} needs "machine" and "runs", as bench_reconstruction.py writes')
    return data
