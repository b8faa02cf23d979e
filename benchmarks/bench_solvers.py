"""Which solver comes closest to the exact picture in how many network calls.

    python benchmarks/bench_solvers.py [--orbits ../shared/eval] [--golden ../shared/golden]
                                       [--seeds 3] [--only local whole refiner network]
                                       [--out benchmarks/results/solvers.json]

No released weights are needed; the denoisers are stand-ins:

    local    the exact denoiser of pictures assembled from patches of real orbits (16 frames, four
             channels of unit variance, 32 x 32): what a convolutional network comes close to
             (Kamb and Ganguli 2024). Guided, 1 to 2.5, from patches of the object and its kin
             against patches of all objects.
    whole    the same with whole orbits instead of patches: a Gaussian mixture in 65,536
             dimensions, whose choice between orbits is as abrupt as it can be.
    refiner  local, with a tighter condition and the coarse frames mixed in as stage 2 does.
    network  stage 1 of the golden folder: the real architecture, narrow, with random weights.

Every run starts from the same noise as its reference, Heun's method in 200 steps. Errors are
relative l2 distances to it: the median and the worst of the seeds, each with an object of its own
(network: two seeds at most, since it takes half an hour).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hi3d_core.diffusion.guidance import frame_scales, guide  # noqa: E402
from hi3d_core.diffusion.mixing import mixing_weights, mixing_weights_at  # noqa: E402
from hi3d_core.diffusion.precondition import Denoiser  # noqa: E402
from hi3d_core.diffusion.sampling import (  # noqa: E402
    SOLVERS,
    BeforeStep,
    sample_dpmpp_2m,
    sample_euler,
    sample_heun,
)
from hi3d_core.diffusion.schedule import align_your_steps_sigmas, edm_sigmas  # noqa: E402
from hi3d_core.threads import one_torch_thread  # noqa: E402

FRAMES, GRID = 16, 32
CALLS = (5, 8, 10, 12, 15, 20, 25, 50)
METHODS = {"euler": sample_euler, "heun": sample_heun, "dpmpp_2m": sample_dpmpp_2m}
SCHEDULES = {"edm": edm_sigmas, "ays": align_your_steps_sigmas}
AXES = (-4, -2, -1)  # frames, rows, columns


@dataclass(frozen=True)
class Problem:
    """A denoiser and the noise to start from; for the refiner also its coarse latents."""

    denoise: Denoiser
    noise: Tensor
    coarse: Tensor | None = None

    def start(self) -> Tensor:
        """The sample at the first noise level."""
        return self.noise * math.sqrt(1 + 700.0**2)

    def mixing(self, weights: Tensor) -> BeforeStep | None:
        """Mixes the coarse latents in, for the refiner."""
        coarse = self.coarse
        if coarse is None:
            return None

        def before_step(i: int, x: Tensor, sigma: Tensor) -> Tensor:
            return (1 - weights[i]) * x + weights[i] * (coarse + sigma * self.noise)

        return before_step


def read_orbits(folder: Path) -> Tensor:
    """Pictures (K, 16, 3, H, W) in [0, 1] over white of every object in the folder."""
    orbits = []
    for each in sorted(folder.glob("*/train")):
        frames = [np.asarray(Image.open(f).convert("RGBA")) for f in sorted(each.glob("*.png"))]
        rgba = torch.from_numpy(np.stack(frames)).float().div(255).permute(0, 3, 1, 2)
        orbits.append(rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:])
    return torch.stack(orbits)


def draw_orbits(count: int = 8) -> Tensor:
    """Orbits of coloured balls, for want of pictures: (K, 16, 3, 256, 256)."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 256)] * 2, indexing="ij")
    orbits = torch.ones(count, FRAMES, 3, 256, 256)
    for orbit in orbits:
        for radius, height, angle, size, *color in torch.rand(12, 7, generator=generator).tolist():
            for frame, picture in enumerate(orbit):
                turn = 2 * math.pi * (frame / FRAMES + angle)
                distance = torch.hypot(x - 0.6 * radius * math.sin(turn), y - height + 0.5)
                alpha = torch.sigmoid(60 * (0.1 + 0.2 * size - distance))
                picture.lerp_(torch.tensor(color)[:, None, None].expand_as(picture), alpha)
    return orbits


def to_latents(pictures: Tensor) -> Tensor:
    """Four channels of unit variance, (K, 16, 4, 32, 32): lightness, two colours, contrast."""
    flat, cell = pictures.flatten(0, 1), pictures.shape[-1] // GRID
    red, green, blue = functional.avg_pool2d(flat, cell).unbind(1)
    light = flat.mean(1)
    mean = functional.avg_pool2d(light, cell)
    contrast = (functional.avg_pool2d(light**2, cell) - mean**2).clamp(min=0).sqrt()
    codes = torch.stack([mean, red - green, green - blue, contrast], dim=1)
    codes = codes.unflatten(0, pictures.shape[:2])
    over = (0, 1, 3, 4)
    return (codes - codes.mean(over, keepdim=True)) / codes.std(over, keepdim=True)


def natural_power(latents: Tensor) -> Tensor:
    """Mean power of the orbits' differences at each frequency, smoothed over equal frequencies."""
    power = (transform(latents - latents.mean(0)).abs() ** 2).mean(0)
    frequencies = torch.meshgrid(
        torch.fft.fftfreq(FRAMES), torch.fft.fftfreq(GRID), torch.fft.rfftfreq(GRID), indexing="ij"
    )
    ring = (24 * torch.stack(frequencies).norm(dim=0)).round().long().flatten()
    count = torch.bincount(ring)
    sums = torch.stack([torch.bincount(ring, p.flatten()) for p in power.unbind(1)])
    return (sums / count)[:, ring].unflatten(1, frequencies[0].shape).transpose(0, 1)


def transform(x: Tensor) -> Tensor:
    """To frequencies, over frames, rows and columns."""
    return torch.fft.rfftn(x, dim=AXES, norm="ortho")


@dataclass(frozen=True)
class Mixture:
    """The exact denoiser of equally likely orbits, each blurred by a normal of a given power.

    means: (K, 16, 4, 32, 32). power: variance at each frequency. window: None weighs whole orbits;
    else every place weighs the patches around it, so wide and three frames long.
    """

    means: Tensor
    power: Tensor
    window: int | None

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[clean | x]: the likely orbits' mean, then a Wiener filter on what is left."""
        mean = (self._weights(x, sigma) * self.means).sum(0)
        gain = self.power / (self.power + sigma**2)
        rest = torch.fft.irfftn(
            gain * transform(x - mean), s=(FRAMES, GRID, GRID), dim=AXES, norm="ortho"
        )
        return mean + rest

    def _weights(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.window is None:
            # Rfft keeps one half of the frequencies; those in between count twice.
            twice = torch.full((GRID // 2 + 1,), 2.0)
            twice[0] = twice[-1] = 1
            surprise = transform(x - self.means).abs() ** 2 / (self.power + sigma**2) * twice
            whole = surprise.flatten(1).double().sum(1)
            return torch.softmax(-whole / 2, dim=0).float().view(-1, 1, 1, 1, 1)
        distance = ((x - self.means) ** 2).sum(2)
        distance = distance + distance.roll(1, 1) + distance.roll(-1, 1)
        distance = self.window**2 * functional.avg_pool2d(
            distance, self.window, stride=1, padding=self.window // 2, count_include_pad=False
        )
        likely = -distance / (sigma**2 + self.power.mean()) / 2
        return torch.softmax(likely, dim=0)[:, :, None]


def picture_problem(latents: Tensor, seed: int, kind: str) -> Problem:
    """One of the closed-form problems, about an object of its own for each seed."""
    chosen = 3 * seed % len(latents)
    kin = 0.25 if kind == "refiner" else 0.6
    # What is behind the object is open, what the picture shows is not.
    behind = (0.5 - 0.5 * torch.cos(torch.arange(FRAMES) * 2 * torch.pi / FRAMES))[
        :, None, None, None
    ]
    where = torch.ones_like(behind) if kind == "refiner" else behind
    relatives = [
        latents[chosen] + share * where * (other - latents[chosen])
        for other in latents
        for share in (0, kin / 2, kin)
    ]
    turned = [orbit.roll(turn, 0) for orbit in latents for turn in range(0, FRAMES, 4)]
    power = natural_power(latents)
    window = None if kind == "whole" else 7
    without = Mixture(torch.stack(turned), 0.15 * power + 0.03**2, window)
    given = Mixture(torch.stack(relatives), 0.075 * power + 0.03**2, window)
    scales = frame_scales(1.0, 2.0 if kind == "refiner" else 2.5, FRAMES)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latents.shape[1:], generator=generator)
    coarse = None
    if kind == "refiner":
        other = latents[(chosen + 1) % len(latents)]
        blurred = functional.avg_pool2d(latents[chosen] + 0.15 * (other - latents[chosen]), 2)
        coarse = functional.interpolate(blurred, scale_factor=2, mode="bilinear")
    return Problem(
        lambda x, sigma: guide(without(x, sigma), given(x, sigma), scales), noise, coarse
    )


def reference(problem: Problem) -> Tensor:
    """The exact picture; for the refiner exact between the official 25 mixings."""
    if problem.coarse is None:
        return sample_heun(problem.denoise, problem.start(), edm_sigmas(200))
    levels, weights, x = edm_sigmas(25), mixing_weights(25), problem.start()
    mix = problem.mixing(weights)
    assert mix is not None
    for i, (high, low) in enumerate(zip(levels[:-1], levels[1:].clamp(min=1e-3), strict=True)):
        between = torch.exp(torch.lerp(high.log(), low.log(), torch.linspace(0, 1, 9)))
        x = sample_heun(problem.denoise, mix(i, x, high), between)
    return problem.denoise(x, torch.tensor(1e-3))


def distance(x: Tensor, exact: Tensor) -> float:
    """Relative l2 distance."""
    return float((x - exact).norm() / exact.norm())


def summary(errors: list[float]) -> dict[str, float]:
    """Median and worst, and the median as a signal-to-noise ratio."""
    middle = statistics.median(errors)
    return {
        "median": round(middle, 4),
        "worst": round(max(errors), 4),
        "decibel": round(-20 * math.log10(max(middle, 1e-6)), 1),
    }


def compare(problems: list[Problem]) -> list[dict[str, object]]:
    """Every method on every schedule with every number of calls."""
    exact = [reference(problem) for problem in problems]
    rows: list[dict[str, object]] = []
    for name, solve in METHODS.items():
        for schedule, levels in SCHEDULES.items():
            for calls in CALLS:
                sigmas = levels((calls + 1) // 2 if name == "heun" else calls)
                errors = [
                    distance(solve(problem.denoise, problem.start(), sigmas), truth)
                    for problem, truth in zip(problems, exact, strict=True)
                ]
                row = {"solver": name, "schedule": schedule, "calls": calls, **summary(errors)}
                rows.append(row)
    return rows


def compare_mixing(problems: list[Problem]) -> list[dict[str, object]]:
    """The solvers of the registry with the ways to mix the coarse frames in."""
    exact = [reference(problem) for problem in problems]
    runs = [
        ("euler", 25, None),
        ("euler", 10, None),
        ("dpmpp_2m", 25, None),
        ("dpmpp_2m", 10, None),
    ]
    runs += [("fast", steps, count) for steps in (8, 10, 12) for count in (None, 25)]
    rows: list[dict[str, object]] = []
    for name, steps, count in runs:
        sigmas = SOLVERS[name].sigmas(steps)
        weights = mixing_weights_at(sigmas, official_steps=count)
        errors = [
            distance(
                SOLVERS[name].solve(
                    problem.denoise, problem.start(), sigmas, before_step=problem.mixing(weights)
                ),
                truth,
            )
            for problem, truth in zip(problems, exact, strict=True)
        ]
        mixing = "for each step" if count is None else f"as {count} official steps"
        rows.append({"solver": name, "calls": steps, "mixing": mixing, **summary(errors)})
    return rows


def network_problem(folder: Path, seed: int) -> Problem:
    """Stage 1 of the golden folder, with the condition recorded there."""
    # Only this problem needs diffusers, which takes seconds to import.
    from safetensors.torch import load_file

    from hi3d_core.conditioning import Conditioning, video_denoiser
    from hi3d_core.networks.video_unet import build_video_unet
    from hi3d_core.networks.video_unet_keys import official_sources, settings_from_official

    settings = json.loads((folder / "manifest.json").read_text())["config"]["unet"]
    prefix = "module.model.diffusion_model."
    saved = torch.load(folder / "stage1" / "first_stage.pt", weights_only=True)["module"]
    state = {k.removeprefix(prefix): v.float() for k, v in saved.items() if k.startswith(prefix)}
    config = settings_from_official(
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        head_channels=settings["num_head_channels"],
    )
    unet = build_video_unet(config).eval()
    sources = official_sources(config)
    # Some buffers are constants that no file holds.
    unet.load_state_dict({k: s.extract(state[s.name]) for k, s in sources.items()}, strict=False)
    recorded = load_file(folder / "stage1" / "outputs.safetensors")
    denoise = video_denoiser(
        unet,
        Conditioning(recorded["crossattn"], recorded["vector"], recorded["concat"]),
        recorded["guider_scale"],
        device=torch.device("cpu"),
        dtype=torch.float32,
        batched=True,
    )
    generator = torch.Generator().manual_seed(seed)
    return Problem(denoise, torch.randn(recorded["concat"].shape, generator=generator))


def show(rows: list[dict[str, object]]) -> None:
    """A Markdown table: median error (worst) for each number of calls."""
    print("| | " + " | ".join(f"{calls} calls" for calls in CALLS) + " |")
    print("| --- |" + " --- |" * len(CALLS))
    for solver in METHODS:
        for schedule in SCHEDULES:
            cells = [
                f"{row['median']:.3f} ({row['worst']:.3f})"
                for row in rows
                if (row["solver"], row["schedule"]) == (solver, schedule)
            ]
            print(f"| {solver}, {schedule} | " + " | ".join(cells) + " |")


def show_mixing(rows: list[dict[str, object]]) -> None:
    """A Markdown table of the refiner's runs."""
    print("| solver | calls | mixing | error (worst) |\n| --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row['solver']} | {row['calls']} | {row['mixing']} | "
            f"{row['median']:.3f} ({row['worst']:.3f}) |"
        )


def machine() -> dict[str, object]:
    """What the figures depend on."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orbits", type=Path, default=ROOT.parent / "shared" / "eval")
    parser.add_argument("--golden", type=Path, default=ROOT.parent / "shared" / "golden")
    parser.add_argument("--seeds", type=int, default=3)
    kinds = ("local", "whole", "refiner", "network")
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "solvers.json"
    )
    arguments = parser.parse_args()
    found = arguments.orbits.is_dir()
    latents = to_latents(read_orbits(arguments.orbits) if found else draw_orbits())
    results: dict[str, object] = {
        "machine": machine(),
        "orbits": "rendered objects" if found else "drawn balls",
        "unit": "relative l2 distance to the exact solution",
    }
    for kind in arguments.only:
        if kind == "network" and not (arguments.golden / "manifest.json").is_file():
            print(f"\nnetwork: left out, there is no {arguments.golden}")
            continue
        seeds = range(min(arguments.seeds, 2 if kind == "network" else arguments.seeds))
        began = time.perf_counter()
        with one_torch_thread():
            if kind == "network":
                rows = compare([network_problem(arguments.golden, seed) for seed in seeds])
            else:
                problems = [picture_problem(latents, seed, kind) for seed in seeds]
                rows = compare_mixing(problems) if kind == "refiner" else compare(problems)
        results[kind] = {"seeds": len(seeds), "rows": rows}
        print(f"\n{kind}, {time.perf_counter() - began:.0f} s\n")
        (show_mixing if kind == "refiner" else show)(rows)
    if arguments.out.exists():  # keep what this run leaves out
        results = json.loads(arguments.out.read_text()) | results
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nwrote {arguments.out}")


if __name__ == "__main__":
    main()
