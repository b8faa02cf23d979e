"""Draw orbit pictures of a mesh or a splat, into a folder of PNG files or a video."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..cameras import HI3D_FOV_DEGREES, Cameras, opengl_to_opencv
from ..datatypes import Gaussians, Mesh, OrbitViews
from ..export.checks import to_bytes
from ..export.gaussian_ply import read_gaussian_ply
from ..export.video import VIDEO_SUFFIXES, check_video_suffix, write_video
from ..read.mesh_file import read_meshes
from ..render import SHADINGS, MeshRender, render_mesh
from ..splat.interpolate import render_views

MODES = ("color", "depth", "normal", "mask")
_MARGIN = 0.92  # share of the picture's half width that the object may fill
_VIEWS_AT_ONCE = 8
_LARGEST = 8192  # pixels a side

Draw = Callable[[Cameras], OrbitViews]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "source", type=Path, help="mesh (.glb .gltf .obj .ply .stl) or splat (.ply)"
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        help=f"a folder for PNG files, or a video ({', '.join(VIDEO_SUFFIXES)})",
    )
    parser.add_argument("--views", type=int, default=16, help="pictures around the object")
    parser.add_argument("--mode", choices=MODES, default="color")
    parser.add_argument("--elevation", type=float, default=0.0, help="degrees, -90 to 90")
    parser.add_argument("--size", type=int, default=512, help="pixels a side")
    parser.add_argument(
        "--radius",
        type=float,
        help="orbit about the world's origin at this distance "
        "(default: about the object, so that it fills the picture)",
    )
    parser.add_argument(
        "--fov", type=float, default=HI3D_FOV_DEGREES, help="field of view, degrees"
    )
    parser.add_argument(
        "--shading", choices=SHADINGS, default="unlit", help="soft: a lamp at the camera (meshes)"
    )
    parser.add_argument(
        "--untextured", action="store_true", help="plain grey instead of the mesh's colours"
    )
    parser.add_argument("--fps", type=float, help="of a video (default: 4 seconds a turn)")


def run(arguments: argparse.Namespace) -> None:
    """Draw and write; see `add_arguments`. Raises ValueError for bad input."""
    out: Path = arguments.out
    if not 1 <= arguments.views <= 10_000:
        raise ValueError(f"--views is {arguments.views}, expected 1 to 10000")
    if not 1 <= arguments.size <= _LARGEST:
        raise ValueError(f"--size is {arguments.size} pixels, expected 1 to {_LARGEST}")
    is_folder = out.is_dir() or not out.suffix
    if not is_folder:
        check_video_suffix(out)
    elif out.is_file():
        raise ValueError(f"{out} is a file: name a folder or a video to write")
    points, draw = _open(arguments)
    cameras = _place_cameras(points, arguments)
    depth_range = _depth_range(points, cameras)
    chunks = _draw_all(draw, cameras)
    if is_folder:
        _write_folder(chunks, cameras, out, arguments.mode, depth_range[1])
    else:
        frames = (
            image for views in chunks for image in _to_colors(views, arguments.mode, depth_range)
        )
        fps = arguments.views / 4 if arguments.fps is None else arguments.fps
        write_video(frames, out, fps)


def _open(arguments: argparse.Namespace) -> tuple[Tensor, Draw]:
    """Points (N, 3) that bound the object, and the function that draws it."""
    if _is_splat(arguments.source):
        if arguments.mode == "normal":
            raise ValueError(f"{arguments.source} is a splat, which has no normals: draw a mesh")
        gaussians = read_gaussian_ply(arguments.source)
        bounds = _splat_bounds(gaussians)
        return bounds, _splat_drawer(gaussians, bounds)
    meshes = read_meshes(arguments.source)
    if arguments.untextured:
        meshes = [Mesh(mesh.vertices, mesh.faces) for mesh in meshes]
    # Vertices that no face uses do not show and must not move the camera away.
    points = torch.cat([mesh.vertices[mesh.faces.unique()] for mesh in meshes])
    return points, lambda cameras: render_mesh(meshes, cameras, shading=arguments.shading)


def _is_splat(path: Path) -> bool:
    if path.suffix.lower() != ".ply" or not path.is_file():
        return False
    with path.open("rb") as file:
        header = file.read(8192).split(b"end_header")[0]
    return b"f_dc_0" in header


def _splat_bounds(gaussians: Gaussians) -> Tensor:
    """Two standard deviations around the Gaussians that show."""
    shown = gaussians.opacities > 0.1
    if not bool(shown.any()):
        raise ValueError("the splat holds no Gaussian of opacity above 0.1: nothing would show")
    means, reach = gaussians.means[shown], 2 * gaussians.scales[shown].amax(dim=1, keepdim=True)
    return torch.cat([means - reach, means + reach])


def _splat_drawer(gaussians: Gaussians, bounds: Tensor) -> Draw:
    """Draw a splat of any size as if it were 1 across, for which the rasterizer's near plane is."""
    low, high = bounds.amin(dim=0), bounds.amax(dim=0)
    center, size = (low + high) / 2, float((high - low).max())
    local = gaussians.from_frame(-center / size, 1 / size)

    def draw(cameras: Cameras) -> OrbitViews:
        views = render_views(local, cameras.in_frame(center, size))
        depths = None if views.depths is None else views.depths * size
        return replace(views, cameras=cameras, depths=depths)

    return draw


def _place_cameras(points: Tensor, arguments: argparse.Namespace) -> Cameras:
    def orbit(radius: float) -> Cameras:
        return Cameras.orbit(
            arguments.views,
            arguments.elevation,
            radius,
            arguments.fov,
            width=arguments.size,
            height=arguments.size,
        )

    if arguments.radius is not None:
        return orbit(arguments.radius)
    center = (points.amin(dim=0) + points.amax(dim=0)) / 2
    # A point at (x, y, z) from the centre, in camera axes, is in the picture of a camera at
    # distance d if |x| and |y| are at most t (d + z): every point asks for a smallest d.
    tangent = _MARGIN * math.tan(math.radians(arguments.fov) / 2)
    distance = 0.0
    for rotation in orbit(1.0).camera_to_world[:, :3, :3]:
        local = (points - center) @ rotation
        needed = local[:, :2].abs().amax(dim=1) / tangent - local[:, 2]
        distance = max(distance, float(needed.max()))
    if not distance > 0:
        raise ValueError(f"{arguments.source} is a single point: there is nothing to see")
    cameras = orbit(distance)
    poses = cameras.camera_to_world.clone()
    poses[:, :3, 3] += center
    return replace(cameras, camera_to_world=poses)


def _depth_range(points: Tensor, cameras: Cameras) -> tuple[float, float]:
    """Smallest and largest z-depth of the points in any view, world units."""
    near, far = math.inf, 0.0
    for position, forward in zip(cameras.positions, cameras.forwards, strict=True):
        depths = (points - position) @ forward
        near, far = min(near, float(depths.min())), max(far, float(depths.max()))
    return max(near, 0.0), max(far, 1e-6)


def _draw_all(draw: Draw, cameras: Cameras) -> Iterator[OrbitViews]:
    with tqdm(total=len(cameras), desc="render", unit="view") as bar:
        for start in range(0, len(cameras), _VIEWS_AT_ONCE):
            views = draw(cameras[start : start + _VIEWS_AT_ONCE])
            bar.update(len(views))
            yield views


def _to_colors(views: OrbitViews, mode: str, depth_range: tuple[float, float]) -> Tensor:
    """What a video shows, (V, H, W, 3) in [0, 1]; depth is brighter where it is nearer."""
    if mode == "color":
        return views.images
    if mode == "normal" and isinstance(views, MeshRender):
        return views.normal_images
    if mode == "depth" and views.depths is not None:
        near, far = depth_range
        brightness = 1 - 0.85 * (views.depths - near) / max(far - near, 1e-6)
        return (brightness.clamp(0, 1) * (views.depths > 0))[..., None].expand(-1, -1, -1, 3)
    return views.alphas[..., None].expand(-1, -1, -1, 3)


def _write_folder(
    chunks: Iterator[OrbitViews], cameras: Cameras, folder: Path, mode: str, far: float
) -> None:
    """000.png ... and transforms.json, all put in place at the end or not at all."""
    if not folder.parent.is_dir():
        raise ValueError(f"the folder {folder.parent} does not exist: make it first")
    # Inside a folder that is there: it may be a file system of its own, across which nothing moves.
    beside = folder if folder.is_dir() else folder.parent
    temporary = Path(tempfile.mkdtemp(prefix=".hi3d-", dir=beside))
    try:
        scale = far / 65535
        index = 0
        for views in chunks:
            for pixels in to_pixels(views, mode, scale):
                Image.fromarray(pixels).save(temporary / f"{index:03d}.png")
                index += 1
        description = nerf_transforms(cameras)
        if mode == "depth":
            description["depth_scale"] = scale
            description["depth_note"] = (
                "z-depth in world units = pixel value * depth_scale, 0: none"
            )
        text = json.dumps(description, indent=1) + "\n"
        (temporary / "transforms.json").write_text(text, encoding="utf-8")
        folder.mkdir(exist_ok=True)
        for file in sorted(temporary.iterdir()):
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def to_pixels(views: OrbitViews, mode: str, depth_scale: float) -> Iterator[np.ndarray]:
    """Arrays as PNG files hold them: RGBA with straight alpha, or 8 or 16 bits of grey.

    mode: colour, mask, depth (in steps of `depth_scale` world units) or normal. Yields (H, W, 4) or
    (H, W) for each view.
    """
    for index in range(len(views)):
        alpha = views.alphas[index]
        if mode == "mask":
            yield to_bytes(alpha)
        elif mode == "depth" and views.depths is not None:
            values = (views.depths[index] / depth_scale).round().clamp(0, 65535)
            yield values.cpu().numpy().astype(np.uint16)
        else:
            if mode == "normal" and isinstance(views, MeshRender):
                straight = views.normals[index] * 0.5 + 0.5
            else:
                cover = alpha[..., None].clamp(min=1e-6)
                straight = (views.images[index] - (1 - alpha[..., None])) / cover
            yield to_bytes(torch.cat([straight, alpha[..., None]], dim=-1))


def nerf_transforms(cameras: Cameras) -> dict[str, Any]:
    """NeRF's description of the views: camera-to-world in OpenGL axes, angles in radians."""
    intrinsics = cameras.intrinsics[0].double()
    focal_x, focal_y = float(intrinsics[0, 0]), float(intrinsics[1, 1])
    poses = opengl_to_opencv(cameras.camera_to_world)  # its own inverse
    return {
        "camera_angle_x": 2 * math.atan(cameras.width / (2 * focal_x)),
        "w": cameras.width,
        "h": cameras.height,
        "fl_x": focal_x,
        "fl_y": focal_y,
        "cx": float(intrinsics[0, 2]),
        "cy": float(intrinsics[1, 2]),
        "frames": [
            {"file_path": f"{index:03d}.png", "transform_matrix": pose.tolist()}
            for index, pose in enumerate(poses)
        ],
    }
