"""The dataset reader: the recorded samples, the rotation, and what happens with bad files."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from training.dataset import OrbitDataset, to_network_range

from ..core.golden.goldens import golden, need
from .orbit_folders import orbit_frames, write_orbit

RECORD = "train/data_degradation.safetensors"


@pytest.fixture
def recorded_dataset(tmp_path):
    pixels = golden(RECORD, "data.rgba").numpy()
    write_orbit(tmp_path / "object", pixels)
    return OrbitDataset(tmp_path, size=golden(RECORD, "data.video_0").shape[-1])


def dataset_of(tmp_path, objects=2, frames=32, size=64, **options):
    for index in range(objects):
        write_orbit(tmp_path / f"object{index}", orbit_frames(index, frames))
    return OrbitDataset(tmp_path, size, **options)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_golden_sample_is_exact(recorded_dataset, number):
    told = json.loads(need("train/data_degradation.json").read_text())["dataset_samples"][number]
    sample = recorded_dataset.read(0, told["start_idx"])
    official = golden(RECORD, f"data.video_{number}").transpose(0, 1)
    assert sample.elevation_degrees == told["elevation"]
    assert torch.equal(sample.frames, official)
    assert torch.equal(to_network_range(sample.frames), official.float() / 127.5 - 1)


def test_golden_background_is_where_alpha_is_zero(recorded_dataset):
    masks = golden(RECORD, "data.s2_masks")
    dataset = OrbitDataset(recorded_dataset.folder, size=masks.shape[-1])
    # The recorded sample's start is among the six rings' frames; which one is not told.
    found = [
        start
        for start in range(96)
        if torch.equal(dataset.read(0, start).background[:2], masks == 0)
    ]
    assert found


def test_only_the_first_objects_of_a_folder(tmp_path):
    dataset = dataset_of(tmp_path, objects=3, frames=16, most=2)
    assert dataset.names == ["object0", "object1"]
    assert OrbitDataset(tmp_path, 64, most=9).names == ["object0", "object1", "object2"]


def test_a_sample_is_one_ring_turned(tmp_path):
    dataset = dataset_of(tmp_path, objects=1, frames=32)
    whole = [dataset.read(0, first).frames for first in (0, 16)]
    sample = dataset.read(0, 21)
    assert sample.elevation_degrees == 0  # the second ring
    assert torch.equal(sample.frames, whole[1].roll(-5, dims=0))
    assert not torch.equal(sample.frames, whole[0].roll(-5, dims=0))


def test_draws_are_decided_by_the_generator_and_even(tmp_path):
    dataset = dataset_of(tmp_path, objects=3, frames=32)
    one, two = dataset.draw(generator(5)), dataset.draw(generator(5))
    assert (one.name, one.start) == (two.name, two.start)
    assert torch.equal(one.frames, two.frames)
    drawn = generator(0)
    dataset.read = lambda index, start: (index, start)
    counts = Counter(dataset.draw(drawn) for _ in range(9600))
    assert len(counts) == 96
    assert min(counts.values()) > 50


def test_colours_are_truncated_on_white(tmp_path):
    """Alpha 128 over (10, 20, 30): 255 x (c a + 1 - a) = 132.02, 137.04, 142.06."""
    pixels = np.full((16, 64, 64, 4), (10, 20, 30, 128), np.uint8)
    pixels[:, :32] = (200, 200, 200, 1)  # 254.78, which rounding would make 255
    write_orbit(tmp_path / "object", pixels)
    frames = OrbitDataset(tmp_path, 64).read(0, 0).frames
    assert frames[0, :, -1, 0].tolist() == [132, 137, 142]
    assert frames[0, :, 0, 0].tolist() == [254, 254, 254]


def test_elevations_can_be_told(tmp_path):
    write_orbit(tmp_path / "object", orbit_frames(0, 16))
    frames = [{"file_path": f"{index:03d}.png", "elevation_degrees": 17.25} for index in range(16)]
    told = tmp_path / "object" / "transforms.json"
    told.write_text(json.dumps({"frames": frames}))
    assert OrbitDataset(tmp_path, 64).read(0, 3).elevation_degrees == 17.25
    frames[4]["elevation_degrees"] = 3.0
    told.write_text(json.dumps({"frames": frames}))
    with pytest.raises(ValueError, match="no single elevation"):
        OrbitDataset(tmp_path, 64)
    told.write_text("{")
    with pytest.raises(ValueError, match=r"transforms\.json can't be read"):
        OrbitDataset(tmp_path, 64)


def test_reads_what_the_renderer_writes(tmp_path):
    write_orbit(tmp_path / "images" / "object", orbit_frames(0, 16))
    extras = tmp_path / "extras" / "object"
    extras.mkdir(parents=True)
    frames = [
        {"file_path": f"../../images/object/{index:03d}.png", "elevation_degrees": -3.5}
        for index in range(16)
    ]
    (extras / "transforms.json").write_text(json.dumps({"frames": frames}))
    for folder in (tmp_path, tmp_path / "images"):
        dataset = OrbitDataset(folder, 64)
        assert dataset.names == ["object"]
        assert dataset.read(0, 1).elevation_degrees == -3.5


@pytest.mark.parametrize("kind", ["missing", "empty", "only files"])
def test_nothing_there_is_refused(tmp_path, kind):
    folder = tmp_path / "data"
    if kind != "missing":
        folder.mkdir()
    if kind == "only files":
        (folder / "readme.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"data (does not exist|holds no object)"):
        OrbitDataset(folder)


@pytest.mark.parametrize(("frames", "told"), [(15, "15 frames"), (112, "7 rings"), (0, "0 frames")])
def test_a_folder_of_another_length_is_named(tmp_path, frames, told, caplog):
    folder = write_orbit(tmp_path / "odd", orbit_frames(0, frames, side=8))
    with pytest.raises(ValueError, match=told):
        OrbitDataset(tmp_path)
    write_orbit(tmp_path / "whole", orbit_frames(0, 16))
    dataset = OrbitDataset(tmp_path)
    assert dataset.names == ["whole"]
    assert list(dataset.skipped) == [str(folder)]
    assert str(folder) in caplog.text


def test_names_without_zeros_are_refused(tmp_path):
    folder = write_orbit(tmp_path / "object", orbit_frames(0, 16))
    for index in range(16):
        (folder / f"{index:03d}.png").rename(folder / f"{index}.png")
    with pytest.raises(ValueError, match="zeros"):
        OrbitDataset(tmp_path)


def spoil(kind, file):
    if kind == "cut off":
        file.write_bytes(file.read_bytes()[:-40])
    elif kind == "no picture":
        file.write_bytes(b"not a picture")
    elif kind == "other size":
        Image.open(file).resize((20, 20)).save(file)
    elif kind == "not square":
        Image.open(file).resize((40, 20)).save(file)
    else:
        Image.open(file).convert("RGB").save(file)


KINDS = ["cut off", "no picture", "other size", "not square", "without alpha"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_frame_is_named_skipped_and_counted(tmp_path, kind, caplog):
    dataset = dataset_of(tmp_path, objects=2, frames=16)
    bad = tmp_path / "object0" / "007.png"
    spoil(kind, bad)
    names = {dataset.draw(generator(seed)).name for seed in range(12)}
    assert names == {"object1"}
    assert list(dataset.skipped) == [str(bad)]
    assert caplog.text.count("skipped") == 1  # told once, not at every draw
    assert str(bad) in caplog.text
    assert dataset.check() == dataset.skipped


def test_nothing_readable_is_an_error(tmp_path):
    dataset = dataset_of(tmp_path, objects=1, frames=16)
    spoil("cut off", tmp_path / "object0" / "000.png")
    with pytest.raises(ValueError, match=r"000\.png"):
        dataset.draw(generator())


def test_another_resolution_than_asked_for_is_named(tmp_path):
    dataset = dataset_of(tmp_path, objects=1, frames=16, resolution=1024)
    with pytest.raises(ValueError, match="40 x 40 pixels, expected 1024 x 1024"):
        dataset.read(0, 0)
    problems = dataset.check()
    assert len(problems) == 1


def test_most_takes_the_first_that_can_be_used(tmp_path):
    write_orbit(tmp_path / "object", orbit_frames(9, 15))
    dataset = dataset_of(tmp_path, objects=3, frames=16, most=2)
    assert dataset.names == ["object0", "object1"] and len(dataset.skipped) == 1
