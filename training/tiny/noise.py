"""What both stages of the small model draw for each orbit of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..noise_levels import LogNormal
from ..seeding import generator_for
from .shards import Samples


def noise_for(batch: Samples, seeds: Sequence[int], sigma: LogNormal) -> Samples:
    """noise: as the batch's "latents", normal. sigma: (N,), one level an orbit.

    seeds: of each orbit.
    """
    shape = batch["latents"].shape[1:]
    noise = [torch.randn(shape, generator=generator_for(seed, "noise")) for seed in seeds]
    levels = [sigma.draw(generator_for(seed, "sigma")) for seed in seeds]
    return {"noise": torch.stack(noise), "sigma": torch.cat(levels)}
