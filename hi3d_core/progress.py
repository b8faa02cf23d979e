"""Tell how far a long work is, and let it be cancelled in between."""

from __future__ import annotations

from .datatypes import OnStep


class Progress:
    """Counts steps for an `OnStep`, which may raise to cancel; without one it does nothing."""

    def __init__(self, on_step: OnStep | None, total: int) -> None:
        self._on_step, self._total, self._done = on_step, total, 0

    def step(self) -> None:
        """One more step is done."""
        self.reach(self._done + 1)

    def reach(self, done: int) -> None:
        """So many steps are done."""
        self._done = done
        self.alive()

    def part(self) -> OnStep:
        """For a part of the work that tells of its own steps, from here on."""
        before = self._done
        return lambda done, total: self.reach(before + done)

    def alive(self) -> None:
        """No step is done, but it is a good moment to cancel."""
        if self._on_step is not None:
            self._on_step(min(self._done, self._total), self._total)

    def finish(self) -> None:
        """All is done."""
        self.reach(self._total)
