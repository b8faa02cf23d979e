"""Parts, orientation, measures, smoothing, and the whole clean-up."""

import math

import numpy as np
import pytest
import torch
import trimesh

from hi3d_core.datatypes import Mesh
from hi3d_core.mesh import (
    finish_mesh,
    is_watertight,
    keep_large_components,
    measure_area,
    measure_volume,
    orient_outward,
)


def ball(radius=1.0, center=(0.0, 0.0, 0.0), detail=3, inverted=False) -> Mesh:
    made = trimesh.creation.icosphere(detail, radius)
    faces = torch.tensor(np.array(made.faces)).long()
    vertices = torch.tensor(np.array(made.vertices), dtype=torch.float32) + torch.tensor(center)
    return Mesh(vertices, faces.flip(1) if inverted else faces)


def join(*meshes: Mesh) -> Mesh:
    vertices, faces, count = [], [], 0
    for mesh in meshes:
        vertices.append(mesh.vertices)
        faces.append(mesh.faces + count)
        count += len(mesh.vertices)
    return Mesh(torch.cat(vertices), torch.cat(faces))


def test_measures_of_a_ball():
    mesh = ball(0.5, detail=5)
    assert measure_volume(mesh) == pytest.approx(4 / 3 * math.pi / 8, rel=2e-3)
    assert measure_area(mesh) == pytest.approx(math.pi, rel=2e-3)
    assert measure_volume(ball(0.5, inverted=True)) < 0


def test_measures_of_nothing_are_zero():
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert measure_area(empty) == 0 == measure_volume(empty)
    assert not is_watertight(empty)
    assert len(keep_large_components(empty).faces) == 0
    assert len(orient_outward(empty).faces) == 0


def test_each_part_is_oriented_by_itself():
    parts = [ball(1), ball(0.3, (3, 0, 0), inverted=True), ball(0.01, (100, 50, 7), inverted=True)]
    result = orient_outward(join(*parts))
    assert measure_volume(result) == pytest.approx(sum(abs(measure_volume(p)) for p in parts))
    assert torch.equal(result.faces[: len(parts[0].faces)], parts[0].faces)


def test_crumbs_and_enclosed_shells_go_and_the_rest_stays():
    body, ear = ball(1), ball(0.3, (1.5, 0, 0))
    crumb = ball(0.05, (0, 2, 0))
    cavity, pebble = ball(0.6, inverted=True), ball(0.3)
    messy = orient_outward(join(cavity, crumb, body, pebble, ear))
    result = keep_large_components(messy)
    assert measure_volume(result) == pytest.approx(measure_volume(body) + measure_volume(ear))


def test_part_that_only_overlaps_another_stays():
    pair = join(ball(1), ball(0.8, (1.0, 0, 0)))
    assert len(keep_large_components(pair).faces) == len(pair.faces)


def test_part_in_a_bowl_is_not_enclosed():
    bowl = trimesh.creation.revolve(
        [[0, 0], [1, 0], [1, 1], [0.9, 1], [0.9, 0.1], [0, 0.1]], sections=48
    )
    bowl.merge_vertices()
    hull = Mesh(
        torch.tensor(np.array(bowl.vertices), dtype=torch.float32),
        torch.tensor(np.array(bowl.faces)).long(),
    )
    messy = orient_outward(join(hull, ball(0.4, (0, 0, 0.55))))
    assert len(keep_large_components(messy).faces) == len(messy.faces)


def test_watertight_sees_through_seams_but_not_over_holes():
    mesh = ball()
    apart = Mesh(
        mesh.vertices[mesh.faces.reshape(-1)], torch.arange(3 * len(mesh.faces)).view(-1, 3)
    )
    assert is_watertight(apart)
    assert not is_watertight(Mesh(mesh.vertices, mesh.faces[1:]))


def test_finish_mesh_cleans_up():
    body = ball(0.5, detail=6)
    raw = join(body, ball(0.2, inverted=True), ball(0.01, (0.6, 0, 0)))
    inverted = Mesh(raw.vertices, raw.faces.flip(1))
    result = finish_mesh(inverted, 5000)
    assert len(result.faces) <= 5000
    assert is_watertight(result)
    assert measure_volume(result) == pytest.approx(measure_volume(body), rel=2e-3)
    read = trimesh.Trimesh(result.vertices.numpy(), result.faces.numpy(), process=True)
    assert read.is_watertight
    assert read.body_count == 1
    assert read.volume > 0


@pytest.mark.parametrize("faces", [[], [[0, 1, 2], [2, 1, 0]], [[0, 0, 1]]])
def test_finish_mesh_says_what_to_do_about_nothing(faces):
    table = torch.tensor(faces, dtype=torch.int64).reshape(-1, 3)
    with pytest.raises(ValueError, match=r"[Cc]heck that the masks"):
        finish_mesh(Mesh(torch.eye(3), table), 100)
