"""Where a run's randomness comes from: one generator for each sample and purpose.

A sample's draws depend on the run's seed, the step and its place in the whole batch, and not on how
many processes share the batch; so a resumed run, or one on more cards, sees the same data.
"""

from __future__ import annotations

import hashlib

import torch


def sample_seed(seed: int, step: int, place: int) -> int:
    """The seed of one sample: `place` counts through the whole batch of a step."""
    return _hashed("sample", seed, step, place)


def generator_for(seed: int, purpose: str) -> torch.Generator:
    """A generator on the CPU for one purpose of a sample, independent of the other purposes.

    So that what one draws, or how often, does not move what another gets.
    """
    return torch.Generator().manual_seed(_hashed(purpose, seed))


def share_of(batch_size: int, rank: int, world: int) -> range:
    """The places in the whole batch that are this process's.

    Raises ValueError for a rank outside 0 to world - 1, or a batch that can't be shared equally:
    then the mean over processes would not be the mean over the batch.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank is {rank}, expected 0 to {world - 1}: there are {world} processes")
    if batch_size % world:
        raise ValueError(
            f"batch_size is {batch_size}, which {world} processes can't share equally: expected a "
            f"multiple of {world}"
        )
    size = batch_size // world
    return range(rank * size, (rank + 1) * size)


def _hashed(purpose: str, *numbers: int) -> int:
    text = ":".join([purpose, *(str(int(number)) for number in numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
