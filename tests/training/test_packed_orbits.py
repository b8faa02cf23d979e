"""The dataset out of tars: the same samples as out of the folder they were packed from."""

import json
import os
import tarfile

import pytest
import torch

from training.dataset import OrbitDataset
from training.packed_orbits import INDEX, packed_objects
from training.rendering.shards import write_shards
from training.rendering.store import Store

from .orbit_folders import orbit_frames, write_orbit

SIZE = 64
NAMES = ("apple", "b-2", "b_1")


@pytest.fixture
def root(tmp_path):
    """A dataset of three objects as the renderer leaves it, packed two a tar."""
    for index, name in enumerate(NAMES):
        write_orbit(tmp_path / "images" / name, orbit_frames(index, 32))
        extras = tmp_path / "extras" / name
        for kind in ("depths", "normals"):
            write_orbit(extras / kind, orbit_frames(9, 2))
        frames = [
            {"file_path": f"../../images/{name}/{n:03d}.png", "elevation_degrees": 5.0 + n // 16}
            for n in range(32)
        ]
        (extras / "transforms.json").write_text(json.dumps({"frames": frames}))
        (extras / "manifest.json").write_text("{}")
    write_shards(Store(tmp_path), NAMES, 2)
    return tmp_path


def generator():
    return torch.Generator().manual_seed(4)


def same(first, second):
    assert (first.name, first.start) == (second.name, second.start)
    assert first.elevation_degrees == second.elevation_degrees
    assert torch.equal(first.frames, second.frames)
    assert torch.equal(first.background, second.background)


def test_the_samples_are_the_folders(root):
    folder, packed = OrbitDataset(root, SIZE), OrbitDataset(root / "shards", SIZE)
    assert folder.folder == root / "images"
    assert packed.names == folder.names == list(NAMES)
    assert folder.read(1, 20).elevation_degrees == 6.0
    for index in range(3):
        for start in (0, 5, 20):
            same(packed.read(index, start), folder.read(index, start))
    first, second = generator(), generator()
    for _ in range(4):
        same(packed.draw(first), folder.draw(second))
    assert packed.check() == {}


def test_a_root_without_images_is_read_from_its_shards(root, tmp_path):
    before = OrbitDataset(root, SIZE).read(2, 3)
    (root / "images").rename(tmp_path / "elsewhere")
    dataset = OrbitDataset(root, SIZE)
    assert dataset.folder == root / "shards"
    same(dataset.read(2, 3), before)


def test_places_are_listed_once(root, monkeypatch):
    shards = root / "shards"
    found = packed_objects(shards)
    assert set(json.loads((shards / INDEX).read_text())) == {"00000.tar", "00001.tar"}
    opened = []
    really = tarfile.open

    def counting(path, *rest, **more):
        opened.append(path.name)
        return really(path, *rest, **more)

    monkeypatch.setattr(tarfile, "open", counting)
    assert packed_objects(shards) == found and opened == []
    # A tar that changed is listed again, and it alone.
    status = (shards / "00001.tar").stat()
    os.utime(shards / "00001.tar", ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    assert packed_objects(shards) == found and opened == ["00001.tar"]
    (shards / "00000.tar").unlink()
    assert list(packed_objects(shards)) == ["b_1"]


@pytest.mark.parametrize("text", ["", "[]", '{"00000.tar": 3}', '{"00000.tar": {"places": {}}}'])
def test_a_damaged_index_is_made_anew(root, text):
    shards = root / "shards"
    found = packed_objects(shards)
    (shards / INDEX).write_text(text)
    assert packed_objects(shards) == found


def test_a_hostile_index_reads_nothing_else(root):
    shards = root / "shards"
    found = packed_objects(shards)
    kept = json.loads((shards / INDEX).read_text())
    for place in ([-5, 10], ["0", 10], [0, 1e9]):
        kept["00000.tar"]["places"]["apple.000.png"] = place
        (shards / INDEX).write_text(json.dumps(kept))
        assert packed_objects(shards) == found


def test_what_is_damaged_is_named_skipped_and_counted(root):
    tar = root / "shards" / "00001.tar"
    dataset = OrbitDataset(root / "shards", SIZE)
    (file,) = [each for each in packed_objects(root / "shards")["b_1"] if each.stem == "003"]
    with tar.open("r+b") as raw:
        raw.seek(file.start + 8)
        raw.write(b"x" * 40)
    with pytest.raises(ValueError, match=r"b_1\.003\.png in .*00001\.tar can't be read"):
        dataset.read(2, 0)
    for _ in range(12):
        assert dataset.draw(generator()).name in NAMES
    dataset.check()
    (name,) = dataset.skipped
    assert name.startswith("b_1.003.png in ")


def test_a_tar_that_is_none_and_an_object_that_comes_twice(root):
    shards = root / "shards"
    (shards / "00002.tar").write_bytes((shards / "00001.tar").read_bytes())
    with pytest.raises(ValueError, match=r"b_1 lies in 00001\.tar and in 00002\.tar"):
        OrbitDataset(shards, SIZE)
    (shards / "00002.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(ValueError, match=r"00002\.tar can't be read as a plain tar"):
        OrbitDataset(shards, SIZE)


def test_an_object_that_lacks_frames_is_skipped(tmp_path):
    root = tmp_path / "d"
    write_orbit(root / "images" / "whole", orbit_frames(0, 16))
    write_orbit(root / "images" / "short", orbit_frames(1, 15))
    for name in ("whole", "short"):
        (root / "extras" / name).mkdir(parents=True)
    write_shards(Store(root), ("whole", "short"), 5)
    dataset = OrbitDataset(root / "shards", SIZE)
    assert dataset.names == ["whole"]
    assert "15 frames, expected a multiple of 16" in "".join(dataset.skipped.values())
