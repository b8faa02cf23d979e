"""Hi3D Orbit Cameras: where views were taken from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..hi3d_core.cameras import (
    Cameras,
    intrinsics_from_fov,
    look_at,
    opengl_to_opencv,
    sphere_points,
)
from .comfy_run import input_file
from .comfy_types import CameraInfoSocket, CamerasSocket

_SIZE = 512  # pixels; nodes rescale cameras to the pictures they come with


class OrbitCameras(io.ComfyNode):
    """Cameras of an orbit, of the host's 3D viewer, or of a transforms.json."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hi3DOrbitCameras",
            display_name="Hi3D Orbit Cameras",
            category="Hi3D",
            description="Says where views were taken from. World: right-handed, Y up, the object "
            "at the origin and its front towards +Z; a camera at azimuth 0 sees the front.",
            inputs=[
                io.Int.Input(
                    "count", default=16, min=1, max=256, tooltip="Views, evenly around the object."
                ),
                io.Float.Input(
                    "elevation",
                    default=0.0,
                    min=-85.0,
                    max=85.0,
                    step=0.5,
                    tooltip="Degrees above the object's middle; above 0 the cameras look down.",
                ),
                io.Float.Input(
                    "radius",
                    default=1.5,
                    min=0.05,
                    max=100.0,
                    step=0.01,
                    tooltip="Distance from the origin, in world units; Hi3D's orbits have 1.5.",
                ),
                io.Float.Input(
                    "fov",
                    default=49.134,
                    min=1.0,
                    max=150.0,
                    step=0.001,
                    tooltip="Vertical field of view in degrees; Hi3D's orbits have 49.134.",
                ),
                io.Combo.Input(
                    "direction",
                    options=["counter-clockwise", "clockwise"],
                    tooltip="Which way the camera moves, seen from above. Hi3D: counter-clockwise.",
                ),
                io.Float.Input(
                    "start_azimuth",
                    default=0.0,
                    min=-360.0,
                    max=360.0,
                    step=0.5,
                    tooltip="Degrees from the front at which the first view was taken.",
                ),
                io.String.Input(
                    "transforms",
                    default="",
                    tooltip="A transforms.json (NeRF's convention) in the input folder, or its "
                    "full path: its cameras, in the file's order, are taken instead.",
                ),
                CameraInfoSocket.Input(
                    "camera_info",
                    optional=True,
                    tooltip="A camera of Load 3D or Preview 3D, or a list of them: taken instead.",
                ),
            ],
            outputs=[CamerasSocket.Output(display_name="cameras")],
        )

    @classmethod
    def fingerprint_inputs(cls, transforms: str = "", **_: Any) -> str:
        from ..hi3d_core.read.posed import find_transforms

        if not transforms.strip():
            return ""
        try:
            path = input_file(transforms)
        except ValueError:
            return "missing"
        path = find_transforms(path) or path
        return f"{path}:{path.stat().st_mtime_ns}:{path.stat().st_size}"

    @classmethod
    def execute(
        cls,
        count: int,
        elevation: float,
        radius: float,
        fov: float,
        direction: str,
        start_azimuth: float,
        transforms: str = "",
        camera_info: Any = None,
    ) -> io.NodeOutput:
        if transforms.strip() and camera_info is not None:
            raise ValueError(
                "both transforms and camera_info are given: empty the one or disconnect the other"
            )
        if transforms.strip():
            return io.NodeOutput(_from_file(transforms))
        if camera_info is not None:
            infos = camera_info if isinstance(camera_info, list | tuple) else [camera_info]
            return io.NodeOutput(from_viewer(infos))
        step = 360 / count if direction == "counter-clockwise" else -360 / count
        azimuths = start_azimuth + step * torch.arange(count, dtype=torch.float64)
        eyes = sphere_points(azimuths, elevation, radius)
        intrinsics = intrinsics_from_fov(fov, _SIZE, _SIZE).expand(count, 3, 3).clone()
        return io.NodeOutput(Cameras(look_at(eyes).float(), intrinsics.float(), _SIZE, _SIZE))


def _from_file(name: str) -> Cameras:
    from ..hi3d_core.read.pictures import opening
    from ..hi3d_core.read.posed import PosedFile, find_transforms

    path = input_file(name)
    found = find_transforms(path)
    if found is None:
        raise ValueError(f"{path} is no transforms.json and holds none: name such a file")
    file = PosedFile(found)
    with opening(file.files[0]) as picture:
        width, height = picture.size
    return file.cameras(range(len(file)), width, height)


def from_viewer(infos: Sequence[Mapping[str, Any]]) -> Cameras:
    """Cameras of the host's 3D viewer: position, target or quaternion (OpenGL axes), vertical fov.

    Raises ValueError for none, an orthographic one, and one that sits on its target.
    """
    if not infos:
        raise ValueError("camera_info holds no camera")
    poses, matrices = [], []
    for index, info in enumerate(infos):
        kind = str(info.get("cameraType", "perspective"))
        if kind.startswith("ortho"):
            raise ValueError(
                f"camera {index} of camera_info is orthographic: use a perspective one"
            )
        poses.append(_pose(info, index))
        fov = float(info.get("fov") or 35.0)
        zoom = float(info.get("zoom") or 1.0)
        seen = 2 * math.degrees(math.atan(math.tan(math.radians(fov) / 2) / zoom))
        matrices.append(intrinsics_from_fov(seen, _SIZE, _SIZE))
    return Cameras(torch.stack(poses).float(), torch.stack(matrices).float(), _SIZE, _SIZE)


def _pose(info: Mapping[str, Any], index: int) -> Tensor:
    position = _vector(info.get("position", {}))
    quaternion = info.get("quaternion")
    if not quaternion:
        # The viewer's cameras are upright and look at their target.
        target = _vector(info.get("target", {}))
        if torch.linalg.vector_norm(position - target) < 1e-6:
            raise ValueError(f"camera {index} of camera_info sits on its target: move it away")
        x, y, z = target.tolist()
        return look_at(position[None], (x, y, z))[0]
    x, y, z, w = (float(quaternion.get(axis, 0.0)) for axis in "xyzw")
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    if norm < 1e-6:
        raise ValueError(f"camera {index} of camera_info has a quaternion of length 0")
    x, y, z, w = x / norm, y / norm, z / norm, w / norm
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )
    pose[:3, 3] = position
    return opengl_to_opencv(pose)


def _vector(named: Mapping[str, Any]) -> Tensor:
    return torch.tensor([float(named.get(axis, 0.0)) for axis in "xyz"], dtype=torch.float64)
