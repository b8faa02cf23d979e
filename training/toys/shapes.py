"""Outlines, profiles and signed distances from which designs make their solids."""

from __future__ import annotations

import numpy as np

from .solids import Field, Solid, swept


def circle(radius: float = 1.0, corners: int = 48) -> np.ndarray:
    """(corners, 2) points of a regular polygon, a circle if there are many."""
    angles = np.arange(corners) * (2 * np.pi / corners) + np.pi / 2
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def rectangle(width: float, depth: float) -> np.ndarray:
    """(4, 2) corners."""
    return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, depth / 2]


def rounded(width: float, depth: float, power: float = 4.0) -> np.ndarray:
    """(48, 2) superellipse: power 2 is an ellipse, a large one nearly a rectangle."""
    unit = circle()
    bent = np.sign(unit) * np.abs(unit) ** (2 / power)
    return bent * [width / 2, depth / 2]


def star(points: int, inner: float) -> np.ndarray:
    """(2 points, 2) corners, the tips at radius 1."""
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return circle(corners=2 * points) * radii[:, None]


def gear(teeth: int, depth: float) -> np.ndarray:
    """(4 teeth, 2) corners with square teeth up to radius 1."""
    radii = np.where(np.arange(4 * teeth) % 4 < 2, 1.0, 1 - depth)
    return circle(corners=4 * teeth) * radii[:, None]


def flower(petals: int, depth: float) -> np.ndarray:
    """(96, 2) wavy circle of radius 1."""
    angles = np.arange(96) * (2 * np.pi / 96)
    return circle(corners=96) * (1 - depth * (0.5 - 0.5 * np.cos(petals * angles)))[:, None]


def heart() -> np.ndarray:
    """(64, 2) heart about 1 in radius."""
    t = np.arange(64) * (2 * np.pi / 64)
    x = 16 * np.sin(t) ** 3
    up = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([-x, up], axis=1) / 16.0


def ball_profile(radius: float = 1.0, rings: int = 16) -> np.ndarray:
    """(rings + 1, 2) half circle from the bottom to the top."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)
    profile = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    profile[[0, -1], 0] = 0
    return profile


def slab_profile(height: float, bevel: float = 0.0, top: float = 1.0) -> np.ndarray:
    """A prism's profile from -height/2 to height/2; `bevel` is a share of the outline's size.

    top: scale at the upper end (0 is a pyramid or cone).
    """
    half = height / 2
    if bevel <= 0:
        middle = [[1.0, -half], [top, half]] if top > 0 else [[1.0, -half]]
    else:
        step = min(bevel, 0.4 * half)
        middle = [
            [1 - bevel, -half],
            [1, -half + step],
            [top, half - step],
            [max(top - bevel, 0.02), half],
        ]
    return np.array([[0.0, -half], *middle, [0.0, half]])


def ball(radius: float, spacing: float) -> Solid:
    """A sphere about the origin."""
    return swept(circle(radius), ball_profile() * [1.0, radius], spacing)


def box(width: float, height: float, depth: float, spacing: float, bevel: float = 0.0) -> Solid:
    """A box about the origin, x by y by z."""
    return swept(rectangle(width, depth), slab_profile(height, bevel), spacing)


def cylinder(radius: float, height: float, spacing: float, *, top: float = 1.0) -> Solid:
    """A cylinder, or with `top` below 1 a cone, about the origin, along Y."""
    return swept(circle(radius), slab_profile(height, 0.0, top), spacing)


def ball_field(center: np.ndarray, radius: float) -> Field:
    """Signed distance of a sphere."""
    cx, cy, cz = center
    return lambda x, y, z: np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) - radius


def box_field(center: np.ndarray, half: np.ndarray, rounding: float) -> Field:
    """Signed distance of a box with rounded edges (`half` includes them)."""
    (cx, cy, cz), (hx, hy, hz) = center, np.asarray(half) - rounding

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        dx, dy, dz = np.abs(x - cx) - hx, np.abs(y - cy) - hy, np.abs(z - cz) - hz
        outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2 + np.maximum(dz, 0) ** 2)
        return outside + np.minimum(np.maximum(dx, np.maximum(dy, dz)), 0) - rounding

    return distance


def rod_field(center: np.ndarray, axis: int, radius: float, half: float) -> Field:
    """Signed distance (a bound near the rims) of a cylinder along x, y or z."""

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        local = [x - center[0], y - center[1], z - center[2]]
        along = local.pop(axis)
        return np.maximum(np.sqrt(local[0] ** 2 + local[1] ** 2) - radius, np.abs(along) - half)

    return distance


def ring_field(center: np.ndarray, axis: int, radius: float, thickness: float) -> Field:
    """Signed distance of a torus around x, y or z."""

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        local = [x - center[0], y - center[1], z - center[2]]
        along = local.pop(axis)
        return np.hypot(np.sqrt(local[0] ** 2 + local[1] ** 2) - radius, along) - thickness

    return distance


def joined(a: Field, b: Field, softness: float) -> Field:
    """Union, blended over `softness` (above 0)."""

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        first, second = a(x, y, z), b(x, y, z)
        blend = np.maximum(softness - np.abs(first - second), 0) / softness
        return np.minimum(first, second) - blend**2 * softness / 4

    return distance


def without(a: Field, b: Field) -> Field:
    """Difference: a where b is not."""
    return lambda x, y, z: np.maximum(a(x, y, z), -b(x, y, z))


def within(a: Field, b: Field) -> Field:
    """Intersection."""
    return lambda x, y, z: np.maximum(a(x, y, z), b(x, y, z))
