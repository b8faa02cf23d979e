"""A ball that the views show elsewhere: what they agree on moves it, the rest does not."""

from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from hi3d_core.align.settle import settled
from hi3d_core.cameras import Cameras, project
from hi3d_core.datatypes import Mesh
from hi3d_core.raster import rasterize_triangles

from .texture_scenes import ball

CAMERAS = Cameras.orbit(12, 10, width=96, height=96)
SURE = np.ones((12, 96, 96), np.float32)


def _shown_at(mesh: Mesh, true: torch.Tensor) -> np.ndarray:
    """(V, h, w, 2) by which pictures of the true vertices differ from those of the mesh's."""
    here, there = (project(each, CAMERAS)[0] for each in (mesh.vertices, true))
    seen = rasterize_triangles(mesh.vertices, mesh.faces, CAMERAS)
    flow = np.empty((12, 96, 96, 2), np.float32)
    for view in range(12):
        of_view = replace(
            seen,
            faces=seen.faces[[view]],
            barycentrics=seen.barycentrics[[view]],
            depths=seen.depths[[view]],
        )
        inside = of_view.interpolate(there[view] - here[view], mesh.faces)[0].numpy()
        # Beside the object flow is that of its outline.
        empty = seen.faces[view].numpy() < 0
        nearest = distance_transform_edt(empty, return_distances=False, return_indices=True)
        flow[view] = inside[tuple(nearest)]
    return flow


def _rms(offsets: torch.Tensor) -> float:
    return float(offsets.square().sum(dim=1).mean().sqrt())


def test_a_displacement_that_all_views_show_is_found():
    mesh = ball()
    true = 1.05 * mesh.vertices + torch.tensor([0.03, -0.02, 0.02])
    found = settled(mesh, CAMERAS, _shown_at(mesh, true), SURE)
    assert _rms(true - mesh.vertices) > 0.04
    assert _rms(found.vertices - true) < 0.15 * _rms(mesh.vertices - true)
    assert torch.equal(found.faces, mesh.faces)


def test_what_views_show_each_its_own_way_moves_little():
    mesh = ball()
    flow = np.zeros((12, 96, 96, 2), np.float32)
    flow[::2, ..., 0], flow[1::2, ..., 0] = 3, -3
    found = settled(mesh, CAMERAS, flow, SURE)
    # Three pixels are .04; alternate views nearly cancel.
    assert 0 < _rms(found.vertices - mesh.vertices) < 0.25 * 0.04
    # The same way for all: turned about the axis.
    same = settled(mesh, CAMERAS, np.abs(flow), SURE)
    assert _rms(same.vertices - mesh.vertices) > 0.5 * 0.04


def test_a_view_without_confidence_hardly_counts():
    mesh = ball()
    flow = np.zeros((12, 96, 96, 2), np.float32)
    flow[3, ..., 1] = 4
    unsure = SURE.copy()
    unsure[3] = 0
    moved, less = (
        _rms(settled(mesh, CAMERAS, flow, each).vertices - mesh.vertices) for each in (SURE, unsure)
    )
    assert less < 0.2 * moved


def test_seams_stay_closed():
    whole = ball()
    numbered = torch.arange(whole.faces.numel()).reshape(-1, 3)
    apart = Mesh(whole.vertices[whole.faces].reshape(-1, 3), numbered)
    flow = np.random.default_rng(0).normal(size=(12, 96, 96, 2)).astype(np.float32)
    moved = settled(apart, CAMERAS, flow, SURE)
    assert not torch.equal(moved.vertices, apart.vertices)
    corners = whole.faces.reshape(-1)
    first = torch.zeros(len(whole.vertices), dtype=torch.long)
    first[corners] = torch.arange(len(corners))
    assert torch.equal(moved.vertices, moved.vertices[first[corners]])


def test_nothing_displaced_is_the_same_mesh():
    mesh = ball()
    assert settled(mesh, CAMERAS, np.zeros((12, 96, 96, 2), np.float32), SURE) is mesh
