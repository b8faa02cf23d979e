"""What the stages make of toys' fronts: their latents, and what stage 2 is told of stage 1."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hi3d_core.conditioning import Conditioning
from hi3d_core.networks.image_encoder import (
    embed_prepared,
    normalise,
    picture_size,
    resize_image,
)
from hi3d_core.networks.vae import LATENT_SCALE
from hi3d_core.orbit import OrbitConfig, orbit_conditioning
from hi3d_core.refine import RefineConfig, enlarge, refiner_conditioning
from hi3d_core.sample_options import SampleOptions
from hi3d_core.video_model import VideoModel, device_of
from hi3d_core.video_sampling import decode_frames, draw, encode_frames, sample_latents

from ..dataset import OrbitDataset, to_network_range
from ..seeding import generator_for, sample_seed
from ..video_recipe import to_pictures
from .sampling import Sampling
from .shards import Samples, Shards

_OPTIONS = SampleOptions(frames_at_once=8, feed_forward_chunks=1, guide_at_once=True)


def coarse_latents(
    folder: Path,
    orbit: VideoModel,
    dataset: OrbitDataset,
    sampling: Sampling,
    length: int,
    seed: int,
) -> Shards:
    """Stage 1's latents of every ring's front, for its decoder to learn from.

    It works where the model's weights are. A sample: "latents" (F, 4, h, w) float16, scaled by
    0.18215, and "index" of the ring.
    """

    def make(number: int) -> Samples:
        rings = range(number * length, (number + 1) * length)
        with torch.autocast(device_of(orbit.unet).type, torch.bfloat16):
            made = [
                _paint(orbit, dataset, index, sampling, sample_seed(seed, index, 0))
                for index in rings
            ]
        return {"latents": torch.stack(made).half(), "index": torch.tensor(rings)}

    return Shards(folder, len(dataset) // length, length, make)


def coarse_orbits(
    folder: Path,
    orbit: VideoModel,
    refiner: VideoModel,
    coarse: Shards,
    dataset: OrbitDataset,
    seed: int,
) -> Shards:
    """Stage 2's samples: true rings as latents, and what it is told of stage 1's.

    orbit: whose decoder makes frames of `coarse`. refiner: for its autoencoder, image encoder and
    depth network. dataset: the same rings at the refiner's side.
    A sample: "latents" (F, 4, h, w), "concat" (F, 13, h, w), "picture" (3, P, P), the front in
    [-1, 1], float16, and "vector" (A,).
    """

    def make(number: int) -> Samples:
        painted = coarse.shard(number)
        pairs = zip(painted["latents"].float(), painted["index"].tolist(), strict=True)
        with torch.autocast(device_of(orbit.unet).type, torch.bfloat16):
            rows = [
                _told(orbit, refiner, latents, dataset, index, sample_seed(seed, index, 1))
                for latents, index in pairs
            ]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    return Shards(folder, coarse.count, coarse.length, make)


def refined_latents(
    folder: Path, refiner: VideoModel, told: Shards, sampling: Sampling, seed: int
) -> Shards:
    """Stage 2's latents of what it is told, for its decoder to learn from.

    told: of `coarse_orbits`. One step of sampling, in which coarse frames are not mixed in yet.
    A sample is as of `coarse_latents`.
    """

    def make(number: int) -> Samples:
        rows = told.shard(number)
        first = number * told.length
        made = []
        with torch.autocast(device_of(refiner.unet).type, torch.bfloat16):
            for row in range(told.length):
                token = embed_prepared(
                    refiner.image_encoder, normalise(rows["picture"][row].float()[None])
                )
                condition = Conditioning(
                    token.cpu().float()[None],
                    rows["vector"][row][None],
                    rows["concat"][row].float(),
                )
                generator = generator_for(sample_seed(seed, first + row, 2), "refined orbit")
                latents = sample_latents(
                    refiner,
                    condition,
                    draw(generator, rows["latents"][row].shape),
                    solver=sampling.solver,
                    steps=sampling.steps,
                    guidance=sampling.guidance,
                    options=_OPTIONS,
                )
                made.append(latents.half())
        return {"latents": torch.stack(made), "index": first + torch.arange(told.length)}

    return Shards(folder, told.count, told.length, make)


def _paint(
    orbit: VideoModel, dataset: OrbitDataset, index: int, sampling: Sampling, seed: int
) -> Tensor:
    ring = dataset.read(index, 0)
    front = to_network_range(ring.frames[:1])
    generator = generator_for(seed, "coarse orbit")
    grid = dataset.size // orbit.pixels_per_latent
    picture_noise = draw(generator, front.shape)
    noise = draw(generator, (orbit.frames, 4, grid, grid))
    config = OrbitConfig(size=dataset.size, options=_OPTIONS)
    condition = orbit_conditioning(orbit, front, ring.elevation_degrees, config, picture_noise)
    return sample_latents(
        orbit,
        condition,
        noise,
        solver=sampling.solver,
        steps=sampling.steps,
        guidance=sampling.guidance,
        options=_OPTIONS,
    )


def _told(
    orbit: VideoModel,
    refiner: VideoModel,
    latents: Tensor,
    dataset: OrbitDataset,
    index: int,
    seed: int,
) -> dict[str, Tensor]:
    ring = dataset.read(index, 0)
    true = to_network_range(ring.frames)
    coarse = decode_frames(orbit, latents, _OPTIONS)
    config = RefineConfig(size=dataset.size, options=_OPTIONS)
    images = enlarge(coarse, to_pictures(true[:1])[0], config)
    noise = draw(generator_for(seed, "picture noise"), images.shape)
    condition = refiner_conditioning(refiner, images, ring.elevation_degrees, config, noise)
    clean, _ = encode_frames(refiner.vae, true, _OPTIONS)
    return {
        "latents": (clean * LATENT_SCALE).half(),
        "picture": resize_image(images[:1], picture_size(refiner.image_encoder))[0].half(),
        "vector": condition.vector[0],
        "concat": condition.concat.half(),
    }
