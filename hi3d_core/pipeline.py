"""From posed views to a textured mesh: the whole path, a stage a line.

    views -> placement -> alignment -> splat -> in-between views
          -> signed distance -> mesh -> texture

Each stage is a function of its inputs, in the module its name says; this file only joins them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .align.refine_cameras import refined_cameras
from .align.rounds import align_in_rounds, align_to_mesh
from .cameras import Cameras
from .datatypes import Gaussians, Mesh, OnPreview, OnStage, OrbitViews, silent_stage
from .local_views import in_local_frame, shrunk
from .mesh import finish_mesh
from .splat.fit import HIGH, PREVIEW, STANDARD, SplatConfig, fit_gaussians
from .splat.interpolate import in_between_cameras, render_views
from .splat.rasterize import has_cuda_kernels
from .surface.agreement import EXACT, doubt, silhouette_agreement, suited_to
from .surface.backend import can_fit_on
from .surface.extract import extract_mesh
from .surface.fit import Level, SurfaceConfig, fit_surface
from .surface.hull import FloatArray, Placement, hull_points, locate
from .surface.priors import SurfacePriors
from .texture import (
    BakedTexture,
    TextureConfig,
    bake_or_color,
    register_reference,
    suited_to_doubt,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReconstructConfig:
    """All settings of a reconstruction. The defaults are the standard quality."""

    interpolate: int = 0  # M, views rendered in between
    interpolated_share: float = 0.3  # of the rendered views' pixels that the surface is fitted to
    align: bool = True  # bring views that disagree to what they have in common
    refine_cameras: bool = False  # for posed photos: small turns, shifts and a shared focal length
    face_budget: int = 50_000
    splat: SplatConfig = STANDARD
    surface: SurfaceConfig = SurfaceConfig()
    texture: TextureConfig = TextureConfig()


QUALITIES = {
    "preview": ReconstructConfig(
        face_budget=20_000,
        splat=PREVIEW,
        surface=SurfaceConfig(levels=(Level(64, 128, 60), Level(112, 256, 60)), cavity_rounds=1),
        texture=TextureConfig(size=1024),
    ),
    "standard": ReconstructConfig(),
    "high": ReconstructConfig(
        face_budget=100_000,
        splat=HIGH,
        surface=SurfaceConfig(
            levels=(Level(64, 128, 150), Level(128, 256, 200), Level(256, 512, 300)),
            cavity_rounds=4,
        ),
        texture=TextureConfig(size=4096),
    ),
}


@dataclass(frozen=True, eq=False)
class Hints:
    """What is known beyond the views, all of it optional.

    reference: one view, the user's own picture at its full resolution, over white; it wins where
    it sees the surface well (`texture/reference.py`). between: further views, rendered and not
    seen: `interpolated_share` of them joins the fit, they carve and colour nothing.
    inverse_depths: (V, h, w) estimated, near is large, of any scale and offset a view.
    normals: (V, h, w, 3) estimated, in the world, outward.
    """

    reference: OrbitViews | None = None
    between: OrbitViews | None = None
    inverse_depths: Tensor | None = None
    normals: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What `reconstruct` made, in the cameras' world.

    mesh: textured. texture: the same mesh with its `unseen` texels (`texture.unseen_in_views`
    gives those of any view). gaussians: the splat, or None if none was fitted. cameras: those of
    the views, refined if that was asked for. agreement: how well the views' silhouettes agree,
    in [0, 1] (`surface.agreement`), before they were aligned. shifts: (V,) rms pixels that
    alignment moved each view by, or None if they agreed.
    """

    mesh: Mesh
    texture: BakedTexture
    gaussians: Gaussians | None
    cameras: Cameras
    agreement: float
    shifts: Tensor | None = None


def reconstruct(
    views: OrbitViews,
    config: ReconstructConfig | None = None,
    *,
    hints: Hints | None = None,
    want_splat: bool = False,
    device: torch.device | None = None,
    seed: int = 0,
    on_stage: OnStage | None = None,
    on_preview: OnPreview | None = None,
) -> Reconstruction:
    """Fit a textured mesh to posed views with masks.

    The splat is fitted where in-between views are asked for, or `want_splat` is set; else it is
    None. device: where splat and surface are fitted, each if the package with its kernels is
    there, else on the CPU; CUDA if None. What is returned lies on the CPU. `on_stage` follows the
    work and may cancel it by raising; `on_preview` is shown pictures of it.

    Raises ValueError if the silhouettes do not describe one object, for hints that don't belong to
    the views, and for rendered views both given and asked for.
    """
    config, hints = config or ReconstructConfig(), hints or Hints()
    if config.interpolate and hints.between is not None:
        raise ValueError(
            f"rendered views are given ({len(hints.between)}) and {config.interpolate} more are "
            "asked for: leave one of them out (interpolate=0 fits to those that are given)"
        )
    stage = on_stage or silent_stage
    surface_device = _device_with(can_fit_on, device)

    if config.refine_cameras:
        views = replace(views, cameras=refined_cameras(views, seed=seed, on_step=stage("cameras")))
    placed = stage("placement")
    placed(0, 3)
    placement = locate(views)
    placed(1, 3)
    given = in_local_frame(views, placement)
    placed(2, 3)
    agreement = silhouette_agreement(given, placement)
    _warn_of_doubtful_cameras(given, agreement)
    placed(3, 3)

    exact = agreement >= EXACT
    local, trust, shifts = given, None, None
    surface, doubtful = config.surface, 0.0
    if config.align and not exact:
        local, trust = align_in_rounds(
            given,
            placement,
            surface,
            device=surface_device,
            seed=seed,
            on_step=stage("alignment"),
            on_preview=on_preview,
        )
        aligned_agreement = silhouette_agreement(local, placement)
        surface = suited_to(surface, aligned_agreement, aligned=True)
        doubtful = doubt(aligned_agreement, aligned=True)
    else:
        surface = suited_to(surface, agreement)

    fitted = shrunk(local, surface.levels[-1].picture)
    gaussians = None
    between = None if hints.between is None else in_local_frame(hints.between, placement)
    if config.interpolate or want_splat:
        points = hull_points(fitted, config.splat.count, seed)
        on_device = fitted.to(_device_with(has_cuda_kernels, device))
        gaussians = fit_gaussians(
            on_device,
            points,
            config.splat,
            seed=seed,
            on_step=stage("splat"),
            on_preview=on_preview,
        )
        if config.interpolate:
            cameras = in_between_cameras(fitted.cameras, config.interpolate)
            between = render_views(gaussians, cameras, on_step=stage("in-between views")).to("cpu")
        gaussians = gaussians.to("cpu")

    field = fit_surface(
        fitted,
        placement,
        surface,
        between=None if between is None else shrunk(between, surface.levels[-1].picture),
        between_share=config.interpolated_share,
        trust=None if trust is None else _resized(trust, fitted),
        priors=_priors(hints, given),
        device=surface_device,
        seed=seed,
        on_step=stage("surface"),
        on_preview=on_preview,
    )
    meshed = stage("mesh")
    meshed(0, 2)
    raw = extract_mesh(field)
    meshed(1, 2)
    mesh = finish_mesh(raw, config.face_budget)
    meshed(2, 2)
    if config.align and not exact:
        # The fit is finer now than what the rounds had to go by.
        mesh, aligned = align_to_mesh(given, field, mesh, doubtful, on_step=stage("last alignment"))
        local, shifts = aligned.views, torch.from_numpy(aligned.shifts)
    reference = _registered(hints.reference, views, placement)
    painting = suited_to_doubt(config.texture, doubtful, has_reference=reference is not None)
    texture = bake_or_color(
        mesh,
        local,
        replace(painting, exact_edges=painting.exact_edges or exact),
        reference=reference,
        on_step=stage("texture"),
    ).from_frame(placement.center, placement.scale)

    if gaussians is not None:
        gaussians = gaussians.from_frame(placement.center, placement.scale)
    return Reconstruction(texture.mesh, texture, gaussians, views.cameras, agreement, shifts)


def _resized(trust: FloatArray, views: OrbitViews) -> FloatArray:
    """Maps (V, h, w) at the views' size."""
    maps = torch.from_numpy(trust)[:, None]
    return interpolate(maps, views.alphas.shape[1:], mode="area")[:, 0].numpy()


def _priors(hints: Hints, local: OrbitViews) -> SurfacePriors | None:
    """The hints' maps with cameras of their size, in the local frame."""
    maps = hints.inverse_depths if hints.inverse_depths is not None else hints.normals
    if maps is None:
        return None
    wanted = 3 if hints.inverse_depths is not None else 4
    if maps.ndim != wanted:
        raise ValueError(
            f"the depth or normal maps are {tuple(maps.shape)}, expected (V, H, W) or (V, H, W, 3)"
        )
    if len(maps) != len(local):
        raise ValueError(f"there are {len(maps)} depth or normal maps for {len(local)} views")
    height, width = int(maps.shape[1]), int(maps.shape[2])
    masks = interpolate(local.alphas[:, None], (height, width), mode="area")[:, 0]
    depths, normals = (
        None if each is None else each.detach().cpu().float().numpy()
        for each in (hints.inverse_depths, hints.normals)
    )
    cameras = local.cameras.resized(width, height).to("cpu")
    return SurfacePriors(cameras, masks.cpu().float().numpy(), depths, normals)


def _registered(
    reference: OrbitViews | None, views: OrbitViews, placement: Placement
) -> OrbitViews | None:
    if reference is None:
        return None
    found = register_reference(reference, views)
    return None if found is None else in_local_frame(found, placement)


def _device_with(
    kernels: Callable[[torch.device], bool], wanted: torch.device | None
) -> torch.device:
    """The device that is wanted, CUDA if None, where it has the kernels; else the CPU."""
    device = wanted or torch.device("cuda")
    return device if kernels(device) else torch.device("cpu")


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
