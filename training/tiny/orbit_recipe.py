"""Stage 1 of the small model: video UNet and image encoder learn together, from latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hi3d_core.conditioning import Conditioning
from hi3d_core.diffusion.embeddings import orbit_vector
from hi3d_core.networks.image_encoder import embed_prepared, normalise
from hi3d_core.orbit import DEFAULT_AESTHETIC_SCORE, OrbitConfig, generate_orbit
from hi3d_core.video_model import VideoModel, device_of

from ..dataset import OrbitDataset, to_network_range
from ..draws import chance
from ..losses import predict
from ..noise_levels import LogNormal
from ..seeding import generator_for, sample_seed, share_of
from ..video_recipe import to_pictures
from ..weights_naming import metadata_of, state_of
from .attention import plain_attention, train_by_short_way
from .colours import draw_variant
from .latent_orbits import COND_AUG
from .noise import noise_for
from .sampling import Sampling
from .shards import Samples, Shards, stack


@dataclass(frozen=True)
class TinyOrbitConfig:
    """seed: of data and noise. batch_size: orbits a step, over all processes.

    sigma_mean, sigma_deviation: of the logarithm of the noise level, one an orbit.
    dropped: how often an orbit's whole condition is taken away, for guidance.
    turned: how often the picture shows the toy from another elevation than the orbit's. Else the
        picture tells the elevation, and the number would never be listened to.
    """

    seed: int = 0
    batch_size: int = 8
    sigma_mean: float = 1.0
    sigma_deviation: float = 1.8
    dropped: float = 0.05
    turned: float = 0.4


class TinyOrbitRecipe:
    """A recipe (see `training/recipe.py`) for the UNet and the image encoder of stage 1.

    model: all of the stage's networks. shards: of `latent_orbits`. shown: rings for the log.
    """

    def __init__(
        self,
        model: VideoModel,
        shards: Shards,
        shown: OrbitDataset,
        config: TinyOrbitConfig,
        sampling: Sampling,
    ) -> None:
        self.model, self.shards, self.shown, self.config = model, shards, shown, config
        self.sampling = sampling
        self._sigma = LogNormal(config.sigma_mean, config.sigma_deviation)
        model.unet.requires_grad_(True)
        train_by_short_way(model.unet)
        self._networks = nn.ModuleDict(
            {"unet": model.unet, "image_encoder": model.image_encoder.requires_grad_(True)}
        )

    def networks(self) -> nn.Module:
        """What is trained."""
        return self._networks

    def place(self, device: torch.device) -> None:
        """The autoencoder is used for the log's pictures."""
        self.model.vae.to(device)

    def batch(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """Variants of the shards' rows, each with its noise, its level and whether it is told."""
        share = share_of(self.config.batch_size, rank, world)
        first = step * self.config.batch_size
        rows = self.shards.batch(self.config.seed, range(first + share.start, first + share.stop))
        seeds = [sample_seed(self.config.seed, step, place) for place in share]
        batch = stack([self._variant(rows, place, seed) for place, seed in enumerate(seeds)])
        told = [not chance(generator_for(seed, "dropout"), self.config.dropped) for seed in seeds]
        return {**batch, **noise_for(batch, seeds, self._sigma), "told": torch.tensor(told)}

    def _variant(self, rows: Samples, place: int, seed: int) -> Samples:
        generator = generator_for(seed, "variant")
        variant = draw_variant(generator)
        front = int(chance(generator, self.config.turned))
        return {
            "latents": variant.of_ring(rows["latents"][place]),
            "condition": variant.of_frames(rows["conditions"][place, front]),
            "picture": normalise(variant.of_frames(rows["pictures"][place, front]).float()),
            "elevation_degrees": rows["elevation_degrees"][place],
        }

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """The squared error of v, as in both official stages."""
        clean = batch["latents"].float()
        count, frames = clean.shape[:2]
        told = batch["told"].to(clean)
        with plain_attention(clean.device):
            token = embed_prepared(self.model.image_encoder, batch["picture"])
            condition = Conditioning(
                (token * told[:, None])[:, None],
                orbit_vector(
                    clean.new_full((count, 1), DEFAULT_AESTHETIC_SCORE),
                    batch["elevation_degrees"],
                    clean.new_full((count,), COND_AUG),
                ),
                (batch["condition"].float() * told[:, None, None, None])[:, None].expand(
                    -1, frames, -1, -1, -1
                ),
            )
            prediction = predict(self.model.unet, clean, batch["noise"], batch["sigma"], condition)
        loss = prediction.loss
        return loss, {"v": float(loss.detach())}

    @torch.no_grad()
    def samples(self) -> Tensor:
        """The first object's true ring, then what is made of its front."""
        ring = self.shown.read(0, 0)
        true = to_pictures(to_network_range(ring.frames))
        generator = torch.Generator().manual_seed(0)
        config = OrbitConfig(
            size=self.shown.size,
            steps=self.sampling.steps,
            solver=self.sampling.solver,
            guidance=self.sampling.guidance,
        )
        made = generate_orbit(
            self.model,
            true[0],
            ring.elevation_degrees,
            config,
            generator=generator,
            device=device_of(self.model.unet),
        )
        return torch.cat([true, made])

    def state(self) -> dict[str, Tensor]:
        """All networks' weights."""
        return state_of(self.model)

    def metadata(self) -> dict[str, str]:
        """As the loader reads it."""
        return metadata_of(self.model) | self.sampling.metadata(self.shown.size)
