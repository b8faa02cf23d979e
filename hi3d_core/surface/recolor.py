"""Colours for a surface that was moved as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .consistency import Sightings, projected_colors
from .field import Field
from .hull import FloatArray

Refit = Callable[[Field, int], Iterator[int]]
"""Fits a field in place for so many iterations; yields after each."""

COLORING_ITERATIONS = 12  # enough for colours, and to know what is seen


def in_views_colors(field: Field, sdf: FloatArray, sightings: Sightings) -> Field:
    """A surface on a field's grid in the views' colours, on which no fit has ended a ray yet."""
    unseen = np.zeros_like(field.seen)
    return Field(field.grid, sdf.copy(), projected_colors(sdf, sightings), unseen)


def recolored(field: Field, sdf: FloatArray, sightings: Sightings, refit: Refit) -> Iterator[Field]:
    """Give a surface colours by a short fit, which leaves its shape as it is.

    Yields COLORING_ITERATIONS times: `field` while it is fitted, at last the new one. The shape
    stays, as walls of few voxels would take colours of both their sides for a reason to move.
    """
    moved = in_views_colors(field, sdf, sightings)
    for iteration in refit(moved, COLORING_ITERATIONS):
        if iteration < COLORING_ITERATIONS:
            yield field
    moved.sdf = sdf.copy()
    yield moved
