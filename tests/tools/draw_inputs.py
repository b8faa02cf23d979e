"""Draw the pictures that the workflows read: a toy, and a mesh of the example orbit.

    python -m hi3d_core reconstruct workflows/input/horse_orbit.mp4 --elevation 10 --out horse.glb
    python -m tests.tools.draw_inputs [horse.glb]

Writes into workflows/input: `toy.png` (a toy that no model was trained on, from the front), and of
the mesh, if it is named, `horse.png` (one picture) and `posed_views/` (16 pictures from cameras
here and there, with their transforms.json).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hi3d_core.cameras import (
    Cameras,
    intrinsics_from_fov,
    look_at,
    opengl_to_opencv,
    sphere_points,
)
from hi3d_core.read.mesh_file import read_meshes
from hi3d_core.render import render_mesh
from training.toy_objects import toy_object

INPUT = Path(__file__).parents[2] / "workflows" / "input"
TOY_SEED, TOY_SPACING = 1_000_003, 0.004  # of the held-out ones; as fine as 512 pixels want
PICTURE_AZIMUTH, PICTURE_ELEVATION = 60.0, 10.0
PHOTOS, PHOTO_SIZE = 16, 256
FOV_DEGREES, FOCUS = 40.0, (0.0, 0.02, 0.0)


def main(mesh_file: str | None = None) -> None:
    """Draw the toy, and what the mesh is needed for if there is one."""
    INPUT.mkdir(parents=True, exist_ok=True)
    draw_toy()
    if mesh_file is not None:
        draw_horse(mesh_file)


def draw_toy() -> None:
    """The toy's front on a transparent background."""
    cameras = Cameras.orbit(1, PICTURE_ELEVATION, width=512, height=512)
    toy = render_mesh(toy_object(TOY_SEED, spacing=TOY_SPACING), cameras)
    alpha = toy.alphas[0, ..., None]
    straight = (toy.images[0] - 1 + alpha) / alpha.clamp(min=1e-3)
    pixels = _bytes(torch.cat([straight, alpha], dim=-1))
    pixels[pixels[..., 3] == 0] = 0  # what doesn't show has no colour
    Image.fromarray(pixels).save(INPUT / "toy.png", optimize=True)


def draw_horse(mesh_file: str) -> None:
    """One picture of a mesh, and posed views of it."""
    meshes = read_meshes(Path(mesh_file))
    eye = sphere_points(
        torch.tensor([PICTURE_AZIMUTH], dtype=torch.float64), PICTURE_ELEVATION, 1.5
    )
    picture = render_mesh(meshes, _looking(eye, 49.134, 512)).images[0]
    Image.fromarray(_bytes(picture)).quantize(256).save(INPUT / "horse.png", optimize=True)

    cameras = _looking(_photo_eyes(), FOV_DEGREES, PHOTO_SIZE)
    frames = [_bytes(each) for each in render_mesh(meshes, cameras).images]
    folder = INPUT / "posed_views"
    folder.mkdir(exist_ok=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:02}.jpg", quality=92, subsampling=0)
    (folder / "transforms.json").write_text(_transforms(cameras))


def _photo_eyes() -> Tensor:
    """(PHOTOS, 3): as someone walks around a table, now higher, now lower, nearer and farther."""
    random = np.random.default_rng(3)
    eyes = [
        sphere_points(
            torch.tensor([360 * index / PHOTOS + random.uniform(-8, 8)], dtype=torch.float64),
            (4.0, 28.0, 14.0, 48.0)[index % 4] + random.uniform(-5, 5),
            random.uniform(1.7, 2.0),
        )
        for index in range(PHOTOS)
    ]
    return torch.cat(eyes)


def _looking(eyes: Tensor, fov_degrees: float, size: int) -> Cameras:
    intrinsics = intrinsics_from_fov(fov_degrees, size, size).expand(len(eyes), 3, 3).clone()
    return Cameras(look_at(eyes, FOCUS).float(), intrinsics.float(), size, size)


def _transforms(cameras: Cameras) -> str:
    frames = [
        {"file_path": f"{index:02}.jpg", "transform_matrix": np.round(pose.numpy(), 6).tolist()}
        # The flip of two axes is its own inverse.
        for index, pose in enumerate(opengl_to_opencv(cameras.camera_to_world.double()))
    ]
    rows = ",\n    ".join(json.dumps(frame) for frame in frames)
    head = f'"camera_angle_x": {np.radians(FOV_DEGREES):.9f}'
    return f'{{\n  {head},\n  "frames": [\n    {rows}\n  ]\n}}\n'


def _bytes(image: Tensor) -> np.ndarray:
    return (image.clamp(0, 1) * 255 + 0.5).byte().numpy()


if __name__ == "__main__":
    main(*sys.argv[1:])
