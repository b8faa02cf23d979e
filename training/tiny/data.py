"""The toys' pictures: drawn once, into folders as `render_dataset.py` writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..dataset import OrbitDataset
from ..render_dataset import render_dataset
from ..rendering.plan import Plan
from .settings import TinyData

_AT_ONCE = 50  # toys between two looks at the clock


@dataclass(frozen=True)
class Drawn:
    """One folder of toys.

    first, count: their seeds. plan: how they are drawn.
    """

    name: str
    first: int
    count: int
    plan: Plan


def folders(data: TinyData) -> dict[str, Drawn]:
    """What there is to draw, by the folders' names.

    The toys of different folders differ, so that no network is trained on what another one was.
    """

    def plan(size: int, spacing: float, *, geometry: bool = False) -> Plan:
        return Plan(
            elevations=None, size=size, supersample=2, geometry=geometry, toy_spacing=spacing
        )

    depth_size = max(32, int(data.refiner_size / 2.6666 / 32) * 32)
    each = (
        Drawn("orbits", data.first, data.orbits, plan(data.orbit_size, 0.024)),
        Drawn("refined", 100_000 + data.first, data.refined, plan(data.refiner_size, 0.016)),
        Drawn("depth", 200_000 + data.first, data.depth, plan(depth_size, 0.024, geometry=True)),
        Drawn("shown", 900_000, data.shown, plan(data.refiner_size, 0.016)),
    )
    return {drawn.name: drawn for drawn in each}


def draw(drawn: Drawn, folder: Path, workers: int, up: Callable[[], bool]) -> bool:
    """Draw what is missing; whether all is there. up: whether to stop.

    folder: the datasets' parent.
    """
    target = folder / drawn.name
    for start in range(drawn.first, drawn.first + drawn.count, _AT_ONCE):
        last = min(start + _AT_ONCE, drawn.first + drawn.count) - 1
        if (target / "extras" / f"toy-{last:07d}" / "manifest.json").exists():
            continue
        if up():
            return False
        render_dataset(f"toys:{start}-{last}", target, drawn.plan, workers=workers)
    return True


def dataset(drawn: Drawn, folder: Path, size: int, most: int | None = None) -> OrbitDataset:
    """Read a folder's toys at another side."""
    return OrbitDataset(
        folder / drawn.name, size, resolution=drawn.plan.size, most=most or drawn.count
    )
