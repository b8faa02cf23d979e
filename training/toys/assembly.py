"""Parts put together to one object, each painted and placed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .paint import LETTERS, Paint, palette, random_paint, stamp_letter
from .solids import Solid

Place = tuple[float, float, float]


def turned_x(degrees: float) -> np.ndarray:
    """(3, 3) rotation about X, from Y towards Z."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


def turned_y(degrees: float) -> np.ndarray:
    """(3, 3) rotation about Y, from Z towards X."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])


def turned_z(degrees: float) -> np.ndarray:
    """(3, 3) rotation about Z, from X towards Y."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


@dataclass(frozen=True)
class Stamp:
    """A letter on a part. at: (x, y) in the object's frame. size: its height."""

    letter: str
    color: np.ndarray
    at: tuple[float, float]
    size: float
    back: bool = False


@dataclass(eq=False)
class Assembly:
    """A growing object. rng: decides everything. spacing: between vertices, as in `solids`."""

    rng: np.random.Generator
    spacing: float
    points: list[np.ndarray] = field(default_factory=list)
    faces: list[np.ndarray] = field(default_factory=list)
    colors: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.palette = palette(self.rng)
        self.main, self.second, self.accent, self.light, self.dark = self.palette
        self._count = 0

    def add(
        self,
        solid: Solid,
        paint: Paint,
        at: Place = (0.0, 0.0, 0.0),
        rotation: np.ndarray | None = None,
        stamps: tuple[Stamp, ...] = (),
    ) -> None:
        """Paint a solid in its own frame, place it, and stamp it there."""
        colors = paint(solid.points)
        placed = solid.moved(np.array(at), np.eye(3) if rotation is None else rotation)
        if stamps:
            normals = placed.normals()
            for stamp in stamps:
                colors = stamp_letter(
                    placed.points,
                    normals,
                    colors,
                    stamp.letter,
                    stamp.color,
                    at=stamp.at,
                    size=stamp.size,
                    back=stamp.back,
                )
        self.points.append(placed.points)
        self.faces.append(placed.faces + self._count)
        self.colors.append(colors)
        self._count += len(placed.points)

    def paint(self) -> Paint:
        """A random paint in the main colours."""
        pairs = [(self.main, self.light), (self.main, self.second), (self.second, self.light)]
        return random_paint(self.rng, *pairs[self.rng.integers(3)])

    def other_paint(self) -> Paint:
        """A random paint for a second part."""
        pairs = [(self.second, self.dark), (self.light, self.main), (self.accent, self.light)]
        return random_paint(self.rng, *pairs[self.rng.integers(3)])

    def letter(self, at: tuple[float, float], size: float, *, back: bool = False) -> Stamp:
        """A random letter, dark or light."""
        color = self.dark if self.rng.random() < 0.7 else self.light
        return Stamp(str(self.rng.choice(list(LETTERS))), color, at, size, back)

    def both_sides(self, at: tuple[float, float], size: float) -> tuple[Stamp, ...]:
        """A letter in front, and sometimes one behind."""
        front = (self.letter(at, size),)
        return (*front, self.letter(at, size, back=True)) if self.rng.random() < 0.4 else front

    def between(self, low: float, high: float) -> float:
        """A random number."""
        return float(self.rng.uniform(low, high))

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < share)
