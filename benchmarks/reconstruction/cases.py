"""Evaluation folders: objects with views, held-out views and a true mesh."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import OrbitViews
from hi3d_core.read import read_views
from hi3d_core.read.mesh_file import read_meshes
from hi3d_core.read.posed import PosedFile
from hi3d_core.render import render_mesh

_NEEDED = ("transforms.json", "transforms_test.json", "gt_closed.ply")


def find_objects(folder: Path, wanted: Sequence[str] | None = None) -> list[Path]:
    """The folders in `folder` that hold an object: views, held-out views, closed true mesh.

    wanted: names to restrict to. Raises ValueError if none is there, or one wanted is not.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give one with an evaluation object in each")
    found = {
        each.name: each
        for each in sorted(folder.iterdir())
        if all((each / name).is_file() for name in _NEEDED)
    }
    missing = [name for name in wanted or () if name not in found]
    if missing or not found:
        raise ValueError(
            f"{folder} holds no object {', '.join(missing)}: each needs {', '.join(_NEEDED)}; "
            f"there are {', '.join(found) or 'none'}"
        )
    return [found[name] for name in wanted] if wanted else list(found.values())


def read_object(folder: Path) -> OrbitViews:
    """The views that a method is given, at full size."""
    return read_views(folder / "transforms.json")


def cameras_of(folder: Path, name: str = "transforms.json") -> Cameras:
    """The cameras of one of the object's files, for pictures of their own size."""
    posed = PosedFile(folder / name)
    width = round(float(posed._data["w"]))  # evaluation folders say it
    height = round(float(posed._data["h"]))
    return posed.cameras(range(len(posed)), width, height)


def rendered_object(folder: Path, cameras: Cameras) -> OrbitViews:
    """Exact views of the object's textured truth from other cameras."""
    drawn = render_mesh(read_meshes(folder / "gt.glb"), cameras)
    return OrbitViews(drawn.images, drawn.alphas, cameras)
