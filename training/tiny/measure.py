#!/usr/bin/env python3
"""How well the small model draws toys that it never saw: `python -m training.tiny.measure`.

Views are compared frame by frame, 15 an object, as the first is the input. Letters: F frames.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hi3d_core.contact_sheet import contact_sheet
from hi3d_core.orbit import OrbitConfig, generate_orbit
from hi3d_core.refine import RefineConfig, refine_orbit
from hi3d_core.render import render_mesh
from hi3d_core.video_model import VideoModel
from hi3d_core.weights.load import load_video_model
from hi3d_core.weights.tensor_file import open_tensors
from hi3d_core.weights.write import sha256_of

from ..engine.read_config import from_values
from ..rendering.plan import Plan
from ..toy_objects import HELD_OUT_SEEDS, toy_object
from .sampling import Sampling

SUPERSAMPLE = 2


@dataclass(frozen=True, eq=False)
class Toy:
    """A toy's ring from its front on: frames (F, S, S, 3) in [0, 1] at two sides, and where."""

    seed: int
    elevation_degrees: float
    small: Tensor
    large: Tensor


def draw_toy(seed: int, elevation: float | None = None, sizes: tuple[int, int] = (128, 256)) -> Toy:
    """Render a toy. elevation: degrees; None draws it by the toy's name, in -10 to 40."""
    plan = Plan(elevations=None if elevation is None else (elevation,))
    elevation = plan.elevations_of(f"toy-{seed:07d}")[0]
    mesh = toy_object(seed)
    small, large = (
        render_mesh(mesh, Plan(size=size).cameras((elevation,)), supersample=SUPERSAMPLE).images
        for size in sizes
    )
    return Toy(seed, elevation, small, large)


def psnr(made: Tensor, true: Tensor) -> Tensor:
    """Of each frame, dB, (F,); both (F, S, S, 3) in [0, 1]."""
    return -10 * torch.log10(((made - true) ** 2).mean(dim=(1, 2, 3)).clamp(min=1e-10))


def novel(made: Tensor, true: Tensor) -> float:
    """The mean PSNR of all frames but the first."""
    return float(psnr(made, true)[1:].mean())


def orbit_of(
    model: VideoModel, picture: Tensor, elevation: float, sampling: Sampling, seed: int = 0
) -> Tensor:
    """A generated orbit (F, S, S, 3)."""
    config = OrbitConfig(
        size=picture.shape[0],
        steps=sampling.steps,
        solver=sampling.solver,
        guidance=sampling.guidance,
    )
    generator = torch.Generator().manual_seed(seed)
    return generate_orbit(model, picture, elevation, config, generator=generator)


def refined_of(
    model: VideoModel,
    coarse: Tensor,
    picture: Tensor,
    elevation: float,
    sampling: Sampling,
    seed: int = 0,
) -> Tensor:
    """A refined orbit, of the picture's side."""
    config = RefineConfig(
        size=picture.shape[0],
        steps=sampling.steps,
        solver=sampling.solver,
        guidance=sampling.guidance,
    )
    generator = torch.Generator().manual_seed(seed)
    return refine_orbit(model, coarse, picture, elevation, config, generator=generator)


def mean_orbit(seeds: range, size: int) -> Tensor:
    """What toys look like on average, frame by frame: (F, S, S, 3)."""
    total = torch.zeros(1)
    for seed in seeds:
        total = total + draw_toy(seed, sizes=(size, 16)).small
    return total / len(seeds)


def measure_toy(
    toy: Toy,
    orbit: VideoModel,
    refiner: VideoModel,
    samplings: tuple[Sampling, Sampling],
    mean: Tensor,
) -> dict[str, Any]:
    """One toy's figures: PSNR of the 15 novel views, dB, and of the trivial guesses."""
    small, large = toy.small, toy.large
    coarse = orbit_of(orbit, small[0], toy.elevation_degrees, samplings[0])
    refined = refined_of(refiner, coarse, large[0], toy.elevation_degrees, samplings[1])
    side = tuple(large.shape[1:3])
    planes = coarse.permute(0, 3, 1, 2)
    upsampled = {
        mode: functional.interpolate(planes, side, mode=mode, align_corners=False)
        .permute(0, 2, 3, 1)
        .clamp(0, 1)
        for mode in ("bilinear", "bicubic")
    }
    return {
        "seed": toy.seed,
        "elevation": toy.elevation_degrees,
        "orbit": novel(coarse, small),
        "input repeated": novel(small[:1].expand_as(small), small),
        "mean training image": novel(mean.mean(dim=0, keepdim=True).expand_as(small), small),
        "mean training orbit": novel(mean, small),
        "white": novel(torch.ones_like(small), small),
        "refined": novel(refined, large),
        **{f"orbit, {mode}": novel(each, large) for mode, each in upsampled.items()},
        "pictures": (small, coarse, refined),
    }


def elevation_errors(
    toy: Toy, orbit: VideoModel, sampling: Sampling, offsets: tuple[float, ...]
) -> dict[str, float]:
    """PSNR against the true orbit when the model is told the elevation plus these degrees."""
    return {
        f"{offset:+g}": novel(
            orbit_of(orbit, toy.small[0], toy.elevation_degrees + offset, sampling), toy.small
        )
        for offset in offsets
    }


def seed_spread(toy: Toy, orbit: VideoModel, sampling: Sampling, seeds: range) -> dict[str, float]:
    """How far orbits of several seeds differ: the deviation of a pixel's values, frame by frame.

    front: frame 0. back: frames 6 to 10, mean.
    """
    made = torch.stack(
        [
            orbit_of(orbit, toy.small[0], toy.elevation_degrees, sampling, seed=seed)
            for seed in seeds
        ]
    )
    spread = made.std(dim=0).mean(dim=(1, 2, 3))
    return {"front": float(spread[0]), "back": float(spread[6:11].mean())}


def main() -> None:
    """Measure two weights' files and write a JSON file and a sheet of pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("hi3d_core/models/tiny"))
    parser.add_argument("--toys", default=f"{HELD_OUT_SEEDS.start}-{HELD_OUT_SEEDS.start + 19}")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--sheet", type=Path, help="PNG of true, coarse and refined frames")
    options = parser.parse_args()
    first, last = (int(each) for each in options.toys.split("-"))
    models, samplings = {}, {}
    for stage in ("orbit", "refiner"):
        file = options.weights / f"{stage}.safetensors"
        models[stage] = load_video_model(file, stage)
        samplings[stage] = told_sampling(file)
    both = samplings["orbit"], samplings["refiner"]
    mean = mean_orbit(range(200), 128)
    toys, rows, pictures = [], [], []
    for seed in range(first, last + 1):
        toy = draw_toy(seed)
        row = measure_toy(toy, models["orbit"], models["refiner"], both, mean)
        pictures.append(row.pop("pictures"))
        rows.append(row)
        toys.append(toy)
        print({name: round(value, 2) for name, value in row.items()}, flush=True)
    inner = [toy for toy in toys if 10 <= toy.elevation_degrees <= 20]
    errors = [
        elevation_errors(toy, models["orbit"], both[0], (-20, -10, 0, 10, 20)) for toy in inner
    ]
    spreads = [seed_spread(toy, models["orbit"], both[0], range(3)) for toy in toys[:6]]
    result = {
        "what": "PSNR in dB, mean of 15 novel views, of held-out toys; one run, seed 0",
        "weights": {stage: sha256_of(options.weights / f"{stage}.safetensors") for stage in models},
        "sampling": {stage: asdict(each) for stage, each in samplings.items()},
        "mean": _mean(rows),
        "elevation told wrong by": _mean(errors),
        "pixel deviation between seeds": _mean(spreads),
        "toys": rows,
    }
    options.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps(result["mean"], indent=1))
    if options.sheet:
        sheet = [
            (f"{toy.seed} {name}", frames[::2])
            for toy, trio in zip(toys, pictures, strict=True)
            for name, frames in zip(("true", "orbit", "refined"), trio, strict=True)
        ]
        contact_sheet(sheet, size=128).save(options.sheet)


def told_sampling(file: Path) -> Sampling:
    """What a file recommends."""
    with open_tensors(file) as tensors:
        return from_values(Sampling, json.loads(tensors.metadata["sampling"]))


def _mean(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {name: fmean(row[name] for row in rows) for name in rows[0] if name != "seed"}


if __name__ == "__main__":
    main()
