"""Tell how far a bake is, and let it be cancelled in between."""

from __future__ import annotations

from ..datatypes import OnStep


class Progress:
    """Counts steps for an `OnStep`, which may raise to cancel; without one it does nothing."""

    def __init__(self, on_step: OnStep | None, total: int) -> None:
        self._on_step, self._total, self._done = on_step, total, 0

    def step(self) -> None:
        """One more step is done."""
        self._done += 1
        self.alive()

    def alive(self) -> None:
        """No step is done, but it is a good moment to cancel."""
        if self._on_step is not None:
            self._on_step(min(self._done, self._total), self._total)

    def finish(self) -> None:
        """All is done."""
        self._done = self._total
        self.alive()
