"""What a stage learns from, made once and kept in files.

Samples lie in shards of one length. Training passes over all of them again and again, shard by
shard, each in an order of its own; so a second process may still be making the later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from hi3d_core.weights.write import PendingTensor, write_safetensors

from ..seeding import generator_for, sample_seed

Samples = dict[str, Tensor]


class Shards:
    """A row of files, each made when it is first asked for.

    folder: of the files. count: of files. length: samples in each.
    make: number of a file -> its samples, each tensor (length, ...).
    """

    def __init__(
        self, folder: Path, count: int, length: int, make: Callable[[int], Samples]
    ) -> None:
        self.folder, self.count, self.length, self._make = folder, count, length, make
        self.shard = lru_cache(maxsize=2)(self._read)  # a batch may reach over an end

    def path(self, number: int) -> Path:
        """Where a shard lies."""
        return self.folder / f"{number:05d}.safetensors"

    def ensure(self, number: int) -> None:
        """Make a shard if it is missing; a file is whole or not there."""
        path = self.path(number)
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = self._make(number)
        pending = {
            name: PendingTensor(tuple(each.shape), each.dtype, each.contiguous)
            for name, each in samples.items()
        }
        write_safetensors(path, pending)

    def batch(self, seed: int, places: range) -> Samples:
        """The samples at these places of the endless row, stacked."""
        return stack([self._row(seed, place) for place in places])

    def _row(self, seed: int, place: int) -> Samples:
        block, rest = divmod(place, self.length)
        generator = generator_for(sample_seed(seed, block, 0), "order")
        index = torch.randperm(self.length, generator=generator)[rest]
        shard = self.shard(block % self.count)
        return {name: each[index] for name, each in shard.items()}

    def _read(self, number: int) -> Samples:
        """A shard's samples, made if need be."""
        self.ensure(number)
        return load_file(self.path(number))


def stack(rows: Sequence[Samples]) -> Samples:
    """Single samples as a batch."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
