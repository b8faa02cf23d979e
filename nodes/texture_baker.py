"""Hi3D Texture Baker: any mesh, textured anew from posed views."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io
from torch import Tensor

from ..hi3d_core.cameras import Cameras
from .comfy_run import told, working
from .comfy_types import (
    MeshSocket,
    from_mesh,
    seen_and_drawn,
    to_mesh,
    to_orbit_views,
    without_colors,
)
from .inputs import reference_inputs, view_inputs
from .neus_mesher import reference_view


class TextureBaker(io.ComfyNode):
    """Textures a mesh from pictures whose cameras are known."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hi3DTextureBaker",
            display_name="Hi3D Texture Baker",
            category="Hi3D",
            description="Projects views onto a mesh, each texel from the views that truly see it; "
            "exposure is levelled, unseen places are filled from their surroundings.",
            inputs=[
                MeshSocket.Input("mesh", tooltip="From any node; its old texture is left out."),
                *view_inputs(),
                io.Int.Input(
                    "texture_size",
                    default=2048,
                    min=0,
                    max=8192,
                    step=256,
                    tooltip="Side in texels; 0: colours at the mesh's vertices.",
                ),
                io.Boolean.Input(
                    "keep_uvs",
                    default=True,
                    tooltip="Use the mesh's own texture coordinates if it has some; else it is "
                    "unwrapped anew.",
                ),
                *reference_inputs(),
                io.Float.Input(
                    "reference_weight",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the colour that the reference takes where it sees well.",
                ),
            ],
            outputs=[MeshSocket.Output(display_name="mesh")],
        )

    @classmethod
    def execute(
        cls,
        mesh: object,
        image: Tensor,
        cameras: Cameras,
        texture_size: int,
        keep_uvs: bool,
        reference_weight: float,
        mask: Tensor | None = None,
        reference_image: Tensor | None = None,
        reference_mask: Tensor | None = None,
    ) -> io.NodeOutput:
        from ..hi3d_core.texture import TextureConfig, bake_or_color, register_reference

        config = TextureConfig(size=texture_size, reference_weight=reference_weight)
        with working():
            views, _ = seen_and_drawn(to_orbit_views(image, mask, cameras))
            bare = to_mesh(mesh)
            bare = (
                replace(bare, texture=None, vertex_colors=None)
                if keep_uvs
                else without_colors(bare)
            )
            reference = reference_view(reference_image, reference_mask, views.cameras)
            if reference is not None:
                reference = register_reference(reference, views)
            baked = bake_or_color(bare, views, config, reference=reference, on_step=told("texture"))
        return io.NodeOutput(from_mesh(baked.mesh))
