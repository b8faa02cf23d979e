"""From posed views to a textured mesh: the whole path, a stage a line.

    views -> placement -> splat -> in-between views -> signed distance -> mesh -> UVs -> texture

Each stage is a function of its inputs, in the module its name says; this file only joins them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from .datatypes import Gaussians, Mesh, OnStep, OrbitViews
from .mesh import finish_mesh
from .splat.fit import HIGH, PREVIEW, STANDARD, SplatConfig, fit_gaussians
from .splat.interpolate import in_between_cameras, render_views
from .surface.agreement import silhouette_agreement, suited_to
from .surface.extract import extract_mesh
from .surface.fit import Level, SurfaceConfig, fit_surface
from .surface.hull import Placement, hull_points, locate
from .texture import TextureConfig, bake_texture
from .unwrap import unwrap

OnStage = Callable[[str], OnStep]
"""Called with a stage's name as it begins; the result is told of its steps."""


@dataclass(frozen=True)
class ReconstructConfig:
    """All settings of a reconstruction. The defaults are the standard quality."""

    interpolate: int = 16  # M, views rendered in between
    interpolated_weight: float = 0.3  # trust in a rendered view, where a given one has 1
    face_budget: int = 50_000
    splat: SplatConfig = STANDARD
    surface: SurfaceConfig = SurfaceConfig()
    texture: TextureConfig = TextureConfig()


QUALITIES = {
    "preview": ReconstructConfig(
        face_budget=20_000,
        splat=PREVIEW,
        surface=SurfaceConfig(levels=(Level(64, 128, 80), Level(112, 256, 60))),
        texture=TextureConfig(size=1024),
    ),
    "standard": ReconstructConfig(),
    "high": ReconstructConfig(
        face_budget=100_000,
        splat=HIGH,
        surface=SurfaceConfig(
            levels=(Level(64, 128, 150), Level(128, 256, 200), Level(256, 512, 300))
        ),
        texture=TextureConfig(size=4096),
    ),
}


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What `reconstruct` made, in the cameras' world.

    mesh: textured. gaussians: the splat, or None if none was fitted. agreement: how well the
    views' silhouettes agree, in [0, 1] (`surface.agreement`).
    """

    mesh: Mesh
    gaussians: Gaussians | None
    agreement: float


def reconstruct(
    views: OrbitViews,
    config: ReconstructConfig | None = None,
    *,
    want_splat: bool = False,
    seed: int = 0,
    on_stage: OnStage | None = None,
) -> Reconstruction:
    """Fit a textured mesh to posed views with masks.

    The splat is fitted where in-between views are asked for, or `want_splat` is set; else it is
    None. `on_stage` follows the work and may cancel it by raising.

    Raises ValueError if the silhouettes do not describe one object.
    """
    config = config or ReconstructConfig()
    stage = on_stage or _silent
    placement = locate(views)
    local = in_local_frame(views, placement)
    agreement = silhouette_agreement(local, placement)

    gaussians, dense, weights = None, local, np.ones(len(views), np.float32)
    if config.interpolate or want_splat:
        points = hull_points(local, config.splat.count, seed)
        gaussians = fit_gaussians(local, points, config.splat, seed=seed, on_step=stage("splat"))
    if config.interpolate and gaussians is not None:
        cameras = in_between_cameras(local.cameras, config.interpolate)
        between = render_views(gaussians, cameras, on_step=stage("in-between views"))
        dense = join_views(local, between)
        weights = np.r_[weights, np.full(len(between), config.interpolated_weight, np.float32)]

    field = fit_surface(
        dense,
        placement,
        suited_to(config.surface, agreement),
        view_weights=weights,
        seed=seed,
        on_step=stage("surface"),
    )
    mesh = finish_mesh(extract_mesh(field), config.face_budget)
    mesh = unwrap(mesh, config.texture.size)
    mesh = bake_texture(mesh, local, config.texture, on_step=stage("texture"))

    if gaussians is not None:
        gaussians = gaussians.from_frame(placement.center, placement.scale)
    mesh = mesh.from_frame(placement.center, placement.scale)
    return Reconstruction(mesh, gaussians, agreement)


def in_local_frame(views: OrbitViews, placement: Placement) -> OrbitViews:
    """The views as seen in the placement's frame, where the object is about 1 across."""
    depths = None if views.depths is None else views.depths / placement.scale
    cameras = views.cameras.in_frame(placement.center, placement.scale)
    return replace(views, cameras=cameras, depths=depths)


def join_views(first: OrbitViews, second: OrbitViews) -> OrbitViews:
    """Both sets of views as one; pictures must have the same size. Depths are dropped."""
    cameras = replace(
        first.cameras,
        camera_to_world=torch.cat([first.cameras.camera_to_world, second.cameras.camera_to_world]),
        intrinsics=torch.cat([first.cameras.intrinsics, second.cameras.intrinsics]),
    )
    return OrbitViews(
        torch.cat([first.images, second.images]), torch.cat([first.alphas, second.alphas]), cameras
    )


def _silent(name: str) -> OnStep:
    return lambda done, total: None
