"""The rows of a table: the whole model, the paper's ablations, and guesses without a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """How the frames and the mesh of a row come about.

    title: in tables. refines: with the second stage. sees_depth: the refiner is told the depth of
    the coarse frames; without, the same value everywhere. between: M, views that the splat draws in
    between before the mesh is made.
    """

    title: str
    refines: bool = True
    sees_depth: bool = True
    between: int = 0


MODEL_ROWS = {
    "full": Row("full model"),
    "no-refiner": Row("without the refiner", refines=False),
    "no-depth": Row("refiner without depth", sees_depth=False),
    "m16": Row("full, M = 16 views in between", between=16),
    "m32": Row("full, M = 32", between=32),
    "m48": Row("full, M = 48", between=48),
}
GUESSES = {
    "input": "the input picture, repeated",
    "mean": "mean of training orbits",
    "white": "white",
}
ROWS = (*MODEL_ROWS, *GUESSES)


def check_rows(names: list[str]) -> None:
    """Raise ValueError for a row that there is not."""
    unknown = [name for name in names if name not in ROWS]
    if unknown or not names:
        raise ValueError(
            f"there is no row {', '.join(unknown) or 'given'}: expected some of {', '.join(ROWS)}"
        )


def title_of(name: str) -> str:
    """A row's words in a table."""
    return MODEL_ROWS[name].title if name in MODEL_ROWS else GUESSES[name]
