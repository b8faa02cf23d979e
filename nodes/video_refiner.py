"""Hi3D Video Refiner: the orbit, repainted at twice its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io
from torch import Tensor

from .comfy_models import Hi3DModel, ModelSocket, device, make_room
from .comfy_run import told_with_preview, working
from .inputs import depth_input, elevation_input, inverse_depths, solver_inputs
from .orbit_sampler import square_picture

if TYPE_CHECKING:
    from ..hi3d_core.refine import RefineConfig


class VideoRefiner(io.ComfyNode):
    """Repaints an orbit at a higher resolution (Hi3D's second stage)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hi3DVideoRefiner",
            display_name="Hi3D Video Refiner",
            category="Hi3D",
            description="Repaints the 16 frames of an orbit at 1024 pixels, guided by their depth "
            "and by the input picture.",
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
                io.Int.Input(
                    "size",
                    default=1024,
                    min=64,
                    max=2048,
                    step=64,
                    tooltip="Side of the refined frames in pixels; trained at 1024.",
                ),
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
        from ..hi3d_core.refine import RefineConfig

        config = RefineConfig(size=size, steps=steps or None, solver=solver, strength=strength)
        with working():
            frames = image[..., :3].detach().clone().cpu().float().clamp(0, 1)
            picture = square_picture(input_image, input_mask, _square(frames))
            depths = None if depth is None else inverse_depths(depth)
            refined = repaint_orbit(model, frames, picture, elevation, config, seed, depths)
            return io.NodeOutput(*cut_out(refined))


def repaint_orbit(
    model: Hi3DModel,
    frames: Tensor,
    picture: Tensor,
    elevation: float,
    config: RefineConfig,
    seed: int,
    depths: Tensor | None = None,
) -> Tensor:
    """Frames (16, S, S, 3), refined from coarser ones and the picture they were painted from."""
    from ..hi3d_core.refine import refine_orbit

    networks = model.stage("refiner")
    make_room(networks, config.size)
    on_stage, on_preview = told_with_preview()
    return refine_orbit(
        networks,
        frames,
        picture,
        elevation,
        config,
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
