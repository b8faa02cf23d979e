"""Stage 2 of the small model: from the orbits that stage 1 paints to the true ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hi3d_core.conditioning import Conditioning
from hi3d_core.networks.image_encoder import embed_prepared, normalise
from hi3d_core.video_model import VideoModel

from ..losses import predict
from ..noise_levels import LogNormal
from ..seeding import generator_for, sample_seed, share_of
from ..weights_naming import metadata_of, state_of
from .attention import plain_attention, train_by_short_way
from .colours import Variant, draw_variant
from .noise import noise_for
from .sampling import Sampling
from .shards import Samples, Shards, stack

_MIRRORED_CELL = [2, 1, 0, 5, 4, 3, 8, 7, 6]  # a latent's 3 x 3 depths, row by row, left for right


@dataclass(frozen=True)
class TinyRefinerConfig:
    """seed: of data and noise. batch_size: orbits a step, over all processes.

    sigma_mean, sigma_deviation: of the logarithm of the noise level, one an orbit; more noise than
        officially, as few steps of sampling leave most to the first ones.
    """

    seed: int = 0
    batch_size: int = 1
    sigma_mean: float = 2.5
    sigma_deviation: float = 2.0


class TinyRefinerRecipe:
    """A recipe (see `training/recipe.py`) for the refiner's UNet.

    model: all of the stage's networks. shards: of `coarse_orbits`. size: of the refined frames.
    """

    def __init__(
        self,
        model: VideoModel,
        shards: Shards,
        size: int,
        config: TinyRefinerConfig,
        sampling: Sampling,
    ) -> None:
        self.model, self.shards, self.size, self.config = model, shards, size, config
        self.sampling = sampling
        self._sigma = LogNormal(config.sigma_mean, config.sigma_deviation)
        model.unet.requires_grad_(True)
        train_by_short_way(model.unet)

    def networks(self) -> nn.Module:
        """The UNet."""
        return self.model.unet

    def batch(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """Variants of the shards' rows, each with its noise and its level."""
        share = share_of(self.config.batch_size, rank, world)
        first = step * self.config.batch_size
        rows = self.shards.batch(self.config.seed, range(first + share.start, first + share.stop))
        seeds = [sample_seed(self.config.seed, step, place) for place in share]
        batch = stack([changed(rows, place, seed) for place, seed in enumerate(seeds)])
        return {**batch, **noise_for(batch, seeds, self._sigma)}

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """The squared error of v, as in both official stages."""
        with torch.no_grad():
            token = embed_prepared(self.model.image_encoder, batch["picture"])
        condition = Conditioning(token.float()[:, None], batch["vector"], batch["concat"].float())
        clean = batch["latents"].float()
        with plain_attention(clean.device):
            prediction = predict(self.model.unet, clean, batch["noise"], batch["sigma"], condition)
        loss = prediction.loss
        return loss, {"v": float(loss.detach())}

    def place(self, device: torch.device) -> None:
        """The image encoder stays as stage 1 taught it."""
        self.model.image_encoder.requires_grad_(False).to(device)

    def samples(self) -> None:
        """No pictures."""

    def state(self) -> dict[str, Tensor]:
        """All networks' weights."""
        return state_of(self.model)

    def metadata(self) -> dict[str, str]:
        """As the loader reads it."""
        return metadata_of(self.model) | self.sampling.metadata(self.size)


def changed(rows: Samples, place: int, seed: int) -> Samples:
    """One of the rows of `coarse_orbits` in a variant, its picture made ready for the encoder."""
    variant = draw_variant(generator_for(seed, "variant"))
    depths, coarse = rows["concat"][place].split((len(_MIRRORED_CELL), 4), dim=1)
    plain = Variant((0, 1, 2), variant.mirrored)
    if variant.mirrored:
        depths = depths[:, _MIRRORED_CELL]
    return {
        "latents": variant.of_ring(rows["latents"][place]),
        "concat": torch.cat([plain.of_ring(depths), variant.of_ring(coarse)], dim=1),
        "picture": normalise(variant.of_frames(rows["picture"][place]).float()),
        "vector": rows["vector"][place],
    }
