"""Where objects come from: a folder of mesh files, or the toy generator."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hi3d_core.datatypes import Mesh
from hi3d_core.read.mesh_file import read_meshes
from training.toy_objects import HELD_OUT_SEEDS, TRAIN_SEEDS, toy_object

SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
_TOYS = re.compile(r"toys:(\d{1,12})(?:-(\d{1,12}))?")
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Task:
    """One object. name: of its folder. source: a file's path from the folder, or "toy 7"."""

    name: str
    source: str
    path: Path | None = None
    seed: int | None = None

    def meshes(self, toy_spacing: float) -> list[Mesh]:
        """The object in the unit cube; ValueError if it is broken."""
        if self.seed is not None:
            return [toy_object(self.seed, spacing=toy_spacing)]
        if self.path is None:
            raise ValueError(f"{self.name} has neither a file nor a seed")
        return in_unit_cube(read_meshes(self.path))


def find_tasks(source: str) -> list[Task]:
    """The objects of SOURCE in a fixed order.

    source: a folder, searched to any depth for .glb, .gltf, .obj and .ply, or "toys:FIRST-LAST".
    Raises ValueError for no folder, a folder without meshes, and for seeds that mix training and
    held-out toys.
    """
    if source.startswith("toys:"):
        return _toy_tasks(source)
    folder = Path(source)
    if not folder.is_dir():
        raise ValueError(f"{source} is no folder: name a folder of meshes, or toys:FIRST-LAST")
    paths = sorted(
        (p.relative_to(folder) for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES),
        key=lambda path: path.as_posix(),
    )
    if not paths:
        raise ValueError(f"{source} holds no meshes: expected files {', '.join(SUFFIXES)}")
    stems = [path.with_suffix("").as_posix() for path in paths]
    repeated = (
        {stem for stem in stems if stems.count(stem) > 1} if len(set(stems)) < len(stems) else set()
    )
    return [
        Task(_name(path.as_posix() if stem in repeated else stem), path.as_posix(), folder / path)
        for path, stem in zip(paths, stems, strict=True)
    ]


def _toy_tasks(source: str) -> list[Task]:
    match = _TOYS.fullmatch(source)
    if not match:
        raise ValueError(f"{source} is no range of toys: write toys:0-999 or toys:7")
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if last < first:
        raise ValueError(f"{source} is an empty range: the first seed must not exceed the last")
    for seeds in (TRAIN_SEEDS, HELD_OUT_SEEDS):
        if first in seeds and last in seeds:
            return [Task(f"toy-{n:07d}", f"toy {n}", seed=n) for n in range(first, last + 1)]
    raise ValueError(
        f"{source} leaves the seeds for training ({TRAIN_SEEDS.start} to {TRAIN_SEEDS.stop - 1}) "
        f"and those held out ({HELD_OUT_SEEDS.start} to {HELD_OUT_SEEDS.stop - 1}), or mixes "
        "them: stay within one of the two"
    )


def _name(path: str) -> str:
    """A folder name of letters, digits, - and _ alone; different paths get different names."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", path)
    if name == path and len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def in_unit_cube(meshes: list[Mesh]) -> list[Mesh]:
    """Scale and move meshes together: their longest side becomes 1, their middle the origin.

    Vertices that no face uses don't count. Raises ValueError for meshes without size.
    """
    points = torch.cat([mesh.vertices[mesh.faces.unique()].double() for mesh in meshes])
    if len(points) == 0:
        raise ValueError("it holds no triangles")
    low, high = points.amin(dim=0), points.amax(dim=0)
    side = float((high - low).max())
    if not side > 1e-12:
        raise ValueError("all its triangles lie in one point: there is nothing to see")
    center = (low + high) / 2
    return [
        replace(mesh, vertices=((mesh.vertices.double() - center) / side).float())
        for mesh in meshes
    ]
