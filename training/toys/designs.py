"""Families of toys. Each takes an empty `Assembly` and fills it; the front looks towards +Z.

Sizes are rough: the finished object is scaled to the unit cube. Parts overlap instead of sharing
faces, since coinciding faces would flicker.
"""

from __future__ import annotations

from collections.abc import Callable

from .assembly import Assembly
from .blocks import carved, emblem, heap, vessel
from .creatures import animal, figure
from .things import furniture, house, rocket, tree, vehicle

Design = Callable[[Assembly], None]

# A toy is one of these by its seed, so another order makes other toys; what stands twice is made
# twice as often.
DESIGNS: tuple[Design, ...] = (
    figure, vessel, emblem, carved, house, vehicle,
    animal, rocket, furniture, tree, heap, carved,
)  # fmt: skip
