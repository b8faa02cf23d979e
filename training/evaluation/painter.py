"""Both stages as they are measured: each orbit painted once, and refined as the rows want it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d_core.orbit import OrbitConfig, generate_orbit
from hi3d_core.refine import RefineConfig, refine_orbit
from hi3d_core.sample_options import SampleOptions
from hi3d_core.video_model import VideoModel

from ..seeding import generator_for
from .image_scores import resized

_OPTIONS = SampleOptions(frames_at_once=4)


@dataclass(frozen=True, eq=False)
class Painter:
    """orbit, refiner: the models; no refiner where no row wants it. device: where they work."""

    orbit: VideoModel
    refiner: VideoModel | None
    device: torch.device | None = None

    @property
    def size(self) -> int:
        """Side of the largest frames, at which all are compared."""
        models = [each for each in (self.orbit, self.refiner) if each is not None]
        return max(each.defaults.frame_size for each in models)

    def paint(self, picture: Tensor, elevation_degrees: float, seed: int) -> Tensor:
        """An orbit (F, s, s, 3) from the front view (S, S, 3)."""
        return generate_orbit(
            self.orbit,
            resized(picture[None], self.orbit.defaults.frame_size)[0],
            elevation_degrees,
            OrbitConfig(options=_OPTIONS),
            generator=generator_for(seed, "orbit noise"),
            device=self.device,
        )

    def refine(
        self,
        coarse: Tensor,
        picture: Tensor,
        elevation_degrees: float,
        seed: int,
        *,
        sees_depth: bool,
    ) -> Tensor:
        """The orbit, refined (F, S, S, 3); sees_depth: False tells the same depth everywhere."""
        assert self.refiner is not None  # a row that refines has it loaded
        return refine_orbit(
            self.refiner,
            coarse,
            resized(picture[None], self.refiner.defaults.frame_size)[0],
            elevation_degrees,
            RefineConfig(options=_OPTIONS),
            generator=generator_for(seed, "refiner noise"),
            depths=None if sees_depth else torch.zeros(len(coarse), 3, 3),
            device=self.device,
        )
