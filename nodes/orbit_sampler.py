"""Hi3D Orbit Video Sampler: one picture in, an orbit around the object out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io
from torch import Tensor

from ..hi3d_core.cameras import Cameras
from .comfy_models import Hi3DModel, device, make_room
from .comfy_run import told_with_preview, working
from .comfy_types import CamerasSocket
from .inputs import (
    elevation_input,
    picture_inputs,
    sample_settings,
    size_input,
    solver_inputs,
)

if TYPE_CHECKING:
    from ..hi3d_core.model_defaults import SampleSettings
    from ..hi3d_core.video_model import VideoModel


class OrbitSampler(io.ComfyNode):
    """Paints 16 frames around the object from one picture (Hi3D's first stage)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hi3DOrbitVideoSampler",
            display_name="Hi3D Orbit Video Sampler",
            category="Hi3D",
            description="Paints the orbit of 16 frames around an object from one picture. The "
            "camera starts at the picture's and moves counter-clockwise seen from above.",
            inputs=[
                *picture_inputs(),
                elevation_input(
                    "Degrees from which the picture was taken, above 0 looking down; the "
                    "whole orbit keeps it. The weights know -10 to 40.",
                ),
                *solver_inputs(),
                io.Float.Input(
                    "guidance",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip="How closely the farthest frames follow the picture; it rises from 1 "
                    "at the first frame to this at the last. 0: what the model says, for the "
                    "authors' weights 2.5.",
                ),
                size_input(1024, "the", 512, " Memory and time grow with its square or faster."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="16 frames on white."),
                io.Mask.Output(display_name="mask"),
                CamerasSocket.Output(display_name="cameras"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Hi3DModel,
        image: Tensor,
        elevation: float,
        seed: int,
        steps: int,
        solver: str,
        guidance: float,
        size: int,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        from ..hi3d_core.masks import cut_out

        with working():
            networks = model.stage("orbit")
            settings = sample_settings(networks, size, steps, solver, guidance)
            small = networks.defaults.is_small
            picture = square_picture(image, mask, settings.size, smooth=small)
            over_white, masks = cut_out(paint_orbit(networks, picture, elevation, settings, seed))
        cameras = Cameras.orbit(len(masks), elevation, width=settings.size, height=settings.size)
        return io.NodeOutput(over_white, masks, cameras)


def paint_orbit(
    networks: VideoModel, picture: Tensor, elevation: float, settings: SampleSettings, seed: int
) -> Tensor:
    """Frames (16, S, S, 3) around the object of a square picture (S, S, 3) on white."""
    from ..hi3d_core.orbit import OrbitConfig, generate_orbit

    make_room(networks, settings.size)
    on_stage, on_preview = told_with_preview()
    return generate_orbit(
        networks,
        picture,
        elevation,
        OrbitConfig(settings.size, settings.steps, settings.solver, settings.guidance),
        generator=torch.Generator().manual_seed(seed),
        device=device(),
        on_step=on_stage("orbit"),
        on_preview=on_preview,
    )


def square_picture(
    image: Tensor, mask: Tensor | None, size: int, *, smooth: bool = False
) -> Tensor:
    """The one picture of an IMAGE, on white in a square (size, size, 3), its framing kept.

    smooth: see `prepare_picture`. Raises ValueError for several pictures.
    """
    from ..hi3d_core.picture import prepare_picture

    colors, alpha = one_picture(image, mask)
    return prepare_picture(colors, alpha, size, None, straight=False, smooth=smooth)[0]


def one_picture(image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Colours (H, W, 3) and alpha (H, W) of an IMAGE that holds one picture.

    Raises ValueError for several pictures.
    """
    if len(image) != 1 or (mask is not None and len(mask) != 1):
        raise ValueError(
            f"IMAGE holds {len(image)} pictures, expected one: paint the orbits of several objects "
            "one after the other"
        )
    colors = image[0, ..., :3].detach().clone().cpu().float().clamp(0, 1)
    return colors, None if mask is None else mask[0].detach().clone().cpu().float()
