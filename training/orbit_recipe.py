"""Training stage 1: from a picture and its elevation to the orbit (Hi3D, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d_core.conditioning import Conditioning
from hi3d_core.networks import aesthetic
from hi3d_core.orbit import OrbitConfig, generate_orbit, orbit_conditioning
from hi3d_core.video_model import like_weights
from hi3d_core.video_sampling import draw

from .dataset import OrbitSample, to_network_range
from .seeding import generator_for
from .video_recipe import VideoRecipe, VideoRecipeConfig, to_pictures


@dataclass(frozen=True)
class OrbitRecipeConfig(VideoRecipeConfig):
    """Stage 1's settings.

    aesthetic_score: what the network is told of every orbit; None has it computed where the model
        has the network for it, and else takes the library's default.
    """

    aesthetic_score: float | None = None


class OrbitRecipe(VideoRecipe):
    """Stage 1: frame 0 of a ring, noised a little, is the condition of all its frames."""

    stage = "orbit"
    config: OrbitRecipeConfig

    def condition(
        self, images: Tensor, background: Tensor, elevation_degrees: float, seed: int
    ) -> Conditioning:
        """See `VideoRecipe`; the same function makes it that sampling uses."""
        noise = draw(generator_for(seed, "picture noise"), images[:1].shape)
        config = OrbitConfig(
            size=self.config.size,
            cond_aug=self.cond_aug(seed),
            aesthetic_score=self._score(images),
            options=self.options,
        )
        return orbit_conditioning(self.model, images[:1], elevation_degrees, config, noise)

    def show(self, sample: OrbitSample) -> Tensor:
        """The true frames, then those generated from the first of them."""
        true = to_pictures(to_network_range(sample.frames))
        config = OrbitConfig(
            size=self.config.size,
            steps=self.config.sample_steps,
            aesthetic_score=self.config.aesthetic_score,
            options=self.options,
        )
        generator = generator_for(self.config.seed, "shown noise")
        generated = generate_orbit(
            self.model, true[0], sample.elevation_degrees, config, generator=generator
        )
        return torch.cat([true, generated])

    def _score(self, images: Tensor) -> float | None:
        """The orbit's aesthetic score: the middle frame's, as in the released training."""
        network = self.model.aesthetic
        if self.config.aesthetic_score is not None or network is None:
            return self.config.aesthetic_score
        middle = images[len(images) // 2][None]
        return float(aesthetic.score(network, like_weights(middle, network)))
