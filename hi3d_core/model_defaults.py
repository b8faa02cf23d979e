"""What a stage's weights were made for: the side of their frames, and how to sample from them.

The authors' files don't say; files of ours do, in their metadata:

    frame_size   "128"
    sampling     {"steps": 8, "guidance": [1.0, 1.5], "solver": "dpmpp_2m"}    (or fewer)
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from .diffusion.sampling import SOLVERS

Stage = Literal["orbit", "refiner"]

SIZE_KEY, SAMPLING_KEY = "frame_size", "sampling"
_SMALLEST_OFFICIAL = 512  # pixels
_MOST_STEPS, _MOST_GUIDANCE = 1000, 100.0


@dataclass(frozen=True)
class SampleSettings:
    """How one orbit is sampled. size: pixels a side. guidance: at the first and last frame."""

    size: int
    solver: str
    steps: int
    guidance: tuple[float, float]


@dataclass(frozen=True)
class ModelDefaults:
    """What a model recommends.

    frame_size: side in pixels of the frames that it was trained on.
    guidance: scale at the first and at the last frame. solver: a name in `SOLVERS`.
    steps: of that solver; None is the solver's own number.
    """

    frame_size: int
    guidance: tuple[float, float]
    solver: str = "euler"
    steps: int | None = None

    @property
    def is_small(self) -> bool:
        """Whether it is smaller than the authors' models, which saw pictures resized linearly."""
        return self.frame_size < _SMALLEST_OFFICIAL

    def choose(
        self,
        size: int | None = None,
        solver: str | None = None,
        steps: int | None = None,
        guidance: tuple[float, float] | None = None,
    ) -> SampleSettings:
        """What to sample with: what is given, and for None what the model recommends.

        Another solver than the model's has its own number of steps. Raises ValueError for a solver
        that there is not.
        """
        chosen = self.solver if solver is None else solver
        if chosen not in SOLVERS:
            raise ValueError(f"there is no solver {chosen!r}: expected one of {', '.join(SOLVERS)}")
        if steps is None and chosen == self.solver:
            steps = self.steps
        return SampleSettings(
            self.frame_size if size is None else size,
            chosen,
            SOLVERS[chosen].steps if steps is None else steps,
            self.guidance if guidance is None else guidance,
        )

    def to_metadata(self) -> dict[str, str]:
        """As a file of weights keeps it, and `read_defaults` reads it."""
        sampling: dict[str, Any] = {"solver": self.solver, "guidance": list(self.guidance)}
        if self.steps is not None:
            sampling["steps"] = self.steps
        return {SIZE_KEY: str(self.frame_size), SAMPLING_KEY: json.dumps(sampling)}


OFFICIAL: dict[Stage, ModelDefaults] = {
    "orbit": ModelDefaults(512, (1.0, 2.5)),
    "refiner": ModelDefaults(1024, (1.0, 2.0)),
}


def read_defaults(metadata: Mapping[str, str], stage: Stage) -> ModelDefaults | None:
    """What the metadata of a file of ours says; None if it says nothing.

    Raises ValueError, which names the key, for anything but what `to_metadata` could have written.
    """
    if SIZE_KEY not in metadata and SAMPLING_KEY not in metadata:
        return None
    told = _sampling(metadata.get(SAMPLING_KEY, "{}"))
    return replace(OFFICIAL[stage], frame_size=_frame_size(metadata, stage), **told)


def _frame_size(metadata: Mapping[str, str], stage: Stage) -> int:
    text = metadata.get(SIZE_KEY)
    if text is None:
        return OFFICIAL[stage].frame_size
    size = int(text) if re.fullmatch("[1-9][0-9]{1,3}", text) else 0
    if size % 64 or not 64 <= size <= 4096:
        raise ValueError(
            f"{SIZE_KEY} is {text[:40]!r}, expected a multiple of 64 from 64 to 4096, in digits"
        )
    return size


def _sampling(text: str) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{SAMPLING_KEY} is no JSON ({error})") from error
    if not isinstance(told, dict) or not set(told) <= {"steps", "guidance", "solver"}:
        raise ValueError(
            f"{SAMPLING_KEY} is {text[:80]!r}, expected an object with steps, guidance and solver "
            "at most"
        )
    solver, steps, guidance = (told.get(name) for name in ("solver", "steps", "guidance"))
    if solver is not None and (not isinstance(solver, str) or solver not in SOLVERS):
        raise ValueError(f"solver is {solver!r}, expected one of {', '.join(SOLVERS)}")
    if steps is not None and not (type(steps) is int and 1 <= steps <= _MOST_STEPS):
        raise ValueError(f"steps is {steps!r}, expected a whole number from 1 to {_MOST_STEPS}")
    if guidance is not None:
        if not (isinstance(guidance, list) and len(guidance) == 2 and all(map(_scale, guidance))):
            raise ValueError(
                f"guidance is {guidance!r}, expected two numbers from 0 to {_MOST_GUIDANCE:g}: at "
                "the first and at the last frame"
            )
        told["guidance"] = (float(guidance[0]), float(guidance[1]))
    return {name: value for name, value in told.items() if value is not None}


def _scale(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value <= _MOST_GUIDANCE
