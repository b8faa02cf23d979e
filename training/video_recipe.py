"""What the recipes of both stages share: data, noise, the video UNet's loss, pictures for the log.

A stage adds its condition (`orbit_recipe.py`, `refiner_recipe.py`). Letters: b this process's
orbits, F frames, S their side in pixels, h and w the latent grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hi3d_core.conditioning import Conditioning
from hi3d_core.model_defaults import OFFICIAL
from hi3d_core.refine import RefineConfig, encode_coarse
from hi3d_core.sample_options import SampleOptions
from hi3d_core.video_model import Stage, VideoModel, device_of
from hi3d_core.video_sampling import check_size, draw

from .dataset import FRAMES, OrbitDataset, OrbitSample, to_network_range
from .losses import Prediction, drop_conditions, predict, stack
from .motion_mask import MotionMask, masked_loss
from .noise_levels import LogNormal
from .read_ahead import ReadAhead
from .seeding import generator_for, sample_seed, share_of
from .trained_parameters import EVERYTHING, choose_trained
from .weights_naming import metadata_of, state_of


@dataclass(frozen=True)
class VideoRecipeConfig:
    """What both stages are trained with; numbers are the official ones.

    seed: of data and noise. size: S, a multiple of 64. batch_size: orbits a step, over all
        processes; they must share it equally.
    sigma_mean, sigma_deviation: of the logarithm of the noise level on latents, one an orbit.
    cond_aug_mean, cond_aug_deviation: likewise of the noise on the conditioning picture, whose
        range is [-1, 1].
    drop_context, drop_latents: how often the picture's token (of an orbit) and the conditioning
        latents (of a frame) are taken away.
    trained: pieces of official parameter names, or ("all",).
    motion_mask: lambda of the learnt mask for real video (`motion_mask.py`); 0 has none.
    frames_at_once: pictures in one call of the autoencoder.
    threads: that read pictures, ahead of the step; 0 reads when asked.
    sample_steps: solver steps of the log's pictures; 0 draws none.
    """

    seed: int = 0
    size: int = 512
    batch_size: int = 16
    sigma_mean: float = 1.0
    sigma_deviation: float = 1.6
    cond_aug_mean: float = -3.0
    cond_aug_deviation: float = 0.5
    drop_context: float = 0.1
    drop_latents: float = 0.1
    trained: tuple[str, ...] = EVERYTHING
    motion_mask: float = 0.0
    frames_at_once: int = 1
    threads: int = 4
    sample_steps: int = 10

    def __post_init__(self) -> None:
        check_size(self.size)
        for name, least in (
            ("batch_size", 1),
            ("frames_at_once", 1),
            ("threads", 0),
            ("sample_steps", 0),
            ("motion_mask", 0),
        ):
            value = getattr(self, name)
            if not value >= least:
                raise ValueError(f"{name} is {value}, expected {least} or more")
        for name in ("drop_context", "drop_latents"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}, expected 0 to 1")


class VideoRecipe(ABC):
    """A recipe (see `recipe.py`) for one stage's video UNet.

    model: the stage's networks; its UNet is trained, in place, the others stay as they are.
    """

    stage: ClassVar[Stage]

    def __init__(self, model: VideoModel, dataset: OrbitDataset, config: VideoRecipeConfig) -> None:
        """Let gradients into what is trained.

        Raises ValueError for the other stage's model, a dataset of another size, and parameters'
        names that there are none of.
        """
        model.check_stage(self.stage, type(self).__name__)
        if dataset.size != config.size:
            raise ValueError(
                f"the dataset gives frames of {dataset.size} pixels, the recipe is for "
                f"{config.size}: set both alike"
            )
        if model.frames != FRAMES:
            raise ValueError(f"the model is for {model.frames} frames, expected {FRAMES}: a ring")
        self.model, self.dataset, self.config = model, dataset, config
        self._sigma = LogNormal(config.sigma_mean, config.sigma_deviation)
        self._cond_aug = LogNormal(config.cond_aug_mean, config.cond_aug_deviation)
        self._networks = nn.ModuleDict({"unet": model.unet})
        choose_trained(model.unet, config.trained)
        if config.motion_mask:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                self._networks["motion_mask"] = MotionMask()
        self._ahead = ReadAhead(self._read_batch) if config.threads else None
        self._pool = ThreadPoolExecutor(config.threads) if config.threads else None

    @property
    def options(self) -> SampleOptions:
        """How core's functions shall run the networks; never so that weights' use changes."""
        return SampleOptions(frames_at_once=self.config.frames_at_once, feed_forward_chunks=1)

    def networks(self) -> nn.Module:
        """The video UNet, and the motion mask if there is one."""
        return self._networks

    def place(self, device: torch.device) -> None:
        """Bring the networks that are not trained to a device, where they stay."""
        frozen = (self.model.vae, self.model.conditioning_vae, self.model.image_encoder)
        for network in (*frozen, self.model.aesthetic, self.model.depth):
            if network is not None:
                network.to(device)

    def batch(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """This process's orbits of a step.

        frames: (b, F, 3, S, S) uint8. background: (b, F, S, S) booleans. elevations: b numbers in
        degrees. names: of the objects. starts: their first frames' indices. seeds: of each orbit's
        noise; with them `loss` gives the same number every time.
        """
        if self._ahead is None:
            return self._read_batch(step, rank, world)
        return self._ahead.get(step, rank, world)

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """The mean squared error of v over the batch, and its terms.

        terms: "v" the plain error, "sigma" the mean noise level; with a motion mask also the two
        parts of the loss, "masked" and "anchor".
        """
        clean, prediction, sigma = self._look(batch)
        loss = prediction.loss
        terms = {"v": float(loss.detach()), "sigma": float(sigma.mean())}
        if "motion_mask" in self._networks:
            weights = self._networks["motion_mask"](clean)
            masked, anchor = masked_loss(prediction.squared_error, weights, self.config.motion_mask)
            loss = masked + anchor
            terms |= {"masked": float(masked.detach()), "anchor": float(anchor.detach())}
        return loss, terms

    def samples(self) -> Tensor | None:
        """What the networks make of one orbit that is always the same, below what it should be.

        (N, S, S, 3) in [0, 1]: the true frames, whatever else the network was shown, its result.
        """
        if not self.config.sample_steps:
            return None
        sample = self.dataset.draw(generator_for(self.config.seed, "shown orbit"))
        with torch.no_grad():
            return self.show(sample)

    def state(self) -> dict[str, Tensor]:
        """All networks' weights, not copied; `metadata` belongs to them."""
        return state_of(self.model)

    def metadata(self) -> dict[str, str]:
        """What a file with `state` shall say of itself, so that the loader knows it."""
        defaults = replace(self.model.defaults, frame_size=self.config.size)
        official = defaults == OFFICIAL[self.model.stage]
        return metadata_of(self.model) | ({} if official else defaults.to_metadata())

    @abstractmethod
    def condition(
        self, images: Tensor, background: Tensor, elevation_degrees: float, seed: int
    ) -> Conditioning:
        """One orbit's condition, nothing taken away.

        images: (F, 3, S, S) in [-1, 1] on the CPU. background: (F, S, S). seed: of its noise.
        """

    @abstractmethod
    def show(self, sample: OrbitSample) -> Tensor:
        """Pictures of one orbit for the log, (N, S, S, 3) in [0, 1]."""

    def cond_aug(self, seed: int) -> float:
        """The noise level on an orbit's conditioning pictures."""
        return float(self._cond_aug.draw(generator_for(seed, "cond_aug")))

    def _read_batch(self, step: int, rank: int, world: int) -> dict[str, Any]:
        places = share_of(self.config.batch_size, rank, world)
        seeds = [sample_seed(self.config.seed, step, place) for place in places]
        samples = list(self._pool.map(self._read, seeds) if self._pool else map(self._read, seeds))
        return {
            "frames": torch.stack([each.frames for each in samples]),
            "background": torch.stack([each.background for each in samples]),
            "elevations": [each.elevation_degrees for each in samples],
            "names": [each.name for each in samples],
            "starts": [each.start for each in samples],
            "seeds": seeds,
        }

    def _read(self, seed: int) -> OrbitSample:
        return self.dataset.draw(generator_for(seed, "orbit"))

    def _look(self, batch: dict[str, Any]) -> tuple[Tensor, Prediction, Tensor]:
        """Clean latents (b, F, 4, h, w), what the UNet says of the noised ones, sigma (b,)."""
        device = device_of(self.model.unet)
        latents, noises, sigmas, conditions = [], [], [], []
        # The frozen networks don't work in half precision, as in the released training.
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for index, seed in enumerate(batch["seeds"]):
                images = to_network_range(batch["frames"][index].cpu())
                latents.append(self._encode(images, seed))
                noises.append(draw(generator_for(seed, "noise"), latents[-1].shape))
                sigmas.append(self._sigma.draw(generator_for(seed, "sigma")))
                whole = self.condition(
                    images,
                    batch["background"][index].cpu(),
                    float(batch["elevations"][index]),
                    seed,
                )
                conditions.append(
                    drop_conditions(
                        whole,
                        generator_for(seed, "dropout"),
                        self.config.drop_context,
                        self.config.drop_latents,
                    )
                )
        clean = torch.stack(latents).to(device)
        sigma = torch.cat(sigmas).to(device)
        noise = torch.stack(noises).to(device)
        condition = stack(conditions, device)
        return clean, predict(self.model.unet, clean, noise, sigma, condition), sigma

    def _encode(self, images: Tensor, seed: int) -> Tensor:
        """What shall be learnt: latents drawn from the posterior, scaled by 0.18215, on the CPU."""
        side = self.config.size // self.model.pixels_per_latent
        noise = draw(generator_for(seed, "posterior"), (len(images), 4, side, side))
        return encode_coarse(self.model, images, noise, RefineConfig(options=self.options))


def to_pictures(images: Tensor) -> Tensor:
    """(N, 3, S, S) in [-1, 1] -> (N, S, S, 3) in [0, 1], cut to it."""
    return (images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).contiguous()
