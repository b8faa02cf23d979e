"""Weights are found where they are said to be, and a missing one says where it comes from."""

import os
from pathlib import Path

import pytest

from hi3d_core.weights.find import MODEL_FILES, describe, find_weights, search_folders


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working directory and an environment without weights."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("HI3D_MODELS", raising=False)


def put(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x")
    return folder / name


def test_a_given_file_wins(tmp_path):
    put(tmp_path / "models", "first_stage.pt")
    given = put(tmp_path, "mine.bin")
    assert find_weights("orbit", given, [tmp_path / "models"]) == given
    assert find_weights("orbit", str(given)) == given
    with pytest.raises(ValueError, match=r"no\.pt does not exist: name the orbit model"):
        find_weights("orbit", tmp_path / "no.pt", [tmp_path / "models"])


def test_a_given_folder_stands_for_the_usual_file_in_it(tmp_path):
    folder = tmp_path / "ckpts"
    put(folder, "first_stage.pt")
    second = put(folder, "second_stage.pt")
    encoder = put(folder, "open_clip_pytorch_model.bin")
    assert find_weights("refiner", folder) == second
    assert find_weights("image_encoder", folder) == encoder
    put(tmp_path / "unet", "model.safetensors")
    assert find_weights("orbit", tmp_path / "unet") == tmp_path / "unet"


def test_the_order_of_places(tmp_path, monkeypatch):
    last = put(tmp_path / "beside", "second_stage.pt")
    beside = tmp_path / "beside" / "first_stage.pt"
    assert find_weights("refiner", beside=beside) == last
    default = put(tmp_path / "work" / "models" / "hi3d", "second_stage.pt")
    assert find_weights("refiner", beside=beside).resolve() == default
    several = [put(tmp_path / name, "second_stage.pt") for name in ("one", "two")]
    monkeypatch.setenv("HI3D_MODELS", os.pathsep.join(str(file.parent) for file in several))
    assert find_weights("refiner", beside=beside) == several[0]
    several[0].unlink()
    assert find_weights("refiner", beside=beside) == several[1]
    first = put(tmp_path / "host", "second_stage.pt")
    assert find_weights("refiner", None, [tmp_path / "host"], beside=beside) == first


def test_a_converted_file_is_preferred(tmp_path):
    put(tmp_path, "first_stage.pt")
    converted = put(tmp_path, "hi3d_orbit.safetensors")
    assert find_weights("orbit", None, [tmp_path]) == converted


def test_folders_count_as_models(tmp_path):
    put(tmp_path / "dpt-hybrid-midas", "model.safetensors")
    assert find_weights("depth", None, [tmp_path]) == tmp_path / "dpt-hybrid-midas"


@pytest.mark.parametrize("kind", MODEL_FILES)
def test_a_missing_one_says_what_where_and_how_large(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("HI3D_MODELS", str(tmp_path / "mine"))
    with pytest.raises(ValueError, match="was not found") as caught:
        find_weights(kind, None, [tmp_path / "host"], beside=tmp_path / "other" / "a.pt")
    message, model = str(caught.value), MODEL_FILES[kind]
    searched = [tmp_path / "host", tmp_path / "mine", Path("models") / "hi3d", tmp_path / "other"]
    for part in (model.title, model.size, model.source, *model.names, *map(str, searched)):
        assert part in message
    assert "HI3D_MODELS" in message


def test_places_do_not_repeat(tmp_path, monkeypatch):
    monkeypatch.setenv("HI3D_MODELS", f"{tmp_path}{os.pathsep}")
    assert search_folders([tmp_path], tmp_path) == [tmp_path, Path("models") / "hi3d"]


def test_the_description_says_what_is_there_and_what_is_missing():
    put(Path("models/hi3d"), "second_stage.pt")
    lines = describe()
    assert len(lines) == len(MODEL_FILES)
    for (kind, model), line in zip(MODEL_FILES.items(), lines, strict=True):
        assert line.startswith(model.title)
        if kind == "refiner":
            assert line.endswith(str(Path("models/hi3d/second_stage.pt")))
        else:
            assert "not found" in line and all(name in line for name in model.names)
