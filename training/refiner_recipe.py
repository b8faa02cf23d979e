"""Training stage 2: from bad frames and their depth to good ones (Hi3D, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hi3d_core.conditioning import Conditioning
from hi3d_core.refine import RefineConfig, refine_orbit, refiner_conditioning
from hi3d_core.video_model import VideoModel, device_of
from hi3d_core.video_sampling import draw

from .dataset import OrbitDataset, OrbitSample, to_network_range
from .degradation import DegradationConfig, degrade
from .seeding import generator_for
from .video_recipe import VideoRecipe, VideoRecipeConfig, to_pictures


@dataclass(frozen=True)
class RefinerRecipeConfig(VideoRecipeConfig):
    """Stage 2's settings. degradation: what clean frames go through."""

    size: int = 1024
    batch_size: int = 8
    degradation: DegradationConfig = field(default_factory=DegradationConfig)


class RefinerRecipe(VideoRecipe):
    """Stage 2: a ring's frames, degraded but for frame 0, and their depth are the condition."""

    stage = "refiner"
    config: RefinerRecipeConfig

    def __init__(
        self, model: VideoModel, dataset: OrbitDataset, config: RefinerRecipeConfig
    ) -> None:
        """As `VideoRecipe`. Raises ValueError too for a model without a depth network."""
        if model.stage == "refiner" and model.depth is None:
            raise ValueError(
                "the refiner is trained on the depth of its bad frames, and no depth network is "
                "loaded: give dpt_hybrid_384.pt (--depth-checkpoint)"
            )
        super().__init__(model, dataset, config)

    def condition(
        self, images: Tensor, background: Tensor, elevation_degrees: float, seed: int
    ) -> Conditioning:
        """See `VideoRecipe`; the same function makes it that sampling uses."""
        coarse = self._degraded(images, background, seed)
        noise = draw(generator_for(seed, "picture noise"), images.shape)
        config = RefineConfig(
            size=self.config.size, cond_aug=self.cond_aug(seed), options=self.options
        )
        return refiner_conditioning(self.model, coarse, elevation_degrees, config, noise)

    def show(self, sample: OrbitSample) -> Tensor:
        """The true frames, the degraded ones, then the refined ones."""
        images = to_network_range(sample.frames)
        degraded = to_pictures(self._degraded(images, sample.background, self.config.seed))
        config = RefineConfig(
            size=self.config.size, steps=self.config.sample_steps, options=self.options
        )
        true = to_pictures(images)
        refined = refine_orbit(
            self.model,
            degraded,
            true[0],
            sample.elevation_degrees,
            config,
            generator=generator_for(self.config.seed, "shown noise"),
        )
        return torch.cat([true, degraded, refined])

    def _degraded(self, images: Tensor, background: Tensor, seed: int) -> Tensor:
        """On the UNet's device, as large kernels take long on a CPU; returned on the CPU."""
        generator = generator_for(seed, "degradation")
        images = images.to(device_of(self.model.unet))
        return degrade(images, background, generator, self.config.degradation).cpu()
