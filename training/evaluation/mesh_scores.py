"""From painted frames to a mesh, and how near that is to the true one."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import Mesh, OrbitViews
from hi3d_core.masks import cut_out
from hi3d_core.mesh_metrics import MeasuringFrame, surface_distances, volume_iou
from hi3d_core.pipeline import QUALITIES, reconstruct

_SAMPLES, _CELLS = 30_000, 64  # of the surface; along each side of the volume


def mesh_scores(
    frames: Tensor, elevation_degrees: float, truth: Mesh, quality: str, between: int, seed: int
) -> dict[str, float | str]:
    """chamfer in units of the object's longest side, and iou.

    frames: (F, S, S, 3). between: M. Where no mesh can be made, "failed" says why instead.
    """
    side = frames.shape[1]
    cameras = Cameras.orbit(len(frames), elevation_degrees, width=side, height=side)
    config = replace(QUALITIES[quality], interpolate=between)
    try:
        mesh = reconstruct(OrbitViews(*cut_out(frames), cameras), config, seed=seed).mesh
        return {
            "chamfer": surface_distances(mesh, truth, _SAMPLES).chamfer,
            "iou": volume_iou(mesh, truth, MeasuringFrame.of(truth), _CELLS),
        }
    except ValueError as error:  # frames in which no object can be told
        return {"failed": str(error)}
