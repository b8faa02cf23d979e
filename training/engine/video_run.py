"""From a stage's settings to its recipe: which weights training starts from, on which data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from hi3d_core.networks.depth_network import DepthConfig, build_depth_network
from hi3d_core.networks.image_encoder import ImageEncoderConfig, build_image_encoder
from hi3d_core.networks.vae import VaeConfig, build_vae
from hi3d_core.networks.video_unet import (
    ORBIT_UNET,
    REFINER_UNET,
    VideoUNetConfig,
    build_video_unet,
)
from hi3d_core.video_model import Stage, VideoModel
from hi3d_core.weights.load import Holding, load_network, load_video_model
from hi3d_core.weights.recognise import recognise
from hi3d_core.weights.tensor_file import open_tensors

from ..dataset import OrbitDataset
from ..orbit_recipe import OrbitRecipe, OrbitRecipeConfig
from ..refiner_recipe import RefinerRecipe, RefinerRecipeConfig
from ..surgery import read_svd_unet, start_from_svd
from .settings import MAY_CHANGE, EngineSettings

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ModelSettings:
    """The table [model]: what training starts from; exactly one of the first three.

    checkpoint: of the same stage, to go on from what is trained: official, or converted.
    svd: Stable Video Diffusion's checkpoint or `unet` folder, as the published runs began; then
        `vae` is needed, and `image_encoder` and, for the refiner, `depth`.
    small: tiny networks with random weights, to try the machinery; they learn little.
    vae, image_encoder, depth: files or folders of single networks, instead of the checkpoint's.
    frozen_precision: of the networks that are not trained, to save memory.
    """

    checkpoint: Path | None = field(default=None, metadata=MAY_CHANGE)
    svd: Path | None = field(default=None, metadata=MAY_CHANGE)
    small: bool = False
    vae: Path | None = field(default=None, metadata=MAY_CHANGE)
    image_encoder: Path | None = field(default=None, metadata=MAY_CHANGE)
    depth: Path | None = field(default=None, metadata=MAY_CHANGE)
    frozen_precision: Literal["float32", "bfloat16", "float16"] = "float32"

    def __post_init__(self) -> None:
        given = [name for name in ("checkpoint", "svd", "small") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"the table model has {' and '.join(given) or 'neither checkpoint, svd nor small'}"
                ", expected exactly one of checkpoint, svd and small"
            )


@dataclass(frozen=True)
class DataSettings:
    """The table [data].

    folder: of objects, each a folder of frames, as `render_dataset.py` writes it.
    resolution: side that the frames must have; without it squares of any side are taken.
    """

    folder: Path = field(metadata=MAY_CHANGE)
    resolution: int | None = None


@dataclass(frozen=True, kw_only=True)
class OrbitRun(EngineSettings):
    """A TOML file for `train_orbit.py`."""

    model: ModelSettings
    data: DataSettings
    recipe: OrbitRecipeConfig = field(default_factory=OrbitRecipeConfig)


@dataclass(frozen=True, kw_only=True)
class RefinerRun(EngineSettings):
    """A TOML file for `train_refiner.py`."""

    model: ModelSettings
    data: DataSettings
    recipe: RefinerRecipeConfig = field(default_factory=RefinerRecipeConfig)


def build_orbit(run: OrbitRun) -> OrbitRecipe:
    """Stage 1's recipe, its networks loaded."""
    dataset = open_dataset(run)  # first, as wrong folders are found sooner than networks are loaded
    return OrbitRecipe(starting_model("orbit", run.model), dataset, run.recipe)


def build_refiner(run: RefinerRun) -> RefinerRecipe:
    """Stage 2's recipe, its networks loaded."""
    dataset = open_dataset(run)
    return RefinerRecipe(starting_model("refiner", run.model), dataset, run.recipe)


def starting_model(stage: Stage, settings: ModelSettings) -> VideoModel:
    """The networks that training starts from; the UNet in float32, ready for gradients.

    Raises ValueError for files that are missing or of another kind.
    """
    if settings.small:
        model = _small_model(stage)
    elif settings.svd is not None:
        model = _from_svd(stage, settings, settings.svd)
    else:
        model = load_video_model(
            settings.checkpoint or "",
            stage,
            vae=settings.vae,
            image_encoder=settings.image_encoder,
            depth=settings.depth,
        )
    return made_ready(model, settings)


def made_ready(model: VideoModel, settings: ModelSettings) -> VideoModel:
    """The model itself, its UNet set to training and the others frozen, in their number format."""
    frozen = (model.vae, model.conditioning_vae, model.image_encoder, model.aesthetic, model.depth)
    for network in frozen:
        if network is not None:
            network.eval().requires_grad_(False)
            if settings.frozen_precision != "float32":
                network.to(_DTYPES[settings.frozen_precision])
    model.unet.requires_grad_(True).train()
    return model


def open_dataset(run: OrbitRun | RefinerRun) -> OrbitDataset:
    """The objects that a run is trained on."""
    return OrbitDataset(run.data.folder, run.recipe.size, resolution=run.data.resolution)


def _from_svd(stage: Stage, settings: ModelSettings, svd: Path) -> VideoModel:
    unet = build_video_unet(ORBIT_UNET if stage == "orbit" else REFINER_UNET)
    start_from_svd(unet, read_svd_unet(svd), stage)
    networks: dict[str, Any] = {}
    for name in ("vae", "image_encoder", "depth"):
        path = getattr(settings, name)
        if path is not None:
            networks[name] = _single(path, name)
        elif name != "depth":
            raise ValueError(
                f"model.{name} is not set: Stable Video Diffusion's UNet alone does not make a "
                f"model, give the {name.replace('_', ' ')}'s file too"
            )
    return VideoModel(stage, unet, conditioning_vae=networks["vae"], **networks)


def _single(path: Path, name: str) -> nn.Module:
    """One network of a file or folder."""
    with open_tensors(path) as file:
        contents = recognise(file)
        if name not in contents.prefixes:
            raise ValueError(f"model.{name} is {path}, which holds no {name.replace('_', ' ')}")
        told = dict(contents.settings.get(name, {}))
        holding = Holding(file, contents.prefixes[name], contents.official, told)
        return load_network(name, holding, torch.float32, {})[0]


def _small_model(stage: Stage) -> VideoModel:
    """Random networks, the same every time."""
    in_channels, vector_channels = {"orbit": (8, 768), "refiner": (17, 512)}[stage]
    settings = VideoUNetConfig(
        in_channels=in_channels,
        vector_channels=vector_channels,
        block_channels=(32, 32, 64, 64),
        head_channels=8,
        context_channels=16,
        layers_per_block=1,
    )
    depth = DepthConfig(
        width=32,
        layers=4,
        heads=2,
        grid=4,
        stem_channels=32,
        stage_channels=(128, 128, 128),
        stage_layers=(1, 2, 1),
        token_channels=(24, 40),
        fusion_channels=16,
    )
    encoder = ImageEncoderConfig(
        width=32, layers=2, heads=2, patch=32, image_size=224, embedding=16, activation="gelu"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = build_vae(VaeConfig(channels=(32, 32, 32, 32), layers_per_block=1))
        return VideoModel(
            stage,
            build_video_unet(settings),
            vae,
            vae,
            build_image_encoder(encoder),
            depth=build_depth_network(depth) if stage == "refiner" else None,
        )
