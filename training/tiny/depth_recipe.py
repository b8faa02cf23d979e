"""The depth network's training: toys' inverse depth at the size that the refiner asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from hi3d_core.networks.depth_network import DepthNetwork

from ..dataset import FRAMES, OrbitDataset, to_network_range
from ..seeding import generator_for, sample_seed, share_of
from .colours import draw_variant


@dataclass(frozen=True)
class DepthRecipeConfig:
    """seed: of data and noise. rings: a step, over all processes. frames: of each ring.

    noise: greatest standard deviation of noise on a picture, whose range is [-1, 1].
    blur: how often a picture is halved and doubled first, as coarse frames are not sharp.
    """

    seed: int = 0
    rings: int = 4
    frames: int = 4
    noise: float = 0.1
    blur: float = 0.5


class DepthRecipe:
    """A recipe (see `training/recipe.py`) for the depth network.

    dataset: rendered with geometry, at the side that the network is shown, a multiple of 32.
    depth_scale: world units of one level of the depth pictures (`Plan.depth_scale`).
    """

    def __init__(
        self,
        network: DepthNetwork,
        dataset: OrbitDataset,
        depth_scale: float,
        config: DepthRecipeConfig,
    ) -> None:
        self.network, self.dataset, self.config = network, dataset, config
        self._scale = depth_scale

    def networks(self) -> nn.Module:
        """The depth network."""
        return self.network

    def batch(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """images: (N, 3, S, S) in [-1, 1]. inverse: (N, S, S), 0 where nothing is."""
        images, inverse = [], []
        for place in share_of(self.config.rings, rank, world):
            generator = generator_for(sample_seed(self.config.seed, step, place), "depth")
            sample = self.dataset.draw(generator)
            chosen = torch.randperm(FRAMES, generator=generator)[: self.config.frames].tolist()
            for frame in chosen:
                variant = draw_variant(generator)
                image = to_network_range(variant.of_frames(sample.frames[frame]))
                images.append(self._worsened(image, generator))
                depth = self._inverse_depth(sample.name, (sample.start + frame) % FRAMES)
                inverse.append(depth.flip(-1) if variant.mirrored else depth)
        return {"images": torch.stack(images), "inverse": torch.stack(inverse)}

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """The absolute error of inverse depth, whose scale is the orbit's own."""
        loss = functional.l1_loss(self.network(batch["images"]).float(), batch["inverse"])
        return loss, {"absolute": float(loss.detach())}

    def samples(self) -> None:
        """No pictures."""

    def state(self) -> dict[str, Tensor]:
        """The network's weights."""
        return {f"depth.{name}": tensor for name, tensor in self.network.state_dict().items()}

    def _worsened(self, image: Tensor, generator: torch.Generator) -> Tensor:
        if float(torch.rand((), generator=generator)) < self.config.blur:
            half = functional.avg_pool2d(image[None], 2)
            image = functional.interpolate(half, image.shape[1:], mode="bilinear")[0]
        level = float(torch.rand((), generator=generator)) * self.config.noise
        return image + level * torch.randn(image.shape, generator=generator)

    def _inverse_depth(self, name: str, frame: int) -> Tensor:
        file = Path(self.dataset.folder).parent / "extras" / name / "depths" / f"{frame:03d}.png"
        with Image.open(file) as picture:
            depth = np.asarray(picture).astype(np.float32) * self._scale
        return torch.from_numpy(np.where(depth > 0, 1 / np.maximum(depth, self._scale), 0))
