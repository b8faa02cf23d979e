"""From posed views to a textured mesh: the whole path, a stage a line.

    views -> placement -> splat -> in-between views -> signed distance -> mesh -> texture

Each stage is a function of its inputs, in the module its name says; this file only joins them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .datatypes import Gaussians, Mesh, OnStage, OrbitViews, silent_stage
from .mesh import finish_mesh
from .splat.fit import HIGH, PREVIEW, STANDARD, SplatConfig, fit_gaussians
from .splat.interpolate import in_between_cameras, render_views
from .splat.rasterize import has_cuda_kernels
from .surface.agreement import silhouette_agreement, suited_to
from .surface.extract import extract_mesh
from .surface.fit import Level, SurfaceConfig, fit_surface
from .surface.hull import Placement, hull_points, locate
from .texture import TextureConfig, bake_texture
from .unwrap import unwrap

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReconstructConfig:
    """All settings of a reconstruction. The defaults are the standard quality."""

    interpolate: int = 16  # M, views rendered in between
    interpolated_share: float = 0.3  # of the rendered views' pixels that the surface is fitted to
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
    stage = on_stage or silent_stage

    placed = stage("placement")
    placement = locate(views)
    local = in_local_frame(views, placement)
    agreement = silhouette_agreement(local, placement)
    _warn_of_doubtful_cameras(local, agreement)
    placed(1, 1)

    fitted = shrunk(local, config.surface.levels[-1].picture)
    gaussians, between = None, None
    if config.interpolate or want_splat:
        points = hull_points(fitted, config.splat.count, seed)
        on_device = fitted.to(_splat_device())
        gaussians = fit_gaussians(
            on_device, points, config.splat, seed=seed, on_step=stage("splat")
        )
        if config.interpolate:
            cameras = in_between_cameras(fitted.cameras, config.interpolate)
            between = render_views(gaussians, cameras, on_step=stage("in-between views")).to("cpu")
        gaussians = gaussians.to("cpu")

    field = fit_surface(
        fitted,
        placement,
        suited_to(config.surface, agreement),
        between=between,
        between_share=config.interpolated_share,
        seed=seed,
        on_step=stage("surface"),
    )
    meshed = stage("mesh")
    mesh = unwrap(finish_mesh(extract_mesh(field), config.face_budget), config.texture.size)
    meshed(1, 1)
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


def shrunk(views: OrbitViews, width: int) -> OrbitViews:
    """The views scaled down by a whole number to about `width` pixels; never up.

    Depths are dropped, as they can't be averaged.
    """
    factor = max(1, round(views.cameras.width / width))
    if factor == 1:
        return views
    small_width, small_height = views.cameras.width // factor, views.cameras.height // factor
    cut_width, cut_height = small_width * factor, small_height * factor

    def shrink(pictures: Tensor) -> Tensor:
        channels_first = pictures[:, None] if pictures.ndim == 3 else pictures.movedim(-1, 1)
        small = avg_pool2d(channels_first[..., :cut_height, :cut_width], factor)
        return small[:, 0] if pictures.ndim == 3 else small.movedim(1, -1).contiguous()

    # A rim of less than `factor` pixels may fall off on the right and below: cameras keep their
    # principal point in what is left.
    cameras = replace(views.cameras, width=cut_width, height=cut_height)
    return OrbitViews(
        shrink(views.images), shrink(views.alphas), cameras.resized(small_width, small_height)
    )


def _splat_device() -> torch.device:
    cuda = torch.device("cuda")
    return cuda if has_cuda_kernels(cuda) else torch.device("cpu")


def _warn_of_doubtful_cameras(views: OrbitViews, agreement: float) -> None:
    """Say so where the cameras can't be right or can't tell the shape."""
    if agreement < _LIKELY_WRONG:
        _log.warning(
            "the silhouettes fit each other badly (agreement %.2f, a right orbit has above %.2f): "
            "check the elevation, the order and spacing of the frames, and the field of view",
            agreement,
            _LIKELY_WRONG,
        )
    if float(views.cameras.forwards.mean(dim=0).norm()) > _ONE_SIDED:
        _log.warning(
            "all views look nearly the same way: the object's extent along it is a guess "
            "(add views from the side, or an orbit at a lower elevation)"
        )


# Measured: generated orbits agree to .98, an elevation wrong by ten degrees gives .82.
_LIKELY_WRONG = 0.95
# Length of the mean viewing direction; that of an orbit at 65 degrees.
_ONE_SIDED = 0.906
