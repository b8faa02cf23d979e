"""The autoencoder's training: frames of toys, by pixels and by what latents should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from hi3d_core.networks.vae import LATENT_SCALE, decode, encode_moments

from ..dataset import OrbitDataset, to_network_range
from ..seeding import generator_for, sample_seed, share_of
from ..video_recipe import to_pictures
from .colours import COLOURS, draw_variant

_CELL = 8  # pixels a side that a latent covers


@dataclass(frozen=True)
class VaeRecipeConfig:
    """seed: of data and noise. rings: a step, over all processes. frames: of each ring.

    noise: standard deviation of noise on half of the pictures, whose range is [-1, 1]; what shall
    come out is the clean one, as the stages encode pictures with such noise.
    squared, chroma, divergence: weights of the squared error, of that of the colours less their
    grey, and of the posterior's divergence, beside 1 of the absolute error. Without chroma the
    first thousand steps learn a grey picture.
    tied: weight of the first three latent channels' squared distance from the picture, averaged
    over the pixels that a latent covers. So colours pass as they are, and what an error in a latent
    does to the picture is known: a UNet's grain does not turn into false colours.
    """

    seed: int = 0
    rings: int = 2
    frames: int = 2
    noise: float = 0.05
    squared: float = 2.0
    chroma: float = 8.0
    divergence: float = 2e-5
    tied: float = 4.0


class VaeRecipe:
    """A recipe (see `training/recipe.py`) for the autoencoder."""

    def __init__(self, vae: AutoencoderKL, dataset: OrbitDataset, config: VaeRecipeConfig) -> None:
        self.vae, self.dataset, self.config = vae, dataset, config

    def networks(self) -> nn.Module:
        """The autoencoder."""
        return self.vae

    def batch(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """frames: (N, 3, S, S) uint8. noise: like them, normal. latent_noise: of the posterior.

        variants: N, in which the latents are decoded.
        """
        parts: dict[str, list[Tensor]] = {"frames": [], "noise": [], "latent_noise": []}
        variants = []
        for place in share_of(self.config.rings, rank, world):
            generator = generator_for(sample_seed(self.config.seed, step, place), "frames")
            ring = self.dataset.draw(generator).frames
            chosen = torch.randperm(len(ring), generator=generator)[: self.config.frames]
            frames = draw_variant(generator).of_frames(ring[chosen])
            side = frames.shape[-1] // _CELL
            noisy = torch.rand(len(frames), 1, 1, 1, generator=generator) < 0.5
            noise = torch.randn(frames.shape, generator=generator) * noisy * self.config.noise
            parts["frames"].append(frames)
            parts["noise"].append(noise)
            parts["latent_noise"].append(
                torch.randn(len(frames), 4, side, side, generator=generator)
            )
            variants += [draw_variant(generator) for _ in frames]
        return {name: torch.cat(tensors) for name, tensors in parts.items()} | {
            "variants": variants
        }

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """See `VaeRecipeConfig`."""
        clean = to_network_range(batch["frames"])
        posterior = self.vae.encode(clean + batch["noise"]).latent_dist
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        latents = mean + torch.exp(0.5 * log_variance) * batch["latent_noise"]
        pooled = functional.avg_pool2d(clean, _CELL)
        tied = functional.mse_loss(mean[:, :COLOURS], pooled)
        # What is done to latents shall be done to the picture: see colours.py.
        variants = batch["variants"]
        latents, clean = (
            torch.stack(
                [variant.of_frames(one) for variant, one in zip(variants, each, strict=True)]
            )
            for each in (latents, clean)
        )
        decoded = self.vae.decode(latents).sample.float()
        absolute = functional.l1_loss(decoded, clean)
        squared = functional.mse_loss(decoded, clean)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        error = decoded - clean
        chroma = (error - error.mean(dim=1, keepdim=True)).square().mean()
        weights = self.config
        loss = absolute + weights.squared * squared + weights.chroma * chroma
        loss = loss + weights.divergence * divergence + weights.tied * tied
        terms = {
            "absolute": absolute,
            "squared": squared,
            "chroma": chroma,
            "divergence": divergence,
            "tied": tied,
        }
        return loss, {name: float(term.detach()) for name, term in terms.items()}

    @torch.no_grad()
    def samples(self) -> Tensor:
        """Frames, and what comes back of them."""
        ring = self.dataset.draw(generator_for(self.config.seed, "shown orbit"))
        images = to_network_range(ring.frames)
        back = decode(self.vae, encode_moments(self.vae, images, 8)[0], 8)
        return torch.cat([to_pictures(images), to_pictures(back)])

    def state(self) -> dict[str, Tensor]:
        """The autoencoder's weights."""
        return {f"vae.{name}": tensor for name, tensor in self.vae.state_dict().items()}


@torch.no_grad()
def standardise(vae: AutoencoderKL, latents: Tensor) -> None:
    """Change the autoencoder so that these latents of its own become 1 / 0.18215 wide about 0.

    latents: (N, 4, h, w), posterior means. The pictures that come out stay the same: what the
    encoder's last layer gains, the decoder's first one undoes. The stages multiply by 0.18215,
    and their noise levels suppose unit variance. The three colours are changed alike, so that they
    may still be exchanged, and their variance is 1 on average.
    """
    channels = latents.shape[1]
    mean = latents.mean(dim=(0, 2, 3))
    variance = latents.var(dim=(0, 2, 3))
    for each in (mean, variance):
        each[:COLOURS] = each[:COLOURS].mean()
    factor = 1 / (variance.sqrt() * LATENT_SCALE)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:channels] *= factor[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) * factor
    quant.bias[channels:] += 2 * factor.log()  # the log variances
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight /= factor[None, :, None, None]
