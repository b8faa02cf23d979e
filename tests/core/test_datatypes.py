import math
from dataclasses import FrozenInstanceError

import pytest
import torch

from hi3d_core.datatypes import Cameras, Gaussians, Mesh, OrbitViews


def _views(**changes) -> OrbitViews:
    fields = {
        "images": torch.rand(2, 4, 6, 3),
        "alphas": torch.rand(2, 4, 6),
        "cameras": Cameras.orbit(2, width=6, height=4),
    }
    return OrbitViews(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"images": torch.rand(2, 4, 6, 4)}, r"expected \(V, H, W, 3\)"),
        ({"alphas": torch.rand(2, 6, 4)}, "one mask for each"),
        ({"cameras": Cameras.orbit(3, width=6, height=4)}, "one camera"),
        ({"cameras": Cameras.orbit(2, width=4, height=6)}, "resized"),
        ({"images": torch.rand(2, 4, 6, 3) * 255}, "expected"),
        ({"images": torch.zeros(2, 4, 6, 3, dtype=torch.uint8)}, "floats"),
        ({"alphas": torch.full((2, 4, 6), math.nan)}, "NaN"),
        ({"depths": torch.rand(2, 4, 5)}, "depths"),
        ({"depths": -torch.ones(2, 4, 6)}, "not negative"),
    ],
)
def test_orbit_views_refuse_what_does_not_fit(changes, word):
    with pytest.raises(ValueError, match=word):
        _views(**changes)


def test_orbit_views_pick_views_with_their_cameras():
    views = _views(depths=torch.rand(2, 4, 6))
    second = views[[1]]
    assert torch.equal(second.images[0], views.images[1])
    assert torch.equal(second.depths[0], views.depths[1])
    assert torch.equal(second.cameras.camera_to_world[0], views.cameras.camera_to_world[1])


def test_types_are_frozen():
    with pytest.raises(FrozenInstanceError):
        _views().images = None


def _gaussians(**changes) -> Gaussians:
    fields = {
        "means": torch.rand(5, 3),
        "scales": torch.rand(5, 3) + 0.1,
        "quaternions": torch.nn.functional.normalize(torch.randn(5, 4), dim=1),
        "opacities": torch.rand(5),
        "sh": torch.rand(5, 4, 3),
    }
    return Gaussians(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"scales": -torch.ones(5, 3)}, "positive"),
        ({"quaternions": torch.ones(5, 4)}, "unit length"),
        ({"opacities": torch.full((5,), 1.5)}, "opacities"),
        ({"sh": torch.rand(5, 5, 3)}, "degree"),
        ({"sh": torch.rand(4, 1, 3)}, "sh is"),
        ({"means": torch.full((5, 3), math.inf)}, "infinite"),
    ],
)
def test_gaussians_refuse_what_is_not_activated(changes, word):
    with pytest.raises(ValueError, match=word):
        _gaussians(**changes)


def test_gaussians_return_from_a_local_frame():
    local = _gaussians()
    world = local.from_frame(torch.tensor([1.0, 2, 3]), 4.0)
    assert torch.allclose(world.means, local.means * 4 + torch.tensor([1.0, 2, 3]))
    assert torch.allclose(world.scales, local.scales * 4)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"faces": torch.tensor([[0, 1, 3]])}, "name vertices"),
        ({"faces": torch.tensor([[0, 1, -1]])}, "name vertices"),
        ({"faces": torch.tensor([[0, 1, 2]], dtype=torch.int32)}, "int64"),
        ({"texture": torch.rand(2, 2, 3)}, "uvs"),
        ({"uvs": torch.rand(2, 2)}, "uvs"),
        ({"vertex_colors": torch.rand(3, 4)}, "vertex_colors"),
        ({"vertices": torch.full((3, 3), math.nan)}, "NaN"),
    ],
)
def test_mesh_refuses_what_does_not_fit(changes, word):
    fields = {"vertices": torch.rand(3, 3), "faces": torch.tensor([[0, 1, 2]])}
    with pytest.raises(ValueError, match=word):
        Mesh(**{**fields, **changes})
