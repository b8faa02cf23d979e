"""Hi3D Image to 3D: the whole path in one node."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..hi3d_core.cameras import Cameras
from .comfy_models import Hi3DModel, device
from .comfy_run import new_output, told_with_preview, workflow_texts, working
from .comfy_types import MeshSocket, SplatSocket, from_mesh, from_splat, to_orbit_views
from .inputs import (
    QUALITIES_BY_NAME,
    check_choice,
    elevation_input,
    picture_inputs,
    sample_settings,
    size_input,
)
from .orbit_sampler import one_picture, paint_orbit
from .video_refiner import repaint_orbit

_FOREGROUND = 0.85  # of the frame's side that the object's longer side takes


class ImageTo3D(io.ComfyNode):
    """One picture in; orbit, splat, mesh and file out, all by the other nodes' defaults."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hi3DImageTo3D",
            display_name="Hi3D Image to 3D",
            category="Hi3D",
            description="Everything in one: cuts the object out, paints its orbit, refines it, "
            "fits a splat and a textured mesh and writes a GLB. The single nodes do the same with "
            "more choices.",
            inputs=[
                *picture_inputs(),
                elevation_input(
                    "Degrees from which the picture was taken, above 0 looking down. The weights "
                    "know -10 to 40.",
                ),
                size_input(1024, "the orbit's", 512, " Refined ones have twice it."),
                io.Boolean.Input(
                    "refine",
                    default=True,
                    tooltip="Repaint the orbit at twice its size with the second stage: sharper, "
                    "and several times the time and memory of the first.",
                ),
                io.Combo.Input(
                    "quality",
                    options=QUALITIES_BY_NAME,
                    default="standard",
                    tooltip="Of splat and mesh. On two CPU cores preview takes under a minute, "
                    "standard about two, high several more.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=True,
                    tooltip="Of the painting and of the fits. Another seed paints another back.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="hi3d/mesh",
                    tooltip="Folder and name within the output folder; a number is added.",
                ),
            ],
            outputs=[
                MeshSocket.Output(display_name="mesh"),
                SplatSocket.Output(display_name="splat"),
                io.Image.Output(display_name="image", tooltip="The 16 frames, on white."),
                io.String.Output(
                    display_name="path",
                    tooltip="Of the GLB within the output folder: for Preview 3D.",
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Hi3DModel,
        image: Tensor,
        elevation: float,
        size: int,
        refine: bool,
        quality: str,
        seed: int,
        filename_prefix: str,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        from ..hi3d_core.export import write_glb
        from ..hi3d_core.masks import cut_out
        from ..hi3d_core.picture import prepare_picture
        from ..hi3d_core.pipeline import QUALITIES, reconstruct

        check_choice("quality", quality, QUALITIES_BY_NAME)
        path, name = new_output(filename_prefix, ".glb")  # a bad name is better said before hours
        with working():
            colors, alpha = one_picture(image, mask)

            def picture(size: int) -> Tensor:
                return prepare_picture(colors, alpha, size, _FOREGROUND, straight=False)[0]

            model.require("orbit", *(["refiner"] if refine else []))
            networks = model.stage("orbit")
            settings = sample_settings(networks, size)
            frames = paint_orbit(networks, picture(settings.size), elevation, settings, seed)
            if refine:
                networks = model.stage("refiner")
                finer = sample_settings(networks, 2 * size)
                square = picture(finer.size)
                frames = repaint_orbit(networks, frames, square, elevation, finer, seed)
            over_white, masks = cut_out(frames)
            side = over_white.shape[1]
            cameras = Cameras.orbit(len(frames), elevation, width=side, height=side)
            on_stage, on_preview = told_with_preview()
            found = reconstruct(
                to_orbit_views(over_white, masks, cameras),
                QUALITIES[quality],
                want_splat=True,
                device=device(),
                seed=seed,
                on_stage=on_stage,
                on_preview=on_preview,
            )
            write_glb(found.mesh, path, extras=workflow_texts(cls.hidden))
        assert found.gaussians is not None  # it was asked for
        return io.NodeOutput(
            from_mesh(found.mesh),
            from_splat(found.gaussians),
            over_white,
            name,
            ui={"text": (name,)},
        )
