from dataclasses import replace

import pytest
import torch
import trimesh

from hi3d_core.cameras import Cameras, project
from hi3d_core.datatypes import OrbitViews
from hi3d_core.metrics import mask_iou, psnr
from hi3d_core.pipeline import QUALITIES, ReconstructConfig, reconstruct, shrunk
from hi3d_core.render import render_mesh
from hi3d_core.splat.fit import SplatConfig
from hi3d_core.surface.fit import Level, SurfaceConfig
from hi3d_core.texture import TextureConfig

from .synthetic import sphere_views

QUICK = ReconstructConfig(
    interpolate=4,
    face_budget=3000,
    splat=SplatConfig(count=1500, size=96, iterations=40),
    surface=SurfaceConfig(levels=(Level(24, 64, 30), Level(48, 128, 40)), rays=8192),
    texture=TextureConfig(size=256),
)


@pytest.fixture(scope="module")
def moved_ball():
    """A ball far from the origin, in centimetres: the world is the cameras', not ours."""
    views = sphere_views(Cameras.orbit(12, 10, width=128, height=128))
    poses = views.cameras.camera_to_world.clone()
    offset = torch.tensor([300.0, -50.0, 120.0])
    poses[:, :3, 3] = poses[:, :3, 3] * 100 + offset
    cameras = replace(views.cameras, camera_to_world=poses)
    stages: dict[str, list[tuple[int, int]]] = {}

    def on_stage(name: str):
        stages[name] = []
        return lambda done, total: stages[name].append((done, total))

    return replace(views, cameras=cameras), offset, stages, on_stage


def test_the_whole_path_in_the_cameras_world(moved_ball):
    views, offset, stages, on_stage = moved_ball
    result = reconstruct(views, QUICK, on_stage=on_stage)
    mesh = result.mesh
    # Where: the ball's side, as the orbit sees it, 40 cm about the offset.
    local = mesh.vertices - offset
    side = local[local[:, 1].abs() < 25]
    assert (side.norm(dim=1) - 40).abs().mean() < 0.5
    assert (result.gaussians.means - offset).norm(dim=1).median() == pytest.approx(40, abs=3)
    # What: closed, in budget, textured like the pictures it came from.
    assert trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy()).is_watertight
    assert len(mesh.faces) <= 3000
    assert mesh.texture.shape == (256, 256, 3)
    drawn = render_mesh(mesh, views.cameras)
    for view in range(len(views)):
        assert psnr(drawn.images[view], views.images[view]) > 30
        assert mask_iou(drawn.alphas[view], views.alphas[view]) > 0.98
    assert result.agreement > 0.99
    # Told: every stage begins, in order, and counts to its end.
    assert list(stages) == [
        "placement", "splat", "in-between views", "surface", "mesh", "texture",
    ]  # fmt: skip
    assert all(calls[-1][0] == calls[-1][1] for calls in stages.values())


def test_no_splat_is_fitted_unless_asked_for():
    views = sphere_views(Cameras.orbit(8, 10, width=64, height=64))
    config = replace(
        QUICK, interpolate=0, surface=SurfaceConfig(levels=(Level(24, 64, 8),), rays=2048)
    )
    assert reconstruct(views, config).gaussians is None
    assert len(reconstruct(views, config, want_splat=True).gaussians) > 0


def test_cancelling_leaves_at_once():
    views = sphere_views(Cameras.orbit(8, 10, width=64, height=64))

    def on_stage(name: str):
        def on_step(done: int, total: int) -> None:
            if name == "surface":
                raise KeyboardInterrupt

        return on_step

    with pytest.raises(KeyboardInterrupt):
        reconstruct(views, replace(QUICK, interpolate=0), on_stage=on_stage)


def test_shrinking_keeps_what_a_pixel_sees_and_the_mean():
    views = sphere_views(Cameras.orbit(4, 10, width=66, height=50))
    small = shrunk(views, 22)
    assert small.images.shape == (4, 16, 22, 3)
    assert torch.allclose(small.alphas[:, 0, 0], views.alphas[:, :3, :3].mean(dim=(1, 2)))
    point = torch.tensor([[0.1, 0.2, 0.3]])
    before, _ = project(point, views.cameras)
    after, _ = project(point, small.cameras)
    assert torch.allclose(after * 3, before, atol=1e-3)
    assert shrunk(views, 60) is views


def _warnings(caplog, views: OrbitViews) -> str:
    quick = replace(
        QUICK, interpolate=0, surface=SurfaceConfig(levels=(Level(24, 64, 2),), rays=2048)
    )
    caplog.clear()
    reconstruct(views, quick)
    return caplog.text


def test_cameras_that_cannot_be_right_or_cannot_tell_the_shape_are_mentioned(caplog):
    right = sphere_views(Cameras.orbit(8, 20, width=96, height=96), center=(0.15, 0.1, 0))
    assert _warnings(caplog, right) == ""
    wrong = replace(right, cameras=Cameras.orbit(8, -20, width=96, height=96))
    assert "check the elevation" in _warnings(caplog, wrong)
    steep = sphere_views(Cameras.orbit(8, 80, width=96, height=96))
    assert "same way" in _warnings(caplog, steep)


def test_qualities_grow():
    preview, standard, high = (QUALITIES[name] for name in ("preview", "standard", "high"))
    assert standard == ReconstructConfig()
    assert preview.face_budget < standard.face_budget < high.face_budget
    assert preview.texture.size < standard.texture.size < high.texture.size
    nodes = [q.surface.levels[-1].nodes for q in (preview, standard, high)]
    assert nodes == sorted(set(nodes))
