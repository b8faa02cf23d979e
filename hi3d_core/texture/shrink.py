"""Average a picture down where the surface is sampled more coarsely than it, so nothing aliases."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn.functional import avg_pool2d

from ..datatypes import Mesh, OrbitViews


def shrunk_to_pixel(views: OrbitViews, mesh: Mesh, spacing: float) -> OrbitViews:
    """The views scaled down by a whole number, so that a pixel is about `spacing` world units wide.

    A pixel is measured at the mean depth of the mesh's vertices. spacing: of the places on the
    surface that will be looked up; 0 leaves the views as they are. Never scaled up.
    """
    middle = mesh.vertices.detach().cpu().double().mean(dim=0)
    cameras = views.cameras.to("cpu")
    away = (cameras.positions.double() - middle).norm(dim=1)
    pixel = float((away / cameras.intrinsics[:, 0, 0].double()).mean())
    factor = int(spacing / pixel + 1e-6)
    if factor < 2:
        return views
    height, width = cameras.height // factor, cameras.width // factor
    if min(height, width) < 1:
        return views
    cut = replace(cameras, width=width * factor, height=height * factor)
    both = torch.cat([views.images, views.alphas[..., None]], dim=-1).detach().cpu().movedim(-1, 1)
    small = avg_pool2d(both[..., : cut.height, : cut.width], factor).movedim(1, -1).contiguous()
    return OrbitViews(small[..., :3], small[..., 3], cut.resized(width, height))
