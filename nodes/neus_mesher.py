"""Hi3D NeuS Mesher: posed views in, a textured mesh out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..hi3d_core.cameras import Cameras
from .comfy_models import device
from .comfy_run import told_with_preview, working
from .comfy_types import MeshSocket, from_mesh, seen_and_drawn, to_orbit_views
from .inputs import (
    QUALITIES_BY_NAME,
    check_choice,
    depth_input,
    inverse_depths,
    reference_inputs,
    view_inputs,
)

if TYPE_CHECKING:
    from ..hi3d_core.pipeline import Reconstruction


class NeusMesher(io.ComfyNode):
    """Fits a signed distance field to posed views and textures its surface."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hi3DNeusMesher",
            display_name="Hi3D NeuS Mesher",
            category="Hi3D",
            description="Fits a closed surface to views from known cameras and textures it from "
            "them. Views that disagree, as generated ones do, are aligned first. Runs on the CPU, "
            "and on CUDA with the package warp-lang.",
            inputs=[
                *view_inputs(),
                io.Combo.Input(
                    "quality",
                    options=QUALITIES_BY_NAME,
                    default="standard",
                    tooltip="On two CPU cores, 16 views at 512 pixels: preview takes under half a "
                    "minute, standard about one, high about five. Aligning adds half a minute.",
                ),
                io.Int.Input(
                    "face_budget",
                    default=0,
                    min=0,
                    max=2_000_000,
                    step=1000,
                    tooltip="Triangles at most; 0: the quality's own (20, 50 or 100 thousand).",
                ),
                io.Int.Input(
                    "texture_size",
                    default=2048,
                    min=0,
                    max=8192,
                    step=256,
                    tooltip="Side of the texture in texels; 0: geometry alone, coloured at its "
                    "vertices.",
                ),
                io.Boolean.Input(
                    "align",
                    default=True,
                    tooltip="Bring views that disagree to what they have in common. Views that "
                    "agree are never touched.",
                ),
                io.Boolean.Input(
                    "refine_cameras",
                    default=False,
                    tooltip="For photos whose cameras are a little off: small turns and shifts of "
                    "each, one focal length for all. About 20 s more.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    tooltip="The same seed gives the same mesh on the same machine.",
                ),
                *reference_inputs(),
                depth_input("Pulls gently where colours say little; one map for each view."),
                io.Image.Input(
                    "normals",
                    optional=True,
                    tooltip="Estimated normals as pictures, one for each view: red to the right, "
                    "green up, blue to the camera. They pull gently too.",
                ),
            ],
            outputs=[
                MeshSocket.Output(display_name="mesh"),
                io.String.Output(display_name="report", tooltip="What was made, in plain words."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        cameras: Cameras,
        quality: str,
        face_budget: int,
        texture_size: int,
        align: bool,
        refine_cameras: bool,
        seed: int,
        mask: Tensor | None = None,
        reference_image: Tensor | None = None,
        reference_mask: Tensor | None = None,
        depth: Tensor | None = None,
        normals: Tensor | None = None,
    ) -> io.NodeOutput:
        from ..hi3d_core.pipeline import QUALITIES, Hints, reconstruct

        check_choice("quality", quality, QUALITIES_BY_NAME)
        config = QUALITIES[quality]
        config = replace(
            config,
            align=align,
            refine_cameras=refine_cameras,
            face_budget=face_budget or config.face_budget,
            texture=replace(config.texture, size=texture_size),
        )
        with working():
            views, between = seen_and_drawn(to_orbit_views(image, mask, cameras))
            hints = Hints(
                reference=reference_view(reference_image, reference_mask, views.cameras),
                between=between,
                inverse_depths=None if depth is None else inverse_depths(depth),
                normals=None if normals is None else world_normals(normals, views.cameras),
            )
            on_stage, on_preview = told_with_preview()
            found = reconstruct(
                views,
                config,
                hints=hints,
                device=device(),
                seed=seed,
                on_stage=on_stage,
                on_preview=on_preview,
            )
        return io.NodeOutput(from_mesh(found.mesh), _report(found))


def reference_view(image: Tensor | None, mask: Tensor | None, cameras: Cameras) -> Any:
    """The user's own picture as a view from the first camera, or None without one.

    Raises ValueError for several pictures.
    """
    from ..hi3d_core.texture import reference_picture

    if image is None:
        return None
    if len(image) != 1 or (mask is not None and len(mask) != 1):
        raise ValueError(
            f"reference_image holds {len(image)} pictures, expected one: that of the first view"
        )
    colors = image[0, ..., :3].detach().clone().cpu().float().clamp(0, 1)
    alpha = None if mask is None else mask[0].detach().clone().cpu().float()
    return reference_picture(colors, alpha, cameras[[0]])


def world_normals(pictures: Tensor, cameras: Cameras) -> Tensor:
    """Normals (V, H, W, 3) of the world, from pictures of those of each camera.

    pictures: (V, H, W, 3) in [0, 1]: x right, y up, z to the camera, as estimators give them.
    Raises ValueError for another number of pictures than cameras.
    """
    if len(pictures) != len(cameras):
        raise ValueError(
            f"normals holds {len(pictures)} pictures for {len(cameras)} views: connect the normals "
            "of these views"
        )
    own = 2 * pictures[..., :3].detach().clone().cpu().float() - 1
    own = own * torch.tensor([1.0, -1.0, -1.0])  # the camera's y is down and its z forward
    turned = torch.einsum("vij,vhwj->vhwi", cameras.camera_to_world[:, :3, :3].cpu(), own)
    return torch.nn.functional.normalize(turned, dim=-1)


def _report(found: Reconstruction) -> str:
    lines = [
        f"{len(found.mesh.faces):,} triangles",
        f"the views' silhouettes agree to {found.agreement:.4f} (renders: above 0.998, generated "
        "orbits: 0.98 to 0.99, wrong cameras: below 0.95)",
    ]
    if found.shifts is not None:
        lines.append(f"views moved by {float(found.shifts.square().mean().sqrt()):.2f} pixels rms")
    if found.mesh.texture is not None:
        side = found.mesh.texture.shape[0]
        unseen = float(found.texture.unseen.float().mean())
        lines.append(f"texture {side} x {side}, {unseen:.0%} of it on surface that no view sees")
    return "\n".join(lines)
