"""Hi3D Gaussian Splat Interpolator: a splat of the views, and views in between."""

from __future__ import annotations

from dataclasses import replace

import torch
from comfy_api.latest import io
from torch import Tensor

from ..hi3d_core.cameras import Cameras
from .comfy_models import splat_device
from .comfy_run import told_with_preview, working
from .comfy_types import (
    CamerasSocket,
    PartlyDrawnCameras,
    SplatSocket,
    from_splat,
    seen_and_drawn,
    to_orbit_views,
)
from .inputs import view_inputs


class SplatInterpolator(io.ComfyNode):
    """Fits 3D Gaussians to posed views and draws the views between them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hi3DGaussianSplatInterpolator",
            display_name="Hi3D Gaussian Splat Interpolator",
            category="Hi3D",
            description="Fits a Gaussian splat to views from known cameras, and draws views in "
            "between them. The given views come first, then the new ones.",
            inputs=[
                *view_inputs(),
                io.Int.Input(
                    "between",
                    default=16,
                    min=0,
                    max=256,
                    tooltip="M: views drawn in the gaps between neighbours around the object.",
                ),
                io.Int.Input(
                    "steps",
                    default=1000,
                    min=1,
                    max=30_000,
                    tooltip="One view each. 1000 steps of 20,000 Gaussians take about 25 s on two "
                    "cores.",
                ),
                io.Int.Input(
                    "count",
                    default=20_000,
                    min=100,
                    max=500_000,
                    step=100,
                    tooltip="Gaussians. More show finer detail and take longer.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    tooltip="The same seed gives the same splat on a CPU.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The given views, then the new."),
                io.Mask.Output(display_name="mask"),
                CamerasSocket.Output(
                    display_name="cameras",
                    tooltip="Of all of them; the mesher sees from it which are drawn.",
                ),
                SplatSocket.Output(display_name="splat"),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        cameras: Cameras,
        between: int,
        steps: int,
        count: int,
        seed: int,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        from ..hi3d_core.local_views import in_local_frame
        from ..hi3d_core.splat.fit import STANDARD, fit_gaussians
        from ..hi3d_core.splat.interpolate import in_between_cameras, render_views
        from ..hi3d_core.surface.hull import hull_points, locate

        with working():
            views, _ = seen_and_drawn(to_orbit_views(image, mask, cameras))
            on_stage, on_preview = told_with_preview()
            placement = locate(views)
            local = in_local_frame(views, placement)
            splat = fit_gaussians(
                local.to(splat_device()),
                hull_points(local, count, seed),
                replace(STANDARD, count=count, iterations=steps),
                seed=seed,
                on_step=on_stage("splat"),
                on_preview=on_preview,
            ).from_frame(placement.center, placement.scale)
            images, alphas, poses = views.images, views.alphas, views.cameras
            if between:
                new = in_between_cameras(views.cameras, between)
                drawn = render_views(splat, new, on_step=on_stage("in-between views")).to("cpu")
                images = torch.cat([images, drawn.images])
                alphas = torch.cat([alphas, drawn.alphas])
                poses = PartlyDrawnCameras(
                    torch.cat([poses.camera_to_world, new.camera_to_world]),
                    torch.cat([poses.intrinsics, new.intrinsics]),
                    *(poses.width, poses.height),
                    drawn=len(new),
                )
        return io.NodeOutput(images, alphas, poses, from_splat(splat.to("cpu")))
