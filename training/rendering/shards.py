"""The same dataset as tar files that WebDataset reads: one sample an object.

A sample's files share their name up to the first dot, the object's name, which holds none:
    <name>.000.png   <name>.000.depth.png   <name>.000.normal.png   <name>.transforms.json
The same folder gives the same bytes: members are sorted and carry no times, owners or modes.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hi3d_core.atomic_file import replacing

from .store import Store

_FOLDERS = {"depths": "depth", "normals": "normal"}


def write_shards(store: Store, names: Sequence[str], objects_a_shard: int) -> list[Path]:
    """Pack finished objects, in the order of `names`; returns the tar files.

    Shards of earlier runs are replaced, those beyond the last one removed.
    Raises ValueError for fewer than 1 object a shard.
    """
    if objects_a_shard < 1:
        raise ValueError(f"{objects_a_shard} objects a shard, expected at least 1")
    store.shards.mkdir(exist_ok=True)
    paths = []
    for number, start in enumerate(range(0, len(names), objects_a_shard)):
        path = store.shards / f"{number:05d}.tar"
        with (
            replacing(path) as temporary,
            tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for name in names[start : start + objects_a_shard]:
                for member, file in _members(store, name):
                    _add(tar, member, file)
        paths.append(path)
    for old in store.shards.glob("*.tar"):
        if old not in paths:
            old.unlink()
    return paths


def _members(store: Store, name: str) -> Iterator[tuple[str, Path]]:
    """Names in the tar and files of one object, sorted."""
    members = {f"{name}.{path.name}": path for path in store.images(name).glob("*.png")}
    for path in store.extras(name).rglob("*"):
        if path.suffix == ".json":
            members[f"{name}.{path.name}"] = path
        elif path.suffix == ".png":
            members[f"{name}.{path.stem}.{_FOLDERS[path.parent.name]}.png"] = path
    yield from sorted(members.items())


def _add(tar: tarfile.TarFile, member: str, file: Path) -> None:
    info = tarfile.TarInfo(member)
    info.size = file.stat().st_size
    info.mode = 0o644
    with file.open("rb") as source:
        tar.addfile(info, source)
