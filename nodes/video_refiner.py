"""Hi3D Video Refiner: the orbit, repainted at twice its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io
from torch import Tensor

from .comfy_models import Hi3DModel, ModelSocket, device, make_room
from .comfy_run import told_with_preview, working
from .inputs import (
    depth_input,
    elevation_input,
    inverse_depths,
    sample_settings,
    size_input,
    solver_inputs,
)
from .orbit_sampler import square_picture

if TYPE_CHECKING:
    from ..hi3d_core.model_defaults import SampleSettings
    from ..hi3d_core.video_model import VideoModel


class VideoRefiner(io.ComfyNode):
    """Repaints an orbit at a higher resolution (Hi3D's second stage)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hi3DVideoRefiner",
            display_name="Hi3D Video Refiner",
            category="Hi3D",
            description="Repaints the 16 frames of an orbit at twice their size, guided by their "
            "depth and by the input picture.",
            inputs=[
                ModelSocket.Input("model", tooltip="From Hi3D Loader."),
                io.Image.Input("image", tooltip="The orbit: 16 frames, the first from the front."),
                io.Image.Input("input_image", tooltip="The picture that the orbit was made from."),
                io.Mask.Input(
                    "input_mask", optional=True, tooltip="White on the input picture's object."
                ),
                depth_input("Without it the model's own network estimates it."),
                elevation_input(
                    "The orbit's, in degrees, as given to the sampler.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How firmly the coarse frames hold at the start: 0 repaints freely.",
                ),
                *solver_inputs(),
                size_input(2048, "the refined", 1024),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="16 frames on white."),
                io.Mask.Output(display_name="mask"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Hi3DModel,
        image: Tensor,
        input_image: Tensor,
        elevation: float,
        strength: float,
        seed: int,
        steps: int,
        solver: str,
        size: int,
        input_mask: Tensor | None = None,
        depth: Tensor | None = None,
    ) -> io.NodeOutput:
        from ..hi3d_core.masks import cut_out

        with working():
            networks = model.stage("refiner")
            settings = sample_settings(networks, size, steps, solver)
            frames = image[..., :3].detach().clone().cpu().float().clamp(0, 1)
            side, small = _square(frames), networks.defaults.is_small
            # The authors' refiner knows it at the orbit's size, a small one has to see all.
            shown = settings.size if small else side
            picture = square_picture(input_image, input_mask, shown, smooth=small)
            depths = None if depth is None else inverse_depths(depth)
            refined = repaint_orbit(
                networks, frames, picture, elevation, settings, seed, depths, strength
            )
            return io.NodeOutput(*cut_out(refined))


def repaint_orbit(
    networks: VideoModel,
    frames: Tensor,
    picture: Tensor,
    elevation: float,
    settings: SampleSettings,
    seed: int,
    depths: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """Frames (16, S, S, 3), refined from coarser ones and the picture they were painted from."""
    from ..hi3d_core.refine import RefineConfig, refine_orbit

    make_room(networks, settings.size)
    on_stage, on_preview = told_with_preview()
    return refine_orbit(
        networks,
        frames,
        picture,
        elevation,
        RefineConfig(
            size=settings.size,
            steps=settings.steps,
            solver=settings.solver,
            guidance=settings.guidance,
            strength=strength,
        ),
        generator=torch.Generator().manual_seed(seed),
        depths=depths,
        device=device(),
        on_step=on_stage("refine"),
        on_preview=on_preview,
    )


def _square(frames: Tensor) -> int:
    height, width = frames.shape[1:3]
    if height != width:
        raise ValueError(f"the orbit's frames are {width} x {height}, expected square ones")
    return int(height) // 64 * 64 or 64
