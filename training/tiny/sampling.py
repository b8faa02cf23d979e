"""How a stage of the small model should be sampled, as its file tells the library."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Sampling:
    """steps, solver, guidance: as in `OrbitConfig` and `RefineConfig`."""

    steps: int = 4
    solver: str = "euler"
    guidance: tuple[float, float] = (1.0, 1.0)

    def metadata(self, size: int) -> dict[str, str]:
        """What the weights' file says: the side it was trained at, and these settings."""
        return {"frame_size": str(size), "sampling": json.dumps(asdict(self))}
