"""A decoder's second lesson: true pictures of what its stage makes, not of true latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hi3d_core.networks.vae import LATENT_SCALE
from hi3d_core.video_model import VideoModel

from ..dataset import OrbitDataset, to_network_range
from ..seeding import generator_for, sample_seed, share_of
from ..weights_naming import metadata_of, state_of
from .sampling import Sampling
from .shards import Shards


@dataclass(frozen=True)
class DecoderRecipeConfig:
    """seed: of the data. rings: a step, over all processes. frames: of each ring.

    squared: weight of the squared error, beside 1 of the absolute error.
    """

    seed: int = 0
    rings: int = 2
    frames: int = 4
    squared: float = 4.0


class DecoderRecipe:
    """A recipe (see `training/recipe.py`) for a stage's decoder; all else stays as it is.

    A small UNet leaves grain in its latents, which the decoder, as it was trained, paints in false
    colours. shards: of `coarse_latents` or `refined_latents`. dataset: their rings.
    """

    def __init__(
        self,
        model: VideoModel,
        shards: Shards,
        dataset: OrbitDataset,
        config: DecoderRecipeConfig,
        sampling: Sampling,
    ) -> None:
        self.model, self.shards, self.dataset, self.config = model, shards, dataset, config
        self.sampling = sampling
        vae = model.vae
        self._networks = nn.ModuleDict(
            {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
        )
        self._networks.requires_grad_(True)

    def networks(self) -> nn.Module:
        """The decoder and the layer before it."""
        return self._networks

    def batch(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """latents: (N, 4, h, w), unscaled. frames: (N, 3, S, S) uint8, what they should become."""
        share = share_of(self.config.rings, rank, world)
        first = step * self.config.rings
        rows = self.shards.batch(self.config.seed, range(first + share.start, first + share.stop))
        latents, frames = [], []
        for place, row, index in zip(share, rows["latents"], rows["index"].tolist(), strict=True):
            generator = generator_for(sample_seed(self.config.seed, step, place), "frames")
            chosen = torch.randperm(len(row), generator=generator)[: self.config.frames]
            latents.append(row[chosen].float() / LATENT_SCALE)
            frames.append(self.dataset.read(index, 0).frames[chosen])
        return {"latents": torch.cat(latents), "frames": torch.cat(frames)}

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """The error of the pictures."""
        decoded = self.model.vae.decode(batch["latents"]).sample.float()
        clean = to_network_range(batch["frames"])
        absolute = functional.l1_loss(decoded, clean)
        squared = functional.mse_loss(decoded, clean)
        loss = absolute + self.config.squared * squared
        return loss, {"absolute": float(absolute.detach()), "squared": float(squared.detach())}

    def samples(self) -> None:
        """No pictures."""

    def state(self) -> dict[str, Tensor]:
        """All networks' weights."""
        return state_of(self.model)

    def metadata(self) -> dict[str, str]:
        """As the loader reads it."""
        return metadata_of(self.model) | self.sampling.metadata(self.dataset.size)
