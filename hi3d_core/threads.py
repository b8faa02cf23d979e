"""Keep torch's threads out of the way of numba's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Run torch on one thread inside, and restore the setting after.

    Torch's OpenMP workers spin for a while after each operation; in a loop that alternates
    between torch and numba they take the cores that numba's kernels want.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
