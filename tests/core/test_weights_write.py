"""Written files are read by the format's own library, bit for bit; interrupted ones are gone."""

import hashlib
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from hi3d_core.weights import write
from hi3d_core.weights.safetensors_header import DTYPES
from hi3d_core.weights.tensor_file import open_tensors
from hi3d_core.weights.write import PendingTensor, sha256_of, write_safetensors


def pending(tensor):
    return PendingTensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def states():
    generator = torch.Generator().manual_seed(0)
    state = {
        f"{dtype}".removeprefix("torch."): torch.randn(3, 5, generator=generator).to(dtype)
        for dtype in DTYPES.values()
        if dtype not in (torch.uint16, torch.uint32, torch.uint64)
    }
    state["scalar"] = torch.tensor(-0.0)
    state["nothing"] = torch.zeros(3, 0)
    state["turned"] = torch.randn(4, 6, generator=generator).T
    state["part"] = torch.randn(4, 6, generator=generator)[1:3, ::2]
    state["strange"] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e-45])
    state["größe"] = torch.nn.Parameter(torch.ones(3))
    return state


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def test_the_formats_own_library_reads_the_same_bits(tmp_path):
    state, path = states(), tmp_path / "weights.safetensors"
    metadata = {"stage": "orbit", "settings": json.dumps({"frames": 16}), "ü": '"\n'}
    write_safetensors(path, {name: pending(tensor) for name, tensor in state.items()}, metadata)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == metadata
        assert sorted(file.keys()) == sorted(state)
        for name, tensor in state.items():
            read = file.get_tensor(name)
            assert read.shape == tensor.shape
            assert read.dtype == tensor.dtype
            assert torch.equal(bits(read), bits(tensor))
    with open_tensors(path) as file:
        assert file.metadata == metadata
        for name, tensor in state.items():
            assert torch.equal(bits(file.read(name)), bits(tensor))


def test_every_tensor_begins_at_a_multiple_of_its_width(tmp_path):
    path = tmp_path / "weights.safetensors"
    state = {"a": torch.ones(3, dtype=torch.uint8), "b": torch.ones(3), "c": torch.ones(1).half()}
    write_safetensors(path, {name: pending(tensor) for name, tensor in state.items()})
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    assert length % 8 == 0
    for name, tensor in state.items():
        assert header[name]["data_offsets"][0] % tensor.dtype.itemsize == 0
    assert "__metadata__" not in header
    assert load_file(path).keys() == state.keys()


def test_tensors_are_made_one_at_a_time(tmp_path):
    alive, most = [], []

    def make():
        array = np.ones(1000, np.float32)
        alive.append(1)
        most.append(len(alive))
        weakref.finalize(array, alive.pop)
        return torch.from_numpy(array)

    tensors = {f"t{i}": PendingTensor((1000,), torch.float32, make) for i in range(5)}
    write_safetensors(tmp_path / "a.safetensors", tensors)
    assert most == [1] * 5
    assert not alive


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_write_keeps_the_old_file(error, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"old")

    def fail():
        raise error("stop")

    tensors = {"a": pending(torch.ones(10)), "b": PendingTensor((3,), torch.float32, fail)}
    with pytest.raises(error, match="stop"):
        write_safetensors(path, tensors)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_cancelled_write_leaves_nothing(tmp_path):
    def cancel(done, total):
        assert total == 3
        if done == 2:
            raise InterruptedError

    tensors = {name: pending(torch.ones(2)) for name in "abc"}
    with pytest.raises(InterruptedError):
        write_safetensors(tmp_path / "a.safetensors", tensors, on_step=cancel)
    assert not list(tmp_path.iterdir())
    steps = []
    write_safetensors(tmp_path / "a.safetensors", tensors, on_step=lambda *step: steps.append(step))
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("made", [torch.ones(4), torch.ones(3).half(), torch.ones(3, 1)])
def test_what_was_not_announced_is_refused(made, tmp_path):
    tensors = {"a": PendingTensor((3,), torch.float32, lambda: made)}
    with pytest.raises(ValueError, match=r"a is .*announced was \(3,\) of torch\.float32"):
        write_safetensors(tmp_path / "a.safetensors", tensors)
    assert not list(tmp_path.iterdir())


def test_what_the_format_has_no_place_for(tmp_path):
    for name, tensor in {
        "a": torch.ones(2, dtype=torch.complex128),
        "__metadata__": torch.ones(1),
    }.items():
        with pytest.raises(ValueError, match="can't be kept in a"):
            write_safetensors(tmp_path / "a.safetensors", {name: pending(tensor)})
    with pytest.raises(ValueError, match="does not exist"):
        write_safetensors(tmp_path / "no" / "a.safetensors", {"a": pending(torch.ones(2))})


def test_too_little_space_is_said_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(write.shutil, "disk_usage", lambda folder: type("", (), {"free": 2**20})())

    def fail():
        raise AssertionError

    tensors = {"a": PendingTensor((2**30,), torch.float32, fail)}
    with pytest.raises(ValueError, match=r"needs 4\.0 GiB, 0\.0 GiB are free"):
        write_safetensors(tmp_path / "a.safetensors", tensors)


def test_sha256_and_its_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_CHUNK_BYTES", 1000)
    path, steps = tmp_path / "a", []
    path.write_bytes(bytes(range(250)) * 10)
    assert (
        sha256_of(path, lambda *step: steps.append(step))
        == hashlib.sha256(path.read_bytes()).hexdigest()
    )
    assert steps == [(1000, 2500), (2000, 2500), (2500, 2500)]
    Path(path).write_bytes(b"")
    assert sha256_of(path) == hashlib.sha256(b"").hexdigest()
