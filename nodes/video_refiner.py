"""Hi3D Video Refiner: the orbit, repainted at twice its size."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..hi3d_core.masks import cut_out
from .comfy_models import DepthSocket, Hi3DModel, ModelSocket, device, make_room
from .comfy_run import told_with_preview, working
from .inputs import elevation_input, solver_inputs
from .orbit_sampler import square_picture


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
                io.MultiType.Input(
                    "depth",
                    types=[DepthSocket, io.Image],
                    optional=True,
                    tooltip="From Hi3D Depth Estimator, or another estimator's pictures (near is "
                    "white). Without it the model's own network estimates it.",
                ),
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
        from ..hi3d_core.refine import RefineConfig, refine_orbit

        with working():
            frames = image[..., :3].detach().clone().cpu().float().clamp(0, 1)
            picture = square_picture(input_image, input_mask, _square(frames))
            depths = None if depth is None else _maps(depth)
            networks = model.stage("refiner")
            make_room(networks, size)
            on_step, on_preview = told_with_preview()
            refined = refine_orbit(
                networks,
                frames,
                picture,
                elevation,
                RefineConfig(size=size, steps=steps or None, solver=solver, strength=strength),
                generator=torch.Generator().manual_seed(seed),
                depths=depths,
                device=device(),
                on_step=on_step,
                on_preview=on_preview,
            )
            return io.NodeOutput(*cut_out(refined))


def _square(frames: Tensor) -> int:
    height, width = frames.shape[1:3]
    if height != width:
        raise ValueError(f"the orbit's frames are {width} x {height}, expected square ones")
    return int(height) // 64 * 64 or 64


def _maps(depth: Tensor) -> Tensor:
    """(F, H, W) relative inverse depth of our wire, or of pictures (F, H, W, 3)."""
    from ..hi3d_core.depth import to_inverse_depth

    maps = depth.detach().clone().cpu().float()
    return to_inverse_depth(maps.mean(dim=-1) if maps.ndim == 4 else maps, "near_is_large")
