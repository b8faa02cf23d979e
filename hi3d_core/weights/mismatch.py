"""The error for a checkpoint that can be read and does not hold what is wanted."""

from __future__ import annotations


class CheckpointMismatch(ValueError):
    """A checkpoint's tensors are not those that are needed: some lack, or have other shapes."""
