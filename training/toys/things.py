"""Toys of things: houses, vehicles, rockets, furniture, plants."""

from __future__ import annotations

import numpy as np

from . import shapes
from .assembly import Assembly, turned_x, turned_y, turned_z
from .paint import fade, flat, random_paint, stripes
from .solids import Solid, swept, tube

_UP = np.array([0.0, 1.0, 0.0])


def house(a: Assembly) -> None:
    """Walls, a roof, a door in front, windows around, a chimney."""
    width, height, depth = a.between(0.5, 0.75), a.between(0.35, 0.6), a.between(0.45, 0.7)
    a.add(shapes.box(width, height, depth, a.spacing), a.paint())
    roof_height = a.between(0.22, 0.42)
    tile = a.between(0.08, 0.14)
    roof_paint = stripes(_UP, tile, a.second, a.second * 0.75)
    y = height / 2 - 0.01
    if a.chance(0.5):
        outline = shapes.rectangle(1.16 * width, 1.16 * depth)
        roof = swept(outline, shapes.slab_profile(roof_height, 0.0, 0.0), a.spacing)
        a.add(roof, roof_paint, (0, y + roof_height / 2, 0))
    else:
        gable = np.array([[-0.6 * width, 0], [0.6 * width, 0], [0, roof_height]])
        gable[:, 1] -= roof_height / 3
        roof = swept(gable, shapes.slab_profile(1.14 * depth), a.spacing)
        slanted = stripes(np.array([0.0, 0.0, 1.0]), tile, a.second, a.second * 0.75)
        a.add(roof, slanted, (0, y + roof_height / 3, 0), turned_x(90))
    door = (a.between(0.1, 0.14), a.between(0.2, 0.28))
    x = a.between(-0.22, 0.22) * width
    panel = shapes.box(2 * door[0], door[1], 0.04, a.spacing)
    a.add(panel, flat(a.dark), (x, -height / 2 + door[1] / 2, depth / 2))
    knob = (x + 0.6 * door[0], -height / 2 + 0.5 * door[1], depth / 2 + 0.03)
    a.add(shapes.ball(0.02, a.spacing / 2), flat(a.accent), knob)
    _windows(a, width, height, depth)
    if a.chance(0.7):
        chimney = shapes.box(0.1, 0.34, 0.1, a.spacing)
        side = a.rng.choice([-1, 1])
        place = (side * 0.28 * width, y + 0.55 * roof_height, -0.2 * depth)
        a.add(chimney, stripes(_UP, 0.08, a.accent, a.light), place)


def _windows(a: Assembly, width: float, height: float, depth: float) -> None:
    glass = flat(np.array([0.55, 0.78, 0.92]) if a.chance(0.6) else a.light)
    y = 0.16 * height
    pane = shapes.box(0.13, 0.13, 0.03, a.spacing)
    for side in (-1, 1):
        a.add(pane, glass, (side * 0.28 * width, y + 0.02, depth / 2))
        if a.chance(0.7):
            a.add(pane, glass, (side * width / 2, y, 0), turned_y(90))
    for share in (-0.25, 0.25) if a.chance(0.5) else (0.0,):
        a.add(pane, glass, (share * width, 0, -depth / 2))


def vehicle(a: Assembly) -> None:
    """A car, bus or truck that drives towards +Z."""
    width, length, height = a.between(0.36, 0.46), a.between(0.8, 1.0), a.between(0.2, 0.3)
    side = a.between(3.0, 8.0)
    hull = swept(
        shapes.rounded(width, length, side), shapes.slab_profile(height, 0.05, 0.97), a.spacing
    )
    a.add(hull, a.paint(), stamps=(a.letter((0, 0.0), 0.8 * height, back=True),))
    cabin_length = a.between(0.4, 0.8) * length
    cabin_height = a.between(0.16, 0.34)
    shift = a.between(-0.2, 0.2) * (length - cabin_length)
    cabin = swept(
        shapes.rounded(0.9 * width, cabin_length, side),
        shapes.slab_profile(cabin_height + 0.04, 0.06, a.between(0.65, 0.95)),
        a.spacing,
    )
    roof, glass = a.main, np.array([0.2, 0.28, 0.38])

    def cabin_paint(points: np.ndarray) -> np.ndarray:
        band = np.clip((0.6 - np.abs(points[:, 1:2]) / (cabin_height / 2)) / 0.08, 0, 1)
        return roof * (1 - band) + glass * band

    a.add(cabin, cabin_paint, (0, (height + cabin_height) / 2 - 0.02, shift))
    radius = a.between(0.09, 0.13)
    wheel = shapes.cylinder(radius, 0.09, a.spacing)
    hub = shapes.cylinder(0.5 * radius, 0.11, a.spacing)
    for x in (-1, 1):
        for z in (-0.3, 0.3):
            place = (x * 0.47 * width, -height / 2, z * length)
            a.add(wheel, flat(np.full(3, 0.12)), place, turned_z(90))
            a.add(hub, flat(a.light), place, turned_z(90))
        lamp = shapes.ball(0.045, a.spacing)
        a.add(lamp, flat(np.array([0.98, 0.9, 0.5])), (x * 0.3 * width, 0.02, 0.485 * length))
        a.add(lamp, flat(np.array([0.85, 0.1, 0.1])), (x * 0.3 * width, 0.04, -0.485 * length))
    grille = shapes.box(0.3 * width, 0.3 * height, 0.03, a.spacing)
    paint = stripes(np.array([1.0, 0, 0]), 0.05, a.dark, a.light)
    a.add(grille, paint, (0, -0.15 * height, 0.5 * length))


def rocket(a: Assembly) -> None:
    """A striped body with fins and a window in front, standing on its flames."""
    radius, height = a.between(0.14, 0.2), a.between(0.55, 0.75)
    t = np.linspace(0, 1, 12)
    hull = np.stack([radius * (1 - 0.35 * t**3), height * (t - 0.5)], axis=1)
    nose_height = a.between(0.2, 0.35)
    nose = np.stack([0.65 * radius * np.sqrt(1 - t**2), height / 2 + nose_height * t], axis=1)
    profile = np.array([[0.0, -height / 2], *hull, *nose[1:-1], [0.0, nose[-1, 1]]])
    body = swept(shapes.circle(), profile, a.spacing)
    a.add(body, a.paint(), stamps=(a.letter((0, -0.12), radius * 1.3),))
    cap = shapes.cylinder(0.5 * radius, 0.5 * nose_height, a.spacing, top=0.0)
    a.add(cap, flat(a.accent), (0, height / 2 + nose_height * 0.9, 0))
    y = 0.2 * height
    rim = shapes.cylinder(0.55 * radius, 0.1, a.spacing)
    a.add(rim, flat(a.dark), (0, y, 0.75 * radius), turned_x(90))
    a.add(
        shapes.ball(0.42 * radius, a.spacing),
        flat(np.array([0.5, 0.8, 0.95])),
        (0, y, 0.9 * radius),
    )
    fins = int(a.rng.integers(3, 6))
    outline = np.array([[-0.5, -0.6], [0.6, -0.9], [0.3, 0.0], [-0.5, 0.6]]) * a.between(0.26, 0.34)
    fin = swept(outline, shapes.slab_profile(0.045), a.spacing)
    for index in range(fins):
        turn = turned_y(360 * index / fins + 90)
        place = turn @ np.array([radius + 0.06, -0.36 * height, 0])
        a.add(fin, flat(a.second), tuple(place), turn @ turned_x(90))
    flame = shapes.cylinder(0.6 * radius, 0.2, a.spacing, top=0.0)
    fire = fade(-0.1, 0.1, np.array([0.98, 0.75, 0.15]), np.array([0.9, 0.25, 0.1]))
    a.add(flame, fire, (0, -height / 2 - 0.08, 0), turned_x(180))


def furniture(a: Assembly) -> None:
    """A chair with its back at the back, or a small cabinet with drawers in front."""
    width, depth = a.between(0.42, 0.6), a.between(0.4, 0.55)
    if a.chance(0.5):
        seat = a.between(0.0, 0.1)
        bevel = a.between(0.0, 0.1)
        a.add(shapes.box(width, 0.1, depth, a.spacing, bevel), a.paint(), (0, seat, 0))
        back_height = a.between(0.35, 0.55)
        back = swept(
            shapes.rounded(width, back_height, a.between(2.5, 8)),
            shapes.slab_profile(0.07, 0.05),
            a.spacing,
        )
        place = (0, seat + back_height / 2 + 0.04, -depth / 2 + 0.03)
        a.add(back, a.other_paint(), place, turned_x(82), a.both_sides((0, place[1]), 0.24))
        for x in (-1, 1):
            for z in (-1, 1):
                leg = shapes.cylinder(0.04, 0.42, a.spacing)
                foot = (x * (width / 2 - 0.05), seat - 0.24, z * (depth / 2 - 0.05))
                a.add(leg, flat(a.dark), foot)
            if a.chance(0.5):
                arm = shapes.box(0.06, 0.06, 0.9 * depth, a.spacing)
                a.add(arm, flat(a.second), (x * width / 2, seat + 0.18, 0.01))
                post = shapes.cylinder(0.03, 0.2, a.spacing)
                a.add(post, flat(a.dark), (x * width / 2, seat + 0.1, 0.35 * depth))
        return
    height = a.between(0.6, 0.95)
    a.add(shapes.box(width, height, depth, a.spacing), a.paint())
    top = shapes.box(1.12 * width, 0.07, 1.12 * depth, a.spacing)
    a.add(top, flat(a.dark), (0, height / 2, 0))
    rows = int(a.rng.integers(2, 5))
    paint = random_paint(a.rng, a.second, a.light)
    for row in range(rows):
        y = height * ((row + 0.5) / rows - 0.5) - 0.01
        drawer = shapes.box(0.84 * width, 0.8 * height / rows, 0.05, a.spacing)
        a.add(drawer, paint, (0, y, depth / 2))
        a.add(shapes.ball(0.032, a.spacing), flat(a.accent), (0, y, depth / 2 + 0.04))
    for x in (-1, 1):
        for z in (-1, 1):
            foot = (x * 0.4 * width, -height / 2 - 0.05, z * 0.4 * depth)
            a.add(shapes.cylinder(0.045, 0.16, a.spacing), flat(a.dark), foot)


def tree(a: Assembly) -> None:
    """A plant: a trunk in a pot, with cones, balls or a big flower that looks forward."""
    pot = swept(
        shapes.circle(0.24, int(a.rng.choice([6, 8, 48]))),
        np.array([[0, -0.12], [0.75, -0.12], [1, 0.1], [1.1, 0.1], [1.1, 0.16], [0, 0.16]]),
        a.spacing,
    )
    a.add(pot, a.paint(), (0, -0.4, 0), stamps=a.both_sides((0, -0.42), 0.2))
    trunk = np.array([[0, -0.3, 0], [a.between(-0.06, 0.06), 0, 0], [0, 0.25, 0]])
    bark = flat(np.array([0.42, 0.28, 0.17]))
    a.add(tube(trunk, np.array([0.06, 0.05, 0.045]), a.spacing), bark)
    leaf = np.array([a.between(0.1, 0.4), a.between(0.45, 0.7), a.between(0.1, 0.3)])
    kind = a.rng.integers(3)
    if kind == 0:
        for level in range(3):
            cone = shapes.cylinder(0.36 - 0.07 * level, 0.34, a.spacing, top=0.0)
            a.add(cone, random_paint(a.rng, leaf, leaf * 0.7), (0, 0.02 + 0.2 * level, 0))
        a.add(_star(a, 0.11), flat(np.array([0.95, 0.8, 0.2])), (0, 0.64, 0), turned_x(90))
    elif kind == 1:
        for _ in range(int(a.rng.integers(4, 7))):
            place = a.rng.uniform([-0.2, 0.1, -0.2], [0.2, 0.45, 0.2])
            radius = a.between(0.15, 0.24)
            crown = shapes.ball(radius, a.spacing)
            a.add(crown, random_paint(a.rng, leaf, leaf * 0.7), tuple(place))
            # A fruit on every crown, towards the front.
            way = np.array([a.between(-0.6, 0.6), a.between(-0.6, 0.6), 1.0])
            fruit = place + 0.97 * radius * way / np.linalg.norm(way)
            a.add(shapes.ball(0.05, a.spacing), flat(a.accent), tuple(fruit))
    else:
        petals = swept(
            shapes.flower(int(a.rng.integers(5, 9)), 0.4) * 0.33,
            shapes.slab_profile(0.1, 0.1),
            a.spacing,
        )
        a.add(petals, flat(a.main), (0, 0.32, 0.03), turned_x(80))
        heart = shapes.ball(0.13, a.spacing).stretched((1, 1, 0.7))
        a.add(heart, a.other_paint(), (0, 0.33, 0.09))
        for side in (-1, 1):
            blade = shapes.ball(0.17, a.spacing).stretched((1.0, 0.2, 0.5))
            a.add(blade, flat(leaf), (side * 0.15, -0.12, 0), turned_z(35 * side))


def _star(a: Assembly, radius: float) -> Solid:
    return swept(shapes.star(5, 0.5) * radius, shapes.slab_profile(0.06, 0.1), a.spacing)
