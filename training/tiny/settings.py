"""What the whole recipe can be told: one TOML file, a table for each stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hi3d_core.video_model import Stage

from ..engine.settings import EngineSettings
from .decoder_recipe import DecoderRecipeConfig
from .depth_recipe import DepthRecipeConfig
from .orbit_recipe import TinyOrbitConfig
from .refiner_recipe import TinyRefinerConfig
from .sampling import Sampling
from .vae_recipe import VaeRecipeConfig


@dataclass(frozen=True)
class TinyData:
    """The table [data]: which toys are drawn, at which sides; all from the front, one ring each.

    first: seed of the first toy; other toys for a model that is trained further.
    orbit_size, refiner_size: S of each stage, multiples of 64; the second is twice the first.
    orbits: rings that stage 1 learns from.
    vae_rings: of these, what the autoencoder learns from, the first ones.
    refined: rings at the refiner's side. depth: rings with depth maps. shown: for the log.
    shard: rings in a file of latents, which must divide `orbits`; refined_shard likewise.
    workers: processes that draw.
    """

    first: int = 0
    orbit_size: int = 128
    refiner_size: int = 256
    orbits: int = 6000
    vae_rings: int = 600
    refined: int = 400
    depth: int = 200
    shown: int = 2
    shard: int = 100
    refined_shard: int = 10
    workers: int = 1

    def __post_init__(self) -> None:
        for whole, part in (("orbits", "shard"), ("refined", "refined_shard")):
            count, length = getattr(self, whole), getattr(self, part)
            if not 1 <= length <= count or count % length:
                raise ValueError(
                    f"data.{whole} is {count} and data.{part} {length}, expected a multiple of it"
                )


@dataclass(frozen=True, kw_only=True)
class VaeStage(EngineSettings):
    """The table [vae]: the engine's tables within it, and the recipe's."""

    recipe: VaeRecipeConfig = field(default_factory=VaeRecipeConfig)


@dataclass(frozen=True, kw_only=True)
class OrbitStage(EngineSettings):
    """The table [orbit]. sampling: of the log's pictures and in the file."""

    recipe: TinyOrbitConfig = field(default_factory=TinyOrbitConfig)
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, kw_only=True)
class DecoderStage(EngineSettings):
    """The tables [decoder] and [refiner_decoder]."""

    recipe: DecoderRecipeConfig = field(default_factory=DecoderRecipeConfig)


@dataclass(frozen=True, kw_only=True)
class DepthStage(EngineSettings):
    """The table [depth]."""

    recipe: DepthRecipeConfig = field(default_factory=DepthRecipeConfig)


@dataclass(frozen=True, kw_only=True)
class RefinerStage(EngineSettings):
    """The table [refiner]. sampling: in the file."""

    recipe: TinyRefinerConfig = field(default_factory=TinyRefinerConfig)
    sampling: Sampling = field(default_factory=lambda: Sampling(steps=1))


@dataclass(frozen=True, kw_only=True)
class TinySettings:
    """Everything. seed: of the networks' first weights; data and noise have their own.

    begin: a folder as `pack` writes it, to go on from: the autoencoder and the depth network are
        taken from it as they are, the UNets and stage 1's image encoder are trained further.
    further: which stages are, then; the other one stays as it was.
    """

    seed: int = 0
    begin: Path | None = None
    further: tuple[Stage, ...] = ("orbit", "refiner")
    data: TinyData = field(default_factory=TinyData)
    vae: VaeStage = field(default_factory=VaeStage)
    orbit: OrbitStage = field(default_factory=OrbitStage)
    decoder: DecoderStage = field(default_factory=DecoderStage)
    depth: DepthStage = field(default_factory=DepthStage)
    refiner: RefinerStage = field(default_factory=RefinerStage)
    refiner_decoder: DecoderStage = field(default_factory=DecoderStage)

    def __post_init__(self) -> None:
        both = set(self.further) == {"orbit", "refiner"}
        if not self.further or not (both or self.begin):
            raise ValueError(
                f"further is {', '.join(self.further) or 'empty'}: name a stage or both, and both "
                "where nothing is given to begin from"
            )
