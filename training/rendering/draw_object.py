"""Draw one object into a dataset's folder: the work that processes and machines share out."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hi3d_core.cameras import Cameras

# Written as the render command writes them, so that whoever reads the one reads the other.
from hi3d_core.commands.render import nerf_transforms, to_pixels
from hi3d_core.render import MeshRender, Shading

from .plan import AZIMUTHS, Plan
from .renderers import Renderer, open_renderer
from .sources import Task
from .store import Store, write_json

_VIEWS_AT_ONCE = 8  # bounds memory; 8 views of 1024² are about 0.3 GB


def draw_object(task: Task, folder: Path, plan: Plan) -> str | None:
    """Draw and write one object. Returns None, or what is wrong with its mesh.

    folder: of the dataset, already opened. Errors that are not the mesh's fault (a full disk, a
    driver that fails) are raised.
    """
    store = Store(folder)
    try:
        meshes = task.meshes(plan.toy_spacing)
        elevations = plan.elevations_of(task.name)
        cameras = plan.cameras(elevations)
        target = store.begin(task.name)
        if not _draw_frames(meshes, cameras, target, plan):
            raise ValueError("nothing of it shows in any view")
    except ValueError as error:
        store.give_up(task.name)
        return str(error)
    transforms = _transforms(task.name, cameras, elevations, plan)
    write_json(target / "extras" / "transforms.json", transforms)
    manifest = {
        "name": task.name,
        "source": task.source,
        "elevations": list(elevations),
        "frames": len(cameras),
        "size": plan.size,
        "renderer": plan.renderer,
    }
    store.finish(task.name, manifest)
    return None


def _draw_frames(meshes: list[Any], cameras: Cameras, target: Path, plan: Plan) -> bool:
    """Write all frames; whether the object shows in any."""
    renderer = _renderer(plan.renderer, plan.supersample, plan.shading)
    shows = False
    for start in range(0, len(cameras), _VIEWS_AT_ONCE):
        views = renderer.render(meshes, cameras[start : start + _VIEWS_AT_ONCE])
        shows = shows or bool(views.alphas.any())
        _save(views, "color", target / "images", start, plan)
        if plan.geometry:
            _save(views, "depth", target / "extras" / "depths", start, plan)
            _save(views, "normal", target / "extras" / "normals", start, plan)
    return shows


def _save(views: MeshRender, mode: str, folder: Path, start: int, plan: Plan) -> None:
    folder.mkdir(exist_ok=True)
    for index, pixels in enumerate(to_pixels(views, mode, plan.depth_scale)):
        kept = pixels
        if mode != "depth":  # what doesn't show has no colour, so that files stay small
            kept = np.where(pixels[..., 3:] > 0, pixels, 0).astype(np.uint8)
        Image.fromarray(kept).save(folder / f"{start + index:03d}.png")


def _transforms(
    name: str, cameras: Cameras, elevations: tuple[float, ...], plan: Plan
) -> dict[str, Any]:
    description = nerf_transforms(cameras)
    for index, frame in enumerate(description["frames"]):
        file = frame["file_path"]
        frame["file_path"] = f"../../images/{name}/{file}"
        frame["elevation_degrees"] = elevations[index // AZIMUTHS]
        frame["azimuth_degrees"] = 360 / AZIMUTHS * (index % AZIMUTHS)
        if plan.geometry:
            frame["depth_file_path"] = f"depths/{file}"
            frame["normal_file_path"] = f"normals/{file}"
    if plan.geometry:
        description["depth_scale"] = plan.depth_scale
        description["depth_note"] = "z-depth in world units = pixel value * depth_scale, 0: none"
        description["normal_note"] = "world axes x, y, z = pixel value / 255 * 2 - 1"
    return description


@lru_cache(maxsize=1)
def _renderer(name: str, supersample: int, shading: Shading) -> Renderer:
    """One renderer a process, as opening a graphics driver takes its time."""
    return open_renderer(name, supersample, shading)
