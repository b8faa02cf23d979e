"""Toys: the same seed gives the same object; closed, in the unit cube, with two different sides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import Mesh
from hi3d_core.mesh import is_watertight, measure_volume, orient_outward
from hi3d_core.render import render_mesh
from training.toy_objects import (
    HELD_OUT_SEEDS,
    TRAIN_SEEDS,
    check_training_seed,
    toy_object,
    training_toy,
)
from training.toys import shapes
from training.toys.assembly import Assembly
from training.toys.designs import DESIGNS
from training.toys.paint import stamp_letter
from training.toys.solids import Solid, implicit, swept, tube

_COARSE = 0.03  # spacing that is quick and shows the same
_SEEDS = [*range(24), HELD_OUT_SEEDS.start, HELD_OUT_SEEDS.stop - 1]


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5, HELD_OUT_SEEDS.start])
def test_same_seed_same_bits(seed: int) -> None:
    first, second = toy_object(seed), toy_object(seed)
    assert torch.equal(first.vertices, second.vertices)
    assert torch.equal(first.faces, second.faces)
    assert first.vertex_colors is not None and second.vertex_colors is not None
    assert torch.equal(first.vertex_colors, second.vertex_colors)


def test_seeds_do_not_touch_or_hear_the_global_generators() -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    reference = toy_object(4, spacing=_COARSE)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert torch.equal(toy_object(4, spacing=_COARSE).vertices, reference.vertices)


def test_different_seeds_differ() -> None:
    shapes_seen = {toy_object(seed, spacing=0.05).vertices.numpy().tobytes() for seed in _SEEDS}
    assert len(shapes_seen) == len(_SEEDS)


@pytest.mark.parametrize("seed", _SEEDS)
def test_in_the_unit_cube_closed_and_outward(seed: int) -> None:
    toy = toy_object(seed, spacing=_COARSE)
    low, high = toy.vertices.amin(dim=0), toy.vertices.amax(dim=0)
    assert float((high - low).max()) == pytest.approx(1, abs=1e-6)
    assert float((high + low).abs().max()) < 1e-6
    assert is_watertight(toy)
    # Part by part: none has to be turned to enclose a positive volume.
    assert torch.equal(orient_outward(toy).faces, toy.faces)
    assert measure_volume(toy) > 0.005
    assert toy.vertex_colors is not None


@pytest.mark.parametrize("design", range(len(DESIGNS)), ids=lambda i: DESIGNS[i].__name__)
def test_every_design_makes_closed_parts(design: int) -> None:
    for seed in range(4):
        assembly = Assembly(np.random.default_rng([1, design, seed]), _COARSE)
        DESIGNS[design](assembly)
        mesh = Mesh(
            torch.from_numpy(np.concatenate(assembly.points)),
            torch.from_numpy(np.concatenate(assembly.faces)),
        )
        assert is_watertight(mesh)
        assert torch.equal(orient_outward(mesh).faces, mesh.faces)


def test_front_and_back_differ() -> None:
    cameras = Cameras.orbit(2, 10.0, width=64, height=64)
    for seed in range(16):
        toy = toy_object(seed, spacing=0.02)
        front, back = render_mesh(toy, cameras, supersample=1).images
        # As the back would look if the object were the same on both sides, or seen mirrored.
        for guess in (front, front.flip(1)):
            assert float((back - guess).abs().amax(dim=2).gt(0.1).float().mean()) > 0.004, seed


def test_spacing_changes_the_vertices_and_not_the_object() -> None:
    cameras = Cameras.orbit(3, 10.0, width=96, height=96)
    for seed in range(6):
        coarse = render_mesh(toy_object(seed, spacing=0.024), cameras, supersample=1)
        fine = render_mesh(toy_object(seed, spacing=0.012), cameras, supersample=1)
        both = ((coarse.alphas > 0) & (fine.alphas > 0)).sum()
        either = ((coarse.alphas > 0) | (fine.alphas > 0)).sum()
        assert float(both / either) > 0.96, seed


def test_seed_ranges_are_disjoint_and_guarded() -> None:
    assert not set(TRAIN_SEEDS) & set(HELD_OUT_SEEDS)
    assert len(TRAIN_SEEDS) >= 100_000
    assert len(HELD_OUT_SEEDS) >= 100
    for seed in (HELD_OUT_SEEDS.start, HELD_OUT_SEEDS.stop - 1):
        with pytest.raises(ValueError, match="held out"):
            check_training_seed(seed)
        with pytest.raises(ValueError, match="held out"):
            training_toy(seed)
    for seed in (-1, HELD_OUT_SEEDS.stop):
        with pytest.raises(ValueError, match="no training seed"):
            training_toy(seed)
    check_training_seed(TRAIN_SEEDS.start)
    check_training_seed(TRAIN_SEEDS.stop - 1)
    assert torch.equal(
        training_toy(6, spacing=_COARSE).vertices, toy_object(6, spacing=_COARSE).vertices
    )


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        toy_object(-1)
    for spacing in (0.0, 0.5, float("nan")):
        with pytest.raises(ValueError, match="spacing"):
            toy_object(0, spacing=spacing)


def _mesh(solid: Solid) -> Mesh:
    return Mesh(torch.from_numpy(solid.points), torch.from_numpy(solid.faces.copy()))


def test_solids_have_the_volume_they_should() -> None:
    cases = {
        "box": (shapes.box(0.5, 0.4, 0.3, 0.05), 0.06, 1e-9),
        "ball": (shapes.ball(0.5, 0.02), 4 / 3 * np.pi * 0.125, 0.02),
        "cylinder": (shapes.cylinder(0.3, 0.5, 0.02), np.pi * 0.09 * 0.5, 0.01),
        "cone": (shapes.cylinder(0.3, 0.6, 0.02, top=0.0), np.pi * 0.09 * 0.2, 0.01),
        "twisted": (
            swept(shapes.rectangle(0.4, 0.4), shapes.slab_profile(0.5), 0.01, twist=0.8),
            0.08,
            0.01,
        ),
        "tube": (
            tube(np.array([[0, 0, 0], [0, 0.4, 0.3]]), np.full(2, 0.1), 0.01),
            np.pi * 0.01 * 0.5,
            0.01,
        ),
        "closed where it leaves the grid": (
            implicit(shapes.ball_field(np.zeros(3), 1.0), 0.4, 0.02),
            0.8**3,
            0.1,
        ),
        "cut": (
            implicit(
                shapes.without(
                    shapes.box_field(np.zeros(3), np.full(3, 0.4), 0.0),
                    shapes.rod_field(np.zeros(3), 1, 0.2, 2.0),
                ),
                0.5,
                0.02,
            ),
            0.8**3 - np.pi * 0.04 * 0.8,
            0.02,
        ),
    }
    for name, (solid, volume, tolerance) in cases.items():
        mesh = _mesh(solid)
        assert is_watertight(mesh), name
        assert measure_volume(mesh) == pytest.approx(volume, rel=tolerance), name


def test_a_letter_reads_from_its_own_side_and_only_there() -> None:
    side = np.linspace(-0.5, 0.5, 41)
    x, y = (each.reshape(-1) for each in np.meshgrid(side, side))
    points = np.stack([x, y, np.full_like(x, 0.2)], axis=1)
    grey, ink = np.full_like(points, 0.5), np.zeros(3)
    forward = np.broadcast_to([0.0, 0.0, 1.0], points.shape)

    def inked(normals: np.ndarray, *, back: bool) -> np.ndarray:
        colors = stamp_letter(points, normals, grey, "L", ink, at=(0.0, 0.0), size=1.0, back=back)
        return (colors[:, 0] < 0.25).reshape(41, 41)  # row 0 is the lowest, column 0 is at -X

    front = inked(forward, back=False)
    assert front[:10].sum() > front[-10:].sum() > 0  # an L stands on its foot
    assert front[:, :20].sum() > front[:, 21:].sum()  # and its stem is on the left, from the front
    behind = inked(-forward, back=True)
    assert behind[:, 21:].sum() > behind[:, :20].sum()
    assert not inked(-forward, back=False).any()
    assert not inked(np.broadcast_to([1.0, 0.0, 0.0], points.shape), back=False).any()
