"""Hi3D Depth Estimator: relative depth of frames, as the refiner wants it."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from .comfy_models import DepthSocket, Hi3DModel, ModelSocket, device, make_room
from .comfy_run import told, working


class DepthEstimator(io.ComfyNode):
    """Estimates depth with the refiner's own network (DPT-hybrid)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hi3DDepthEstimator",
            display_name="Hi3D Depth Estimator",
            category="Hi3D",
            description="Estimates the relative depth of each frame with DPT-hybrid, which the "
            "refiner was trained on. Any other estimator's pictures (near is white) fit there too.",
            inputs=[
                ModelSocket.Input("model", tooltip="From Hi3D Loader."),
                io.Image.Input("image", tooltip="The orbit's frames. About 1 s each on a CPU."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="White is near; for viewing."),
                DepthSocket.Output(display_name="depth"),
            ],
        )

    @classmethod
    def execute(cls, model: Hi3DModel, image: Tensor) -> io.NodeOutput:
        from ..hi3d_core.depth import estimate_depth

        with working():
            networks = model.stage("refiner")
            make_room(networks, 64)
            frames = image[..., :3].detach().clone().cpu().float().clamp(0, 1)
            depth = estimate_depth(networks, frames, device=device(), on_step=told("depth"))
        return io.NodeOutput(depth[..., None].expand(-1, -1, -1, 3).contiguous(), depth)
