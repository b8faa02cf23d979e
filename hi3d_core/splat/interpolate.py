"""Cameras between cameras, and a splat's pictures from them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..cameras import Cameras
from ..datatypes import Gaussians, OnStep, OrbitViews
from .rasterize import rasterize
from .rotations import matrices_from_quaternions, quaternions_from_matrices
from .spherical_harmonics import colors_from_sh

_WIDEST_GAP = 2.5  # times the median gap
_KNOWN_DEPTH_ALPHA = 0.5  # coverage below which a pixel's depth is called unknown


def render_views(
    gaussians: Gaussians, cameras: Cameras, *, on_step: OnStep | None = None
) -> OrbitViews:
    """Pictures of a splat from cameras.

    Colours over white, coverage, and expected z-depths, which are 0 where less than half of a
    pixel is covered. Follows the Gaussians' device. `on_step` counts views.

    Raises ValueError if there is no camera.
    """
    if len(cameras) == 0:
        raise ValueError("there are no cameras to render from: give at least one")
    device = gaussians.means.device
    cameras = cameras.to(device)
    white = torch.ones(3, device=device)
    images, alphas, depths = [], [], []
    with torch.no_grad():
        for view in range(len(cameras)):
            camera = cameras[[view]]
            directions = gaussians.means - camera.positions[0]
            drawn = rasterize(
                gaussians.means,
                gaussians.scales,
                gaussians.quaternions,
                gaussians.opacities,
                colors_from_sh(gaussians.sh, directions),
                camera,
                white,
            )
            images.append(drawn.colors[0].clamp(0, 1))
            alphas.append(drawn.alphas[0].clamp(0, 1))
            depths.append(torch.where(alphas[-1] > _KNOWN_DEPTH_ALPHA, drawn.depths[0], 0.0))
            if on_step is not None:
                on_step(view + 1, len(cameras))
    return OrbitViews(torch.stack(images), torch.stack(alphas), cameras, torch.stack(depths))


def in_between_cameras(cameras: Cameras, count: int) -> Cameras:
    """`count` new cameras in the gaps between neighbours around a closed ring.

    Neighbours are those that follow each other; the last is followed by the first. With 16
    cameras of an orbit, 16 new ones stand in the middle of the gaps and 32 divide each gap in
    three. Other counts are shared out by the gaps' angles. A gap of more than 2.5 times the
    usual (a ring that is not closed) gets none: nothing was seen from there.

    A new camera has azimuth and elevation about the ring's axis, distance from the point that
    the cameras look at, orientation towards it and intrinsics all between those of its
    neighbours. So those of an orbit lie on that orbit, and none comes nearer to the object than
    its neighbours, as a straight line between them could.

    Returns the new cameras in ring order. Raises ValueError for fewer than two cameras or a
    negative count.
    """
    if len(cameras) < 2:
        raise ValueError(f"got {len(cameras)} camera: it takes two to have one in between")
    if count < 0:
        raise ValueError(f"got count {count}: ask for 0 or more cameras")
    poses = cameras.camera_to_world.detach().cpu().double()
    positions, rotations = poses[:, :3, 3], poses[:, :3, :3]
    center = looked_at_point(cameras)
    axis = _ring_axis(positions)
    # Coordinates in which the ring turns about the third axis.
    frame = _frame_with_axis(axis)
    local = (positions - center) @ frame
    radius = local.norm(dim=1).clamp_min(1e-9)
    elevation = torch.asin((local[:, 2] / radius).clamp(-1, 1))
    azimuth = torch.atan2(local[:, 1], local[:, 0])
    to_next = _azimuth_steps(azimuth)
    # Orientations as a camera that rides along the ring sees them: on an orbit all the same.
    riding = _turns(-azimuth) @ frame.T @ rotations

    shares = _share_out(count, _gap_angles(local / radius[:, None]))
    start = torch.repeat_interleave(torch.arange(len(poses)), shares)
    end = (start + 1) % len(poses)
    first_of_gap = torch.cumsum(shares, 0) - shares
    within = torch.arange(count) - first_of_gap[start]
    part = (within + 1) / (shares[start] + 1).double()

    def between(values: Tensor) -> Tensor:
        weight = part.reshape(-1, *[1] * (values.ndim - 1))
        return values[start] * (1 - weight) + values[end] * weight

    new_azimuth = azimuth[start] + part * to_next[start]
    new_elevation, new_radius = between(elevation), between(radius)
    flat = new_radius * new_elevation.cos()
    new_local = torch.stack(
        [flat * new_azimuth.cos(), flat * new_azimuth.sin(), new_radius * new_elevation.sin()], 1
    )
    new_poses = torch.zeros(count, 4, 4, dtype=torch.float64)
    new_poses[:, 3, 3] = 1
    new_poses[:, :3, 3] = new_local @ frame.T + center
    new_poses[:, :3, :3] = frame @ _turns(new_azimuth) @ _slerp(riding[start], riding[end], part)
    return Cameras(
        new_poses.to(cameras.camera_to_world),
        between(cameras.intrinsics.cpu().double()).to(cameras.intrinsics),
        cameras.width,
        cameras.height,
    )


def looked_at_point(cameras: Cameras) -> Tensor:
    """(3,) float64: the point nearest to all viewing axes, or, of several, to the origin."""
    positions = cameras.positions.detach().cpu().double()
    forwards = cameras.forwards.detach().cpu().double()
    across = torch.eye(3, dtype=torch.float64) - forwards[:, :, None] * forwards[:, None, :]
    matrix = across.sum(dim=0)
    right_side = (across @ positions[:, :, None]).sum(dim=0)
    return (torch.linalg.pinv(matrix, rtol=1e-6, hermitian=True) @ right_side)[:, 0]


def _ring_axis(positions: Tensor) -> Tensor:
    """(3,) the normal of the plane the positions lie in, or up if they lie in none."""
    up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    _, spread, directions = torch.linalg.svd(positions - positions.mean(dim=0), full_matrices=True)
    spread = torch.nn.functional.pad(spread, (0, 3 - len(spread)))
    if spread[1] < 1e-3 * spread[0] or spread[2] > 0.2 * spread[1]:
        return up
    return directions[2] * (1 if directions[2] @ up >= 0 else -1)


def _frame_with_axis(axis: Tensor) -> Tensor:
    """(3, 3) a rotation whose third column is the axis."""
    least = torch.zeros(3, dtype=torch.float64)
    least[int(axis.abs().argmin())] = 1
    first = torch.nn.functional.normalize(torch.linalg.cross(least, axis), dim=0)
    return torch.stack([first, torch.linalg.cross(axis, first), axis], dim=1)


def _azimuth_steps(azimuth: Tensor) -> Tensor:
    """(V,) the shorter way to the next azimuth; of two equal ways the one the ring turns."""
    steps = torch.remainder(azimuth.roll(-1) - azimuth + math.pi, 2 * math.pi) - math.pi
    half_turn = (steps.abs() - math.pi).abs() < 1e-6
    sense = -1.0 if float(steps[~half_turn].sum()) < 0 else 1.0
    return torch.where(half_turn, sense * math.pi, steps)


def _gap_angles(directions: Tensor) -> Tensor:
    """(V,) angles between neighbours in radians; 0 for gaps too wide to be filled."""
    angles = torch.acos((directions * directions.roll(-1, 0)).sum(dim=1).clamp(-1, 1))
    return torch.where(angles > _WIDEST_GAP * angles.median(), 0.0, angles)


def _share_out(count: int, gaps: Tensor) -> Tensor:
    """(V,) integers with the sum `count`, in proportion to the gaps and evenly spread."""
    if float(gaps.sum()) < 1e-6:  # all cameras at one place
        gaps = torch.ones_like(gaps)
    ends = torch.cumsum(gaps, 0) / gaps.sum() * count
    # Rounded, and not knocked about by float error where an end lies half way.
    whole = torch.floor(ends + 0.5 - 1e-6).long()
    whole[-1] = count
    return torch.diff(whole, prepend=torch.zeros(1, dtype=torch.long))


def _turns(angles: Tensor) -> Tensor:
    """(V, 3, 3) rotations about the third axis."""
    turns = torch.zeros(len(angles), 3, 3, dtype=torch.float64)
    turns[:, 0, 0] = turns[:, 1, 1] = angles.cos()
    turns[:, 1, 0], turns[:, 0, 1] = angles.sin(), -angles.sin()
    turns[:, 2, 2] = 1
    return turns


def _slerp(first: Tensor, last: Tensor, part: Tensor) -> Tensor:
    """Rotations (V, 3, 3) on the shortest way between rotations, `part` (V,) of it done."""
    a, b = quaternions_from_matrices(first), quaternions_from_matrices(last)
    cosine = (a * b).sum(dim=1)
    b = torch.where(cosine[:, None] < 0, -b, b)
    angle = torch.acos(cosine.abs().clamp_max(1))[:, None]
    near = angle < 1e-7
    safe = torch.where(near, 1.0, angle)
    part = part[:, None]
    weight_a = torch.where(near, 1 - part, torch.sin((1 - part) * safe) / torch.sin(safe))
    weight_b = torch.where(near, part, torch.sin(part * safe) / torch.sin(safe))
    return matrices_from_quaternions(weight_a * a + weight_b * b)
