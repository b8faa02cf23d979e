"""Datasets of orbits: layout, cameras, renderers that agree, resuming, spreading, shards."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from hi3d_core.cameras import Cameras, opengl_to_opencv
from hi3d_core.datatypes import Mesh
from hi3d_core.export.glb import write_glb
from hi3d_core.export.ply import write_ply
from hi3d_core.optional import MissingDependency
from training.render_dataset import main, render_dataset
from training.rendering import draw_object as drawing
from training.rendering.plan import OFFICIAL_ELEVATIONS, Plan
from training.rendering.renderers import Renderer, choose_renderer, open_renderer
from training.rendering.shards import write_shards
from training.rendering.sources import find_tasks, in_unit_cube
from training.rendering.store import Store, open_store
from training.toy_objects import HELD_OUT_SEEDS, TRAIN_SEEDS, toy_object

ROOT = Path(__file__).resolve().parents[2]
_RING = Plan(elevations=(0.0,), size=32, supersample=1, toy_spacing=0.04)
_SMALL = replace(_RING, size=16)


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _box(colors: dict[str, tuple[float, float, float]]) -> Mesh:
    """A cube of half side 2 about (3, 4, 5), its faces in colours of their own, else grey."""
    vertices, faces, paint = [], [], []
    for axis, name in enumerate("xyz"):
        for sign, mark in ((-1, "-"), (1, "+")):
            first, second = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
            corners = [sign * np.eye(3)[axis] + u * first + v * second
                       for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]  # fmt: skip
            start = len(vertices)
            vertices += [2 * corner + [3, 4, 5] for corner in corners]
            order = [[0, 1, 2], [0, 2, 3]] if sign > 0 else [[0, 2, 1], [0, 3, 2]]
            faces += [[start + i for i in face] for face in order]
            paint += [colors.get(mark + name, (0.5, 0.5, 0.5))] * 4
    return Mesh(
        torch.tensor(np.array(vertices), dtype=torch.float32),
        torch.tensor(faces),
        vertex_colors=torch.tensor(paint, dtype=torch.float32),
    )


_PAINTED = _box({"+z": (1, 0, 0), "+x": (0, 1, 0), "-z": (0, 0, 1), "-x": (1, 1, 0)})


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


# The layout, which the official code reads


def test_official_layout(tmp_path: Path) -> None:
    plan = replace(_SMALL, elevations=OFFICIAL_ELEVATIONS)
    assert OFFICIAL_ELEVATIONS == (-10, 0, 10, 20, 30, 40)
    assert Plan().size == 1024 and Plan().elevations == OFFICIAL_ELEVATIONS
    assert render_dataset("toys:5", tmp_path / "out", plan) == (1, {})
    assert sorted(p.name for p in (tmp_path / "out" / "images").iterdir()) == ["toy-0000005"]
    frames = sorted(p.name for p in (tmp_path / "out" / "images" / "toy-0000005").iterdir())
    assert frames == [f"{n:03d}.png" for n in range(96)]
    for name in frames[::31]:
        with Image.open(tmp_path / "out" / "images" / "toy-0000005" / name) as picture:
            assert (picture.mode, picture.size) == ("RGBA", (16, 16))
    description = json.loads((tmp_path / "out/extras/toy-0000005/transforms.json").read_text())
    for index, frame in enumerate(description["frames"]):
        assert frame["elevation_degrees"] == OFFICIAL_ELEVATIONS[index // 16]
        assert frame["azimuth_degrees"] == 22.5 * (index % 16)
        position = 1.5 * np.array(
            [
                math.sin(math.radians(frame["azimuth_degrees"])),
                math.tan(math.radians(frame["elevation_degrees"])),
                math.cos(math.radians(frame["azimuth_degrees"])),
            ]
        )
        position *= [math.cos(math.radians(frame["elevation_degrees"]))] * 3
        assert np.allclose(np.array(frame["transform_matrix"])[:3, 3], position, atol=1e-6)
        assert (tmp_path / "out/extras/toy-0000005" / frame["file_path"]).is_file()
        assert (tmp_path / "out/extras/toy-0000005" / frame["depth_file_path"]).is_file()
        assert (tmp_path / "out/extras/toy-0000005" / frame["normal_file_path"]).is_file()
    depth = _pixels(tmp_path / "out/extras/toy-0000005/depths/017.png")
    alpha = _pixels(tmp_path / "out/images/toy-0000005/017.png")[..., 3]
    assert np.array_equal(depth > 0, alpha > 0) and 0 < (depth > 0).sum() < 256
    assert math.degrees(description["camera_angle_x"]) == pytest.approx(49.134, abs=1e-3)
    assert description["fl_x"] == pytest.approx(16 * 1.09375, rel=1e-4)


def test_front_first_then_counter_clockwise(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_glb(_PAINTED, tmp_path / "in" / "cube.glb")
    render_dataset(str(tmp_path / "in"), tmp_path / "out", _RING)
    images = tmp_path / "out" / "images" / "cube"
    expected = {0: (255, 0, 0), 4: (0, 255, 0), 8: (0, 0, 255), 12: (255, 255, 0)}
    for frame, color in expected.items():
        pixel = _pixels(images / f"{frame:03d}.png")[16, 16]
        assert pixel[3] == 255
        assert np.abs(pixel[:3].astype(int) - color).max() <= 1, frame
    # Half-way to the second side, the camera has moved to its right: the front is on the left.
    row = _pixels(images / "002.png")[16].astype(int)
    seen = np.flatnonzero(row[:, 3] == 255)
    assert row[seen[1], 0] > 250 and row[seen[-2], 1] > 250


def test_depths_and_normals_lie_on_the_cube(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_glb(_PAINTED, tmp_path / "in" / "cube.glb")
    render_dataset(str(tmp_path / "in"), tmp_path / "out", _RING)
    extras = tmp_path / "out" / "extras" / "cube"
    description = json.loads((extras / "transforms.json").read_text())
    for frame, normal in ((0, (0, 0, 1)), (4, (1, 0, 0)), (12, (-1, 0, 0))):
        depth = _pixels(extras / "depths" / f"{frame:03d}.png")
        assert depth.dtype == np.uint16
        # The cube's longest side is 1 and its middle the origin.
        assert depth[16, 16] * description["depth_scale"] == pytest.approx(1.0, abs=1e-4)
        direction = _pixels(extras / "normals" / f"{frame:03d}.png")[16, 16, :3] / 255 * 2 - 1
        assert np.abs(direction - normal).max() < 0.01
    poses = torch.tensor([frame["transform_matrix"] for frame in description["frames"]])
    orbit = Cameras.orbit(16, 0.0)
    assert torch.allclose(opengl_to_opencv(poses), orbit.camera_to_world, atol=1e-6)


def test_random_elevations_depend_on_seed_and_name_alone(tmp_path: Path) -> None:
    plan = replace(_SMALL, elevations=None)
    elevations = {plan.elevations_of(f"object{n}")[0] for n in range(50)}
    assert len(elevations) > 45
    assert all(-10 <= each <= 40 for each in elevations)
    assert min(elevations) < -2 and max(elevations) > 32
    assert plan.elevations_of("object1") == plan.elevations_of("object1")
    assert plan.elevations_of("object1") != replace(plan, seed=1).elevations_of("object1")
    render_dataset("toys:0", tmp_path / "out", plan)
    manifest = json.loads((tmp_path / "out/extras/toy-0000000/manifest.json").read_text())
    assert tuple(manifest["elevations"]) == plan.elevations_of("toy-0000000")
    assert len(list((tmp_path / "out/images/toy-0000000").iterdir())) == 16


def test_without_geometry_only_cameras_lie_beside(tmp_path: Path) -> None:
    render_dataset("toys:0", tmp_path / "out", replace(_SMALL, geometry=False))
    names = sorted(p.name for p in (tmp_path / "out/extras/toy-0000000").iterdir())
    assert names == ["manifest.json", "transforms.json"]


# Renderers


def _opengl(supersample: int, shading: str) -> Renderer:
    try:
        return open_renderer("moderngl", supersample, shading)  # type: ignore[arg-type]
    except MissingDependency as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("shading", ["unlit", "soft"])
def test_opengl_and_cpu_agree(shading: str) -> None:
    gradient = torch.linspace(0, 1, 64)
    texture = torch.stack(torch.meshgrid(gradient, gradient, indexing="ij"), dim=-1)
    texture = torch.cat([texture, texture[..., :1] * 0 + 0.5], dim=-1)
    cube = in_unit_cube([_PAINTED])[0]
    textured = Mesh(
        cube.vertices * 0.6, cube.faces, uvs=cube.vertices[:, :2] + 0.5, texture=texture
    )
    plain = Mesh(cube.vertices * 0.4 + 0.3, cube.faces)
    cameras = replace(_RING, size=128, elevations=(20.0,)).cameras((20.0,))[::3]
    gpu, cpu = _opengl(2, shading), open_renderer("cpu", 2, shading)  # type: ignore[arg-type]
    for meshes in ([toy_object(3)], [textured, plain]):
        ours, theirs = cpu.render(meshes, cameras), gpu.render(meshes, cameras)
        both = ((ours.alphas > 0.5) & (theirs.alphas > 0.5)).sum()
        either = ((ours.alphas > 0.5) | (theirs.alphas > 0.5)).sum()
        assert float(both / either) > 0.999
        assert float((ours.images - theirs.images).abs().mean()) < 1e-3
        assert float((ours.depths - theirs.depths).abs().mean()) < 1e-3
        assert float((ours.normals - theirs.normals).abs().mean()) < 1e-3
        # The driver may round a pixel's edge otherwise, but not a whole region.
        assert float(((ours.images - theirs.images).abs().amax(dim=-1) > 0.1).float().mean()) < 2e-3
    gpu.close()


def test_auto_falls_back_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moderngl", None)
    said: list[str] = []
    assert choose_renderer("auto", said.append) == "cpu"
    assert "pip install moderngl" in said[0]
    with pytest.raises(MissingDependency, match="pip install moderngl"):
        choose_renderer("moderngl")


@pytest.mark.skipif(importlib.util.find_spec("bpy") is not None, reason="bpy is installed")
def test_blender_says_how_to_get_it() -> None:
    with pytest.raises(MissingDependency, match="pip install bpy"):
        choose_renderer("bpy")


def test_blender_and_cpu_agree() -> None:
    if importlib.util.find_spec("bpy") is None:
        pytest.skip("bpy is not installed: pip install bpy")
    cameras = replace(_RING, size=64).cameras((20.0,))[::8]
    ours = open_renderer("cpu", 3, "unlit").render([toy_object(3)], cameras)
    theirs = open_renderer("bpy", 3, "unlit").render([toy_object(3)], cameras)
    both = ((ours.alphas > 0.5) & (theirs.alphas > 0.5)).sum()
    either = ((ours.alphas > 0.5) | (theirs.alphas > 0.5)).sum()
    assert float(both / either) > 0.99
    assert float((ours.images - theirs.images).abs().mean()) < 0.01


# Broken meshes


def _broken_folder(folder: Path) -> None:
    (folder / "deep").mkdir(parents=True)
    write_glb(_PAINTED, folder / "deep" / "good cube.glb")
    whole = (folder / "deep" / "good cube.glb").read_bytes()
    (folder / "cut.glb").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.obj").write_text("# nothing\n")
    (folder / "point.obj").write_text("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n")
    (folder / "line.obj").write_text("v 0 0 0\nv 1 0 0\nv 3 0 0\nf 1 2 3\n")
    (folder / "nan.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (folder / "notes.txt").write_text("not a mesh")


def test_broken_meshes_are_skipped_and_listed(tmp_path: Path) -> None:
    _broken_folder(tmp_path / "in")
    finished, reasons = render_dataset(str(tmp_path / "in"), tmp_path / "out", _SMALL)
    assert finished == 1
    assert set(reasons) == {"cut", "empty", "line", "point", "nan"}
    listed = json.loads((tmp_path / "out" / "skipped.json").read_text())["skipped"]
    assert [row["name"] for row in listed] == sorted(reasons)
    assert {row["source"].split(".")[0] for row in listed} == set(reasons)
    assert reasons["line"] == "nothing of it shows in any view"
    assert all(row["reason"] for row in listed)
    (name,) = (p.name for p in (tmp_path / "out" / "images").iterdir())
    assert name.startswith("deep_good_cube-") and "." not in name
    assert not (tmp_path / "out" / ".unfinished").exists()
    # Once mended, it is drawn and no longer listed.
    shutil.copy(tmp_path / "in" / "deep" / "good cube.glb", tmp_path / "in" / "cut.glb")
    finished, reasons = render_dataset(str(tmp_path / "in"), tmp_path / "out", _SMALL)
    assert finished == 2
    assert "cut" not in {
        row["name"] for row in json.loads((tmp_path / "out/skipped.json").read_text())["skipped"]
    }


def test_same_name_in_two_formats_makes_two_objects(tmp_path: Path) -> None:
    write_glb(_PAINTED, tmp_path / "cube.glb")
    write_ply(_PAINTED, tmp_path / "cube.ply")
    names = {task.name for task in find_tasks(str(tmp_path))}
    assert len(names) == 2
    assert all(name.startswith("cube_") for name in names)


# Resuming


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "out"
    render_dataset("toys:0-3", folder, _SMALL)
    return folder


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("when", ["drawing", "between the renames"])
def test_resume_after_a_kill(
    when: str, tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    save, replace_path = drawing._save, Path.replace

    def dying_save(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 10:  # within the second object
            raise _Killed
        save(*arguments)  # type: ignore[arg-type]

    def dying_replace(path: Path, target: Path) -> Path:
        if path.name == "extras" and "toy-0000001" in str(target):
            raise _Killed
        return replace_path(path, target)

    with monkeypatch.context() as patch:
        if when == "drawing":
            patch.setattr(drawing, "_save", dying_save)
        else:
            patch.setattr(Path, "replace", dying_replace)
        with pytest.raises(_Killed):
            render_dataset("toys:0-3", tmp_path / "out", _SMALL)
    first = tmp_path / "out" / "images" / "toy-0000000"
    assert first.is_dir()
    assert not (tmp_path / "out" / "extras" / "toy-0000001").exists()
    stamps = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    render_dataset("toys:0-3", tmp_path / "out", _SMALL)
    assert _tree(tmp_path / "out") == _tree(unbroken)
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == stamps


def test_resume_after_sigkill_of_a_run_with_workers(tmp_path: Path) -> None:
    settings = ["toys:0-5", "--size", "16", "--elevations", "random", "--renderer", "cpu"]
    script = str(ROOT / "training" / "render_dataset.py")
    command = [sys.executable, script, *settings, "--workers", "2", "--out", str(tmp_path / "cut")]
    process = subprocess.Popen(command, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("cut/extras/*/manifest.json")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.002)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    process.wait()
    # Orphans would go on drawing into what the next run draws.
    assert not psutil.wait_procs(children, timeout=60)[1]
    main([*settings, "--out", str(tmp_path / "cut")])
    main([*settings, "--out", str(tmp_path / "whole")])
    assert _tree(tmp_path / "cut") == _tree(tmp_path / "whole")


def test_a_second_run_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    render_dataset("toys:5", out, _SMALL)
    before = _tree(out)
    with open_store(out, _SMALL).locked():
        unfinished = out / ".unfinished" / "toy-0000006"
        unfinished.mkdir(parents=True)
        with pytest.raises(ValueError, match="another run is drawing into"):
            render_dataset("toys:5-6", out, _SMALL)
        assert unfinished.is_dir()
        assert _tree(out) == before
    assert render_dataset("toys:5-6", out, _SMALL)[0] == 2


def test_a_lost_frame_is_drawn_again(tmp_path: Path, unbroken: Path) -> None:
    shutil.copytree(unbroken, tmp_path / "out")
    (tmp_path / "out" / "images" / "toy-0000002" / "007.png").unlink()
    render_dataset("toys:0-3", tmp_path / "out", _SMALL)
    assert _tree(tmp_path / "out") == _tree(unbroken)


def test_other_settings_or_foreign_folders_are_refused(tmp_path: Path, unbroken: Path) -> None:
    with pytest.raises(ValueError, match="size was 16, now 32"):
        render_dataset("toys:0-3", unbroken, _RING)
    (tmp_path / "killed early").mkdir()
    (tmp_path / "killed early" / ".hi3d-0123.json").write_text("{")
    assert open_store(tmp_path / "killed early", _SMALL).path.is_dir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="other things"):
        render_dataset("toys:0-3", tmp_path / "foreign", _SMALL)
    with pytest.raises(ValueError, match="is a file"):
        render_dataset("toys:0-3", tmp_path / "foreign" / "thesis.txt", _SMALL)
    assert _tree(tmp_path / "foreign") == {"thesis.txt": b"mine"}


def test_a_name_taken_by_another_mesh_is_refused(tmp_path: Path) -> None:
    for suffix in ("glb", "ply"):
        (tmp_path / suffix).mkdir()
    write_glb(_PAINTED, tmp_path / "glb" / "cube.glb")
    write_ply(_PAINTED, tmp_path / "ply" / "cube.ply")
    render_dataset(str(tmp_path / "glb"), tmp_path / "out", _SMALL)
    with pytest.raises(ValueError, match=r"made from cube\.glb, now cube\.ply"):
        render_dataset(str(tmp_path / "ply"), tmp_path / "out", _SMALL)


# Spreading


def test_two_processes_give_the_same_files(tmp_path: Path, unbroken: Path) -> None:
    render_dataset("toys:0-3", tmp_path / "out", _SMALL, workers=2)
    assert _tree(tmp_path / "out") == _tree(unbroken)


@pytest.mark.slow
def test_two_ray_workers_give_the_same_files(tmp_path: Path, unbroken: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install ray")
    render_dataset("toys:0-3", tmp_path / "out", _SMALL, workers=2, ray=True)
    assert _tree(tmp_path / "out") == _tree(unbroken)


def test_ray_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match="pip install ray"):
        render_dataset("toys:0-1", tmp_path / "out", _SMALL, ray=True)


# Shards


def test_shards_hold_the_folder(tmp_path: Path, unbroken: Path) -> None:
    shutil.copytree(unbroken, tmp_path / "out")
    render_dataset("toys:0-3", tmp_path / "out", _SMALL, objects_a_shard=3)
    paths = sorted((tmp_path / "out" / "shards").iterdir())
    assert [path.name for path in paths] == ["00000.tar", "00001.tar"]
    samples: dict[str, dict[str, bytes]] = {}
    for path in paths:
        with tarfile.open(path) as tar:
            keys = []
            for member in tar:
                assert (member.mtime, member.uid, member.mode) == (0, 0, 0o644)
                # WebDataset's rule: the sample's key ends at the first dot.
                key, field = member.name.split(".", 1)
                content = tar.extractfile(member)
                assert content is not None
                samples.setdefault(key, {})[field] = content.read()
                keys.append(key)
            assert keys == sorted(keys)  # a sample's files follow each other
    assert sorted(samples) == [f"toy-{n:07d}" for n in range(4)]
    for name, fields in samples.items():
        extras = unbroken / "extras" / name
        expected = {p.name: p for p in (unbroken / "images" / name).iterdir()}
        expected |= {f"{p.stem}.depth.png": p for p in (extras / "depths").iterdir()}
        expected |= {f"{p.stem}.normal.png": p for p in (extras / "normals").iterdir()}
        expected |= {p.name: p for p in extras.glob("*.json")}
        assert fields == {field: path.read_bytes() for field, path in expected.items()}
    with Image.open(io.BytesIO(samples["toy-0000001"]["003.png"])) as picture:
        assert picture.mode == "RGBA"
    before = {path.name: path.read_bytes() for path in paths}
    names = sorted(samples)
    write_shards(Store(tmp_path / "out"), names, 3)
    assert {path.name: path.read_bytes() for path in paths} == before
    assert len(write_shards(Store(tmp_path / "out"), names, 10)) == 1
    assert [p.name for p in (tmp_path / "out" / "shards").iterdir()] == ["00000.tar"]


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["EMPTY"], "holds no meshes"),
        ([f"toys:{TRAIN_SEEDS.stop - 1}-{TRAIN_SEEDS.stop}"], "mixes them"),
        (["toys:5-3"], "empty range"),
        (["toys:x"], "no range of toys"),
        (["toys:0", "--size", "3"], "size is 3"),
        (["toys:0", "--supersample", "0"], "supersample is 0"),
        (["toys:0", "--elevations=ten"], "--elevations is 'ten'"),
        (["toys:0", "--elevations=95"], "elevation is 95"),
        (["toys:0", "--workers", "0"], "workers is 0"),
        (["toys:0", "--shards", "0"], "0 objects a shard"),
        (["toys:0", "--address", "auto"], "give --ray"),
        (["toys:0", "--renderer", "povray"], "renderer is 'povray'"),
    ],
)
def test_bad_input_ends_with_a_sentence(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "EMPTY").mkdir()
    source = str(tmp_path / "EMPTY") if arguments[0] == "EMPTY" else arguments[0]
    with pytest.raises(SystemExit) as ending:
        main([source, *arguments[1:], "--out", str(tmp_path / "out")])
    assert message in str(ending.value)
    assert not (tmp_path / "out").exists()


def test_all_broken_is_an_error_and_listed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.glb").write_bytes(b"glTF")
    with pytest.raises(ValueError, match=r"none of the 1 objects.*bad\.glb"):
        render_dataset(str(tmp_path / "in"), tmp_path / "out", _SMALL)
    assert "bad" in (tmp_path / "out" / "skipped.json").read_text()


def test_toy_ranges() -> None:
    assert [task.seed for task in find_tasks("toys:3-5")] == [3, 4, 5]
    held_out = f"toys:{HELD_OUT_SEEDS.start}-{HELD_OUT_SEEDS.start + 1}"
    assert [task.seed for task in find_tasks(held_out)] == list(HELD_OUT_SEEDS[:2])
    assert find_tasks(f"toys:{TRAIN_SEEDS.stop - 1}")[0].name == f"toy-{TRAIN_SEEDS.stop - 1:07d}"
