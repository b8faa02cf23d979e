"""Toys' fronts from other elevations than their orbits': else nothing would need the number."""

from __future__ import annotations

from pathlib import Path

import torch

from hi3d_core.render import render_mesh

from ..draws import uniform
from ..rendering.plan import RANDOM_RANGE, Plan
from ..seeding import generator_for, sample_seed
from ..toy_objects import training_toy
from .shards import Samples, Shards


def fronts(folder: Path, seeds: range, plan: Plan, length: int, seed: int) -> Shards:
    """One front of each toy at a random elevation, that has nothing to do with its orbit's.

    seeds: of the toys; length of a shard must divide their number. plan: how they are drawn.
    A sample: "front" (3, S, S) uint8, on white.
    """

    def make(number: int) -> Samples:
        pictures = []
        for toy in seeds[number * length : (number + 1) * length]:
            generator = generator_for(sample_seed(seed, toy, 0), "another front")
            camera = plan.cameras((uniform(generator, *RANDOM_RANGE),))[:1]
            mesh = training_toy(toy, spacing=plan.toy_spacing)
            seen = render_mesh(mesh, camera, supersample=plan.supersample).images[0]
            pictures.append((seen * 255).round().to(torch.uint8).permute(2, 0, 1))
        return {"front": torch.stack(pictures)}

    return Shards(folder, len(seeds) // length, length, make)
