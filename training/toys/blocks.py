"""Toys of plain solids: pots, emblems, carved blocks, heaps."""

from __future__ import annotations

import numpy as np

from . import shapes
from .assembly import Assembly, turned_x, turned_y
from .creatures import add_eyes
from .paint import flat
from .solids import Field, implicit, swept, tube


def random_outline(a: Assembly) -> np.ndarray:
    """(S, 2) any outline of about radius 1."""
    rng = a.rng
    kind = rng.integers(7)
    if kind == 0:
        return shapes.star(int(rng.integers(4, 8)), a.between(0.45, 0.7))
    if kind == 1:
        return shapes.gear(int(rng.integers(6, 13)), a.between(0.12, 0.25))
    if kind == 2:
        return shapes.flower(int(rng.integers(4, 9)), a.between(0.15, 0.35))
    if kind == 3:
        return shapes.heart()
    if kind == 4:
        return shapes.circle(corners=int(rng.integers(3, 9)))
    if kind == 5:
        return shapes.rounded(2.0, a.between(1.3, 2.0), a.between(2.5, 6.0))
    return shapes.circle()


def vessel(a: Assembly) -> None:
    """A vase, mug or pot from a lathe, with handle, spout or lid, and a letter in front."""
    count = int(a.rng.integers(4, 7))
    heights = np.linspace(-0.5, 0.5, count)
    radii = a.rng.uniform(0.18, 0.42, count)
    knots = np.linspace(-0.5, 0.5, 25)
    smooth = np.interp(knots, heights, radii)
    smooth = np.convolve(np.pad(smooth, 3, mode="edge"), np.ones(7) / 7, mode="valid")
    wall = a.between(0.03, 0.05)
    floor = [[0.0, -0.5], *np.stack([smooth, knots], axis=1)]
    inside = np.stack([smooth - wall, knots], axis=1)[:3:-1]
    profile = np.array([*floor, *inside, [0.0, inside[-1, 1]]])
    lobes = a.rng.choice([0, 0, 6, 8, 12])
    outline = shapes.flower(int(lobes), 0.08) if lobes else shapes.circle()
    body = swept(outline, profile, a.spacing, twist=a.between(-0.8, 0.8) if lobes else 0.0)
    a.add(body, a.paint(), stamps=a.both_sides((0, -0.03), a.between(0.3, 0.42)))
    middle = float(np.interp(0.0, knots, smooth))
    side = a.rng.choice([-1, 1])
    if a.chance(0.75):
        angles = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 9)
        reach = a.between(0.16, 0.24)
        x = side * (middle - 0.05 + reach * np.cos(angles))
        path = np.stack([x, 0.24 * np.sin(angles), 0 * x], axis=1)
        a.add(tube(path, np.full(9, 0.045), a.spacing), flat(a.second))
    if a.chance(0.5):
        start = -side * (middle - 0.04)
        path = np.array([[start, -0.15, 0], [start * 1.5, 0.0, 0], [start * 1.75, 0.28, 0]])
        a.add(tube(path, np.array([0.09, 0.06, 0.045]), a.spacing), flat(a.accent))
    if a.chance(0.4):
        lid = float(smooth[-1]) * 1.05
        a.add(shapes.ball(lid, a.spacing).stretched((1, 0.4, 1)), a.other_paint(), (0, 0.5, 0))
        a.add(shapes.ball(0.07, a.spacing), flat(a.accent), (0, 0.5 + 0.4 * lid + 0.03, 0))


def emblem(a: Assembly) -> None:
    """A thick extruded outline that stands on a foot, its two faces painted differently."""
    outline = random_outline(a) * 0.45
    thick = a.between(0.16, 0.3)
    plate = swept(outline, shapes.slab_profile(thick, 0.1), a.spacing)
    front, back = a.paint(), a.other_paint()

    def two_faced(points: np.ndarray) -> np.ndarray:
        share = np.clip(points[:, 1:2] / 0.02 + 0.5, 0, 1)  # Y is to become the front
        return front(points) * share + back(points) * (1 - share)

    stamps = a.both_sides((0, 0), a.between(0.3, 0.45))
    a.add(plate, two_faced, rotation=turned_x(90), stamps=stamps)
    low = float(outline[:, 1].min())
    stand = swept(
        shapes.rounded(0.5, 0.4, a.between(2.0, 6.0)),
        shapes.slab_profile(0.14, 0.1, a.between(0.7, 1.0)),
        a.spacing,
    )
    a.add(stand, a.other_paint(), (0, low + 0.02, 0))
    if a.chance(0.5):
        ring = shapes.ball(0.1, a.spacing)
        a.add(ring, flat(a.accent), (0, float(outline[:, 1].max()) + 0.05, 0))


def carved(a: Assembly) -> None:
    """Constructive solid geometry: joined bodies with holes through them."""
    body = _body_field(a)
    for _ in range(int(a.rng.integers(0, 3))):
        body = shapes.joined(body, _bump_field(a), 0.06)
    cuts = [_cut_field(a) for _ in range(int(a.rng.integers(1, 4)))]
    whole: Field = body
    for cut in cuts:
        whole = shapes.without(whole, cut)
    skin, inside = a.paint(), flat(a.dark if a.chance(0.5) else a.accent)

    def paint(points: np.ndarray) -> np.ndarray:
        depth = -body(points[:, 0], points[:, 1], points[:, 2])  # carved walls lie inside the body
        share = np.clip((depth - a.spacing) / (0.5 * a.spacing), 0, 1)[:, None]
        return skin(points) * (1 - share) + inside(points) * share

    solid = implicit(whole, 0.62, a.spacing)
    spot = (a.between(-0.15, 0.15), a.between(-0.2, 0.2))
    a.add(solid, paint, stamps=a.both_sides(spot, a.between(0.25, 0.4)))
    if a.chance(0.5):
        low = float(solid.points[:, 1].min())
        a.add(shapes.cylinder(0.35, 0.1, a.spacing), a.other_paint(), (0, low, 0))


def _body_field(a: Assembly) -> Field:
    kind = a.rng.integers(4)
    origin = np.zeros(3)
    if kind == 0:
        return shapes.box_field(origin, a.rng.uniform(0.28, 0.45, 3), a.between(0.02, 0.12))
    if kind == 1:
        return shapes.ball_field(origin, a.between(0.36, 0.46))
    if kind == 2:
        return shapes.rod_field(origin, int(a.rng.integers(3)), a.between(0.3, 0.42), 0.4)
    ball = shapes.ball_field(origin, a.between(0.42, 0.52))
    return shapes.within(ball, shapes.box_field(origin, np.full(3, 0.38), 0.02))


def _bump_field(a: Assembly) -> Field:
    direction = a.rng.normal(size=3)
    center = 0.36 * direction / np.linalg.norm(direction)
    kind = a.rng.integers(3)
    if kind == 0:
        return shapes.ball_field(center, a.between(0.12, 0.2))
    if kind == 1:
        return shapes.box_field(center, np.full(3, a.between(0.1, 0.17)), 0.02)
    return shapes.ring_field(center, int(a.rng.integers(3)), a.between(0.15, 0.22), 0.05)


def _cut_field(a: Assembly) -> Field:
    center = a.rng.uniform(-0.2, 0.2, 3)
    kind = a.rng.integers(3)
    if kind == 0:
        return shapes.rod_field(center, int(a.rng.integers(3)), a.between(0.08, 0.17), 2.0)
    if kind == 1:
        direction = a.rng.normal(size=3)
        corner = 0.42 * direction / np.linalg.norm(direction)
        return shapes.ball_field(corner, a.between(0.16, 0.26))
    half = np.full(3, a.between(0.07, 0.13))
    half[a.rng.integers(3)] = 2.0
    return shapes.box_field(center, half, 0.01)


def heap(a: Assembly) -> None:
    """Blocks of any outline on top of each other, each turned and painted by itself."""
    y = 0.0
    size = a.between(0.32, 0.42)
    for level in range(int(a.rng.integers(3, 6))):
        height = a.between(0.15, 0.32)
        if a.chance(0.25):
            block = shapes.ball(0.62 * size, a.spacing)
            height = 1.1 * size
        else:
            profile = shapes.slab_profile(height, a.between(0.0, 0.12), a.between(0.6, 1.0))
            twist = a.between(-0.7, 0.7) if a.chance(0.3) else 0.0
            block = swept(random_outline(a) * size, profile, a.spacing, twist=twist)
        paint = a.paint() if level % 2 == 0 else a.other_paint()
        place = (a.between(-0.06, 0.06), y + height / 2, a.between(-0.06, 0.06))
        turn = turned_y(a.between(0, 360))
        a.add(block, paint, place, turn, a.both_sides((place[0], place[1]), 0.75 * height))
        y += height - 0.015
        size *= a.between(0.7, 0.95)
    add_eyes(a, (0, y - 0.02, 0.05), 0.08, 0.07)
