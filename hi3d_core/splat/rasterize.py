"""Draw Gaussians to pictures, differentiably: the one entry, for any device.

On CUDA tensors, with gsplat installed, gsplat's kernels draw; otherwise our numba kernels do.
Both follow the same rules (see `blend.py`), so pictures and gradients agree to rounding.

Letters: N Gaussians, V views, H and W the picture's height and width.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import optional
from ..cameras import Cameras
from .project import NEAR
from .rasterize_cpu import draw, draw_backward

_log = logging.getLogger(__name__)
_SMALLEST_ALPHA = 1e-10  # keeps the depth of an empty pixel at 0


@dataclass(frozen=True, eq=False)
class Rendered:
    """Pictures of a splat.

    colors: (V, H, W, 3), over the background. alphas: (V, H, W) coverage in [0, 1].
    depths: (V, H, W) expected z-depth in world units: the mean of the Gaussians' depths weighted
        by their share of the pixel, sum(w z) / sum(w); 0 where nothing is drawn. A faint rim
        pixel has the depth of what little covers it: mask by `alphas` where that matters.
    """

    colors: Tensor
    alphas: Tensor
    depths: Tensor


def rasterize(
    means: Tensor,
    scales: Tensor,
    quaternions: Tensor,
    opacities: Tensor,
    colors: Tensor,
    cameras: Cameras,
    background: Tensor | None = None,
) -> Rendered:
    """Draw N Gaussians to all cameras, differentiably in all five tensors.

    means: (N, 3) in the world. scales: (N, 3) standard deviations in world units, positive.
    quaternions: (N, 4) w first, of any length but zero. opacities: (N,) in [0, 1].
    colors: (N, 3) for all views, or (V, N, 3).
    background: (3,), shown where nothing covers; None is black.

    The tensors share one device and one type: float32 or, on the CPU only, float64. No Gaussians
    give the background. Those nearer to a camera than 0.01 world units, outside its picture or
    fainter than 1/255 are not drawn.

    On CUDA this needs gsplat. Without it the Gaussians are drawn on the CPU and the pictures
    are copied back, which is right but slow: a warning in the log says so.

    Raises ValueError for shapes, types or devices that disagree.
    """
    _check(means, scales, quaternions, opacities, colors, cameras)
    per_view = colors if colors.ndim == 3 else colors.expand(len(cameras), -1, -1)
    if len(means) == 0 or len(cameras) == 0:
        shape = (len(cameras), cameras.height, cameras.width)
        picture, alphas = means.new_zeros(*shape, 4), means.new_zeros(shape)
    elif has_cuda_kernels(means.device):
        picture, alphas = _draw_on_cuda(means, scales, quaternions, opacities, per_view, cameras)
    else:
        if means.device.type != "cpu":
            _warn_slow(means.device)
        poses = _to_numpy(cameras.world_to_camera)
        arguments = [t.cpu() for t in (means, scales, quaternions, opacities, per_view)]
        picture, alphas = _DrawOnCpu.apply(
            *arguments, poses, _to_numpy(cameras.intrinsics), cameras.width, cameras.height
        )
        picture, alphas = picture.to(means.device), alphas.to(means.device)
    shown = picture[..., :3]
    if background is not None:
        shown = shown + (1 - alphas)[..., None] * background.to(means)
    return Rendered(shown, alphas, picture[..., 3] / alphas.clamp_min(_SMALLEST_ALPHA))


def has_cuda_kernels(device: torch.device) -> bool:
    """Whether Gaussians on this device are drawn by gsplat."""
    # gsplat imports without a GPU and fails when called, so the device decides first.
    return device.type == "cuda" and torch.cuda.is_available() and optional.is_available("gsplat")


_warned: set[str] = set()


def _warn_slow(device: torch.device) -> None:
    if device.type not in _warned:
        _warned.add(device.type)
        _log.warning(
            "gsplat is not installed: splats on %s are rasterized on the CPU, many times slower "
            "(pip install %s)",
            device,
            optional.EXTRAS["gsplat"].install,
        )


def _to_numpy(matrices: Tensor) -> np.ndarray:
    return np.ascontiguousarray(matrices.detach().cpu().double().numpy())


def _draw_on_cuda(
    means: Tensor,
    scales: Tensor,
    quaternions: Tensor,
    opacities: Tensor,
    colors: Tensor,
    cameras: Cameras,
) -> tuple[Tensor, Tensor]:
    gsplat = optional.require("gsplat", for_="rasterizing splats on CUDA")
    poses = cameras.world_to_camera.to(means)
    picture, alphas, _ = gsplat.rasterization(
        means,
        quaternions,
        scales,
        opacities,
        colors,
        poses,
        cameras.intrinsics.to(means),
        cameras.width,
        cameras.height,
        near_plane=NEAR,
        render_mode="RGB+D",
        packed=False,
    )
    return picture, alphas[..., 0]


class _DrawOnCpu(torch.autograd.Function):
    """Pictures (V, H, W, 4) of colour and depth times coverage, and alphas (V, H, W)."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        scales: Tensor,
        quaternions: Tensor,
        opacities: Tensor,
        colors: Tensor,
        poses: np.ndarray,
        intrinsics: np.ndarray,
        width: int,
        height: int,
    ) -> tuple[Tensor, Tensor]:
        shape = [t.detach().contiguous().numpy() for t in (means, scales, quaternions, opacities)]
        colors_of_view = [c.detach().contiguous().numpy() for c in colors]
        drawn = [
            draw(shape[0], shape[1], shape[2], shape[3], color, pose, matrix, width, height)
            for color, pose, matrix in zip(colors_of_view, poses, intrinsics, strict=True)
        ]
        ctx.save_for_backward(means, scales, quaternions, opacities)
        ctx.drawn, ctx.poses, ctx.intrinsics = drawn, poses, intrinsics
        picture = torch.stack([torch.from_numpy(d.picture) for d in drawn])
        alphas = torch.stack([torch.from_numpy(1 - d.transmittance) for d in drawn])
        return picture, alphas

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        d_picture, d_alphas = (t.contiguous().numpy() for t in d_outputs)
        tensors = ctx.saved_tensors
        arrays = [t.detach().contiguous().numpy() for t in tensors]
        means, scales, quaternions, opacities = arrays
        shared = [np.zeros(a.shape) for a in arrays]
        d_colors = np.zeros((len(ctx.drawn), *means.shape))
        for view, drawn in enumerate(ctx.drawn):
            draw_backward(
                drawn, d_picture[view], d_alphas[view], means, scales, quaternions, opacities,
                ctx.poses[view], ctx.intrinsics[view],
                (shared[0], shared[1], shared[2], shared[3], d_colors[view]),
            )  # fmt: skip
        gradients = [torch.from_numpy(g).to(means_like) for g, means_like in zip(
            [*shared, d_colors], [*tensors, tensors[0]], strict=True
        )]  # fmt: skip
        return (*gradients, None, None, None, None)


def _check(
    means: Tensor,
    scales: Tensor,
    quaternions: Tensor,
    opacities: Tensor,
    colors: Tensor,
    cameras: Cameras,
) -> None:
    count = len(means)
    expected = {
        "means": (means, (count, 3)),
        "scales": (scales, (count, 3)),
        "quaternions": (quaternions, (count, 4)),
        "opacities": (opacities, (count,)),
        "colors": (colors, (count, 3) if colors.ndim == 2 else (len(cameras), count, 3)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, expected {shape}")
        if tensor.dtype != means.dtype or tensor.device != means.device:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}, but means is {means.dtype} on "
                f"{means.device}: give all tensors one type and device"
            )
    if means.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"means is {means.dtype}, expected float32 (or float64 on the CPU)")
    if means.dtype == torch.float64 and means.device.type != "cpu":
        raise ValueError(f"float64 is drawn on the CPU only, got {means.device}: use float32")
