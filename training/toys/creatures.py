"""Toys that look at you: figures and animals, and their eyes."""

from __future__ import annotations

import numpy as np

from . import shapes
from .assembly import Assembly, turned_x, turned_z
from .paint import fade, flat, stripes
from .solids import swept, tube

_UP = np.array([0.0, 1.0, 0.0])
_WHITE, _BLACK = np.full(3, 0.93), np.full(3, 0.08)


def add_eyes(a: Assembly, at: tuple[float, float, float], apart: float, radius: float) -> None:
    """White balls with dark pupils at both sides of a place, looking towards +Z."""
    for side in (-1, 1):
        place = (at[0] + side * apart, at[1], at[2])
        a.add(shapes.ball(radius, a.spacing), flat(_WHITE), place)
        pupil = (place[0], place[1], place[2] + 0.62 * radius)
        a.add(shapes.ball(0.55 * radius, a.spacing), flat(_BLACK), pupil)


def figure(a: Assembly) -> None:
    """A little person or robot: body, head with eyes, hat, arms, feet, pack on the back."""
    width, height = a.between(0.2, 0.3), a.between(0.42, 0.6)
    is_robot = a.chance(0.35)
    outline = shapes.rounded(2 * width, 1.6 * width, 5.0 if is_robot else 2.2)
    top = a.between(0.55, 0.95)
    body = swept(outline, shapes.slab_profile(height, a.between(0.1, 0.3), top), a.spacing)
    a.add(body, a.paint(), stamps=a.both_sides((0, -0.05), 1.1 * width))
    head = a.between(0.17, 0.25)
    head_y = height / 2 + 0.8 * head
    skin = flat(a.light if a.chance(0.6) else a.second)
    if is_robot:
        a.add(shapes.box(2 * head, 1.6 * head, 1.7 * head, a.spacing, 0.12), skin, (0, head_y, 0))
        front = 0.85 * head
    else:
        a.add(shapes.ball(head, a.spacing), skin, (0, head_y, 0))
        front = 0.86 * head
    add_eyes(a, (0, head_y + 0.15 * head, front * 0.97), 0.4 * head, a.between(0.16, 0.26) * head)
    nose = shapes.cylinder(0.2 * head, 0.5 * head, a.spacing, top=0.0)
    a.add(nose, flat(a.accent), (0, head_y - 0.15 * head, 1.1 * head), turned_x(90))
    _hat(a, head, head_y)
    _limbs(a, width * top, width, height)
    if a.chance(0.6):
        pack = shapes.box(1.2 * width, 0.5 * height, 0.6 * width, a.spacing, 0.15)
        a.add(pack, a.other_paint(), (0, 0.05, -0.85 * width))


def _hat(a: Assembly, head: float, head_y: float) -> None:
    kind = a.rng.integers(4)
    y = head_y + 0.75 * head
    if kind == 0:
        cone = shapes.cylinder(0.75 * head, 1.4 * head, a.spacing, top=0.0)
        a.add(cone, a.other_paint(), (0, y + 0.55 * head, 0))
    elif kind == 1:
        a.add(shapes.cylinder(1.1 * head, 0.12 * head, a.spacing), flat(a.dark), (0, y, 0))
        crown = shapes.cylinder(0.7 * head, 0.8 * head, a.spacing)
        paint = stripes(_UP, 0.6 * head, a.dark, a.accent)
        a.add(crown, paint, (0, y + 0.4 * head, 0))
    elif kind == 2:
        for side in (-1, 1):
            ear = shapes.ball(0.42 * head, a.spacing).stretched((0.7, 1.6, 0.5))
            a.add(ear, flat(a.main), (side * 0.5 * head, y + 0.45 * head, 0), turned_z(-18 * side))


def _limbs(a: Assembly, shoulder: float, hip: float, height: float) -> None:
    for side in (-1, 1):
        lift = a.between(-0.25, 0.3)
        y = 0.28 * height
        path = np.array(
            [
                [side * shoulder * 0.75, y, 0],
                [side * (shoulder + 0.1), y + 0.1 * lift, 0.02],
                [side * (shoulder + 0.17), y + 0.6 * lift, 0.1],
            ]
        )
        a.add(tube(path, np.array([0.055, 0.05, 0.045]), a.spacing), flat(a.second))
        a.add(shapes.ball(0.07, a.spacing), flat(a.light), tuple(path[-1]))
        foot = shapes.ball(0.12, a.spacing).stretched((0.8, 0.7, 1.35))
        a.add(foot, flat(a.dark), (side * 0.55 * hip, -height / 2 - 0.02, 0.06))


def animal(a: Assembly) -> None:
    """Body, legs, head with eyes, ears and snout towards +Z, tail behind."""
    radius = a.between(0.18, 0.26)
    long = a.between(1.2, 1.8)
    coat = a.paint()
    body = shapes.ball(radius, a.spacing).stretched((a.between(0.85, 1.1), 1.0, long))
    a.add(body, coat)
    head = a.between(0.14, 0.2)
    neck = a.between(0.1, 0.35)
    at = np.array([0.0, 0.6 * radius + neck, radius * long * 0.85 + 0.05])
    path = np.array([[0, 0.1 * radius, 0.55 * radius * long], [0, at[1] * 0.6, at[2] * 0.9], at])
    a.add(tube(path, np.array([0.7, 0.55, 0.5]) * head, a.spacing), flat(a.main))
    a.add(shapes.ball(head, a.spacing), flat(a.main), tuple(at))
    snout = shapes.ball(0.5 * head, a.spacing).stretched((1.1, 0.8, 1.1))
    a.add(snout, flat(a.light), (0, at[1] - 0.25 * head, at[2] + 0.85 * head))
    a.add(
        shapes.ball(0.17 * head, a.spacing),
        flat(_BLACK),
        (0, at[1] - 0.12 * head, at[2] + 1.38 * head),
    )
    add_eyes(a, (0, at[1] + 0.35 * head, at[2] + 0.78 * head), 0.42 * head, 0.18 * head)
    tall = a.between(0.4, 1.0)
    for side in (-1, 1):
        ear = shapes.ball(0.45 * head, a.spacing).stretched((0.75, 2 * tall, 0.45))
        place = (side * 0.6 * head, at[1] + (0.7 + 0.5 * tall) * head, at[2] - 0.05)
        a.add(ear, flat(a.second), place, turned_z(-20 * side))
        for z in (-0.6, 0.6):
            leg = shapes.cylinder(0.06, 0.3, a.spacing)
            foot = (side * 0.5 * radius, -radius - 0.08, z * radius * long * 0.85)
            a.add(leg, fade(-0.1, 0.0, a.dark, a.main), foot)
    turn = a.between(-0.15, 0.15)
    path = np.array(
        [[0, 0.3 * radius, -0.8], [turn, 0.9 * radius, -1.25], [turn * 2, 2 * radius, -1.3]]
    )
    path[:, 2] *= radius * long
    a.add(tube(path, np.array([0.05, 0.045, 0.03]), a.spacing), flat(a.second))
