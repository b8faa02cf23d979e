"""Read a network's settings off the shapes of a checkpoint's tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]


def shape_of(shapes: Shapes, name: str, network: str) -> tuple[int, ...]:
    """The shape of one tensor.

    network: in words, for the message. Raises ValueError if the tensor is missing.
    """
    if name not in shapes:
        raise ValueError(
            f"{name} is missing, which tells the {network}'s settings: this may be another "
            "network, or an incomplete copy"
        )
    return tuple(shapes[name])


def count_indices(shapes: Shapes, pattern: str) -> int:
    """How many numbers the pattern's one group takes at the beginning of the names."""
    return len({found[1] for found in (re.match(pattern, name) for name in shapes) if found})
