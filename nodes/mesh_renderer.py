"""Hi3D Mesh Renderer: pictures of a mesh from given cameras."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..hi3d_core.cameras import Cameras
from .comfy_run import told, working
from .comfy_types import CamerasSocket, MeshSocket, cameras_for, to_mesh, without_colors

_FAR = 0.15  # grey of the farthest point


class MeshRenderer(io.ComfyNode):
    """Draws a mesh on the CPU, over white."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hi3DMeshRenderer",
            display_name="Hi3D Mesh Renderer",
            category="Hi3D",
            description="Draws a mesh from each camera: colours, mask, depth and normals.",
            inputs=[
                MeshSocket.Input("mesh", tooltip="One mesh, from any node."),
                CamerasSocket.Input("cameras", tooltip="One picture for each camera."),
                io.Int.Input(
                    "size",
                    default=512,
                    min=16,
                    max=4096,
                    step=8,
                    tooltip="Height of the pictures in pixels. On two cores about 0.2 s a picture "
                    "at 512.",
                ),
                io.Combo.Input(
                    "shading",
                    options=["unlit", "soft", "shape"],
                    default="unlit",
                    tooltip="unlit: the colours as they are. soft: lit by a lamp at the camera. "
                    "shape: lit, without colours.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image"),
                io.Mask.Output(display_name="mask"),
                io.Image.Output(display_name="depth", tooltip="White is near; for viewing."),
                io.Image.Output(
                    display_name="normals", tooltip="x, y, z of the world as red, green, blue."
                ),
            ],
        )

    @classmethod
    def execute(cls, mesh: object, cameras: Cameras, size: int, shading: str) -> io.NodeOutput:
        from ..hi3d_core.render import render_mesh

        width = max(1, round(size * cameras.width / cameras.height))
        with working():
            drawn = to_mesh(mesh)
            if shading == "shape":
                drawn, shading = without_colors(drawn), "soft"
            views = render_mesh(
                drawn, cameras_for(cameras, width, size), shading=shading, on_step=told("render")
            )
            depths = views.depths
            assert depths is not None  # renders have them
        shown = torch.stack([_for_viewing(each) for each in depths])
        return io.NodeOutput(views.images, views.alphas, shown, views.normal_images)


def _for_viewing(depth: Tensor) -> Tensor:
    """A z-depth (H, W), 0 where nothing is, as grey (H, W, 3): white near, black nothing."""
    there = depth > 0
    if not there.any():
        return torch.zeros(*depth.shape, 3)
    near, far = depth[there].min(), depth[there].max()
    grey = 1 - (1 - _FAR) * (depth - near) / (far - near).clamp(min=1e-9)
    return (grey * there)[..., None].expand(-1, -1, 3).contiguous()
