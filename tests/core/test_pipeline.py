from dataclasses import replace
from functools import partial

import pytest
import torch
import trimesh

from hi3d_core import pipeline
from hi3d_core.align.rounds import Round, align_in_rounds
from hi3d_core.cameras import Cameras, pixel_rays, project
from hi3d_core.datatypes import OrbitViews
from hi3d_core.local_views import shrunk
from hi3d_core.metrics import mask_iou, psnr
from hi3d_core.pipeline import QUALITIES, Hints, ReconstructConfig, reconstruct
from hi3d_core.render import render_mesh
from hi3d_core.splat.fit import SplatConfig
from hi3d_core.surface.fit import Level, SurfaceConfig, fit_surface
from hi3d_core.texture import TextureConfig

from .cavity_scenes import bent, orbit_at, spots
from .synthetic import sphere_views
from .texture_scenes import ball, views_of

QUICK = ReconstructConfig(
    interpolate=4,
    face_budget=3000,
    splat=SplatConfig(count=1500, size=96, iterations=40),
    surface=SurfaceConfig(
        levels=(Level(24, 64, 30), Level(48, 128, 40)), rays=8192, cavity_rounds=0
    ),
    texture=TextureConfig(size=256),
)

BARE = replace(
    QUICK,
    interpolate=0,
    surface=SurfaceConfig(levels=(Level(40, 96, 30),), rays=8192, cavity_rounds=0),
    texture=TextureConfig(size=0),
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
    assert result.agreement > 0.999
    assert result.shifts is None  # exact views are left as they are
    assert result.cameras is views.cameras
    assert result.texture.mesh is mesh
    assert result.texture.unseen.shape == (256, 256)
    # Told: every stage begins, in order, and counts to its end.
    assert list(stages) == [
        "placement", "splat", "in-between views", "surface", "mesh", "texture",
    ]  # fmt: skip
    assert all(calls[-1][0] == calls[-1][1] for calls in stages.values())


def test_no_splat_is_fitted_unless_asked_for():
    views = sphere_views(Cameras.orbit(8, 10, width=64, height=64))
    config = replace(
        QUICK,
        interpolate=0,
        surface=SurfaceConfig(levels=(Level(24, 64, 8),), rays=2048, cavity_rounds=0),
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
        QUICK,
        interpolate=0,
        surface=SurfaceConfig(levels=(Level(24, 64, 2),), rays=2048, cavity_rounds=0),
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


def test_only_views_that_disagree_are_aligned(monkeypatch):
    exact = views_of(ball(), orbit_at(10, 128, count=9), spots, fine=2)
    given = bent(exact, 2.5)
    quick = Round((Level(24, 128, 15),), 0.05, 1.0, 16.0)
    monkeypatch.setattr(pipeline, "align_in_rounds", partial(align_in_rounds, rounds=(quick,)))
    config = replace(
        QUICK,
        interpolate=0,
        surface=SurfaceConfig(levels=(Level(40, 128, 40),), rays=8192, cavity_rounds=0),
        texture=TextureConfig(size=0),
    )
    stages: list[str] = []
    looked_for: list[bool] = []

    def fitted(views, placement, surface, **others):
        looked_for.append(surface.vessels)
        return fit_surface(views, placement, surface, **others)

    monkeypatch.setattr(pipeline, "fit_surface", fitted)

    def on_stage(name: str):
        stages.append(name)
        return lambda done, total: None

    aligned = reconstruct(given, config, on_stage=on_stage)
    assert stages == ["placement", "alignment", "surface", "mesh", "last alignment", "texture"]
    assert aligned.agreement < 0.99
    assert aligned.shifts.shape == (9,)
    assert aligned.shifts[0] == 0
    assert 1 < float(aligned.shifts[1:].mean()) < 4
    as_given = reconstruct(given, replace(config, align=False))
    assert as_given.shifts is None
    assert looked_for == [False, True]

    def off(result) -> float:
        drawn = render_mesh(result.mesh, exact.cameras)
        return float((drawn.images - exact.images).abs().mean())

    assert off(aligned) < 0.9 * off(as_given)


def test_refined_cameras_are_the_results():
    views = sphere_views(Cameras.orbit(8, 10, width=64, height=64))
    nudged = replace(views.cameras, camera_to_world=views.cameras.camera_to_world + 0)
    config = replace(BARE, refine_cameras=True)
    told = []

    def refined(given, *, seed, on_step):
        told.append((given, seed))
        on_step(1, 1)
        return nudged

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "refined_cameras", refined)
        result = reconstruct(views, config, seed=7)
    assert told == [(views, 7)]
    assert result.cameras is nudged
    assert reconstruct(views, BARE).cameras is views.cameras


def test_a_reference_decides_the_colour_where_it_looks():
    """In the cameras' world, far away and large, so that its placement matters too."""
    views = views_of(ball(), orbit_at(10, 128, count=9), spots)
    poses = views.cameras.camera_to_world.clone()
    poses[:, :3, 3] = poses[:, :3, 3] * 100 + torch.tensor([300.0, -50.0, 120.0])
    views = replace(views, cameras=replace(views.cameras, camera_to_world=poses))
    # The same picture with a blue that no view has.
    tinted = views.images[[0]] * torch.tensor([1.0, 1.0, 0.8]) + 0.2 * (
        1 - views.alphas[[0], ..., None]
    ) * torch.tensor([0.0, 0.0, 1.0])
    reference = OrbitViews(tinted, views.alphas[[0]], views.cameras[[0]])
    config = replace(BARE, texture=TextureConfig(size=256))
    plain = reconstruct(views, config)
    hinted = reconstruct(views, config, hints=Hints(reference=reference))
    middle = (slice(44, 84), slice(44, 84), 2)
    blues = [
        float(render_mesh(each.mesh, views.cameras[[0]]).images[0][middle].mean())
        for each in (plain, hinted)
    ]
    assert blues[1] / blues[0] == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("kind", ["depths", "normals"])
def test_exact_priors_help_and_do_not_depend_on_their_scale(kind):
    views = sphere_views(Cameras.orbit(6, 10, width=96, height=96))
    origins, directions = pixel_rays(views.cameras)
    origins = origins[:, None, None]
    b, c = (directions * origins).sum(-1), (origins**2).sum(-1) - 0.4**2
    a = (directions**2).sum(-1)
    root = (b**2 - a * c).clamp_min(0)
    depth = (-b - root.sqrt()) / a
    inside = views.alphas > 0.999
    # Of another scale and offset a view, as networks give them.
    scale = torch.linspace(0.5, 4, 6)[:, None, None]
    inverse = torch.where(inside, scale / depth - 1, 0.0)
    normals = torch.where(inside[..., None], (origins + depth[..., None] * directions) / 0.4, 0.0)
    hints = Hints(
        inverse_depths=None if kind == "normals" else inverse,
        normals=None if kind == "depths" else normals,
    )
    # Smooth and without colour there is little else to go by than silhouettes of six views.
    blank = replace(views, images=torch.ones_like(views.images) - 0.5 * views.alphas[..., None])

    def off(hints: Hints | None) -> float:
        mesh = reconstruct(blank, BARE, hints=hints).mesh
        side = mesh.vertices[mesh.vertices[:, 1].abs() < 0.2]
        return float((side.norm(dim=1) - 0.4).abs().mean())

    assert off(hints) < 0.9 * off(None)


def test_priors_that_do_not_belong_to_the_views_are_refused():
    views = sphere_views(Cameras.orbit(6, 10, width=64, height=64))
    with pytest.raises(ValueError, match="5 depth or normal maps for 6 views"):
        reconstruct(views, BARE, hints=Hints(inverse_depths=torch.ones(5, 64, 64)))
    both = Hints(inverse_depths=torch.ones(6, 64, 64), normals=torch.ones(6, 32, 32, 3))
    with pytest.raises(ValueError, match="normals are"):
        reconstruct(views, BARE, hints=both)


def test_rendered_views_join_the_fit_and_carve_nothing():
    """In a far, large world, so that their placement matters too."""

    def moved(views: OrbitViews) -> OrbitViews:
        poses = views.cameras.camera_to_world.clone()
        poses[:, :3, 3] = poses[:, :3, 3] * 100 + torch.tensor([300.0, -50.0, 120.0])
        return replace(views, cameras=replace(views.cameras, camera_to_world=poses))

    few = moved(sphere_views(Cameras.orbit(3, 10, width=96, height=96)))
    between = moved(sphere_views(Cameras.orbit(12, 10, width=96, height=96)[[1, 2, 3, 5, 6, 7]]))
    surface = replace(BARE.surface, levels=(Level(40, 96, 60),))
    config = replace(BARE, interpolated_share=1.0, surface=surface)

    def off(mesh) -> float:
        """Mean distance from the ball's surface at the height that the views see."""
        local = (mesh.vertices - torch.tensor([300.0, -50.0, 120.0])) / 100
        side = local[local[:, 1].abs() < 0.25]
        return float((side.norm(dim=1) - 0.4).abs().mean())

    plain = reconstruct(few, config)
    hinted = reconstruct(few, config, hints=Hints(between=between))
    assert off(hinted.mesh) < 0.5 * off(plain.mesh)
    # Empty pictures would leave nothing, if they carved.
    empty = OrbitViews(
        torch.ones_like(between.images), torch.zeros_like(between.alphas), between.cameras
    )
    blank = reconstruct(few, replace(config, interpolated_share=0.0), hints=Hints(between=empty))
    assert torch.equal(blank.mesh.vertices, plain.mesh.vertices)
    with pytest.raises(ValueError, match="leave one of them out"):
        reconstruct(few, replace(config, interpolate=4), hints=Hints(between=between))
