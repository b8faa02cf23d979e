"""Weights are found where they are said to be, and a missing one says where it comes from."""

import os
from pathlib import Path

import pytest

from hi3d_core.weights import find
from hi3d_core.weights.find import (
    MODEL_FILES,
    describe,
    find_stage,
    find_stages,
    find_weights,
    is_bundled,
    search_folders,
)


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


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """The package's small model, both stages."""
    folder = tmp_path / "package" / "tiny"
    monkeypatch.setattr(find, "BUNDLED_FOLDER", folder)
    return {stage: put(folder, f"{stage}.safetensors") for stage in ("orbit", "refiner")}


BOTH = ("orbit", "refiner")


def test_without_any_weights_the_small_model_stands_in(bundled):
    assert find_stages(BOTH, {}) == bundled
    for part in ("hi3d-tiny", "128", "toys", "first_stage.pt", "Hi3D-Official", "second_stage.pt",
                 "huggingface.co/hbyang/Hi3D", "models/hi3d"):  # fmt: skip
        assert part in find.WHAT_THE_SMALL_MODEL_IS
    assert find_stages(["orbit"], {"orbit": None}) == {"orbit": bundled["orbit"]}
    assert all(is_bundled(path) for path in bundled.values())


def test_weights_that_are_there_go_first(bundled, tmp_path):
    ours = {
        stage: put(tmp_path / "host", name)
        for stage, name in zip(BOTH, ("first_stage.pt", "second_stage.pt"), strict=True)
    }
    assert find_stages(BOTH, {}, [tmp_path / "host"]) == ours
    assert find_stages(BOTH, ours) == ours
    assert not any(is_bundled(path) for path in ours.values())


@pytest.mark.parametrize(("there", "lacks"), [("first_stage.pt", 1), ("second_stage.pt", 0)])
@pytest.mark.parametrize("named", [True, False])
def test_one_stage_is_never_mixed_with_the_small_model(bundled, tmp_path, there, lacks, named):
    file = put(tmp_path / "host", there)
    given = {BOTH[1 - lacks]: file} if named else {}
    with pytest.raises(ValueError, match="does not stand in for one stage alone") as raised:
        find_stages(BOTH, given, [] if named else [tmp_path / "host"])
    message = str(raised.value)
    assert MODEL_FILES[BOTH[lacks]].source in message and "--no-refine" in message
    assert MODEL_FILES[BOTH[1 - lacks]].source not in message


def test_a_stage_that_is_there_is_found_without_the_other(bundled, tmp_path):
    """Of a graph of nodes it isn't known which stages it needs."""
    first = put(tmp_path / "host", "first_stage.pt")
    assert find_stage("orbit", {}, [tmp_path / "host"]) == first
    with pytest.raises(ValueError, match="does not stand in for one stage alone") as raised:
        find_stage("refiner", {}, [tmp_path / "host"])
    assert "first_stage.pt" not in str(raised.value)
    assert find_stage("refiner", {}) == bundled["refiner"]
    assert find_stage("refiner", {"orbit": "hi3d-tiny"}, [tmp_path / "host"]) == bundled["refiner"]
    # A file that was named and is gone stops its own stage only.
    gone = {"orbit": tmp_path / "gone.pt"}
    second = put(tmp_path / "host", "second_stage.pt")
    assert find_stage("refiner", gone, [tmp_path / "host"]) == second
    with pytest.raises(ValueError, match=r"gone\.pt does not exist"):
        find_stage("orbit", gone, [tmp_path / "host"])


def test_the_small_model_by_its_name(bundled, tmp_path):
    for name in BOTH:
        put(tmp_path / "host", MODEL_FILES[name].names[0])
    folders = [tmp_path / "host"]
    assert find_weights("orbit", "hi3d-tiny", folders) == bundled["orbit"]
    # Named for one stage it is meant for both, unless another is named too.
    assert find_stages(BOTH, {"orbit": "hi3d-tiny"}, folders) == bundled
    assert find_stages(["refiner"], {"orbit": Path("hi3d-tiny")}, folders) == {
        "refiner": bundled["refiner"]
    }
    mine = put(tmp_path, "mine.pt")
    mixed = find_stages(BOTH, {"orbit": "hi3d-tiny", "refiner": mine}, folders)
    assert mixed == {"orbit": bundled["orbit"], "refiner": mine}
    with pytest.raises(ValueError, match="does not exist"):
        find_weights("depth", "hi3d-tiny")


def test_a_half_of_the_small_model_is_none(bundled):
    bundled["refiner"].unlink()
    with pytest.raises(ValueError, match="refiner"):
        find_stages(BOTH, {})
    assert find_stages(["orbit"], {}) == {"orbit": bundled["orbit"]}


def test_the_description_says_that_the_small_model_stands_in(bundled):
    told = [line for line in describe() if line.endswith("hi3d-tiny stands in")]
    assert [line.split(" (")[0] for line in told] == ["the orbit model", "the refiner"]
    put(Path("models/hi3d"), "second_stage.pt")
    assert not [line for line in describe() if "hi3d-tiny" in line]
