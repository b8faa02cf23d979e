"""How many orbits a second training takes in, and what memory it needs.

    python benchmarks/bench_training.py [CONFIG.toml ...] [--steps 12]
    python benchmarks/bench_training.py training/configs/orbit_8xa100.toml --random-weights \
        --set recipe.batch_size=1

By default, on a CPU, both stages' smoke configurations (tiny random networks at 64 pixels) and
those of hi3d-tiny, trained further. On a machine with a GPU name larger ones; their weights must be
there, or --random-weights makes networks of the authors' sizes with random weights, which take as
long and as much memory. The number format, gradient checkpointing and the optimizer are the
configuration's (those of orbit_8xa100.toml: bf16, on, AdamW), and --set changes any of its keys.
The data are toys, rendered first into a temporary folder at the configuration's size and not timed.
A step is a whole one: data, noise, forward, backward, optimizer. Times are medians with quartiles
over the steps after the first two; memory is the process's peak, and the GPU's where there is one.
Each configuration runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.reconstruction.machine import machine  # noqa: E402
from hi3d_core.memory import peak_memory_bytes  # noqa: E402
from hi3d_core.networks.depth_network import DPT_HYBRID, build_depth_network  # noqa: E402
from hi3d_core.networks.image_encoder import (  # noqa: E402
    CLIP_VIT_H,
    build_image_encoder,
)
from hi3d_core.networks.vae import VaeConfig, build_vae  # noqa: E402
from hi3d_core.networks.video_unet import (  # noqa: E402
    ORBIT_UNET,
    REFINER_UNET,
    build_video_unet,
)
from hi3d_core.video_model import Stage, VideoModel  # noqa: E402
from training.engine.prepared import prepare, take_step  # noqa: E402
from training.engine.read_config import read_config  # noqa: E402
from training.engine.video_run import (  # noqa: E402
    OrbitRun,
    RefinerRun,
    build_orbit,
    build_refiner,
    made_ready,
    open_dataset,
)
from training.orbit_recipe import OrbitRecipe  # noqa: E402
from training.refiner_recipe import RefinerRecipe  # noqa: E402
from training.video_recipe import VideoRecipe  # noqa: E402

CONFIGS = ROOT / "training" / "configs"
USUAL = [
    CONFIGS / f"{stage}_{kind}.toml" for kind in ("smoke", "tiny") for stage in ("orbit", "refiner")
]
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
    parser.add_argument(
        "--random-weights", action="store_true", help="networks of the authors' sizes"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the configuration: --set recipe.batch_size=1",
    )
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        networks = random_model if options.random_weights else None
        print(json.dumps(measured(options.configs[0], options.steps, options.set, networks)))
        return
    runs = []
    for config in options.configs:
        command = [sys.executable, __file__, "--one", "--steps", str(options.steps), str(config)]
        command += [word for each in options.set for word in ("--set", each)]
        command += ["--random-weights"] if options.random_weights else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
        print(line(runs[-1]))
    options.out.write_text(
        json.dumps({"machine": machine(), "runs": runs}, indent=1) + "\n", encoding="utf-8"
    )
    print(f"wrote {options.out}")


def measured(
    config: Path,
    steps: int,
    overrides: Sequence[str] = (),
    networks: Callable[[Stage], VideoModel] | None = None,
) -> dict[str, Any]:
    """One configuration's row.

    overrides: of its keys. networks: what makes a stage's, instead of the weights it names.
    """
    kind = RefinerRun if "refiner" in config.stem else OrbitRun
    with tempfile.TemporaryDirectory() as folder:
        data = f'data.folder="{Path(folder).as_posix()}/images"'
        settings = read_config(config, kind, [data, *overrides])
        render_toys(Path(folder), settings.data.resolution or settings.recipe.size)
        run = prepare(recipe_of(settings, networks), settings)
        on_gpu = run.accelerator.device.type == "cuda"
        seconds = []
        for step in range(WARM_UP + steps):
            began = time.perf_counter()
            take_step(run, step)
            if on_gpu:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    low, middle, high = statistics.quantiles(seconds[WARM_UP:], n=4)
    return {
        "config": config.stem,
        "set": list(overrides),
        "random_weights": networks is not None,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "precision": settings.train.precision,
        "gradient_checkpointing": settings.train.gradient_checkpointing,
        "optimizer": settings.optimizer.name,
        "size": settings.recipe.size,
        "orbits_a_step": settings.recipe.batch_size,
        "parameters": sum(each.numel() for each in run.parameters.values()),
        "seconds_a_step": {"median": middle, "quartiles": [low, high], "steps": steps},
        "orbits_a_second": settings.recipe.batch_size / middle,
        "peak_gib": peak_memory_bytes() / 2**30,
        "peak_gpu_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
    }


def recipe_of(
    settings: OrbitRun | RefinerRun, networks: Callable[[Stage], VideoModel] | None
) -> VideoRecipe:
    """A configuration's recipe, with the networks that it names or those that are made."""
    is_orbit = isinstance(settings, OrbitRun)
    if networks is None:
        return build_orbit(settings) if is_orbit else build_refiner(settings)
    model = made_ready(networks("orbit" if is_orbit else "refiner"), settings.model)
    kind = OrbitRecipe if is_orbit else RefinerRecipe
    return kind(model, open_dataset(settings), settings.recipe)


def random_model(stage: Stage) -> VideoModel:
    """Networks of the authors' sizes with random weights."""
    vae = build_vae(VaeConfig())
    return VideoModel(
        stage,
        build_video_unet(ORBIT_UNET if stage == "orbit" else REFINER_UNET),
        vae,
        vae,
        build_image_encoder(CLIP_VIT_H),
        depth=build_depth_network(DPT_HYBRID) if stage == "refiner" else None,
    )


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
