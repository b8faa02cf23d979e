"""What is measured against: orbits whose every view, and best whose shape, is known.

SOURCE is toys:FIRST-LAST, whose orbits are drawn here, or a folder as `render_dataset.py` writes
it. Letters: F frames, S their side in pixels.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from hi3d_core.datatypes import Mesh
from hi3d_core.mesh_metrics import joined
from hi3d_core.read.mesh_file import read_meshes
from hi3d_core.render import render_mesh

from ..dataset import FRAMES, OrbitDataset
from ..rendering.plan import Plan, toy_spacing
from ..rendering.sources import find_tasks, in_unit_cube
from ..toy_objects import toy_object


@dataclass(frozen=True, eq=False)
class Truth:
    """One object. frames: (F, S, S, 3) in [0, 1] on white, frame 0 the front. mesh: or None."""

    name: str
    elevation_degrees: float
    frames: Tensor
    mesh: Mesh | None


@dataclass(frozen=True)
class Unusable:
    """An object that can't be measured, and why."""

    name: str
    reason: str


def truths(
    source: str,
    size: int,
    count: int | None = None,
    meshes: Path | None = None,
    skip: Container[str] = (),
) -> Iterator[Truth | Unusable]:
    """The first `count` objects of a source, each made when it is asked for.

    size: S. meshes: the folder that a dataset was drawn from, for the true shapes; those of toys
    are made again. skip: names of those that are left out.
    Raises ValueError for a source that there is not, that holds nothing, or whose pictures are
    smaller than S.
    """
    if source.startswith("toys:"):
        return _toys(source, size, count, skip)
    return _orbits(Path(source), size, count, meshes, skip)


def names_of(source: str, count: int | None = None) -> list[str]:
    """The objects that `truths` would give, without making them."""
    if source.startswith("toys:"):
        return [task.name for task in find_tasks(source)][:count]
    return OrbitDataset(source, most=count).names


def _toys(source: str, size: int, count: int | None, skip: Container[str]) -> Iterator[Truth]:
    plan = Plan(elevations=None, size=size, toy_spacing=toy_spacing(size))
    for task in find_tasks(source)[:count]:
        if task.name in skip:
            continue
        elevations = plan.elevations_of(task.name)
        meshes = task.meshes(plan.toy_spacing)
        views = render_mesh(meshes, plan.cameras(elevations), supersample=plan.supersample)
        yield Truth(task.name, elevations[0], views.images, joined(meshes))


def _orbits(
    folder: Path, size: int, count: int | None, meshes: Path | None, skip: Container[str]
) -> Iterator[Truth | Unusable]:
    dataset = OrbitDataset(folder, size, most=count)
    _check_size(dataset.folder.parent, size)
    for index, name in enumerate(dataset.names):
        if name in skip:
            continue
        ring = index % dataset.rings(index)  # so that all elevations have their turn
        try:
            sample = dataset.read(index, FRAMES * ring)
            mesh = _true_mesh(dataset.folder.parent / "extras" / name, meshes)
        except ValueError as error:
            yield Unusable(name, str(error))
            continue
        frames = sample.frames.permute(0, 2, 3, 1).float() / 255
        yield Truth(name, sample.elevation_degrees, frames.contiguous(), mesh)


def _check_size(root: Path, size: int) -> None:
    record = root / "dataset.json"
    if not record.is_file():
        return
    drawn = json.loads(record.read_text("utf-8")).get("hi3d_dataset", {}).get("size", size)
    if drawn < size:
        raise ValueError(
            f"the pictures of {root} are {drawn} pixels wide, the model paints {size}: render the "
            f"dataset again, with --size {size} or more"
        )


def _true_mesh(extras: Path, meshes: Path | None) -> Mesh | None:
    manifest = extras / "manifest.json"
    if not manifest.is_file():
        return None
    source = str(json.loads(manifest.read_text("utf-8"))["source"])
    kind, _, number = source.partition(" ")
    if kind == "toy" and number.isdecimal():
        return joined([toy_object(int(number))])
    if meshes is None:
        return None
    return joined(in_unit_cube(read_meshes(meshes / source)))
