"""Hi3D Prepare Image: the object on white, framed as the models know it."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from .comfy_run import told


class PrepareImage(io.ComfyNode):
    """Cuts an object out and puts it on white, in a square or in the pictures' own frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hi3DPrepareImage",
            display_name="Hi3D Prepare Image",
            category="Hi3D",
            description="Cuts the object out of its background and puts it on white. Use it on a "
            "picture before an orbit is painted, or on the frames of an orbit video before the "
            "mesher (framing: keep).",
            inputs=[
                io.Image.Input("image", tooltip="One picture of the object, or all frames."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White on the object. Without one, a plain background is keyed out; if "
                    "it isn't plain, a small network on the CPU looks for the object (about 1 s a "
                    "picture; needs the package onnxruntime).",
                ),
                io.Combo.Input(
                    "framing",
                    options=["square", "keep"],
                    default="square",
                    tooltip="square: centre the object in a square picture, for the orbit sampler. "
                    "keep: leave size and place as they are, for frames whose cameras are known.",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=64,
                    max=2048,
                    step=64,
                    tooltip="Side of the square in pixels, best 512 or more; the samplers scale it "
                    "to what they take.",
                ),
                io.Float.Input(
                    "foreground_ratio",
                    default=0.85,
                    min=0.1,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the square's side the object's longer side takes.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The object on white."),
                io.Mask.Output(display_name="mask", tooltip="White on the object."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        framing: str,
        size: int,
        foreground_ratio: float,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        from ..hi3d_core.masks import cut_out
        from ..hi3d_core.picture import prepare_picture

        on_step = told("picture")
        if mask is not None and len(mask) not in (1, len(image)):
            raise ValueError(
                f"MASK holds {len(mask)} masks and IMAGE {len(image)} pictures: connect the masks "
                "that belong to these pictures"
            )
        pictures = image[..., :3].detach().cpu().float().clamp(0, 1)
        alphas = None if mask is None else mask.detach().cpu().float()
        if alphas is not None and len(alphas) < len(pictures):
            alphas = alphas.expand(len(pictures), -1, -1)
        if framing == "keep":
            over_white, found = cut_out(pictures, alphas)
            on_step(1, 1)
            return io.NodeOutput(over_white, found)
        made = []
        for index, picture in enumerate(pictures):
            alpha = None if alphas is None else alphas[index]
            made.append(prepare_picture(picture, alpha, size, foreground_ratio, straight=False))
            on_step(index + 1, len(pictures))
        return io.NodeOutput(torch.stack([m[0] for m in made]), torch.stack([m[1] for m in made]))
