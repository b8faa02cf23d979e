"""Stage 1's samples: rings as latents, so that training never runs the autoencoder."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from hi3d_core.networks.image_encoder import resize_image
from hi3d_core.networks.vae import LATENT_SCALE, encode_moments
from hi3d_core.video_model import device_of

from ..dataset import OrbitDataset, to_network_range
from ..seeding import generator_for, sample_seed
from .networks import NETWORKS
from .shards import Samples, Shards, stack

COND_AUG = 0.02  # noise on the conditioning picture: the library's default, never another


def latent_orbits(
    folder: Path,
    vae: AutoencoderKL,
    dataset: OrbitDataset,
    others: Shards,
    length: int,
    seed: int,
) -> Shards:
    """Every ring of a dataset, with two fronts: its own, and one at another elevation.

    others: of `fronts`, of the same toys in the same order and as many a shard.
    length: rings a shard, which must divide the dataset.
    Raises ValueError if it does not.
    """
    if len(dataset) % length:
        raise ValueError(
            f"{len(dataset)} objects can't be kept {length} a shard: expected a multiple of it"
        )

    def make(number: int) -> Samples:
        rows = []
        fronts = others.shard(number)["front"]
        for index in range(number * length, (number + 1) * length):
            generator = generator_for(sample_seed(seed, index, 0), "latent orbit")
            rows.append(encode_orbit(vae, dataset, index, fronts[index % length], generator))
        return stack(rows)

    return Shards(folder, len(dataset) // length, length, make)


@torch.no_grad()
def encode_orbit(
    vae: AutoencoderKL,
    dataset: OrbitDataset,
    index: int,
    other: Tensor,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """One ring from its front on.

    other: (3, S, S) uint8, the front from another elevation.
    Returns float16: latents (F, 4, h, w), posterior means times 0.18215; conditions (2, 4, h, w),
    the latents, not scaled, of both fronts with noise, the ring's own first; pictures (2, 3, P, P)
    in [-1, 1], both fronts resized for the image encoder; and elevation_degrees, a float32 number.
    """
    ring = dataset.read(index, 0)
    images = to_network_range(torch.cat([ring.frames, other[None]]))
    fronts = images[[0, -1]]
    noisy = fronts + COND_AUG * torch.randn(fronts.shape, generator=generator)
    device = device_of(vae)
    with torch.autocast(device.type, torch.bfloat16):
        means, _ = encode_moments(vae, torch.cat([images[:-1], noisy]).to(device), len(images) + 1)
    means = means.float().cpu()
    return {
        "latents": (means[:-2] * LATENT_SCALE).half(),
        "conditions": means[-2:].half(),
        "pictures": resize_image(fronts, NETWORKS["image_encoder"].image_size).half(),
        "elevation_degrees": torch.tensor(ring.elevation_degrees, dtype=torch.float32),
    }
