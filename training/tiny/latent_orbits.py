"""Stage 1's samples: rings as latents, so that training never runs the autoencoder."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from hi3d_core.networks.image_encoder import preprocess_image
from hi3d_core.networks.vae import LATENT_SCALE, encode_moments
from hi3d_core.video_model import device_of

from ..dataset import OrbitDataset, to_network_range
from ..draws import chance
from ..seeding import generator_for, sample_seed
from .colours import mirror, swap_colours
from .networks import NETWORKS
from .shards import Samples, Shards

COND_AUG = 0.02  # noise on the conditioning picture: the library's default, never another


def latent_orbits(
    folder: Path, vae: AutoencoderKL, dataset: OrbitDataset, variants: int, length: int, seed: int
) -> Shards:
    """Every ring of a dataset, in `variants` colourings and mirrorings, the first as it is.

    length: rings a shard, which must divide the dataset.
    Raises ValueError if it does not.
    """
    if len(dataset) % length:
        raise ValueError(
            f"{len(dataset)} objects can't be kept {length} a shard: expected a multiple of it"
        )
    shards = len(dataset) // length

    def make(number: int) -> Samples:
        variant, shard = divmod(number, shards)
        rows = []
        for index in range(shard * length, (shard + 1) * length):
            generator = generator_for(sample_seed(seed, index, variant), "latent orbit")
            rows.append(encode_orbit(vae, dataset, index, variant > 0, generator))
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    return Shards(folder, shards * variants, length, make)


@torch.no_grad()
def encode_orbit(
    vae: AutoencoderKL,
    dataset: OrbitDataset,
    index: int,
    changed: bool,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """One ring from its front on.

    changed: in other colours, and mirrored half the time.
    Returns float16: latents (F, 4, h, w), posterior means times 0.18215; condition (4, h, w), the
    latents, not scaled, of the front with noise; picture (3, P, P), the front prepared for the
    image encoder; and elevation_degrees, a float32 number.
    """
    ring = dataset.read(index, 0)
    frames = ring.frames
    if changed:
        frames = swap_colours(frames, generator)
        frames = mirror(frames) if chance(generator, 0.5) else frames
    images = to_network_range(frames)
    noisy = images[:1] + COND_AUG * torch.randn(images[:1].shape, generator=generator)
    device = device_of(vae)
    with torch.autocast(device.type, torch.bfloat16):
        means, _ = encode_moments(vae, torch.cat([images, noisy]).to(device), len(images) + 1)
    means = means.float().cpu()
    picture = preprocess_image(images[:1], NETWORKS["image_encoder"].image_size)
    return {
        "latents": (means[:-1] * LATENT_SCALE).half(),
        "condition": means[-1].half(),
        "picture": picture[0].half(),
        "elevation_degrees": torch.tensor(ring.elevation_degrees, dtype=torch.float32),
    }
