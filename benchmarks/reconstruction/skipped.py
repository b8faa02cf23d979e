"""Why a method was left out of a run."""

from __future__ import annotations


class Skipped(Exception):
    """A baseline can't run here: something optional is not there. The message says what."""
