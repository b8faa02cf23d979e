"""The command line as users meet it: exit codes, messages, and what is left on the disk."""

import errno
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from hi3d_core import __main__ as command_line
from hi3d_core import pipeline
from hi3d_core.cameras import Cameras
from hi3d_core.commands import info, reconstruct
from hi3d_core.optional import EXTRAS
from hi3d_core.splat.fit import SplatConfig
from hi3d_core.surface.fit import Level, SurfaceConfig
from hi3d_core.texture import TextureConfig

from .synthetic import sphere_views

QUICK = pipeline.ReconstructConfig(
    interpolate=2,
    face_budget=1500,
    splat=SplatConfig(count=600, size=64, iterations=10),
    surface=SurfaceConfig(
        levels=(Level(24, 64, 10), Level(32, 64, 10)), rays=4096, cavity_rounds=0
    ),
    texture=TextureConfig(size=128),
)


@pytest.fixture
def orbit(tmp_path) -> Path:
    """A folder with twelve frames of a ball on white."""
    folder = tmp_path / "orbit"
    folder.mkdir()
    views = sphere_views(Cameras.orbit(12, 10, width=96, height=96))
    for index, image in enumerate(views.images):
        pixels = (image.numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setitem(pipeline.QUALITIES, "preview", QUICK)


def call(*arguments: object) -> int:
    return command_line.main([str(argument) for argument in arguments])


def test_reconstruct_writes_all_it_is_asked_for(orbit, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    code = call(
        "reconstruct", orbit, "--out", out / "ball.glb", "--quality", "preview",
        "--elevation", 10, "--splat-out", out / "ball.ply", "--report", out / "ball.json",
        "--sheet", out / "ball.png",
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    assert {p.name for p in out.iterdir()} == {"ball.glb", "ball.ply", "ball.json", "ball.png"}
    mesh = trimesh.load(out / "ball.glb", force="mesh")
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(0.4, abs=0.1)
    assert len(trimesh.load(out / "ball.ply").vertices) == 600
    report = json.loads((out / "ball.json").read_text())
    assert set(report["seconds"]) == {
        "read", "placement", "splat", "in-between views", "surface", "mesh", "texture", "write",
    }  # fmt: skip
    assert len(report["views"]["psnr"]) == len(report["views"]["mask_iou"]) == 12
    assert report["views"]["mean_mask_iou"] > 0.95
    assert report["settings"]["interpolate"] == 2
    assert report["peak_memory_bytes"] > 2**26
    width, height = Image.open(out / "ball.png").size
    assert width > 8 * 200 and height > 3 * 200


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--elevation", "91"], "elevation"),
        (["--elevation", "nan"], "elevation"),
        (["--interpolate", "-1"], "--interpolate"),
        (["--faces", "3"], "--faces"),
        (["--texture", "1"], "--texture"),
        (["--masks", "nowhere"], "nowhere"),
        (["--report", "no/such/folder/r.json"], "does not exist"),
        (["--report", "r.txt"], ".json"),
        (["--splat-out", "s.splat"], ".ply"),
        (["--radius", "0"], "radius"),
        (["--fov", "180"], "field of view"),
        (["--max-views", "2"], "max_views"),
        (["--reference", "nowhere.png"], "--reference nowhere.png is not a file"),
        (["--reference", "."], "--reference . is not a file"),
        (["--reference", __file__], "test_command_line.py"),
        (["--texture", "0", "--unseen-out", "unseen"], "--unseen-out needs a texture"),
        (["--unseen-out", __file__], "is a file, expected a folder"),
        (["--texture", "-1"], "or 0 for colours of the vertices"),
    ],
)
def test_bad_options_say_so_and_write_nothing(orbit, tmp_path, capsys, arguments, word):
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "x.glb"
    assert call("reconstruct", orbit, "--out", out, "--quality", "preview", *arguments) == 2
    assert word in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def _report(folder: Path) -> dict:
    return json.loads((folder / "r.json").read_text())


def test_texture_nought_colours_the_vertices(orbit, tmp_path, capsys):
    out, report = tmp_path / "x.ply", tmp_path / "r.json"
    code = call(
        "reconstruct", orbit, "--out", out, "--quality", "preview", "--elevation", 10,
        "--texture", 0, "--interpolate", 0, "--report", report,
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    colors = trimesh.load(out).visual.vertex_colors
    assert colors[:, :3].std(axis=0).min() > 10  # the ball has all colours
    assert _report(tmp_path)["settings"]["texture"]["size"] == 0
    assert _report(tmp_path)["views"]["mean_psnr"] > 20
    # These frames agree.
    assert _report(tmp_path)["aligned_by_pixels"] is None
    assert _report(tmp_path)["silhouette_agreement"] > 0.998


def test_masks_of_what_no_view_saw_are_written(orbit, tmp_path, capsys):
    folder = tmp_path / "unseen"
    code = call(
        "reconstruct", orbit, "--out", tmp_path / "x.glb", "--quality", "preview",
        "--elevation", 10, "--interpolate", 0, "--unseen-out", folder,
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    names = ["texels.png", *(f"view_{index:03d}.png" for index in range(12))]
    assert sorted(p.name for p in folder.iterdir()) == names
    texels = np.asarray(Image.open(folder / "texels.png"))
    assert texels.shape == (128, 128)
    assert 0.005 < (texels > 0).mean() < 0.5  # the ball's underside
    for name in names[1:]:
        view = np.asarray(Image.open(folder / name))
        assert view.shape == (96, 96)
        assert view.mean() < 10  # hardly anything that a view shows is unseen


@pytest.mark.parametrize("alpha", [True, False])
def test_your_own_picture_sets_the_tone_of_its_view(orbit, tmp_path, capsys, alpha):
    views = sphere_views(Cameras.orbit(1, 10, width=288, height=288))
    color = views.images[0] * torch.tensor([1.0, 0.85, 1.0])
    color[views.alphas[0] == 0] = 1
    channels = torch.cat([color, views.alphas[0][..., None]], dim=-1) if alpha else color
    pixels = (channels.numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    drawn = {}
    for name, extra in (("plain", []), ("mine", ["--reference", tmp_path / "mine.png"])):
        code = call(
            "reconstruct", orbit, "--out", tmp_path / f"{name}.ply", "--quality", "preview",
            "--elevation", 10, "--texture", 0, "--interpolate", 0, *extra,
        )  # fmt: skip
        assert code == 0, capsys.readouterr().err
        mesh = trimesh.load(tmp_path / f"{name}.ply")
        toward = Cameras.orbit(1, 10).positions[0].numpy()
        front = mesh.vertices @ toward / np.linalg.norm(toward) > 0.35
        drawn[name] = mesh.visual.vertex_colors[front, 1].mean()
    assert drawn["mine"] / drawn["plain"] == pytest.approx(0.85, abs=0.04)


def test_alignment_camera_refinement_and_device_are_as_asked(orbit, tmp_path, monkeypatch):
    asked = []

    def made(views, config, arguments, clock, about, device):
        asked.append((config.align, config.refine_cameras, device))

    monkeypatch.setattr(reconstruct, "make_products", made)
    for extra in ([], ["--no-align"], ["--refine-cameras"], ["--device", "cpu"]):
        assert call("reconstruct", orbit, "--out", tmp_path / "x.glb", *extra) == 0
    assert asked == [
        (True, False, None),
        (False, False, None),
        (True, True, None),
        (True, False, torch.device("cpu")),
    ]


@pytest.mark.parametrize("name", ["x.fbx", "x", "no/folder/x.glb"])
def test_bad_outputs_are_refused_before_any_work(orbit, tmp_path, capsys, name, monkeypatch):
    monkeypatch.setattr(reconstruct, "read_views", lambda *a, **k: pytest.fail("read anyway"))
    assert call("reconstruct", orbit, "--out", tmp_path / name) == 2
    assert "error:" in capsys.readouterr().err


def test_outputs_may_not_overwrite_each_other(orbit, tmp_path, capsys):
    mesh = tmp_path / "x.obj"
    assert call("reconstruct", orbit, "--out", mesh, "--sheet", tmp_path / "x.png") == 2
    assert "also written" in capsys.readouterr().err
    mesh = tmp_path / "x.ply"
    assert call("reconstruct", orbit, "--out", mesh, "--splat-out", mesh) == 2
    assert "also written" in capsys.readouterr().err


@pytest.mark.parametrize("level", [0, 255])
def test_frames_without_an_object(tmp_path, capsys, level):
    folder = tmp_path / "empty"
    folder.mkdir()
    for index in range(6):
        Image.fromarray(np.full((64, 64, 3), level, np.uint8)).save(folder / f"{index}.png")
    assert call("reconstruct", folder, "--out", tmp_path / "x.glb") == 2
    assert "error:" in capsys.readouterr().err
    assert not (tmp_path / "x.glb").exists()


@pytest.mark.parametrize("value", [0, 255])
def test_masks_of_nothing_and_of_everything(orbit, tmp_path, capsys, value):
    masks = tmp_path / "masks"
    masks.mkdir()
    for index in range(12):
        Image.fromarray(np.full((96, 96), value, np.uint8)).save(masks / f"{index:02d}.png")
    assert call("reconstruct", orbit, "--out", tmp_path / "x.glb", "--masks", masks) == 2
    assert "mask" in capsys.readouterr().err
    assert not (tmp_path / "x.glb").exists()


def test_a_full_disk_keeps_what_was_there(orbit, tmp_path, capsys, monkeypatch):
    out = tmp_path / "x.glb"
    out.write_bytes(b"yesterday's")

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert call("reconstruct", orbit, "--out", out, "--quality", "preview") == 2
    assert "No space left" in capsys.readouterr().err
    monkeypatch.undo()
    assert out.read_bytes() == b"yesterday's"
    assert {p.name for p in tmp_path.iterdir()} == {"orbit", "x.glb"}


def test_control_c_leaves_no_file(orbit, tmp_path, capsys, monkeypatch):
    def cancelled(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "bake_or_color", cancelled)
    assert call("reconstruct", orbit, "--out", tmp_path / "x.glb", "--quality", "preview") == 130
    assert "cancelled" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"orbit"}


def test_a_fit_that_breaks_down_is_told_apart_from_bad_input(orbit, tmp_path, monkeypatch, capsys):
    settings = replace(QUICK, surface=replace(QUICK.surface, mask_weight=float("nan")))
    monkeypatch.setitem(pipeline.QUALITIES, "preview", settings)
    assert call("reconstruct", orbit, "--out", tmp_path / "x.glb", "--quality", "preview") == 1
    assert "not finite" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory: you")],
)
def test_running_out_of_memory_is_explained(orbit, tmp_path, monkeypatch, capsys, error):
    def fail(*arguments, **settings):
        raise error

    monkeypatch.setattr(reconstruct, "read_views", fail)
    assert call("reconstruct", orbit, "--out", tmp_path / "x.glb") == 2
    assert "--max-size" in capsys.readouterr().err


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "hi3d_core.commands", None)
    assert call("info") == 2
    assert "is missing: pip install" in capsys.readouterr().err


def test_info_names_every_extra_and_what_it_gives(monkeypatch, capsys):
    monkeypatch.setattr(info, "is_available", lambda module: False)
    assert call("info") == 0
    told = capsys.readouterr().out
    for name, extra in EXTRAS.items():
        assert f"{name} is not installed: pip install {extra.install}" in told
        assert extra.gives in told and extra.without in told


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        call("--help")
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ("reconstruct", "render", "evaluate", "info"))


def test_no_command_is_an_error():
    with pytest.raises(SystemExit) as stop:
        call()
    assert stop.value.code == 2
