"""Paints: colours of surface points by their position, and stamps laid over them.

A paint maps points (N, 3) of a part, in its own frame before it is placed, to sRGB colours (N, 3)
in [0, 1]. Edges between colours are softened over `EDGE`, as vertices can't be sharper.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Paint = Callable[[np.ndarray], np.ndarray]

EDGE = 0.012
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789&?!#*"
_LETTER_SIZE = 64  # pixels
_LATTICE = 12  # random numbers a side of the noise's period
_FACING = 0.3  # cosine from which on a stamp takes


def palette(rng: np.random.Generator) -> np.ndarray:
    """(5, 3) colours that go together: two main ones, an accent, a light and a dark one."""
    hue = rng.random()
    step = rng.choice([0.08, 0.33, 0.5, 0.58])
    rich = rng.uniform(0.55, 0.95)
    rows = [
        (hue, rich, rng.uniform(0.55, 0.9)),
        (hue + step, rng.uniform(0.4, 0.9), rng.uniform(0.5, 0.95)),
        (hue + rng.uniform(0.3, 0.7), 0.85, 0.9),
        (hue + rng.uniform(-0.1, 0.1), rng.uniform(0.05, 0.2), rng.uniform(0.86, 0.94)),
        (hue + step, rng.uniform(0.3, 0.6), rng.uniform(0.14, 0.3)),
    ]
    return np.array([colorsys.hsv_to_rgb(h % 1.0, s, v) for h, s, v in rows])


def flat(color: np.ndarray) -> Paint:
    """One colour."""
    return lambda points: np.broadcast_to(color, points.shape).copy()


def _mixed(share: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first + (second - first) * share[:, None]


def _square_wave(t: np.ndarray, period: float) -> np.ndarray:
    """0 and 1 by turns, each for half a period, with soft edges."""
    triangle = np.abs(np.mod(t / period, 1.0) - 0.5) - 0.25  # in periods, 0 at the edges
    return np.clip(triangle * period / EDGE + 0.5, 0, 1)


def stripes(direction: np.ndarray, period: float, first: np.ndarray, second: np.ndarray) -> Paint:
    """Plane stripes across a unit direction."""
    return lambda points: _mixed(_square_wave(points @ direction, period), first, second)


def checks(period: float, first: np.ndarray, second: np.ndarray, phase: float) -> Paint:
    """Cubes of two colours by turns."""

    def paint(points: np.ndarray) -> np.ndarray:
        waves = 2 * _square_wave(points + phase, period) - 1
        return _mixed(0.5 + 0.5 * waves.prod(axis=1), first, second)

    return paint


def sectors(count: int, first: np.ndarray, second: np.ndarray) -> Paint:
    """Wedges around the Y axis."""

    def paint(points: np.ndarray) -> np.ndarray:
        angle = np.arctan2(points[:, 0], points[:, 2])
        wave = np.sin(count * angle) * np.hypot(points[:, 0], points[:, 2]) / (count * EDGE)
        return _mixed(np.clip(0.5 + wave, 0, 1), first, second)

    return paint


def dots(rng: np.random.Generator, cell: float, first: np.ndarray, second: np.ndarray) -> Paint:
    """Balls of the second colour, one in each cell of a shifted grid."""
    shift = rng.random(3)
    radius = rng.uniform(0.28, 0.42) * cell

    def paint(points: np.ndarray) -> np.ndarray:
        inside = np.mod(points / cell + shift, 1.0) - 0.5
        distance = np.linalg.norm(inside, axis=1) * cell
        return _mixed(np.clip((radius - distance) / EDGE + 0.5, 0, 1), first, second)

    return paint


def _noise(rng: np.random.Generator, period: float) -> Callable[[np.ndarray], np.ndarray]:
    """Smooth random numbers in [0, 1] over space, two octaves."""
    lattice = rng.random((_LATTICE,) * 3)
    shift = rng.uniform(0, _LATTICE, 3)

    def value(points: np.ndarray) -> np.ndarray:
        total = np.zeros(len(points))
        for octave, weight in ((1.0, 0.7), (2.1, 0.3)):
            at = points * (octave / period) + shift
            base = np.floor(at)
            at = base + (at - base) ** 2 * (3 - 2 * (at - base))  # no creases at lattice planes
            total += weight * ndimage.map_coordinates(lattice, at.T, order=1, mode="grid-wrap")
        return np.clip((total - 0.5) * 1.6 + 0.5, 0, 1)

    return value


def clouds(rng: np.random.Generator, period: float, first: np.ndarray, second: np.ndarray) -> Paint:
    """Soft noise between two colours."""
    noise = _noise(rng, period)
    return lambda points: _mixed(noise(points), first, second)


def patches(
    rng: np.random.Generator, period: float, first: np.ndarray, second: np.ndarray
) -> Paint:
    """Sharp blots, as on a cow."""
    noise = _noise(rng, period)
    return lambda points: _mixed(
        np.clip((noise(points) - 0.5) * period / (3 * EDGE) + 0.5, 0, 1), first, second
    )


def grain(rng: np.random.Generator, period: float, first: np.ndarray, second: np.ndarray) -> Paint:
    """Stripes that noise has bent: wood or marble."""
    noise = _noise(rng, 3 * period)
    direction = _direction(rng)

    def paint(points: np.ndarray) -> np.ndarray:
        wave = np.sin((points @ direction + 1.2 * period * noise(points)) * (2 * np.pi / period))
        return _mixed(0.5 + 0.5 * wave, first, second)

    return paint


def fade(bottom: float, top: float, first: np.ndarray, second: np.ndarray) -> Paint:
    """From the first colour at height `bottom` to the second at `top`."""
    return lambda points: _mixed(
        np.clip((points[:, 1] - bottom) / (top - bottom), 0, 1), first, second
    )


def _direction(rng: np.random.Generator) -> np.ndarray:
    """Upright, across, or slanted."""
    slant = np.array([rng.choice([-1.0, 1.0]), 1.0, 0.4])
    choices = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], slant / np.linalg.norm(slant)]
    return np.array(choices[rng.choice(3, p=[0.5, 0.25, 0.25])])


def random_paint(rng: np.random.Generator, first: np.ndarray, second: np.ndarray) -> Paint:
    """Any paint, in two colours."""
    period = rng.uniform(0.11, 0.3)
    kind = rng.integers(10)
    if kind <= 1:
        return flat(first)
    if kind == 2:
        return stripes(_direction(rng), period, first, second)
    if kind == 3:
        return checks(period, first, second, rng.random())
    if kind == 4:
        return sectors(int(rng.integers(3, 8)), first, second)
    if kind == 5:
        return dots(rng, period, first, second)
    if kind == 6:
        return clouds(rng, 2 * period, first, second)
    if kind == 7:
        return patches(rng, 2 * period, first, second)
    if kind == 8:
        return grain(rng, period, first, second)
    return fade(-0.3, 0.3, first, second)


def stamp_letter(
    points: np.ndarray,
    normals: np.ndarray,
    colors: np.ndarray,
    letter: str,
    color: np.ndarray,
    *,
    at: tuple[float, float],
    size: float,
    back: bool = False,
) -> np.ndarray:
    """Print a letter along Z onto what looks that way; new colours (N, 3).

    points, normals: (N, 3) in the object's frame. at: (x, y) of the letter's middle. size: its
    height. back: printed from behind, to be read from there.
    """
    mask = _letter_mask(letter)
    sign = -1.0 if back else 1.0
    column = ((points[:, 0] - at[0]) * sign / size + 0.5) * _LETTER_SIZE - 0.5
    row = ((at[1] - points[:, 1]) / size + 0.5) * _LETTER_SIZE - 0.5
    share = ndimage.map_coordinates(mask, np.stack([row, column]), order=1, cval=0.0)
    share = share * np.clip((normals[:, 2] * sign - _FACING) / 0.1, 0, 1)
    return colors + (color - colors) * share[:, None]


@lru_cache(maxsize=128)
def _letter_mask(letter: str) -> np.ndarray:
    """(64, 64) coverage in [0, 1] of a letter that fills the height, in Pillow's own font."""
    picture = Image.new("L", (_LETTER_SIZE, _LETTER_SIZE))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(_LETTER_SIZE)
    left, top, right, bottom = draw.textbbox((0, 0), letter, font=font, stroke_width=2)
    scale = (_LETTER_SIZE - 6) / max(bottom - top, right - left)
    font = ImageFont.load_default(int(_LETTER_SIZE * scale))
    middle = _LETTER_SIZE / 2
    left, top, right, bottom = draw.textbbox((0, 0), letter, font=font, stroke_width=2)
    at = (middle - (left + right) / 2, middle - (top + bottom) / 2)
    draw.text(at, letter, fill=255, font=font, stroke_width=2)
    return np.asarray(picture, np.float64) / 255
