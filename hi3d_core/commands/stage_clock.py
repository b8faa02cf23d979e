"""Progress bars and seconds of a command's stages."""

from __future__ import annotations

import time

from tqdm import tqdm

from ..datatypes import OnStep


class StageClock:
    """Progress bars and wall-clock seconds, stage by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name: str | None = None
        self._bar: tqdm | None = None
        self._began = 0.0

    def begin(self, name: str) -> OnStep:
        """End the stage before and start this one; returns its `on_step`."""
        self.end()
        self._name, self._began = name, time.perf_counter()
        bar = self._bar = tqdm(desc=f"{name:>16}", unit="step", leave=True)

        def on_step(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return on_step

    def end(self) -> None:
        """Close the stage under way, if there is one."""
        if self._name is None or self._bar is None:
            return
        seconds = self.seconds.get(self._name, 0.0) + time.perf_counter() - self._began
        self.seconds[self._name] = round(seconds, 3)
        self._bar.close()
        self._name = None
