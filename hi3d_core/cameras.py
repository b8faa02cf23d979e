"""Cameras, and every conversion of frames the library knows.

World: right-handed, Y up, the object about the origin, the front view seen from +Z.
Camera: OpenCV, that is x right, y down, z forward. Pixel (0, 0) is the top left one and its
centre lies at (0.5, 0.5). Pictures in `docs/coordinates.md`.

Letters: V views, N points, H and W the picture's height and width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Hi3D's orbit: a unit cube seen from 1.5 units by the renderer its authors name.
HI3D_VIEW_COUNT = 16
HI3D_RADIUS = 1.5
HI3D_FOV_DEGREES = 49.134
HI3D_SIZE = 512

_ROTATION_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Cameras:
    """V pinhole cameras that share one picture size.

    camera_to_world: (V, 4, 4) rigid transforms; columns are the camera's x (right), y (down),
        z (forward) axes and its position, in world units.
    intrinsics: (V, 3, 3) in pixels, rows [fx, 0, cx], [0, fy, cy], [0, 0, 1].
    width, height: the picture's size in pixels.

    Raises ValueError for wrong shapes, values that are not finite, a matrix that is singular,
    mirrored or scaled, a focal length that is not positive, or intrinsics with skew.
    """

    camera_to_world: Tensor
    intrinsics: Tensor
    width: int
    height: int

    def __post_init__(self) -> None:
        poses, intrinsics = self.camera_to_world, self.intrinsics
        if poses.ndim != 3 or poses.shape[1:] != (4, 4) or not poses.is_floating_point():
            raise ValueError(
                f"camera_to_world is {_describe(poses)}, expected a float tensor (V, 4, 4)"
            )
        if intrinsics.shape != (len(poses), 3, 3) or not intrinsics.is_floating_point():
            raise ValueError(
                f"intrinsics is {_describe(intrinsics)}, expected a float tensor "
                f"({len(poses)}, 3, 3): one matrix for each of the {len(poses)} cameras"
            )
        if self.width < 1 or self.height < 1:
            raise ValueError(f"picture size is {self.width} x {self.height}, expected at least 1")
        for index in range(len(poses)):
            check_rigid(poses[index], f"camera {index}")
            check_intrinsics(intrinsics[index], f"camera {index}")

    def __len__(self) -> int:
        return len(self.camera_to_world)

    def __getitem__(self, index: slice | list[int] | Tensor) -> Cameras:
        """Pick several cameras: a slice, a list of indices or a boolean mask."""
        return replace(
            self, camera_to_world=self.camera_to_world[index], intrinsics=self.intrinsics[index]
        )

    @property
    def positions(self) -> Tensor:
        """(V, 3) camera centres in world units."""
        return self.camera_to_world[:, :3, 3]

    @property
    def forwards(self) -> Tensor:
        """(V, 3) unit viewing directions in the world."""
        return self.camera_to_world[:, :3, 2]

    @property
    def world_to_camera(self) -> Tensor:
        """(V, 4, 4) inverse of `camera_to_world`."""
        rotation = self.camera_to_world[:, :3, :3].transpose(1, 2)
        inverse = torch.zeros_like(self.camera_to_world)
        inverse[:, :3, :3] = rotation
        inverse[:, :3, 3] = -(rotation @ self.camera_to_world[:, :3, 3:])[:, :, 0]
        inverse[:, 3, 3] = 1
        return inverse

    def to(self, device: torch.device | str) -> Cameras:
        return replace(
            self,
            camera_to_world=self.camera_to_world.to(device),
            intrinsics=self.intrinsics.to(device),
        )

    def resized(self, width: int, height: int) -> Cameras:
        """The same views drawn at another size (pixel centres at .5 keep this a pure scaling)."""
        scale = torch.ones_like(self.intrinsics)
        scale[:, 0] = width / self.width
        scale[:, 1] = height / self.height
        return replace(self, intrinsics=self.intrinsics * scale, width=width, height=height)

    def in_frame(self, center: Tensor, scale: float) -> Cameras:
        """The same views of a world where `center` is the origin and lengths are divided by
        `scale` (so a point p becomes (p - center) / scale)."""
        poses = self.camera_to_world.clone()
        poses[:, :3, 3] = (poses[:, :3, 3] - center.to(poses)) / scale
        return replace(self, camera_to_world=poses)

    @staticmethod
    def orbit(
        n: int = HI3D_VIEW_COUNT,
        elevation_degrees: float = 0.0,
        radius: float = HI3D_RADIUS,
        fov_degrees: float = HI3D_FOV_DEGREES,
        *,
        width: int = HI3D_SIZE,
        height: int = HI3D_SIZE,
        start_azimuth_degrees: float = 0.0,
    ) -> Cameras:
        """n cameras evenly around the Y axis at one elevation, all looking at the origin.

        Camera 0 is in front (+Z for azimuth 0); the rest follow counter-clockwise seen from
        above, so that a quarter of the way round the camera stands on +X.

        elevation_degrees: above the horizon is positive, in [-90, 90].
        radius: distance to the origin in world units. fov_degrees: horizontal field of view.

        Raises ValueError for n < 1, an elevation outside [-90, 90], a radius that is not
        positive or a field of view outside (0, 180).
        """
        if n < 1:
            raise ValueError(f"an orbit needs at least one camera, got n={n}")
        azimuths = start_azimuth_degrees + torch.arange(n, dtype=torch.float64) * (360.0 / n)
        eyes = sphere_points(azimuths, elevation_degrees, radius)
        intrinsics = intrinsics_from_fov(fov_degrees, width, height).expand(n, 3, 3)
        return Cameras(look_at(eyes).float(), intrinsics.float().contiguous(), width, height)


def sphere_points(azimuth_degrees: Tensor, elevation_degrees: float, radius: float) -> Tensor:
    """Points on a sphere about the origin: azimuth 0 is +Z, 90 is +X; elevation 90 is +Y.

    azimuth_degrees: (V,). Returns (V, 3). Raises ValueError for an elevation outside [-90, 90]
    or a radius that is not positive.
    """
    if not -90 <= elevation_degrees <= 90:  # also refuses NaN
        raise ValueError(f"elevation is {elevation_degrees} degrees, expected -90 to 90")
    if not (radius > 0 and math.isfinite(radius)):
        raise ValueError(f"orbit radius is {radius}, expected a positive number")
    azimuth = torch.deg2rad(azimuth_degrees.double())
    elevation = math.radians(elevation_degrees)
    flat = math.cos(elevation)
    height = torch.full_like(azimuth, math.sin(elevation))
    return radius * torch.stack([flat * azimuth.sin(), height, flat * azimuth.cos()], dim=-1)


def look_at(eyes: Tensor, target: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
    """Camera-to-world matrices of upright cameras at `eyes` (V, 3) that look at `target`.

    Straight above or below the target, where "upright" means nothing, the top of the picture
    points away from +Z (above) or towards it (below), as an orbit's first camera tends to.
    Returns (V, 4, 4).
    """
    forward = torch.as_tensor(target, dtype=eyes.dtype, device=eyes.device) - eyes
    forward = forward / forward.norm(dim=-1, keepdim=True)
    down = torch.zeros_like(forward)
    down[:, 1] = -1
    polar = forward[:, 1].abs() > 1 - 1e-9
    down[polar, 1] = 0
    down[polar, 2] = -forward[polar, 1].sign()
    right = torch.cross(down, forward, dim=-1)
    right = right / right.norm(dim=-1, keepdim=True)
    down = torch.cross(forward, right, dim=-1)
    poses = torch.zeros(len(eyes), 4, 4, dtype=eyes.dtype, device=eyes.device)
    poses[:, :3, 0], poses[:, :3, 1], poses[:, :3, 2] = right, down, forward
    poses[:, :3, 3] = eyes
    poses[:, 3, 3] = 1
    return poses


def intrinsics_from_fov(fov_degrees: float, width: int, height: int) -> Tensor:
    """(3, 3) float64 matrix of a camera with square pixels and a horizontal field of view.

    Raises ValueError for a field of view outside (0, 180).
    """
    if not 0 < fov_degrees < 180:
        raise ValueError(f"field of view is {fov_degrees} degrees, expected between 0 and 180")
    focal = width / (2 * math.tan(math.radians(fov_degrees) / 2))
    return torch.tensor(
        [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64
    )


def opengl_to_opencv(camera_to_world: Tensor) -> Tensor:
    """Camera axes from OpenGL (x right, y up, z backward) to OpenCV; its own inverse.

    camera_to_world: (..., 4, 4). Only the camera's axes change, never the world's.
    """
    flip = torch.tensor([1.0, -1.0, -1.0, 1.0]).to(camera_to_world)
    return camera_to_world * flip


def check_rigid(camera_to_world: Tensor, name: str) -> None:
    """Refuse a (4, 4) pose that is not a rotation and a translation.

    `name` says whose pose it is. Raises ValueError.
    """
    if not torch.isfinite(camera_to_world).all():
        raise ValueError(f"{name} has a pose that is not finite: {camera_to_world.tolist()}")
    rotation = camera_to_world[:3, :3].double()
    determinant = float(torch.linalg.det(rotation))
    if abs(determinant) < 1e-6:
        raise ValueError(
            f"{name} has a singular pose matrix (determinant {determinant:.2g}): "
            "its axes must be three perpendicular unit vectors"
        )
    if determinant < 0:
        raise ValueError(
            f"{name} has a mirrored pose matrix (determinant {determinant:.3g}, expected 1): "
            "one axis is flipped; export camera-to-world in the OpenGL convention"
        )
    error = float((rotation @ rotation.T - torch.eye(3).to(rotation)).abs().max())
    if error > _ROTATION_TOLERANCE:
        raise ValueError(
            f"{name} has a pose matrix that scales or shears (off a rotation by {error:.2g}): "
            "remove the scale from its upper left 3 x 3 block"
        )
    last = camera_to_world[3].tolist()
    if max(abs(a - b) for a, b in zip(last, (0, 0, 0, 1), strict=True)) > 1e-5:
        raise ValueError(f"{name} has a pose whose last row is {last}, expected [0, 0, 0, 1]")


def check_intrinsics(intrinsics: Tensor, name: str) -> None:
    """Refuse a (3, 3) matrix that is no pinhole camera's; ValueError naming `name`."""
    if not torch.isfinite(intrinsics).all():
        raise ValueError(f"{name} has intrinsics that are not finite: {intrinsics.tolist()}")
    focal_x, focal_y = float(intrinsics[0, 0]), float(intrinsics[1, 1])
    if focal_x <= 0 or focal_y <= 0:
        raise ValueError(
            f"{name} has focal lengths {focal_x:g}, {focal_y:g} pixels, expected positive ones"
        )
    (_, skew, _), (lean, _, _), last = intrinsics.tolist()
    if max(abs(skew), abs(lean)) > 1e-6 * focal_x or last[:2] != [0, 0] or abs(last[2] - 1) > 1e-6:
        raise ValueError(
            f"{name} has intrinsics {intrinsics.tolist()}, expected rows [fx, 0, cx], [0, fy, cy], "
            "[0, 0, 1]: pictures with skewed axes must be rectified first"
        )


def pixel_rays(cameras: Cameras) -> tuple[Tensor, Tensor]:
    """The rays through all pixel centres.

    Returns origins (V, 3) and directions (V, H, W, 3), in the world; the directions have unit
    z-depth (they are not normalised), so that origin + depth * direction inverts `project`.
    """
    device, dtype = cameras.camera_to_world.device, cameras.camera_to_world.dtype
    x = torch.arange(cameras.width, device=device, dtype=dtype) + 0.5
    y = torch.arange(cameras.height, device=device, dtype=dtype) + 0.5
    fx, fy = cameras.intrinsics[:, 0, 0], cameras.intrinsics[:, 1, 1]
    cx, cy = cameras.intrinsics[:, 0, 2], cameras.intrinsics[:, 1, 2]
    in_x = ((x[None] - cx[:, None]) / fx[:, None])[:, None, :].expand(-1, cameras.height, -1)
    in_y = ((y[None] - cy[:, None]) / fy[:, None])[:, :, None].expand(-1, -1, cameras.width)
    in_camera = torch.stack([in_x, in_y, torch.ones_like(in_x)], dim=-1)
    rotation = cameras.camera_to_world[:, None, :3, :3]
    return cameras.positions, in_camera @ rotation.transpose(-1, -2)


def project(points: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Where world points fall in every picture.

    points: (N, 3). Returns pixel coordinates (V, N, 2), centres at .5, and z-depths (V, N) in
    world units; pixels of points on or behind the camera plane are meaningless.
    """
    world_to_camera = cameras.world_to_camera
    local = points @ world_to_camera[:, :3, :3].transpose(1, 2) + world_to_camera[:, None, :3, 3]
    depth = local[..., 2]
    homogeneous = local @ cameras.intrinsics.transpose(1, 2)
    return homogeneous[..., :2] / homogeneous[..., 2:], depth


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"
