"""How fast splats are drawn on the CPU, forward and backward, and against plain torch.

    python benchmarks/bench_splat.py [--repeats 15] [--out benchmarks/results/splat_cpu.json]

The scene is a closed shell of flat Gaussians, as a fit makes them, seen from one camera of an
orbit. Times are wall-clock medians with quartiles, after a warm-up. The twin is the dense torch
rasterizer of the tests, which visits every pixel for every Gaussian: it runs a smaller scene, and
our kernels run the same one for the ratio.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numba
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hi3d_core.cameras import Cameras  # noqa: E402
from hi3d_core.splat.rasterize import rasterize  # noqa: E402
from hi3d_core.splat.structural_similarity import (  # noqa: E402
    mean_by_convolution,
    structural_similarity,
)
from hi3d_core.threads import one_torch_thread  # noqa: E402

SIZES = ((5_000, 256), (20_000, 256), (20_000, 512), (50_000, 512))
TWIN_SIZE = (300, 64)


def shell(count: int, seed: int = 0) -> list[torch.Tensor]:
    """Gaussians on a sphere of radius 0.45, flat and as wide as they are apart."""
    g = torch.Generator().manual_seed(seed)
    normals = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    spacing = 0.45 * (4 * torch.pi / count) ** 0.5
    widths = 0.6 * spacing * torch.exp(0.3 * torch.randn(count, 2, generator=g))
    # The quaternion that turns z to the normal.
    half = normals + torch.tensor([0.0, 0.0, 1.0])
    quaternions = torch.stack(
        [half[:, 2], -half[:, 1], half[:, 0], torch.zeros(count)], dim=1
    )  # fmt: skip
    return [
        0.45 * normals,
        torch.cat([widths, 0.3 * spacing * torch.ones(count, 1)], dim=1),
        torch.nn.functional.normalize(quaternions, dim=1),
        0.3 + 0.65 * torch.rand(count, generator=g),
        torch.rand(count, 3, generator=g),
    ]


def milliseconds(work: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median and quartiles of `repeats` runs, after one that does not count."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    low, middle, high = statistics.quantiles(times, n=4)
    return {"median": round(middle, 2), "quartile_1": round(low, 2), "quartile_3": round(high, 2)}


def forward_and_backward(draw: Callable, parts: list[torch.Tensor], camera: Cameras) -> Callable:
    """One optimisation step's worth of drawing."""

    def work() -> None:
        leaves = [p.detach().requires_grad_() for p in parts]
        drawn = draw(*leaves, camera)
        sum(d.sum() for d in drawn).backward()

    return work


def ours(*arguments: object) -> tuple[torch.Tensor, ...]:
    """The product's rasterizer, with the twin's signature."""
    drawn = rasterize(*arguments)  # type: ignore[arg-type]
    return drawn.colors, drawn.alphas, drawn.depths


def load_twin() -> Callable:
    """The tests' plain torch rasterizer."""
    path = ROOT / "tests" / "core" / "splat_twin.py"
    spec = importlib.util.spec_from_file_location("splat_twin", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.rasterize


def machine() -> dict[str, object]:
    """What the figures depend on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    ) if Path("/proc/cpuinfo").exists() else platform.processor()  # fmt: skip
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": numba.get_num_threads(),
        "load_at_start": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "commit": commit,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "splat_cpu.json"
    )
    arguments = parser.parse_args()
    results: dict[str, object] = {"machine": machine(), "unit": "ms", "repeats": arguments.repeats}
    with one_torch_thread():
        rows = []
        for count, size in SIZES:
            parts = shell(count)
            camera = Cameras.orbit(16, 10.0, width=size, height=size)[[1]]
            with torch.no_grad():
                forward = milliseconds(lambda p=parts, c=camera: ours(*p, c), arguments.repeats)
            both = milliseconds(forward_and_backward(ours, parts, camera), arguments.repeats)
            rows.append({"gaussians": count, "size": size, "forward": forward, "both": both})
            print(
                f"{count:6d} Gaussians, {size} x {size}: forward {forward['median']:.1f} ms, "
                f"with backward {both['median']:.1f} ms "
                f"({both['quartile_1']:.1f} to {both['quartile_3']:.1f})"
            )
        results["rasterize"] = rows

        count, size = TWIN_SIZE
        parts = shell(count)
        camera = Cameras.orbit(16, 10.0, width=size, height=size)[[1]]
        fast = milliseconds(forward_and_backward(ours, parts, camera), arguments.repeats)
        slow = milliseconds(forward_and_backward(load_twin(), parts, camera), 3)
        ratio = round(slow["median"] / fast["median"], 1)
        results["twin"] = {
            "gaussians": count, "size": size, "kernels": fast, "torch": slow, "ratio": ratio,
        }  # fmt: skip
        print(f"{count} Gaussians, {size} x {size}: plain torch takes {ratio} times as long")

        rows = []
        for size in (256, 512):
            x, y = torch.rand(2, size, size, 3, generator=torch.Generator().manual_seed(0))
            row: dict[str, object] = {"size": size}
            for name, function in (
                ("kernels", structural_similarity),
                ("convolution", mean_by_convolution),
            ):
                row[name] = milliseconds(
                    lambda f=function, x=x, y=y: f(x.detach().requires_grad_(), y).backward(),
                    arguments.repeats if name == "kernels" else 3,
                )
            rows.append(row)
            print(
                f"SSIM {size} x {size}, with gradient: {row['kernels']['median']:.1f} ms, "  # type: ignore[index]
                f"by convolution {row['convolution']['median']:.1f} ms"  # type: ignore[index]
            )
        results["structural_similarity"] = rows
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
