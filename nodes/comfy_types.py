"""Between ComfyUI's values and the library's types; the one place where they meet.

The host's pictures and ours agree: IMAGE is (B, H, W, 3) in [0, 1], MASK is (B, H, W) with 1 on
what is selected. Its world is ours too: right-handed, Y up, front from +Z. Its MESH and SPLAT
carry a batch dimension, which ours do not.
"""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..hi3d_core.datatypes import Cameras, Gaussians, Mesh, OrbitViews
from ..hi3d_core.masks import cut_out

CamerasSocket = io.Custom("HI3D_CAMERAS")
"""A wire that carries the library's `Cameras`; the host has no type for posed cameras."""


def to_orbit_views(image: torch.Tensor, mask: torch.Tensor, cameras: Cameras) -> OrbitViews:
    """IMAGE (B, H, W, 3) and MASK (B, H, W) on separate wires, as views of one object.

    The pictures may show any background, white included: what it mixed into the outline is taken
    out. The host's tensors are shared between nodes and come from inference mode: they are cloned.
    Cameras for another picture size are rescaled. Raises ValueError when the counts differ, and for
    masks that hold no object or nothing else.
    """
    images = image[..., :3].clone().float().clamp(0, 1)
    alphas = mask.clone().float().clamp(0, 1)
    if alphas.shape != images.shape[:3]:
        raise ValueError(
            f"MASK is {tuple(mask.shape)}, expected {tuple(images.shape[:3])}: connect the mask "
            "that belongs to these pictures"
        )
    height, width = images.shape[1:3]
    return OrbitViews(*cut_out(images, alphas), cameras.resized(width, height))


def from_orbit_views(views: OrbitViews) -> tuple[torch.Tensor, torch.Tensor]:
    """IMAGE and MASK; the cameras go on their own wire."""
    return views.images, views.alphas


def mesh_tensors(mesh: Mesh) -> dict[str, torch.Tensor]:
    """A mesh with the host's leading batch dimension of 1; only the parts it has."""
    fields = {
        "vertices": mesh.vertices,
        "faces": mesh.faces,
        "uvs": mesh.uvs,
        "texture": mesh.texture,
        "vertex_colors": mesh.vertex_colors,
    }
    return {name: value[None] for name, value in fields.items() if value is not None}


def splat_tensors(gaussians: Gaussians) -> dict[str, torch.Tensor]:
    """A splat by the host's field names, with its leading batch dimension of 1."""
    return {
        "positions": gaussians.means[None],
        "scales": gaussians.scales[None],
        "rotations": gaussians.quaternions[None],
        "opacities": gaussians.opacities[None, :, None],
        "sh": gaussians.sh[None],
    }
