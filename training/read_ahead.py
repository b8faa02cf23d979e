"""Batches read in the background while the step before them is computed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")

_Key = tuple[int, int, int]


class ReadAhead(Generic[Item]):
    """Asks for step n + 1 as soon as step n is given out.

    read: (step, rank, world) -> what is read; the same whenever and by whomever it is called.
    """

    def __init__(self, read: Callable[[int, int, int], Item]) -> None:
        self._read = read
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._waiting: dict[_Key, Future[Item]] = {}

    def get(self, step: int, rank: int, world: int) -> Item:
        """What `read` gives; errors are raised here."""
        waiting = self._waiting.pop((step, rank, world), None)
        # What was read for another course of the training is of no use.
        for key in [key for key in self._waiting if key[0] not in (step, step + 1)]:
            self._waiting.pop(key).cancel()
        found = self._read(step, rank, world) if waiting is None else waiting.result()
        following = (step + 1, rank, world)
        if following not in self._waiting:
            self._waiting[following] = self._pool.submit(self._read, *following)
        return found
