"""The recipe's stages in their order: what each needs, does and leaves behind.

A state folder holds `data/` and `fronts/` (toys), `latents/`, `coarse/`, `told/`, `refined/`
(samples), `vae/`, `orbit/`, `decoder/`, `depth/`, `refiner/`, `refiner_decoder/` (runs of the
engine) and a `<stage>.safetensors` for each network that is done. What is there is not done again,
so the whole may be stopped at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from hi3d_core.atomic_file import replacing
from hi3d_core.networks.vae import encode_moments
from hi3d_core.video_model import Stage, VideoModel, preferred_device
from hi3d_core.weights.load import load_video_model

from ..dataset import OrbitDataset, to_network_range
from ..engine.checkpoint import AVERAGES, WEIGHTS
from ..engine.checkpoint_folder import checkpoints_in
from ..engine.loop import CHECKPOINTS, train
from ..engine.settings import EngineSettings
from ..recipe import Recipe
from . import data
from .coarse_orbits import coarse_latents, coarse_orbits, refined_latents
from .decoder_recipe import DecoderRecipe
from .depth_recipe import DepthRecipe
from .fronts import fronts
from .latent_orbits import latent_orbits
from .networks import build
from .orbit_recipe import TinyOrbitRecipe
from .refiner_recipe import TinyRefinerRecipe
from .settings import TinySettings
from .shards import Shards
from .vae_recipe import VaeRecipe, standardise

_OF_ONE_STAGE = {
    "orbit": ("fronts", "latents"),  # training and decoder: begun ones are copied
    "refiner": ("depth", "told", "refiner", "refined", "refiner_decoder"),
}
_SCALE_RINGS = 16  # rings that the latents' width is measured on


class Clock:
    """When to stop: after so many minutes, or never."""

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def minutes_left(self) -> float | None:
        """Until then, or None."""
        return None if self._end is None else max(0.0, (self._end - time.monotonic()) / 60)

    def up(self) -> bool:
        """Whether the time is up."""
        return self._end is not None and time.monotonic() >= self._end


class Tiny:
    """One state folder and its settings. Every stage returns whether it is done.

    allow_changed: go on with a stage whose settings have changed, where they may.
    """

    def __init__(
        self, settings: TinySettings, state: Path, clock: Clock, *, allow_changed: bool = False
    ) -> None:
        self.settings, self.state, self.clock = settings, state, clock
        self.allow_changed = allow_changed

    def stages(self) -> dict[str, Callable[[], bool]]:
        """By their names, in order: those that the settings want."""
        every = {
            "data": self.draw,
            "fronts": self.draw_fronts,
            "vae": self.train_vae,
            "latents": self.make_latents,
            "orbit": self.train_orbit,
            "coarse": self.make_coarse,
            "decoder": self.train_decoder,
            "depth": self.train_depth,
            "told": self.make_told,
            "refiner": self.train_refiner,
            "refined": self.make_refined,
            "refiner_decoder": self.train_refiner_decoder,
        }
        unwanted = {
            name
            for stage, names in _OF_ONE_STAGE.items()
            if stage not in self.settings.further
            for name in names
        }
        return {name: run for name, run in every.items() if name not in unwanted}

    def draw(self) -> bool:
        """Render all toys that are wanted."""
        unwanted = {"depth"} if self.settings.begin is not None else set()
        if "orbit" not in self.settings.further:
            unwanted |= {"orbits", "shown"}
        return all(
            data.draw(each, self._data, self.settings.data.workers, self.clock.up)
            for name, each in data.folders(self.settings.data).items()
            if name not in unwanted
        )

    def draw_fronts(self) -> bool:
        """Render the fronts at other elevations."""
        return self._make(self._fronts())

    def train_vae(self) -> bool:
        """The autoencoder, whose latents then get unit variance."""
        if self.settings.begin is not None:
            self._keep("vae", self._begun("orbit").vae)
            return True
        rings = self._rings("orbits", self.settings.data.orbit_size, self.settings.data.vae_rings)
        stage = self.settings.vae
        recipe = VaeRecipe(build("vae", self.settings.seed), rings, stage.recipe)

        def finish(weights: Path) -> None:
            _fill(recipe.vae.cpu(), weights, "vae.")
            images = torch.cat(
                [rings.read(i, 0).frames for i in range(min(_SCALE_RINGS, len(rings)))]
            )
            with torch.no_grad():
                means, _ = encode_moments(recipe.vae, to_network_range(images), 16)
            standardise(recipe.vae, means)
            self._keep("vae", recipe.vae)

        return self._train("vae", recipe, stage, finish)

    def make_latents(self) -> bool:
        """Every ring through the encoder."""
        return self._make(self._latents())

    def train_orbit(self) -> bool:
        """Stage 1's UNet, and the image encoder of both stages."""
        if "orbit" not in self.settings.further:
            return self._as_begun("orbit", "orbit")
        stage = self.settings.orbit
        shown = self._rings("shown", self.settings.data.orbit_size)
        recipe = TinyOrbitRecipe(
            self._new_model("orbit"), self._latents(), shown, stage.recipe, stage.sampling
        )
        return self._train("orbit", recipe, stage, self._copied("orbit"))

    def train_depth(self) -> bool:
        """The depth network."""
        if self.settings.begin is not None:
            self._keep("depth", self._begun("refiner").depth)
            return True
        drawn = data.folders(self.settings.data)["depth"]
        stage = self.settings.depth
        network = build("depth", self.settings.seed)
        rings = self._rings("depth", drawn.plan.size)
        recipe = DepthRecipe(network, rings, drawn.plan.depth_scale, stage.recipe)

        def finish(weights: Path) -> None:
            _fill(network.cpu(), weights, "depth.")
            self._keep("depth", network)

        return self._train("depth", recipe, stage, finish)

    def make_coarse(self) -> bool:
        """Stage 1's own latents of other toys."""
        return self._make(self._coarse())

    def train_decoder(self) -> bool:
        """Stage 1's decoder, once more, on what stage 1 makes; its weights are then complete."""
        if "orbit" not in self.settings.further:
            return self._as_begun("orbit", "decoder")
        stage = self.settings.decoder
        recipe = DecoderRecipe(
            load_video_model(self.file("orbit"), "orbit"),
            self._coarse(),
            self._rings("refined", self.settings.data.orbit_size),
            stage.recipe,
            self.settings.orbit.sampling,
        )
        return self._train("decoder", recipe, stage, self._copied("decoder"))

    def make_told(self) -> bool:
        """What stage 2 is told of stage 1's frames, beside the true ones."""
        return self._make(self._told())

    def train_refiner(self) -> bool:
        """Stage 2's UNet."""
        stage = self.settings.refiner
        size = self.settings.data.refiner_size
        model = self._new_model("refiner")
        recipe = TinyRefinerRecipe(model, self._told(), size, stage.recipe, stage.sampling)
        return self._train("refiner", recipe, stage, self._copied("refiner"))

    def make_refined(self) -> bool:
        """Stage 2's own latents."""
        return self._make(self._refined())

    def train_refiner_decoder(self) -> bool:
        """Stage 2's decoder, once more, on what stage 2 makes; its weights are then complete."""
        stage = self.settings.refiner_decoder
        recipe = DecoderRecipe(
            load_video_model(self.file("refiner"), "refiner"),
            self._refined(),
            self._rings("refined", self.settings.data.refiner_size),
            stage.recipe,
            self.settings.refiner.sampling,
        )
        return self._train("refiner_decoder", recipe, stage, self._copied("refiner_decoder"))

    def file(self, name: str) -> Path:
        """Where a stage's weights lie when it is done."""
        return self.state / f"{name}.safetensors"

    @property
    def _data(self) -> Path:
        return self.state / "data"

    def _rings(self, name: str, size: int, most: int | None = None) -> OrbitDataset:
        return data.dataset(data.folders(self.settings.data)[name], self._data, size, most)

    def _fronts(self) -> Shards:
        drawn, length = data.folders(self.settings.data)["orbits"], self.settings.data.shard
        seeds = range(drawn.first, drawn.first + drawn.count)
        return fronts(self.state / "fronts", seeds, drawn.plan, length, self.settings.seed)

    def _latents(self) -> Shards:
        told = self.settings.data
        rings = self._rings("orbits", told.orbit_size)
        folder = self.state / "latents"
        vae = self._done("vae").to(self._device)
        return latent_orbits(folder, vae, rings, self._fronts(), told.shard, self.settings.seed)

    def _coarse(self) -> Shards:
        told = self.settings.data
        return coarse_latents(
            self.state / "coarse",
            self._placed(load_video_model(self.file("orbit"), "orbit")),
            self._rings("refined", told.orbit_size),
            self.settings.orbit.sampling,
            told.refined_shard,
            self.settings.seed,
        )

    def _told(self) -> Shards:
        return coarse_orbits(
            self.state / "told",
            self._placed(load_video_model(self.file("decoder"), "orbit")),
            self._placed(self._new_model("refiner")),
            self._coarse(),
            self._rings("refined", self.settings.data.refiner_size),
            self.settings.seed,
        )

    def _refined(self) -> Shards:
        return refined_latents(
            self.state / "refined",
            self._placed(load_video_model(self.file("refiner"), "refiner")),
            self._told(),
            self.settings.refiner.sampling,
            self.settings.seed,
        )

    def _new_model(self, stage: Stage) -> VideoModel:
        """The stage's networks: those that are done, and a new UNet; or all as they were."""
        if self.settings.begin is not None:
            return self._begun(stage)
        seed = self.settings.seed
        vae, depth = self._done("vae"), None
        if stage == "orbit":
            encoder = build("image_encoder", seed + 1)
        else:
            encoder = load_video_model(self.file("orbit"), "orbit").image_encoder
            depth = self._done("depth")
        return VideoModel(stage, build(stage, seed + 2), vae, vae, encoder, depth=depth)

    def _begun(self, stage: Stage) -> VideoModel:
        """The stage's networks as they were when training goes on from a finished model."""
        assert self.settings.begin is not None
        return load_video_model(self.settings.begin / f"{stage}.safetensors", stage)

    def _as_begun(self, stage: Stage, name: str) -> bool:
        """A stage that stays as it was counts as done."""
        assert self.settings.begin is not None
        self._copied(name)(self.settings.begin / f"{stage}.safetensors")
        return True

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu") if self.settings.orbit.train.cpu else preferred_device()

    def _placed(self, model: VideoModel) -> VideoModel:
        """The model, its networks where samples are made."""
        for network in (model.unet, model.vae, model.image_encoder, model.depth):
            if network is not None:
                network.to(self._device)
        return model

    def _done(self, name: str) -> Any:
        """A network whose stage is done."""
        network = build(name, self.settings.seed)
        _fill(network, self.file(name), "")
        return network.eval().requires_grad_(False)

    def _train(
        self, name: str, recipe: Recipe, stage: EngineSettings, finish: Callable[[Path], None]
    ) -> bool:
        folder = self.state / name
        outcome = train(
            recipe,
            stage,
            folder,
            resume="can",
            allow_changed=self.allow_changed,
            minutes=self.clock.minutes_left,
        )
        if outcome.reason is not None:
            return False
        last = checkpoints_in(folder / CHECKPOINTS)[-1]
        finish(last / (AVERAGES if stage.train.ema_decay else WEIGHTS))
        return True

    def _make(self, shards: Shards) -> bool:
        for number in range(shards.count):
            if shards.path(number).exists():
                continue
            if self.clock.up():
                return False
            shards.ensure(number)
        return True

    def _keep(self, name: str, network: torch.nn.Module | None) -> None:
        if network is None:
            raise ValueError(f"{self.settings.begin} holds no {name} network: train from nothing")
        with replacing(self.file(name)) as temporary:
            save_file(network.state_dict(), temporary)

    def _copied(self, name: str) -> Callable[[Path], None]:
        def finish(weights: Path) -> None:
            with replacing(self.file(name)) as temporary:
                temporary.write_bytes(weights.read_bytes())

        return finish


def _fill(network: torch.nn.Module, file: Path, prefix: str) -> None:
    tensors = load_file(file)
    network.load_state_dict({name.removeprefix(prefix): each for name, each in tensors.items()})
