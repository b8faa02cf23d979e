"""Seconds of a run, stage by stage."""

from __future__ import annotations

import time

from hi3d_core.datatypes import OnStep


class Clock:
    """An `OnStage` that notes wall-clock seconds; a stage ends where the next one begins."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage: str | None = None
        self._began = 0.0

    def __call__(self, name: str) -> OnStep:
        self.end()
        self._stage, self._began = name, time.perf_counter()
        return lambda done, total: None

    def end(self) -> None:
        """Close the stage under way. Equally named stages add up."""
        if self._stage is not None:
            spent = self.seconds.get(self._stage, 0.0) + time.perf_counter() - self._began
            self.seconds[self._stage] = round(spent, 3)
        self._stage = None
