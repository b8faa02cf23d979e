"""What a dataset's pictures are: the rings of cameras, the size, the renderer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from hi3d_core.cameras import HI3D_FOV_DEGREES, HI3D_RADIUS, HI3D_VIEW_COUNT, Cameras
from hi3d_core.render import SHADINGS, Shading

OFFICIAL_ELEVATIONS = (-10.0, 0.0, 10.0, 20.0, 30.0, 40.0)  # degrees, in the order of the frames
RANDOM_RANGE = (-10.0, 40.0)  # degrees; SyncDreamer's range of input views
AZIMUTHS = HI3D_VIEW_COUNT
LARGEST = 4096  # pixels a side


@dataclass(frozen=True)
class Plan:
    """How every object of a dataset is drawn; two runs into one folder must agree on it.

    elevations: degrees, one ring of 16 frames each, or None for one random ring an object.
    size: pixels a side. radius: of the orbit, the object's longest side being 1. fov: degrees.
    supersample: points a pixel along each axis. seed: decides random elevations, together with
    the object's name. geometry: depths and normals too.

    Raises ValueError for values out of range.
    """

    elevations: tuple[float, ...] | None = OFFICIAL_ELEVATIONS
    size: int = 1024
    renderer: str = "cpu"
    shading: Shading = "unlit"
    supersample: int = 3
    radius: float = HI3D_RADIUS
    fov: float = HI3D_FOV_DEGREES
    seed: int = 0
    geometry: bool = True
    toy_spacing: float = 0.016

    def __post_init__(self) -> None:
        if not 16 <= self.size <= LARGEST:
            raise ValueError(f"size is {self.size} pixels, expected 16 to {LARGEST}")
        if not 1 <= self.supersample <= 8:
            raise ValueError(f"supersample is {self.supersample}, expected 1 to 8")
        if self.elevations is not None:
            if not self.elevations:
                raise ValueError("no elevation is given: name at least one, or 'random'")
            for elevation in self.elevations:
                if not -89 <= elevation <= 89:
                    raise ValueError(f"elevation is {elevation} degrees, expected -89 to 89")
        if self.radius <= 0.9:  # the unit cube's corners reach 0.87 from the origin
            raise ValueError(f"radius is {self.radius}, expected above 0.9: outside the object")
        if self.shading not in SHADINGS:
            raise ValueError(f"shading is {self.shading!r}, expected one of {SHADINGS}")

    @property
    def depth_scale(self) -> float:
        """World units of one level of a 16-bit depth picture; nothing lies beyond radius + 1."""
        return (self.radius + 1) / 65535

    def record(self) -> dict[str, Any]:
        """Plain values, as `dataset.json` keeps them."""
        values = asdict(self)
        values["elevations"] = None if self.elevations is None else list(self.elevations)
        return values

    def differences(self, record: Mapping[str, Any]) -> list[str]:
        """Where another run's record disagrees, in words."""
        return [
            f"{name} was {record.get(name)}, now {value}"
            for name, value in self.record().items()
            if record.get(name) != value
        ]

    def elevations_of(self, name: str) -> tuple[float, ...]:
        """Degrees, one for each ring of an object; random ones depend on seed and name alone."""
        if self.elevations is not None:
            return self.elevations
        digest = hashlib.sha256(name.encode()).digest()[:8]
        rng = np.random.default_rng([self.seed, int.from_bytes(digest, "little")])
        return (round(float(rng.uniform(*RANDOM_RANGE)), 2),)

    def cameras(self, elevations: tuple[float, ...]) -> Cameras:
        """All frames of an object, ring by ring; frame 0 of a ring is the front."""
        rings = [
            Cameras.orbit(
                AZIMUTHS, elevation, self.radius, self.fov, width=self.size, height=self.size
            )
            for elevation in elevations
        ]
        return Cameras(
            torch.cat([ring.camera_to_world for ring in rings]),
            torch.cat([ring.intrinsics for ring in rings]),
            self.size,
            self.size,
        )


def toy_spacing(size: int) -> float:
    """Vertices about three pixels apart, so that a toy's paint is as sharp as the picture."""
    return 0.016 if size <= 256 else 0.008 if size <= 512 else 0.004
