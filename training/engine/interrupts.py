"""Stop between two steps when asked to, by Ctrl-C, a scheduler's SIGTERM or the clock."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Whether to stop, and why. A second Ctrl-C stops at once."""

    def __init__(self, minutes: float | None) -> None:
        self.reason: str | None = None
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def wanted(self) -> bool:
        """Whether to stop after this step."""
        if self.reason is None and self._end is not None and time.monotonic() >= self._end:
            self.reason = "the time is up"
        return self.reason is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals, if this is the main thread, which alone can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kinds = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(kind, self._take) for kind in kinds]
        try:
            yield
        finally:
            for kind, handler in zip(kinds, before, strict=True):
                signal.signal(kind, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.reason = f"stopped by {signal.Signals(number).name}"
