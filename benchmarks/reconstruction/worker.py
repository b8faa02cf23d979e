"""One run in a process of its own, so that its peak of memory is its own.

    python -m benchmarks.reconstruction.worker JOB.json RESULT.json

A job is written by `launch.py`: "kind" names a function below, the rest are its arguments. What
is timed begins after the views are read and everything is imported.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import OrbitViews
from hi3d_core.export import write_mesh
from hi3d_core.export.gaussian_ply import read_gaussian_ply, write_gaussian_ply
from hi3d_core.memory import peak_memory_bytes
from hi3d_core.mesh import measure_area
from hi3d_core.metrics import psnr
from hi3d_core.pipeline import QUALITIES, in_local_frame, reconstruct, shrunk
from hi3d_core.splat.fit import HIGH, PREVIEW, STANDARD, fit_gaussians
from hi3d_core.splat.interpolate import in_between_cameras, render_views
from hi3d_core.surface.hull import hull_points, locate

from .baselines import NEED_SPLAT, baseline, fit_splat
from .cases import read_object, rendered_object
from .clock import Clock
from .machine import circumstances
from .scores import all_scores
from .shorten import shortened, with_nodes, with_pictures
from .skipped import Skipped

if sys.platform != "win32":
    import resource

SPLATS = {"preview": PREVIEW, "standard": STANDARD, "high": HIGH}


def main() -> None:
    """Do the job, write what came of it."""
    logging.basicConfig(level=logging.WARNING)
    job_file, result_file = (Path(argument) for argument in sys.argv[1:3])
    job = json.loads(job_file.read_text(encoding="utf-8"))
    work = _KINDS[job.pop("kind")]
    try:
        result = work(**job)
    except Skipped as reason:
        result = {"skipped": str(reason)}
    result_file.write_text(json.dumps(result), encoding="utf-8")


def measured(work: Callable[[Clock], Any]) -> tuple[Any, dict[str, Any]]:
    """Run; returns what it returned and its seconds, CPU seconds and peaks of memory."""
    about = circumstances()
    clock = Clock()
    wall, cpu = time.perf_counter(), _cpu_seconds()
    made = work(clock)
    clock.end()
    figures = {
        "seconds": clock.seconds,
        "wall_seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(_cpu_seconds() - cpu, 2),
        "peak_memory_bytes": max(peak_memory_bytes(), _peak_of_children()),
        **about,
    }
    if torch.cuda.is_available():
        figures["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
    return made, figures


def _cpu_seconds() -> float:
    """Of all threads, and of processes started and ended (on Windows not of these)."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak_of_children() -> int:
    """The largest resident set of a process started and ended, in bytes; 0 on Windows."""
    if sys.platform == "win32":
        return 0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def run_ours(folder: str, quality: str, interpolate: int, seed: int, mesh: str) -> dict[str, Any]:
    """Reconstruct an object, write its mesh, score it."""
    views = read_object(Path(folder))
    config = replace(QUALITIES[quality], interpolate=interpolate)
    result, figures = measured(lambda clock: reconstruct(views, config, seed=seed, on_stage=clock))
    write_mesh(result.mesh, mesh)
    agreement = round(result.agreement, 4)
    return {**figures, "agreement": agreement, "scores": all_scores(Path(mesh), Path(folder))}


def run_splat(folder: str, seed: int, splat: str) -> dict[str, Any]:
    """Fit the baselines' splat and write it, in the local frame."""
    views = read_object(Path(folder))
    gaussians, figures = measured(lambda clock: fit_splat(views, clock, seed))
    write_gaussian_ply(gaussians, splat)
    return figures


def run_baseline(folder: str, method: str, seed: int, mesh: str, splat: str) -> dict[str, Any]:
    """Run a baseline, write its mesh, score it. Its seconds don't hold the splat's."""
    views = read_object(Path(folder))
    gaussians = read_gaussian_ply(splat) if method in NEED_SPLAT else None
    made, figures = measured(lambda clock: baseline(method, views, gaussians, clock))
    write_mesh(made, mesh)
    return {**figures, "scores": all_scores(Path(mesh), Path(folder))}


def run_warm_up(folder: str, quality: str) -> dict[str, Any]:
    """Compile what a reconstruction needs into numba's cache on disk, with few iterations."""
    config = replace(shortened(QUALITIES[quality], 0.0), interpolate=4, face_budget=4000)
    views = shrunk(read_object(Path(folder)), 128)
    return measured(lambda clock: reconstruct(views, config, on_stage=clock))[1]


def run_cost(
    folder: str, views: int, pixels: int, nodes: int, share: float, quality: str
) -> dict[str, Any]:
    """Reconstruct from as many exact views of a size, on one grid, with few iterations.

    A tiny reconstruction goes before: loading compiled kernels takes a second or two whatever the
    size, which would make growth look slower than it is.
    """
    run_warm_up(folder, quality)
    cameras = Cameras.orbit(views, 10.0, width=pixels, height=pixels)
    given = rendered_object(Path(folder), cameras)
    config = with_nodes(with_pictures(shortened(QUALITIES[quality], share), pixels), nodes)
    result, figures = measured(lambda clock: reconstruct(given, config, on_stage=clock))
    placement = locate(given)
    voxel = placement.grid(nodes).voxel * placement.scale
    return {**figures, "surface_voxels": round(measure_area(result.mesh) / voxel**2)}


def run_interpolation(folder: str, quality: str, count: int, seed: int) -> dict[str, Any]:
    """PSNR of a splat's in-between views, and at its own views, against exact renders."""
    views = read_object(Path(folder))
    cameras = in_between_cameras(views.cameras, count)
    truth = rendered_object(Path(folder), cameras)
    config = SPLATS[quality]

    def work(clock: Clock) -> tuple[OrbitViews, OrbitViews]:
        clock("placement")
        placement = locate(views)
        local = shrunk(in_local_frame(views, placement), config.size)
        points = hull_points(local, config.count, seed)
        fitted = fit_gaussians(local, points, config, seed=seed, on_step=clock("splat"))
        clock("in-between views")
        between = render_views(fitted, cameras.in_frame(placement.center, placement.scale))
        clock("input views")
        return between, render_views(fitted, local.cameras)

    (between, again), figures = measured(work)
    pairs = {
        "psnr": (between.images, truth.images),
        "psnr_at_input": (again.images, shrunk(views, config.size).images),
    }
    for name, (drawn, exact) in pairs.items():
        each = [psnr(a, b) for a, b in zip(drawn, exact, strict=True)]
        figures[name] = round(sum(each) / len(each), 3)
        figures[f"{name}_worst"] = round(min(each), 3)
    return figures


_KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "ours": run_ours,
    "splat": run_splat,
    "baseline": run_baseline,
    "warm-up": run_warm_up,
    "cost": run_cost,
    "interpolation": run_interpolation,
}


if __name__ == "__main__":
    main()
