"""The benchmarks' own parts: scores, fusion of depths, resuming, growth, tables, the report."""

import json
import math
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import bench_cost, bench_orbits, bench_reconstruction, report_results
from benchmarks.reconstruction import host
from benchmarks.reconstruction.baselines import hull_surface, points_with_normals
from benchmarks.reconstruction.clock import Clock
from benchmarks.reconstruction.growth import ablation_table, cost_tables, growth_exponent
from benchmarks.reconstruction.journal import Journal
from benchmarks.reconstruction.pictures import write_jpeg
from benchmarks.reconstruction.scores import judged, normal_consistency
from benchmarks.reconstruction.shorten import shortened, with_nodes, with_pictures
from benchmarks.reconstruction.skipped import Skipped
from benchmarks.reconstruction.tables import group_means, reconstruction_tables
from benchmarks.reconstruction.tsdf import fuse_depths
from benchmarks.reconstruction.worker import measured
from hi3d_core.cameras import Cameras, pixel_rays
from hi3d_core.datatypes import Gaussians, Mesh, OrbitViews
from hi3d_core.pipeline import ReconstructConfig
from hi3d_core.surface.hull import locate

from .synthetic import node_radii, sphere_views

RADIUS = 0.4


def sphere_depths(cameras: Cameras) -> OrbitViews:
    """Views of the sphere with exact z-depths."""
    views = sphere_views(cameras, RADIUS, supersample=1)
    origins, directions = pixel_rays(cameras)
    origins = origins[:, None, None]
    a, b = (directions**2).sum(-1), (directions * origins).sum(-1)
    c = (origins**2).sum(-1) - RADIUS**2
    depths = (-b - (b**2 - a * c).clamp_min(0).sqrt()) / a
    return replace(views, depths=torch.where(views.alphas > 0.5, depths, 0.0))


@pytest.fixture(scope="module")
def views() -> OrbitViews:
    cameras = [Cameras.orbit(8, e, width=96, height=96) for e in (-50.0, 0.0, 50.0)]
    poses = torch.cat([each.camera_to_world for each in cameras])
    intrinsics = torch.cat([each.intrinsics for each in cameras])
    return sphere_depths(Cameras(poses, intrinsics, 96, 96))


def test_exact_depths_fuse_to_the_distance_they_show(views):
    grid = locate(views).grid(48)
    grid = replace(grid, origin=np.full(3, -0.55), voxel=1.1 / 47, shape=(48, 48, 48))
    fused = fuse_depths(views, grid)
    radii = node_radii(grid)
    assert (fused[radii < RADIUS - 0.03] < 0).all()
    assert (fused[radii > RADIUS + 0.03] > 0).all()
    # Deep inside every view is behind a surface, far outside each sees through.
    assert (fused[radii < 0.2] == -1).all() and (fused[radii > 0.52] > 0.9).all()


def test_fusion_needs_depths(views):
    with pytest.raises(ValueError, match="no depths"):
        fuse_depths(replace(views, depths=None), locate(views).grid(16))


def test_hull_points_lie_on_the_ball_with_its_normals(views):
    placement = locate(views)
    local = replace(
        views, cameras=views.cameras.in_frame(placement.center, placement.scale), depths=None
    )
    hull = hull_surface(local, placement, nodes=64)
    hull = hull.from_frame(placement.center, placement.scale)
    points, normals = points_with_normals(hull, 500)
    radii = np.linalg.norm(points, axis=1)
    assert abs(radii - RADIUS).max() < 0.02
    cosines = ((points / radii[:, None]) * normals).sum(axis=1)
    assert cosines.min() > 0.6 and cosines.mean() > 0.95  # a hull has creases


def sheet(heights: list[float]) -> Mesh:
    """A strip 1 wide and deep over x, at these heights at even steps of x."""
    count = len(heights)
    x = torch.linspace(-0.5, 0.5, count)
    rows = [
        torch.stack([x, torch.tensor(heights), torch.full((count,), z)], 1) for z in (-0.5, 0.5)
    ]
    first = torch.arange(count - 1)
    quads = torch.stack([first, first + count, first + 1, first + 1 + count], 1)
    return Mesh(torch.cat(rows), torch.cat([quads[:, [0, 1, 2]], quads[:, [2, 1, 3]]]))


def test_normal_consistency_of_grooves_is_the_cosine_of_their_slope():
    flat, grooved = sheet([0.0] * 41), sheet([0.0, 0.025] * 20 + [0.0])  # 45 degrees
    above, below = torch.tensor([[0.0, 4, 0]]), torch.tensor([[0.0, -4, 0]])
    assert normal_consistency(flat, flat, above, samples=2000) == pytest.approx(1)
    turned = replace(grooved, faces=grooved.faces.flip(1))  # which side is out does not count
    for mesh, eye in ((grooved, above), (grooved, below), (turned, above)):
        value = normal_consistency(mesh, flat, eye, samples=2000)
        assert value == pytest.approx(math.cos(math.pi / 4), abs=1e-4)


def test_journal_resumes_by_task_and_code(tmp_path):
    path, about = tmp_path / "new" / "runs.json", {"cores": 2}
    first, second = {"object": "a", "method": "hull"}, {"object": "b", "method": "hull"}
    journal = Journal(path, about)
    journal.add({"task": first, "code": "1", "scores": {}})
    journal.add({"task": second, "code": "1", "failed": "no memory"})
    again = Journal(path, about)
    assert again.has(first, "1") and not again.has(first, "2")
    assert not again.has(second, "1"), "what failed is tried again"
    again.add({"task": first, "code": "2", "scores": {}})
    kept = json.loads(path.read_text())["runs"]
    assert [run["code"] for run in kept if run["task"] == first] == ["2"]
    with pytest.raises(ValueError, match="another machine"):
        Journal(path, {"cores": 8})
    path.write_text("[]")
    with pytest.raises(ValueError, match="machine"):
        Journal(path, about)


def _plan(tmp_path, judge=None) -> bench_reconstruction.Plan:
    objects = [tmp_path / name for name in ("one", "two")]
    return bench_reconstruction.Plan(
        objects, ["preview"], [0, 16], ["hull", "tsdf"], 0, tmp_path / "meshes", judge
    )


def test_a_plan_runs_each_task_once_and_charges_the_splat(tmp_path, monkeypatch):
    calls = []

    def launched(kind, limit=0, **arguments):
        name = Path(arguments["folder"]).name
        calls.append((kind, name, arguments.get("method")))
        figures = {"seconds": {kind: 2.0}, "wall_seconds": 2.0, "cpu_seconds": 3.0}
        return {**figures, "peak_memory_bytes": 9 if kind == "splat" else 5, "scores": SCORES}

    monkeypatch.setattr(bench_reconstruction, "launch", launched)
    monkeypatch.setattr(bench_reconstruction, "warm_up", lambda *a: calls.append(("warm-up",)))
    plan = _plan(tmp_path)
    journal = Journal(tmp_path / "runs.json", {})
    assert bench_reconstruction.run_plan(plan, journal, "1") == 0
    assert calls.count(("warm-up",)) == 1 and calls[0] == ("warm-up",)
    assert sum(call[0] == "ours" for call in calls) == 4
    assert sum(call[0] == "splat" for call in calls) == 2, "one for each object"
    fused = next(run for run in journal.runs if run["task"]["method"] == "tsdf")
    assert fused["wall_seconds"] == 4 and fused["cpu_seconds"] == 6
    assert fused["peak_memory_bytes"] == 9 and set(fused["seconds"]) == {"splat", "baseline"}
    hull = next(run for run in journal.runs if run["task"]["method"] == "hull")
    assert hull["wall_seconds"] == 2
    calls.clear()
    bench_reconstruction.run_plan(plan, Journal(tmp_path / "runs.json", {}), "1")
    assert calls == []
    bench_reconstruction.run_plan(plan, Journal(tmp_path / "runs.json", {}), "2")
    assert len(calls) > 8


def test_failed_and_skipped_runs_are_kept_and_counted(tmp_path, monkeypatch):
    outcomes = {"ours": {"failed": "boom"}, "baseline": {"skipped": "no such thing"}}
    monkeypatch.setattr(
        bench_reconstruction, "launch", lambda kind, *a, **k: dict(outcomes.get(kind, {}))
    )
    monkeypatch.setattr(bench_reconstruction, "warm_up", lambda *a: None)
    journal = Journal(tmp_path / "runs.json", {})
    assert bench_reconstruction.run_plan(_plan(tmp_path), journal, "1") == 4
    text = reconstruction_tables(journal.runs)
    assert "one: failed: boom" in text and "one: skipped: no such thing" in text


def test_judge_is_read_from_its_last_line(tmp_path):
    judge = tmp_path / "judge.py"
    judge.write_text("import sys; print('warming'); print('{\"iou\": 0.5}')")
    assert judged(judge, tmp_path / "a.glb", tmp_path) == {"iou": 0.5}
    judge.write_text("raise SystemExit('no display')")
    with pytest.raises(RuntimeError, match="no display"):
        judged(judge, tmp_path / "a.glb", tmp_path)


def _splat() -> Gaussians:
    ones = torch.ones(2, 3)
    return Gaussians(
        ones, ones, torch.tensor([[1.0, 0, 0, 0]] * 2), torch.ones(2), torch.zeros(2, 1, 3)
    )


def test_host_without_the_node_is_skipped_and_says_which_version(tmp_path, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    with pytest.raises(Skipped, match="COMFYUI_PATH is not set"):
        host.extract_with_host(_splat())
    (tmp_path / "comfyui_version.py").write_text('__version__ = "0.3.64"\n')
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    monkeypatch.delenv("COMFYUI_PYTHON", raising=False)
    with pytest.raises(Skipped, match=r"no node.*0\.3\.64"):
        host.extract_with_host(_splat())


def test_host_mesh_is_turned_back_and_its_colours_shown_as_srgb():
    vertices = np.array([[1.0, 2, 3], [0, 0, 0], [0, 1, 0]])
    mesh = host.mesh_from_host(vertices, np.array([[0, 1, 2]]), np.full((3, 4), 0.2140))
    assert mesh.vertices[0].tolist() == [1, -2, -3]
    assert mesh.vertex_colors is not None
    assert float(mesh.vertex_colors[0, 0]) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell of ended processes")
def test_a_process_that_a_run_starts_is_charged_to_it():
    busy = "x = bytearray(700_000_000); [i * i for i in range(3_000_000)]"
    _, figures = measured(lambda clock: subprocess.run([sys.executable, "-c", busy], check=True))
    assert figures["cpu_seconds"] > 0.05
    assert figures["peak_memory_bytes"] > 700_000_000


def test_growth_exponent_is_that_of_a_power_law():
    sizes = [8, 16, 32, 64]
    assert growth_exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert growth_exponent(sizes, [2.0] * 4) == pytest.approx(0)
    with pytest.raises(ValueError, match="two different sizes"):
        growth_exponent([8, 8], [1.0, 2.0])


def test_cost_tasks_vary_one_thing_at_a_time_and_tables_find_them():
    tasks = bench_cost.tasks("horse", "standard", 0.1)
    for task in tasks:
        assert sum(task[axis] != bench_cost.USUAL[axis] for axis in bench_cost.AXES) <= 1
    assert len(tasks) == sum(len(values) - 1 for values in bench_cost.AXES.values()) + 1
    runs = [
        {
            "task": task,
            "seconds": {"surface": task["views"] * task["pixels"] ** 2 / 1e6},
            "wall_seconds": task["nodes"] ** 2.0,
            "cpu_seconds": 1.0,
            "peak_memory_bytes": 2**30,
            "surface_voxels": task["nodes"] ** 2 * 3,
        }
        for task in tasks
    ]
    views, pixels, nodes = cost_tables(runs).split("\n\n")
    assert "**exponent over views** | **1.00** | **0.00**" in views
    assert "**exponent over pixels** | **1.00** | **0.00**" in pixels
    assert "**exponent over area** |  | **0.00** | **1.00**" in nodes
    assert views.count("\n") == 2 + 4 and nodes.count("\n") >= 2 + 5


def test_shortened_settings_change_what_they_say_and_nothing_else():
    config = ReconstructConfig()
    short = shortened(config, 0.1)
    assert short.splat.iterations == round(0.1 * config.splat.iterations)
    assert min(level.iterations for level in shortened(config, 0).surface.levels) == 2
    assert [lv.nodes for lv in short.surface.levels] == [lv.nodes for lv in config.surface.levels]
    large = with_pictures(config, 1024)
    assert large.surface.levels[-1].picture == large.splat.size == 1024
    assert [level.nodes for level in with_nodes(config, 100).surface.levels] == [100]
    assert config.surface.cavity_rounds > 0
    assert with_nodes(config, 100).surface.cavity_rounds == 0


def test_clock_adds_up_stages_of_one_name(monkeypatch):
    now = iter([0.0, 1.0, 1.0, 4.0, 4.0, 4.5])
    clock = Clock()
    ticking = types.SimpleNamespace(perf_counter=lambda: next(now))
    monkeypatch.setattr("benchmarks.reconstruction.clock.time", ticking)
    for name in ("a", "b", "a"):
        clock(name)
    clock.end()
    assert clock.seconds == {"a": 1.5, "b": 3.0}


SCORES = {
    "visible_chamfer": 0.002,
    "chamfer": 0.004,
    "iou": 0.9,
    "psnr": 30.0,
    "ssim": 0.95,
    "normal_consistency": 0.97,
    "faces": 50_000,
}


def run_of(name: str, chamfer: float, **task: object) -> dict:
    return {
        "task": {"object": name, "seed": 0, **task},
        "code": "abc",
        "commit": "1234567",
        "date": "2026-01-02",
        "threads": 2,
        "load_at_start": 0.1,
        "seconds": {"surface": 10.0},
        "wall_seconds": 12.0,
        "cpu_seconds": 20.0,
        "peak_memory_bytes": 2**30,
        "scores": {**SCORES, "visible_chamfer": chamfer},
    }


def ours(name: str, chamfer: float, count: int) -> dict:
    return run_of(name, chamfer, method="ours", quality="standard", interpolate=count)


def test_means_are_of_whole_groups_only():
    solids = ["cc0_bread", "cc0_stoneLantern", "ccby_horse", "scopia_cat"]
    runs = [ours(name, 0.001 * index, 16) for index, name in enumerate([*solids, "chair"])]
    means = group_means(runs, lambda run: run["scores"]["visible_chamfer"])
    assert means == {"mean": pytest.approx(0.002), "mean of the solids": pytest.approx(0.0015)}
    assert "mean of the solids" not in group_means(runs[1:], lambda run: 1.0)


def test_ablation_compares_the_same_objects():
    runs = [ours("a", 0.004, 0), ours("a", 0.003, 16), ours("b", 0.1, 0)]
    rows = ablation_table(runs).splitlines()[2:]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| standard, M = 0", "1", "0.00400"],
        ["| standard, M = 16", "1", "0.00300"],
    ]
    assert ablation_table(runs[:1]) == ""


ABOUT = {
    "processor": "some",
    "cores": 2,
    "memory_gib": 8,
    "python": "3.11",
    "torch": "2",
    "numba": "0",
}


def test_report_holds_all_that_was_measured(tmp_path):
    results, docs = tmp_path / "results", tmp_path / "docs"
    for name in ("eval", "eval_bad"):
        journal = Journal(results / f"reconstruction_{name}.json", dict(ABOUT))
        for run in (ours("a", 0.0041, 16), ours("b", 0.0043, 16)):
            journal.add(run)
        journal.add(run_of("a", 0.0077, method="hull"))
        journal.add({**run_of("b", 0.0079, method="hull"), "code": "def"})
    orbit = {
        "task": {"orbit": "creature", "quality": "standard"},
        **{"agreement": 0.9812, "shift": 2.04, "covered": 0.985, "psnr_raw": 21.06},
        **{"psnr_aligned": 23.64, "seconds": {"surface": 40.2, "texture": 19.9}},
        **{"code": "abc", "commit": "1234567", "date": "2026-01-02"},
    }
    Journal(results / "orbits.json", dict(ABOUT)).add(orbit)
    docs.mkdir()
    (docs / "notes.md").write_text("We lose at lattices.\n")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8))
    for name in ("eval-a.jpg", "eval_bad-a.jpg", "orbit-creature.jpg"):
        write_jpeg(picture, docs / name)
    text = report_results.page(results, docs)
    before, after = text.split("## eval_bad: means by method")
    assert "0.00420" in before and "0.00780" in before and "We lose at lattices." in before
    assert "(docs/eval-a.jpg)" in before and "eval_bad-a.jpg" not in before
    assert "(docs/eval_bad-a.jpg)" in after
    assert before.count("different states of the code") == 1
    _, orbits = after.split("## Generated orbits")
    assert "| creature | standard | 0.981 | 2.0 | 0.985 | 21.1 | 23.6 | 60 |" in orbits
    assert "(docs/orbit-creature.jpg)" in orbits


def test_likeness_to_an_orbits_frames_is_the_mean_over_them_on_the_objects_pixels():
    views = sphere_views(Cameras.orbit(2, 0, width=16, height=16))
    views.alphas[:] = 0
    views.alphas[:, 4:8, 4:8] = 1
    rendered = replace(views, images=views.images.clone())
    rendered.images[0, 4:8, 4:8] -= 0.1  # 20 dB
    rendered.images[1, 4:8, 4:8] += 0.01  # 40 dB
    rendered.images[:, 10:] += 0.5  # beside the object
    assert bench_orbits._object_psnr(rendered, views) == pytest.approx(30, abs=0.01)


def test_pictures_stay_under_their_limit(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    write_jpeg(noise, tmp_path / "a.jpg", 25_000)
    assert (tmp_path / "a.jpg").stat().st_size <= 25_000
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        write_jpeg(noise, tmp_path / "b.jpg", 100)
    assert not (tmp_path / "b.jpg").exists()
    assert math.isclose(Image.open(tmp_path / "a.jpg").width, 200)
