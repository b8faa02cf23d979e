"""What a reconstruction takes where there is a GPU: seconds by stage, CPU seconds, GPU memory.

    python benchmarks/bench_gpu.py [OBJECT_FOLDER] [--compare] [--pixels 1024] [--share 1]

16 exact views of one object (its gt.glb, or a toy that is made on the spot) become a textured GLB,
without and with 16 views in between; then a splat of 100,000 Gaussians is fitted in 3,000
iterations. --compare does the first on the CPU too. A small reconstruction goes before, which
compiles what is not compiled yet and is timed by itself. GPU memory is what the whole device has
in use more than at the start, asked every few milliseconds: torch, gsplat, Warp, the context and
other processes. --share and --pixels make a rehearsal of it for machines without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.reconstruction.cases import rendered_object  # noqa: E402
from benchmarks.reconstruction.clock import Clock  # noqa: E402
from benchmarks.reconstruction.machine import (  # noqa: E402
    circumstances,
    code_version,
    commit,
    machine,
)
from benchmarks.reconstruction.shorten import shortened  # noqa: E402
from hi3d_core.cameras import Cameras  # noqa: E402
from hi3d_core.commands.info import describe  # noqa: E402
from hi3d_core.datatypes import OrbitViews  # noqa: E402
from hi3d_core.export import write_mesh  # noqa: E402
from hi3d_core.local_views import in_local_frame, shrunk  # noqa: E402
from hi3d_core.memory import peak_memory_bytes  # noqa: E402
from hi3d_core.metrics import psnr  # noqa: E402
from hi3d_core.pipeline import QUALITIES, ReconstructConfig, reconstruct  # noqa: E402
from hi3d_core.render import render_mesh  # noqa: E402
from hi3d_core.splat.fit import SplatConfig, fit_gaussians  # noqa: E402
from hi3d_core.splat.interpolate import render_views  # noqa: E402
from hi3d_core.splat.rasterize import has_cuda_kernels  # noqa: E402
from hi3d_core.surface.hull import hull_points, locate  # noqa: E402
from training.toy_objects import toy_object  # noqa: E402

VIEWS, BETWEEN, ELEVATION = 16, 16, 10.0
SPLAT = SplatConfig(count=100_000, iterations=3000)
CUDA = torch.device("cuda")


class DeviceMemory:
    """Watches how many bytes of the GPU are in use, as a context; 0 without one."""

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> DeviceMemory:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            self._before = self._in_use()
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._watcher.is_alive():
            self._watcher.join()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.peak = max(self.peak, self._in_use() - self._before)

    @staticmethod
    def _in_use() -> int:
        free, total = torch.cuda.mem_get_info()
        return total - free


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", metavar="OBJECT_FOLDER")
    parser.add_argument("--quality", choices=QUALITIES, default="standard")
    parser.add_argument("--pixels", type=int, default=1024)
    parser.add_argument("--share", type=float, default=1.0, help="of all iterations")
    parser.add_argument("--compare", action="store_true", help="also fit on the CPU")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu.json")
    arguments = parser.parse_args()
    if torch.cuda.is_available():
        torch.cuda.init()
    cameras = Cameras.orbit(VIEWS, ELEVATION, width=arguments.pixels, height=arguments.pixels)
    views = toy_views(cameras) if arguments.folder is None else exact(arguments.folder, cameras)
    quality = shortened(QUALITIES[arguments.quality], arguments.share)
    print(describe(), flush=True)
    results: dict[str, Any] = {
        "machine": {**machine(), **circumstances()},
        "info": describe().splitlines(),
        "commit": commit(),
        "code": code_version(),
        "object": "toy" if arguments.folder is None else arguments.folder.name,
        "quality": arguments.quality,
        "pixels": arguments.pixels,
        "share": arguments.share,
    }
    small = shortened(replace(QUALITIES["preview"], interpolate=2), 0.05)
    few = shrunk(views, 128)
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "warm-up": lambda: to_glb(few, small, None),
        "to GLB": lambda: to_glb(views, quality, None),
        "to GLB, M = 16": lambda: to_glb(views, replace(quality, interpolate=BETWEEN), None),
        "splat": lambda: splat_fit(views, arguments.share),
    }
    if arguments.compare:
        runs["to GLB on the CPU"] = lambda: to_glb(views, quality, torch.device("cpu"))
    for name, run in runs.items():
        results[name] = run()
        print(name, json.dumps(results[name]), flush=True)
        # After each, so that a run that is cut short has left something.
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {arguments.out}")


def exact(folder: Path, cameras: Cameras) -> OrbitViews:
    """Views of an evaluation object."""
    if not (folder / "gt.glb").is_file():
        sys.exit(f"{folder} holds no gt.glb: give an evaluation object's folder, or none for a toy")
    return rendered_object(folder, cameras)


def toy_views(cameras: Cameras) -> OrbitViews:
    """Views of a toy, the same on every machine."""
    spacing = min(max(4 / cameras.width, 0.004), 0.05)
    drawn = render_mesh(toy_object(7, spacing=spacing), cameras)
    return OrbitViews(drawn.images, drawn.alphas, cameras)


def to_glb(
    views: OrbitViews, config: ReconstructConfig, device: torch.device | None
) -> dict[str, Any]:
    """Views to a textured GLB on disk."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, DeviceMemory() as memory:
        wall, cpu = time.perf_counter(), cpu_seconds()
        found = reconstruct(views, config, device=device, on_stage=clock)
        clock("write")
        write_mesh(found.mesh, Path(folder) / "object.glb")
        clock.end()
        figures = spent(wall, cpu)
    shown = render_mesh(found.mesh, views.cameras).images
    return {
        **figures,
        "stages": clock.seconds,
        "faces": len(found.mesh.faces),
        "psnr_at_input": mean_psnr(shown, views.images),
        "peak_gpu_bytes": memory.peak,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def splat_fit(views: OrbitViews, share: float) -> dict[str, Any]:
    """A splat of many Gaussians."""
    config = replace(
        SPLAT,
        count=max(1000, round(SPLAT.count * share)),
        iterations=max(60, round(SPLAT.iterations * share)),
    )
    local = shrunk(in_local_frame(views, locate(views)), config.size)
    points = hull_points(local, config.count, 0)
    device = CUDA if has_cuda_kernels(CUDA) else torch.device("cpu")
    on_device = local.to(device)
    with DeviceMemory() as memory:
        wall, cpu = time.perf_counter(), cpu_seconds()
        gaussians = fit_gaussians(on_device, points.to(device), config)
        if device.type == "cuda":
            torch.cuda.synchronize()
        figures = spent(wall, cpu)
        drawn = render_views(gaussians, on_device.cameras).images.cpu()
    return {
        **figures,
        "device": device.type,
        "gaussians": len(gaussians),
        "iterations": config.iterations,
        "psnr_at_input": mean_psnr(drawn, local.images),
        "peak_gpu_bytes": memory.peak,
    }


def cpu_seconds() -> float:
    """Of all threads of this process."""
    times = os.times()
    return times.user + times.system


def spent(wall: float, cpu: float) -> dict[str, float]:
    """Seconds since then."""
    return {
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(cpu_seconds() - cpu, 2),
    }


def mean_psnr(ours: torch.Tensor, truth: torch.Tensor) -> float:
    """Over views, whole pictures."""
    each = [psnr(a, b) for a, b in zip(ours, truth, strict=True)]
    return round(sum(each) / len(each), 2)


if __name__ == "__main__":
    main()
