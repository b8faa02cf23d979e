"""Closed surfaces with evenly dense vertices: a profile times an outline, tubes, implicit shapes.

Lengths are in units of the unfinished object, about 1 across; Y is up. Every solid is closed and
its faces look outward. Vertices stand about `spacing` apart, as they carry the paint.

Letters: N vertices, M faces, S points around, R rings along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import marching_cubes

Field = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Signed distance (negative inside) of points given as broadcastable x, y, z."""

# Marching cubes makes needles where a grid point lies exactly on the surface.
_OFF_GRID = 1.2345e-5


@dataclass(frozen=True, eq=False)
class Solid:
    """A closed surface. points: (N, 3) float64. faces: (M, 3) int64, outward."""

    points: np.ndarray
    faces: np.ndarray

    def normals(self) -> np.ndarray:
        """(N, 3) unit normals, each the mean of its faces weighted by their area."""
        corners = self.points[self.faces]
        crosses = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        index = self.faces.reshape(-1)
        sums = [
            np.bincount(index, weights=np.repeat(crosses[:, k], 3), minlength=len(self.points))
            for k in range(3)
        ]
        normals = np.stack(sums, axis=1)
        return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)

    def moved(self, at: np.ndarray, rotation: np.ndarray) -> Solid:
        """Turned by a (3, 3) rotation, then moved by `at` (3,)."""
        return Solid(self.points @ rotation.T + at, self.faces)

    def stretched(self, factors: tuple[float, float, float]) -> Solid:
        """Scaled along the axes by positive factors."""
        return Solid(self.points * np.array(factors), self.faces)


def swept(outline: np.ndarray, profile: np.ndarray, spacing: float, *, twist: float = 0.0) -> Solid:
    """Stack scaled copies of an outline along Y: lathes, prisms, boxes, cones, spheres.

    outline: (S, 2) corners (x, up) of a polygon around the origin, seen from +Y with up = -Z.
    profile: (R, 2) corners (scale, height); the first and the last scale must be 0, which closes
    the solid. twist: radians that the outline turns from the first ring to the last.
    """
    size = float(np.abs(outline).max())
    around = _resampled(np.vstack([outline, outline[:1]]), spacing / np.abs(profile[:, 0]).max())
    along = _resampled(profile * [size, 1.0], spacing) / [size, 1.0]
    scales, heights = along[1:-1, 0], along[1:-1, 1]
    angles = twist * (heights - heights[0]) / max(float(np.ptp(heights)), 1e-9)
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    x = scales[:, None] * (cosine * around[None, :-1, 0] - sine * around[None, :-1, 1])
    up = scales[:, None] * (sine * around[None, :-1, 0] + cosine * around[None, :-1, 1])
    rings = np.stack([x, np.broadcast_to(heights[:, None], x.shape), -up], axis=-1)
    return _from_rings(rings, (0, along[0, 1], 0), (0, along[-1, 1], 0))


def tube(path: np.ndarray, radii: np.ndarray, spacing: float) -> Solid:
    """A round tube along an open path, closed by flat ends.

    path: (P, 3) points. radii: (P,) positive.
    """
    corners = _resampled(np.hstack([path, radii[:, None]]), spacing)
    centers, widths = corners[:, :3], corners[:, 3]
    tangents = np.gradient(centers, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    # One frame carried along, so that the tube doesn't wring.
    side = np.cross(tangents[0], np.eye(3)[np.abs(tangents[0]).argmin()])
    sides = np.empty_like(tangents)
    for index, tangent in enumerate(tangents):
        side = side - tangent * (side @ tangent)
        side = side / np.linalg.norm(side)
        sides[index] = side
    others = np.cross(tangents, sides)
    count = max(8, int(np.ceil(2 * np.pi * widths.max() / spacing)))
    angles = np.arange(count) * (2 * np.pi / count)
    directions = (
        np.cos(angles)[None, :, None] * sides[:, None]
        + np.sin(angles)[None, :, None] * others[:, None]
    )
    rings = centers[:, None] + widths[:, None, None] * directions
    return _from_rings(rings, centers[0], centers[-1])


def implicit(field: Field, reach: float, spacing: float) -> Solid:
    """The surface where a field is 0, by marching cubes in the cube from -reach to reach."""
    count = int(np.ceil(2 * reach / spacing)) + 3
    axis = (np.arange(count) - (count - 1) / 2) * spacing
    x, y, z = axis[:, None, None], axis[None, :, None], axis[None, None, :]
    values = np.broadcast_to(field(x, y, z), (count,) * 3) + _OFF_GRID
    # Nothing may reach the cube's sides, or the surface would be open there.
    margin = np.maximum(np.maximum(np.abs(x), np.abs(y)), np.abs(z)) - (axis[-1] - 1.5 * spacing)
    values = np.maximum(values, margin + _OFF_GRID)
    values = _largest_part(values)
    vertices, faces, _, _ = marching_cubes(values, 0.0, gradient_direction="ascent")
    points = vertices.astype(np.float64) * spacing + axis[0]
    return _outward(Solid(points, faces.astype(np.int64)))


def _largest_part(values: np.ndarray) -> np.ndarray:
    """Fill everything but the largest connected inside, as a cut may leave crumbs."""
    labels, count = ndimage.label(values < 0)
    if count <= 1:
        return values
    largest = np.bincount(labels.reshape(-1))[1:].argmax() + 1
    return np.where((labels == largest) | (values >= 0), values, np.abs(values))


def _from_rings(rings: np.ndarray, start: object, end: object) -> Solid:
    """Join rings (R, S, 3) to a surface, closed by a point before and one behind them."""
    count, around = rings.shape[:2]
    points = np.vstack([rings.reshape(-1, 3), np.array([start, end], np.float64)])
    index = np.arange(count * around).reshape(count, around)
    after = np.roll(index, -1, axis=1)
    a, b, c, d = (each.reshape(-1) for each in (index[:-1], after[:-1], after[1:], index[1:]))
    first, last = count * around, count * around + 1
    faces = np.concatenate(
        [
            np.stack([a, b, c], axis=1),
            np.stack([a, c, d], axis=1),
            np.stack([np.full(around, first), after[0], index[0]], axis=1),
            np.stack([np.full(around, last), index[-1], after[-1]], axis=1),
        ]
    )
    return _outward(Solid(points, faces))


def _outward(solid: Solid) -> Solid:
    corners = solid.points[solid.faces]
    volume = (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum()
    return solid if volume > 0 else Solid(solid.points, solid.faces[:, ::-1])


def _resampled(corners: np.ndarray, spacing: float) -> np.ndarray:
    """A polyline (P, C) with points at most `spacing` apart; its corners stay."""
    lengths = np.linalg.norm(np.diff(corners[:, :3], axis=0), axis=1)
    counts = np.maximum(1, np.ceil(lengths / spacing).astype(int))
    pieces = [
        corners[i] + (corners[i + 1] - corners[i]) * (np.arange(n) / n)[:, None]
        for i, n in enumerate(counts)
    ]
    return np.vstack([*pieces, corners[-1:]])
