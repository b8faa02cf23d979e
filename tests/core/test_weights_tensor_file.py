"""Every form of checkpoint gives the same tensors, bit for bit, without loading the whole file."""

import io
import json
import logging
import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

from hi3d_core.weights.mismatch import CheckpointMismatch
from hi3d_core.weights.tensor_file import open_tensors

GENERATOR = torch.Generator().manual_seed(0)
STATE = {
    "first.weight": torch.randn(3, 5, generator=GENERATOR),
    "first.bias": torch.randn(3, generator=GENERATOR).half(),
    "second.weight": torch.randn(2, 3, 1, 1, generator=GENERATOR).bfloat16(),
    "second.steps": torch.tensor(7),
    "second.mask": torch.tensor([True, False]),
    "second.empty": torch.zeros(0, 4),
}


def save_plain(path):
    torch.save(STATE, path)


def save_parameters(path):
    parameters = {
        name: torch.nn.Parameter(tensor, tensor.is_floating_point() and name != "first.bias")
        if tensor.is_floating_point()
        else tensor
        for name, tensor in STATE.items()
    }
    torch.save(parameters, path)


def save_legacy(path):
    torch.save({"state_dict": STATE}, path, _use_new_zipfile_serialization=False)


def save_deepspeed(path):
    module = {f"module.{name}": tensor for name, tensor in STATE.items()}
    torch.save({"module": module, "global_steps": 3, "optimizer": None, "names": set()}, path)


def save_lightning(path):
    content = {"epoch": 3, "state_dict": STATE, "optimizer_states": [{"state": {0: torch.ones(3)}}]}
    torch.save(content, path)


def save_nested(path):
    torch.save({"model": {"state_dict": STATE}}, path)


def deflate(path):
    """Pack the archive again, compressed, as no torch does."""
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    path.write_bytes(packed.getvalue())


def save_deflated(path):
    save_plain(path)
    deflate(path)


def save_safetensors(path):
    save_file(STATE, path, {"stage": "orbit"})


FORMS = [
    save_plain,
    save_parameters,
    save_legacy,
    save_deepspeed,
    save_lightning,
    save_nested,
    save_deflated,
    save_safetensors,
]


def check(file, state=STATE):
    assert sorted(file.names) == sorted(state)
    for name, tensor in state.items():
        read = file.read(name)
        assert file.shapes[name] == tuple(tensor.shape) == tuple(read.shape)
        assert file.dtypes[name] == tensor.dtype == read.dtype
        assert read.device.type == "cpu"
        assert not read.requires_grad
        assert torch.equal(read, tensor)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".whatever", ""])
@pytest.mark.parametrize("save", FORMS)
def test_forms_are_told_by_content(save, suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    save(path)
    with open_tensors(str(path)) as file:
        check(file)
        assert file.path == path
        assert file.files == (path,)
        assert file.metadata == ({"stage": "orbit"} if save is save_safetensors else {})


@pytest.mark.parametrize("save", [save_plain, save_legacy])
def test_torch_files_named_safetensors_are_told(save, tmp_path):
    save(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"rename it to weights\.pt"):
        open_tensors(tmp_path / "weights.safetensors")


def test_the_wrapper_prefix_is_dropped_only_if_all_have_it(tmp_path):
    save_file({f"module.module.{name}": tensor for name, tensor in STATE.items()}, tmp_path / "a")
    with open_tensors(tmp_path / "a") as file:
        check(file)
    mixed = {"module.a": torch.ones(2), "b": torch.zeros(2)}
    torch.save(mixed, tmp_path / "b")
    with open_tensors(tmp_path / "b") as file:
        check(file, mixed)


def test_a_tensor_named_as_a_wrapper_stays(tmp_path):
    state = {"model": torch.ones(2), "state_dict": torch.zeros(1), "other": torch.ones(3)}
    torch.save(state, tmp_path / "a.pt")
    with open_tensors(tmp_path / "a.pt") as file:
        check(file, state)


def test_other_values_are_left_out_and_counted(tmp_path, caplog):
    torch.save({**STATE, "epoch": 3, 7: torch.ones(1), "names": ["a"]}, tmp_path / "a.pt")
    with caplog.at_level(logging.INFO), open_tensors(tmp_path / "a.pt") as file:
        check(file)
    assert "3 values beside the tensors left out" in caplog.text


def test_tied_strided_and_repeated_tensors(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {
        "a": base,
        "tied": base,
        "turned": base.T,
        "row": base[1],
        "wide": base[:, :1].expand(3, 4),
    }
    for legacy in (False, True):
        torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
        with open_tensors(tmp_path / "a.pt") as file:
            check(file, state)


def test_eight_bit_floats(tmp_path):
    state = {
        "a": torch.ones(4, 2).to(torch.float8_e4m3fn),
        "b": torch.ones(3).to(torch.float8_e5m2),
    }
    torch.save(state, tmp_path / "a.pt")
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        with open_tensors(tmp_path / name) as file:
            for key, tensor in state.items():
                assert torch.equal(file.read(key).float(), tensor.float())


def test_what_was_read_outlives_the_file(tmp_path):
    for save in FORMS:
        path = tmp_path / f"{save.__name__}.pt"
        save(path)
        with open_tensors(path) as file:
            read = file.read("first.weight")
        assert torch.equal(read, STATE["first.weight"])
        with pytest.raises(ValueError, match="was closed"):
            file.read("first.weight")


def test_writing_into_what_was_read_leaves_the_file(tmp_path):
    for save in (save_plain, save_safetensors):
        path = tmp_path / f"{save.__name__}.pt"
        save(path)
        before = path.read_bytes()
        with open_tensors(path) as file:
            file.read("first.weight").fill_(7)
        assert path.read_bytes() == before


def test_a_missing_tensor_is_named_with_its_neighbours(tmp_path):
    save_plain(tmp_path / "a.pt")
    with (
        open_tensors(tmp_path / "a.pt") as file,
        pytest.raises(
            CheckpointMismatch, match=r"a\.pt holds no tensor first\.weigth; it has first"
        ),
    ):
        file.read("first.weigth")


# --- several files, folders ---


def save_shards(folder, ending="safetensors", stem="model"):
    """STATE in two files and an index; returns the index."""
    names = list(STATE)
    parts = {f"{stem}-0000{i + 1}-of-00002.{ending}": names[i::2] for i in range(2)}
    for file, held in parts.items():
        state = {name: STATE[name] for name in held}
        if ending == "safetensors":
            save_file(state, folder / file, {"format": "pt"})
        else:
            torch.save(state, folder / file)
    index = folder / f"{stem}.{ending}.index.json"
    homes = {name: file for file, held in parts.items() for name in held}
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": homes}))
    return index


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards_by_index_by_folder_and_by_one_of_them(ending, tmp_path):
    index = save_shards(tmp_path, ending)
    shards = sorted(tmp_path.glob(f"*.{ending}"))
    for path in (index, tmp_path, shards[1]):
        with open_tensors(path) as file:
            check(file)
            assert file.path == index
            assert sorted(file.files) == shards


def test_an_index_of_any_name_is_known_by_its_content(tmp_path):
    index = save_shards(tmp_path)
    index.rename(tmp_path / "index.txt")
    with open_tensors(tmp_path / "index.txt") as file:
        check(file)


def test_a_folder_with_one_file(tmp_path):
    save_safetensors(tmp_path / "some.safetensors")
    (tmp_path / "config.json").write_text("{}")
    with open_tensors(tmp_path) as file:
        check(file)


def test_a_folder_with_the_usual_variants(tmp_path, caplog):
    save_safetensors(tmp_path / "model.safetensors")
    for name in ("model.fp16.safetensors", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"not read")
    with caplog.at_level(logging.INFO), open_tensors(tmp_path) as file:
        assert file.path == tmp_path / "model.safetensors"
    assert "holds 3 checkpoints: model.safetensors is taken" in caplog.text


def test_a_folder_linked_as_in_the_hugging_face_cache(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    save_shards(blobs)
    for number, file in enumerate(sorted(blobs.iterdir())):
        blob = file.rename(blobs / f"hash{number}")
        try:
            (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
        except OSError:
            pytest.skip("this system makes no links without privileges")
    with open_tensors(snapshot) as file:
        check(file)


# --- memory ---

MEGABYTE = 2**20


def resident_bytes():
    return psutil.Process().memory_info().rss


def large_state():
    """150 MB in 15 tensors."""
    state = {f"zeros{i}": torch.zeros(10 * MEGABYTE // 4) for i in range(14)}
    return {**state, "ramp": torch.arange(10 * MEGABYTE // 4, dtype=torch.float32)}


@pytest.fixture(scope="module")
def large_files(tmp_path_factory):
    folder, state = tmp_path_factory.mktemp("large"), large_state()
    torch.save({"module": state}, folder / "large.pt")
    save_file(state, folder / "large.safetensors")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="resident memory is measured on Unix only")
@pytest.mark.parametrize("name", ["large.pt", "large.safetensors"])
def test_reading_one_tensor_does_not_load_the_file(name, large_files):
    open_tensors(large_files / name).close()  # what the libraries take at their first use
    before = resident_bytes()
    with open_tensors(large_files / name) as file:
        opened = resident_bytes()
        read = file.read("ramp")
        assert float(read[-1]) == 10 * MEGABYTE // 4 - 1
        assert float(read.double().mean()) == (10 * MEGABYTE // 4 - 1) / 2
        used = resident_bytes()
    assert opened - before < 4 * MEGABYTE
    # The tensor, its copy in double precision just now, and little else.
    assert used - before < 45 * MEGABYTE


# --- whatever the bytes ---


@pytest.mark.parametrize("save", FORMS)
def test_damaged_files_are_read_or_refused_and_nothing_else(save, tmp_path):
    """Cut off anywhere, or with bytes changed: a ValueError, or tensors of plausible shapes."""
    path, chance = tmp_path / "weights.pt", random.Random(0)
    save(path)
    whole = path.read_bytes()
    for _ in range(150):
        damaged = bytearray(whole)
        if chance.random() < 0.4:
            del damaged[chance.randrange(len(whole)) :]
        else:
            for _ in range(chance.randrange(1, 4)):
                damaged[chance.randrange(len(whole))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            with open_tensors(path) as file:
                for name in file.names:
                    assert file.read(name).clone().numel() < 2**21
        except ValueError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("save", FORMS)
def test_a_cut_off_file_is_always_refused(save, tmp_path):
    path = tmp_path / "weights.pt"
    save(path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"download it again|not a checkpoint"):
            open_tensors(path)


def test_old_pickle_protocols_and_new_ones(tmp_path):
    torch.save(STATE, tmp_path / "a.pt", pickle_protocol=pickle.HIGHEST_PROTOCOL)
    with pytest.raises(ValueError, match="pickle instruction"):
        open_tensors(tmp_path / "a.pt")
