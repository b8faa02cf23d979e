"""`python -m hi3d_core render`: what it writes, read again, and that it fits the object."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from hi3d_core.__main__ import main
from hi3d_core.cameras import Cameras, opengl_to_opencv, pixel_rays
from hi3d_core.datatypes import Gaussians, Mesh
from hi3d_core.export import write_mesh
from hi3d_core.export.gaussian_ply import write_gaussian_ply

CENTER = torch.tensor([5.0, -2.0, 1.0])


@pytest.fixture
def ellipsoid(tmp_path):
    """A long body off the origin, whose colour tells the side: red to +X, else green."""
    sphere = trimesh.creation.icosphere(3)
    points = torch.tensor(np.array(sphere.vertices)).float()
    red = (points[:, :1] > 0).float()
    mesh = Mesh(
        points * torch.tensor([2.0, 0.5, 0.5]) + CENTER,
        torch.tensor(np.array(sphere.faces)).long(),
        vertex_colors=torch.cat([red, 1 - red, 0 * red], dim=1),
    )
    write_mesh(mesh, tmp_path / "body.obj")
    return tmp_path / "body.obj"


def run(*arguments) -> int:
    return main(["render", *map(str, arguments)])


def read(folder, name="000.png") -> np.ndarray:
    return np.asarray(Image.open(folder / name))


def cameras_of(folder) -> tuple[Cameras, dict]:
    description = json.loads((folder / "transforms.json").read_text())
    poses = torch.tensor([frame["transform_matrix"] for frame in description["frames"]])
    d = description
    intrinsics = torch.tensor([[d["fl_x"], 0, d["cx"]], [0, d["fl_y"], d["cy"]], [0, 0, 1]])
    cameras = Cameras(opengl_to_opencv(poses), intrinsics.expand(len(poses), 3, 3), d["w"], d["h"])
    return cameras, description


def test_color_pictures_frame_the_object_and_show_its_sides(ellipsoid, tmp_path):
    out = tmp_path / "out"
    assert run(ellipsoid, "--out", out, "--views", 4, "--size", 96, "--elevation", 10) == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["000.png", "001.png", "002.png", "003.png", "transforms.json"]
    pictures = np.stack([read(out, f"{index:03d}.png") for index in range(4)])
    assert pictures.shape == (4, 96, 96, 4)
    alpha = pictures[..., 3]
    # Nothing is cut off, and in the view that sees the length it fills the picture.
    border = np.concatenate([alpha[:, 0], alpha[:, -1], alpha[:, :, 0], alpha[:, :, -1]])
    assert border.max() == 0
    assert (alpha[0].max(axis=0) > 0).mean() == pytest.approx(0.92, abs=0.04)
    # In front +X is on the right, from behind on the left; from +X (view 1) all is red.
    red = pictures[..., 0] > 200
    assert red[0, 48, 70]
    assert not red[0, 48, 26]
    assert red[2, 48, 26]
    assert not red[2, 48, 70]
    assert red[1][alpha[1] == 255].mean() > 0.99
    # Straight alpha: half-covered pixels keep the surface's colour, where red + green is 1.
    half = (alpha[1] > 60) & (alpha[1] < 200)
    assert half.any()
    assert np.abs(pictures[1, half, :2].astype(int).sum(axis=-1) - 255).max() <= 3
    assert pictures[1, half, 2].max() <= 3


def test_depth_pictures_hold_the_distance(ellipsoid, tmp_path):
    out = tmp_path / "out"
    assert run(ellipsoid, "--out", out, "--views", 3, "--size", 64, "--mode", "depth") == 0
    cameras, description = cameras_of(out)
    origins, directions = pixel_rays(cameras)
    for index in range(3):
        values = read(out, f"{index:03d}.png").astype(np.int64)
        assert values.max() > 30_000
        depths = torch.from_numpy(values).float() * description["depth_scale"]
        points = origins[index] + depths[..., None] * directions[index]
        local = (points - CENTER) / torch.tensor([2.0, 0.5, 0.5])
        inner = torch.nn.functional.max_pool2d((depths == 0).float()[None], 5, 1, 2)[0] == 0
        assert inner.sum() > 100
        assert (local.norm(dim=-1)[inner] - 1).abs().max() < 0.06


def test_normal_and_mask_pictures(ellipsoid, tmp_path):
    assert (
        run(ellipsoid, "--out", tmp_path / "n", "--views", 4, "--size", 64, "--mode", "normal") == 0
    )
    normal = read(tmp_path / "n")
    assert normal[32, 32, :3].tolist() == pytest.approx([128, 128, 255], abs=8)
    side = read(tmp_path / "n", "001.png")
    assert side[32, 32, :3].tolist() == pytest.approx([255, 128, 128], abs=25)
    assert (
        run(ellipsoid, "--out", tmp_path / "m", "--views", 4, "--size", 64, "--mode", "mask") == 0
    )
    assert np.array_equal(read(tmp_path / "m"), normal[..., 3])


def test_radius_and_fov_give_the_orbit_asked_for(ellipsoid, tmp_path):
    out = tmp_path / "out"
    arguments = ("--views", 2, "--size", 32, "--radius", 9, "--fov", 30, "--elevation", -20)
    assert run(ellipsoid, "--out", out, *arguments) == 0
    cameras, _ = cameras_of(out)
    expected = Cameras.orbit(2, -20, 9, 30, width=32, height=32)
    torch.testing.assert_close(cameras.camera_to_world, expected.camera_to_world)
    torch.testing.assert_close(cameras.intrinsics, expected.intrinsics)


def test_shading_and_plain_grey(ellipsoid, tmp_path):
    settings = ("--views", 1, "--size", 64)
    assert run(ellipsoid, "--out", tmp_path / "a", *settings, "--untextured") == 0
    flat = read(tmp_path / "a")
    assert len(np.unique(flat[flat[..., 3] == 255][:, :3])) == 1
    settings = (*settings, "--untextured", "--shading", "soft")
    assert run(ellipsoid, "--out", tmp_path / "b", *settings) == 0
    soft = read(tmp_path / "b")
    assert soft[32, 32, 0] > soft[44, 32, 0] + 20


@pytest.mark.parametrize("mode", ["color", "depth", "normal", "mask"])
def test_video(ellipsoid, tmp_path, mode):
    out = tmp_path / "turn.mp4"
    assert run(ellipsoid, "--out", out, "--views", 10, "--size", 65, "--mode", mode) == 0
    with av.open(str(out)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 10  # more than are drawn at once
    assert frames[0].shape == (66, 66, 3)
    corner, middle = frames[0][2, 2].astype(int), frames[0][32, 32].astype(int)
    assert np.abs(corner - middle).max() > 100
    assert (corner.mean() > 200) == (mode in ("color", "normal"))


@pytest.mark.parametrize("size", [1.0, 0.002])  # metres, or millimetres taken for metres
def test_a_splat_is_drawn_too(tmp_path, size):
    points = torch.tensor(trimesh.creation.icosphere(3).vertices).float()
    red = (points[:, 0] > 0).float()
    sh = torch.stack([red, 1 - red, torch.zeros_like(red)], dim=1)[:, None]
    splat = Gaussians(
        (points * 0.7 + CENTER) * size,
        torch.full((len(points), 3), 0.06 * size),
        torch.tensor([1.0, 0, 0, 0]).expand(len(points), 4),
        torch.full((len(points),), 0.95),
        (sh - 0.5) / 0.28209479,
    )
    write_gaussian_ply(splat, tmp_path / "ball.ply")
    out = tmp_path / "out"
    assert run(tmp_path / "ball.ply", "--out", out, "--views", 4, "--size", 64) == 0
    picture = read(out)
    assert picture[32, 46, :3].tolist() == pytest.approx([255, 0, 0], abs=30)
    assert picture[32, 18, :3].tolist() == pytest.approx([0, 255, 0], abs=30)
    assert picture[0, 0, 3] == 0
    assert picture[32, 46, 3] > 200
    depth = tmp_path / "depth"
    assert run(tmp_path / "ball.ply", "--out", depth, "--size", 64, "--mode", "depth") == 0
    cameras, description = cameras_of(depth)
    distance = float((cameras.positions[0] - CENTER * size).norm())
    seen = read(depth)[32, 32] * description["depth_scale"]
    assert seen == pytest.approx(distance - 0.7 * size, abs=0.1 * size)
    assert run(tmp_path / "ball.ply", "--out", tmp_path / "n", "--mode", "normal") == 2
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--views", 0], "--views"),
        (["--size", 0], "--size"),
        (["--elevation", 91], "elevation"),
        (["--radius", 0], "radius"),
        (["--radius", "nan"], "radius"),
        (["--fov", 180], "field of view"),
        (["--out", "turn.avi"], "mp4"),
        (["--out", "none/out"], "does not exist"),
        (["--out", "none/out.mp4"], "does not exist"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(ellipsoid, tmp_path, capsys, arguments, message):
    before = sorted(tmp_path.rglob("*"))
    arguments = ["--out", "out", *arguments]
    arguments = [
        tmp_path / a if arguments[i - 1] == "--out" else a for i, a in enumerate(arguments)
    ]
    assert run(ellipsoid, *arguments) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_there_may_be_a_file_system_of_its_own(ellipsoid, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    rename = Path.replace

    def within(self, target):
        assert out in self.parents, "moved across a border"
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", within)
    assert run(ellipsoid, "--out", out, "--views", 1, "--size", 16) == 0
    assert {path.name for path in out.iterdir()} == {"000.png", "transforms.json"}


def test_cancelling_leaves_nothing(ellipsoid, tmp_path, monkeypatch):
    drawn = []

    def cancel(meshes, cameras, **settings):
        if drawn:
            raise KeyboardInterrupt
        drawn.append(len(cameras))
        return render_mesh(meshes, cameras, **settings)

    from hi3d_core.render import render_mesh

    monkeypatch.setattr("hi3d_core.commands.render.render_mesh", cancel)
    before = sorted(tmp_path.rglob("*"))
    for name in ("out", "out.mp4", "out.gif"):
        drawn.clear()
        assert run(ellipsoid, "--out", tmp_path / name, "--views", 20, "--size", 16) == 130
        assert drawn
        assert sorted(tmp_path.rglob("*")) == before
