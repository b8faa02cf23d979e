"""How many orbits a second training takes in, and what memory it needs.

    python benchmarks/bench_training.py [CONFIG.toml ...] [--steps 12]

By default the smoke configurations of both stages: tiny random networks on a CPU. On a machine with
a GPU name larger ones (training/configs/orbit_24gb.toml); their weights must be there. The data are
toys, rendered first into a temporary folder at the configuration's size and not timed. A step is a
whole one: data, noise, forward, backward, optimizer. Times are medians with quartiles over the
steps after the first two; memory is the process's peak, and the GPU's where there is one. Each
configuration runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.reconstruction.machine import machine  # noqa: E402
from hi3d_core.memory import peak_memory_bytes  # noqa: E402
from training.engine.prepared import prepare, take_step  # noqa: E402
from training.engine.read_config import read_config  # noqa: E402
from training.engine.video_run import (  # noqa: E402
    OrbitRun,
    RefinerRun,
    build_orbit,
    build_refiner,
)

CONFIGS = ROOT / "training" / "configs"
USUAL = [CONFIGS / "orbit_smoke.toml", CONFIGS / "refiner_smoke.toml"]
OUT = ROOT / "benchmarks" / "results" / "training.json"
TOYS, WARM_UP = 4, 2


def main() -> None:
    """Run each configuration, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", type=Path, nargs="*", default=USUAL)
    parser.add_argument("--steps", type=int, default=12, help="timed ones")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.configs[0], options.steps)))
        return
    runs = []
    for config in options.configs:
        command = [sys.executable, __file__, "--one", "--steps", str(options.steps), str(config)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
        print(line(runs[-1]))
    options.out.write_text(
        json.dumps({"machine": machine(), "runs": runs}, indent=1) + "\n", encoding="utf-8"
    )
    print(f"wrote {options.out}")


def measured(config: Path, steps: int) -> dict[str, Any]:
    """One configuration's row."""
    kind, build = (
        (RefinerRun, build_refiner) if "refiner" in config.stem else (OrbitRun, build_orbit)
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = read_config(config, kind, [f'data.folder="{Path(folder).as_posix()}/images"'])
        render_toys(Path(folder), settings.recipe.size)
        run = prepare(build(settings), settings)
        seconds = []
        for step in range(WARM_UP + steps):
            began = time.perf_counter()
            take_step(run, step)
            seconds.append(time.perf_counter() - began)
    low, middle, high = statistics.quantiles(seconds[WARM_UP:], n=4)
    on_gpu = run.accelerator.device.type == "cuda"
    return {
        "config": config.stem,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "precision": settings.train.precision,
        "size": settings.recipe.size,
        "orbits_a_step": settings.recipe.batch_size,
        "parameters": sum(each.numel() for each in run.parameters.values()),
        "seconds_a_step": {"median": middle, "quartiles": [low, high], "steps": steps},
        "orbits_a_second": settings.recipe.batch_size / middle,
        "peak_gib": peak_memory_bytes() / 2**30,
        "peak_gpu_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
    }


def render_toys(folder: Path, size: int) -> None:
    """The data: a ring of each of a few toys."""
    script = ROOT / "training" / "render_dataset.py"
    command = [sys.executable, str(script), f"toys:0-{TOYS - 1}", "--out", str(folder)]
    options = ["--size", str(size), "--elevations", "random", "--no-geometry"]
    subprocess.run([*command, *options], stdout=sys.stderr, check=True, cwd=ROOT)


def line(run: dict[str, Any]) -> str:
    """A row for people."""
    low, high = run["seconds_a_step"]["quartiles"]
    gpu = "" if run["peak_gpu_gib"] is None else f", {run['peak_gpu_gib']:.1f} GiB on the GPU"
    return (
        f"{run['config']} on {run['device']}, {run['precision']}, {run['size']}²: "
        f"{run['orbits_a_second']:.2f} orbits a second ({run['seconds_a_step']['median']:.2f} s a "
        f"step of {run['orbits_a_step']}, quartiles {low:.2f} to {high:.2f}), "
        f"{run['parameters'] / 1e6:.1f} M parameters, peak {run['peak_gib']:.2f} GiB{gpu}"
    )


if __name__ == "__main__":
    main()
