"""Between ComfyUI's values and the library's types; the one place where they meet.

The host's pictures and ours agree: IMAGE is (B, H, W, 3) in [0, 1], MASK is (B, H, W) with 1 on
what is selected. Its world is ours too: right-handed, Y up, front from +Z. Its MESH and SPLAT
carry a batch dimension, which ours do not, and its SPLAT is kept turned by 180 degrees about X (Y
down, as splat files are), which its own renderer and viewer turn back.

Hosts differ in what types they have: what is missing is found out once, here.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import comfy_api.latest
import torch
from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import interpolate

from ..hi3d_core.datatypes import Cameras, Gaussians, Mesh, OrbitViews

_log = logging.getLogger(__name__)

CamerasSocket = io.Custom("HI3D_CAMERAS")
"""A wire that carries the library's `Cameras`; the host has no type for posed cameras."""

MeshSocket = io.Mesh
SplatSocket = getattr(io, "Splat", None) or io.Custom("SPLAT")
CameraInfoSocket = io.Load3DCamera

_types = getattr(comfy_api.latest, "Types", None)
_File3D = getattr(_types, "File3D", None)
FileSocket = getattr(io, "File3DAny", None) if _File3D else None
"""A wire for 3D files, or None on hosts without one."""


@dataclass(frozen=True, eq=False)
class PartlyDrawnCameras(Cameras):
    """Cameras of which the last `drawn` belong to pictures that a splat drew.

    Pictures are separate wires, so it is the cameras that remember which were truly seen.
    """

    drawn: int = 0


def seen_and_drawn(views: OrbitViews) -> tuple[OrbitViews, OrbitViews | None]:
    """The views that were painted or photographed, and those that a splat drew, if any."""
    drawn = getattr(views.cameras, "drawn", 0)
    if not drawn:
        return views, None
    cameras = Cameras(
        *(views.cameras.camera_to_world, views.cameras.intrinsics),
        *(views.cameras.width, views.cameras.height),
    )
    views = replace(views, cameras=cameras)
    return views[: len(views) - drawn], views[len(views) - drawn :]


def to_orbit_views(image: Tensor, mask: Tensor | None, cameras: Cameras) -> OrbitViews:
    """IMAGE (B, H, W, 3) and MASK (B, H, W) on separate wires, as views of one object.

    The pictures may show any background, white included: what it mixed into the outline is taken
    out. Without a mask a plain background is keyed. A mask of another size is resized, and the log
    says so. The host's tensors are shared between nodes and come from inference mode: they are
    cloned. Cameras for another picture size are rescaled.

    Raises ValueError when the counts differ, and for masks that hold no object or nothing else.
    """
    from ..hi3d_core.masks import cut_out

    images = image[..., :3].detach().clone().float().clamp(0, 1).cpu()
    height, width = images.shape[1:3]
    counts = {"IMAGE": len(images), "CAMERAS": len(cameras)}
    if mask is not None:
        counts["MASK"] = len(mask)
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{count} in {name}" for name, count in counts.items())
        raise ValueError(
            f"the wires hold different numbers of views ({said}): connect the mask and the cameras "
            "that belong to these pictures"
        )
    alphas = None if mask is None else _mask_of_size(mask, height, width)
    return OrbitViews(*cut_out(images, alphas), cameras_for(cameras, width, height))


def cameras_for(cameras: Cameras, width: int, height: int) -> Cameras:
    """The cameras for pictures of this size.

    Those made for a square, as an orbit's are, keep their vertical field of view and see more or
    less to the sides. Raises ValueError for others whose pictures have another shape.
    """
    if abs(cameras.width * height - cameras.height * width) <= max(width, height):
        return cameras.resized(width, height)
    if cameras.width != cameras.height:
        raise ValueError(
            f"the cameras are for pictures of {cameras.width} x {cameras.height}, IMAGE is {width} "
            f"x {height}: connect the pictures that the cameras belong to, uncropped"
        )
    square = cameras.resized(height, height)
    intrinsics = square.intrinsics.clone()
    intrinsics[:, 0, 2] += (width - height) / 2
    return replace(square, intrinsics=intrinsics, width=width)


def _mask_of_size(mask: Tensor, height: int, width: int) -> Tensor:
    alphas = mask.detach().clone().float().clamp(0, 1).cpu()
    if alphas.shape[1:] == (height, width):
        return alphas
    _log.info(
        "MASK is %d x %d and IMAGE %d x %d: the mask is resized",
        *(alphas.shape[2], alphas.shape[1], width, height),
    )
    shrinks = height < alphas.shape[1]
    return interpolate(alphas[:, None], (height, width), mode="area" if shrinks else "bilinear")[
        :, 0
    ]


def from_orbit_views(views: OrbitViews) -> tuple[Tensor, Tensor]:
    """IMAGE and MASK; the cameras go on their own wire."""
    return views.images, views.alphas


def to_mesh(mesh: Any) -> Mesh:
    """The host's MESH as ours, on the CPU.

    Raises ValueError for a batch of several meshes, and for a mesh without faces.
    """
    if len(mesh.vertices) != 1:
        raise ValueError(
            f"MESH holds {len(mesh.vertices)} meshes, expected one: take them one at a time"
        )
    counts = (getattr(mesh, "vertex_counts", None), getattr(mesh, "face_counts", None))
    points = slice(None) if counts[0] is None else slice(int(counts[0][0]))
    faces = slice(None) if counts[1] is None else slice(int(counts[1][0]))

    def part(name: str, rows: slice = points) -> Tensor | None:
        value = getattr(mesh, name, None)
        return None if value is None else value[0][rows].detach().clone().cpu().float()

    triangles = mesh.faces[0][faces].detach().clone().cpu().long()
    if len(triangles) == 0:
        raise ValueError("MESH is empty: it has no faces")
    colors, uvs = part("vertex_colors"), part("uvs")
    texture = None if uvs is None else part("texture", slice(None))
    return Mesh(
        mesh.vertices[0][points].detach().clone().cpu().float(),
        triangles,
        uvs=None if uvs is None else uvs.clamp(0, 1),
        texture=None if texture is None else texture[..., :3].clamp(0, 1),
        vertex_colors=None if colors is None else colors[:, :3].clamp(0, 1),
    )


def from_mesh(mesh: Mesh) -> Any:
    """Ours as the host's MESH.

    Older hosts' class knows vertices and faces alone: there the rest is set as attributes of the
    same names, which the pack's own nodes read.
    """
    fields = mesh_tensors(mesh)
    made = _mesh_class()(vertices=fields.pop("vertices"), faces=fields.pop("faces"))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def _mesh_class() -> Any:
    found = getattr(_types, "MESH", None)
    return found or importlib.import_module("comfy_extras.nodes_hunyuan3d").MESH


def mesh_tensors(mesh: Mesh) -> dict[str, Tensor]:
    """A mesh with the host's leading batch dimension of 1; only the parts it has."""
    fields = {
        "vertices": mesh.vertices,
        "faces": mesh.faces,
        "uvs": mesh.uvs,
        "texture": mesh.texture,
        "vertex_colors": mesh.vertex_colors,
    }
    return {name: value[None] for name, value in fields.items() if value is not None}


# Real spherical harmonics up to degree 3 that change their sign when space is turned by 180 degrees
# about X: those odd in y and z together.
_ODD = (1, 2, 4, 7, 9, 11, 12, 14)


def splat_tensors(gaussians: Gaussians) -> dict[str, Tensor]:
    """A splat by the host's field names and in its frame, with its leading batch dimension of 1."""
    turned = torch.tensor([1.0, -1.0, -1.0]).to(gaussians.means)
    w, x, y, z = gaussians.quaternions.unbind(dim=1)
    sh = gaussians.sh.clone()
    sh[:, [term for term in _ODD if term < sh.shape[1]]] *= -1
    return {
        "positions": (gaussians.means * turned)[None],
        "scales": gaussians.scales[None],
        # (0, 1, 0, 0) times the quaternion: first the Gaussian's own turn, then that about X.
        "rotations": torch.stack([-x, w, -z, y], dim=1)[None],
        "opacities": gaussians.opacities[None, :, None],
        "sh": sh[None],
    }


def from_splat(gaussians: Gaussians) -> Any:
    """Ours as the host's SPLAT; on hosts without that class, an object with its fields."""
    fields = splat_tensors(gaussians)
    made = getattr(_types, "SPLAT", None)
    return SimpleNamespace(**fields, counts=None) if made is None else made(**fields)


def to_file(path: str, suffix: str) -> Any:
    """A file on disk as the host's 3D file, or None on hosts without that type."""
    return None if _File3D is None else _File3D(path, suffix.lstrip("."))


def without_colors(mesh: Mesh) -> Mesh:
    """The bare shape."""
    return replace(mesh, uvs=None, texture=None, vertex_colors=None)
