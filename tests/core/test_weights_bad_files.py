"""Files that are no checkpoints, damaged ones, and ones made to harm: refused, in plain words."""

import builtins
import collections
import gzip
import io
import json
import os
import pickle
import pickletools
import shutil
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hi3d_core.weights import torch_archive, zip_directory
from hi3d_core.weights.mismatch import CheckpointMismatch
from hi3d_core.weights.tensor_file import open_tensors

STATE = {"weight": torch.arange(600.0).reshape(20, 30), "bias": torch.ones(20)}


def refuse(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_tensors(path).close()
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "first_stage.pt"


# --- no checkpoints ---

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:31db0a\nsize 5437757791\n"


def picture():
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    return content.getvalue()


def tar():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), None)
    return content.getvalue()


def zipped(names):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\): download it again"),
        (LFS, r"git-lfs pointer.*`git lfs pull`, or download the file itself of 5\.44 GB"),
        (b"\n<!DOCTYPE html><html>Google Drive - Virus scan warning", r"a web page.*in a browser"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "a web page"),
        (b"just a note\nin two lines\n", "is a text file, not a checkpoint"),
        (picture(), "a PNG picture"),
        (b"\0\0\0\x20ftypisom" + bytes(90), "a video"),
        (gzip.compress(b"weights"), "a gzip archive.*unpack it"),
        (tar(), "a tar archive"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (bytes(5000), "filled with zeros, as a download that did not finish"),
        (b"\x01\x80\xff\xfe" * 40, "of an unknown format"),
        (b"x", "a text file"),
        (pickle.dumps([1, 2]), "a Python pickle that torch did not write"),
        (b'{"architectures": ["CLIP"]}', "a JSON file that lists no weights"),
        (b'{"weight_map": ', "no checkpoint and no index of one"),
        (b"[" * 100000, "a text file"),
        (b'{"a":' * 100000, "no checkpoint and no index of one"),
        (zipped(["ckpts/first_stage.pt", "a.txt"]), r"unpack it.*\(ckpts/first_stage\.pt\)"),
        (zipped(["word/document.xml"]), "a zip archive, not a checkpoint: give a"),
        (zipped(["a/code/__torch__.py", "a/data.pkl", "a/constants.pkl"]), "a TorchScript program"),
        (zipped([]), "of an unknown format"),
    ],
)
def test_what_is_no_checkpoint_is_called_by_its_name(content, message, path):
    path.write_bytes(content)
    refuse(path, message)


def test_missing_files_folders_and_devices(tmp_path):
    refuse(tmp_path / "no.pt", "does not exist")
    refuse(tmp_path, "holds no weights")
    (tmp_path / "unet").mkdir()
    refuse(tmp_path, "it holds the folders unet")
    for name in ("a.pt", "b.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    refuse(tmp_path, r"holds 2 checkpoints \(a\.pt, b\.safetensors\): name the file")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        refuse(tmp_path / "pipe", "no regular file")


def test_a_numpy_archive(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))
    refuse(path, "a zip archive, not a checkpoint")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused(path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    refuse(path, "a TorchScript program")


def test_a_checkpoint_without_tensors(path):
    torch.save({"epoch": 3}, path)
    refuse(path, r"holds no tensors \(1 other values\)")
    torch.save([torch.ones(2)], path)
    refuse(path, "holds a list, expected named tensors")
    torch.save(torch.ones(2), path)
    refuse(path, "holds a Tensor, expected named tensors")


# --- code in a pickle ---


class Payload:
    """Runs a function of the system's when a plain unpickler meets it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def payloads(mark):
    return {
        "system": Payload(os.system, f"echo run > {mark}"),
        "eval": Payload(builtins.eval, f"open({str(mark)!r}, 'w')"),
        "exec": Payload(builtins.exec, f"open({str(mark)!r}, 'w')"),
        "open": Payload(builtins.open, str(mark), "w"),
        "getattr": Payload(builtins.getattr, "text", "upper"),
        "torch.load": Payload(torch.load, str(mark)),
        "torch.hub": Payload(torch.hub.load, str(mark), "model"),
        "copy": Payload(shutil.copyfile, __file__, str(mark)),
        "bytearray": Payload(builtins.bytearray, 2**50),
    }


PLACES = {
    "value": lambda payload: {**STATE, "x": payload},
    "first": lambda payload: {"x": payload, **STATE},
    "wrapped": lambda payload: {"epoch": 3, "state_dict": {**STATE, "x": payload}},
    "beside": lambda payload: {"state_dict": STATE, "callbacks": [{"x": (payload,)}]},
    "attribute": lambda payload: with_attribute(collections.OrderedDict(STATE), payload),
    "alone": lambda payload: payload,
}


def with_attribute(state, payload):
    state._metadata = payload
    return state


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", payloads(""))
def test_a_payload_is_refused_and_does_not_run(name, place, legacy, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "last.ckpt"
    content = PLACES[place](payloads(mark)[name])
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    message = refuse(path, "asks for `.*could run code, so nothing of it was loaded")
    assert not mark.exists()
    if name == "system":
        assert "system`" in message  # posix.system, nt.system


def test_the_payloads_would_run(tmp_path):
    """The test above can fail: a plain unpickler does run them."""
    mark = tmp_path / "mark"
    for name in ("system", "eval", "exec", "open", "copy"):
        pickle.loads(pickle.dumps(payloads(mark)[name]))
        assert mark.exists()
        mark.unlink()


def test_a_payload_in_any_of_the_old_formats_pickles(path, tmp_path):
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    whole, ends = path.read_bytes(), [0]
    stream = io.BytesIO(whole)
    for _ in range(5):
        list(pickletools.genops(stream))
        ends.append(stream.tell())
    payload = pickle.dumps(payloads(tmp_path / "mark")["open"], protocol=2)
    for number in range(1, 5):  # the first one makes it the old format
        path.write_bytes(whole[: ends[number]] + payload + whole[ends[number + 1] :])
        refuse(path, "asks for `.*open`")
        assert not (tmp_path / "mark").exists()


def test_torchs_tar_format_is_refused_unread(path):
    # Versions of torch before 2.6 run code from it even with weights_only=True.
    content = bytearray(tar())
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    content[: len(magic)] = magic
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    path.write_bytes(content)
    assert tarfile.is_tarfile(path)
    refuse(path, "a tar archive")


def test_code_that_the_scan_would_miss_is_refused_by_torch(path, tmp_path, monkeypatch):
    """The second barrier alone."""
    monkeypatch.setattr(torch_archive, "scan_pickle", lambda file, path: {})
    torch.save(PLACES["value"](payloads(tmp_path / "mark")["open"]), path)
    refuse(path, "can't be read as plain tensors")
    assert not (tmp_path / "mark").exists()


def test_the_environment_can_not_switch_the_check_off(path, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    test_code_that_the_scan_would_miss_is_refused_by_torch(path, tmp_path, monkeypatch)


def test_classes_of_training_frameworks_are_named(path):
    class Callback:
        pass

    globals()["Callback"] = Callback
    Callback.__qualname__ = "Callback"
    torch.save({"state_dict": STATE, "callbacks": {Callback: 1}}, path)
    refuse(path, r"asks for `.*\.Callback`.*save its plain state_dict again")


# --- pickles that are wrong without code ---


def pack(path, instructions, data=b"\0" * 16, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", instructions)
        archive.writestr("archive/data/0", data)
        archive.writestr("archive/version", "3\n")


def describe(shape, strides, elements=4, offset=0, storage="FloatStorage"):
    """The pickle of {"a": a tensor}, by hand."""

    def number(value):
        return b"J" + struct.pack("<i", value)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    stored = b"(" + text("storage") + f"ctorch\n{storage}\n".encode() + text("0") + text("cpu")
    stored += number(elements) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + number(offset) + numbers(shape)
    tensor += numbers(strides) + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + text("a") + tensor + b"s."


def test_the_hand_made_pickle_is_good(path):
    pack(path, describe((2, 2), (2, 1)), struct.pack("<4f", 1, 2, 3, 4))
    with open_tensors(path) as file:
        assert torch.equal(file.read("a"), torch.tensor([[1.0, 2], [3, 4]]))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (describe((2**30, 2**30), (0, 0)), "a tensor of shape .* from only 4 numbers"),
        (describe((2**20, 2**10), (2**10, 1)), "a tensor of shape .* from only 4 numbers"),
        (describe((4,), (1,), offset=1), "from only 4 numbers"),
        (describe((4,), (-1,), offset=3), "sides or strides are no numbers"),
        (describe((-4,), (1,)), "sides or strides are no numbers"),
        (describe((4,), ()), "1 sides and 0 strides"),
        (describe((1,) * 70, (1,) * 70), "70 sides"),
        (describe((5,), (1,), elements=5), "has 16 bytes, its tensors need 20"),
        (describe((2**28,), (1,), elements=2**28), "has 16 bytes, its tensors need 1073741824"),
        (describe((2,), (1,), elements=-4), "an object beside it that is no tensor"),
        (describe((2,), (1,), storage="NoStorage"), "asks for `torch.NoStorage`"),
        (b"\x80\x02}.", "holds no tensors"),
        (b"\x80\x02", "damaged or cut off"),
        (b"", "damaged or cut off"),
        (b"\x80\x02t.", "damaged or cut off"),
        (b"\x80\x02h\x05.", "damaged or cut off"),
        (b"\x80\x02X\xff\xff\xff\xffabc.", "damaged or cut off"),
        (b"\x80\x02" + b"q\0h\0\x86" * 64 + b".", "damaged or cut off"),
        (b"\x80\x02)" + b"q\0h\0\x86" * 64 + b".", "nested tuples without end"),
        (b"\x80\x02\x82\x01.", "the pickle instruction EXT1"),
        (b"\x80\x02iposix\nsystem\n.", "the pickle instruction INST"),
        (b"\x80\x02ctorch\nload\n.", "asks for `torch.load`"),
        (b"\x80\x02ctorch\nfloat32\n)R.", "asks for `torch.float32`"),
        (b"\x80\x02})R.", "a call of what it made itself"),
    ],
)
def test_pickles_without_sense(instructions, message, compression, path):
    pack(path, instructions, compression=compression)
    refuse(path, message)


def test_a_pickle_too_long_to_follow(path, monkeypatch):
    monkeypatch.setattr(torch_archive, "_MOST_PICKLE_BYTES", 100)
    torch.save(STATE, path)
    refuse(path, "describes its tensors in more than")
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    refuse(path, "describes its tensors in more than")


def test_the_old_format_that_promises_more_than_it_holds(path):
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-1000])
    refuse(path, r"is cut off \(\d+ of \d+ bytes\)")


def test_the_old_format_needs_its_size_in_memory(path, monkeypatch):
    monkeypatch.setattr(torch_archive, "available_bytes", lambda: 1000)
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    refuse(path, "in torch's old format, which is read as a whole")
    torch.save(STATE, path)
    open_tensors(path).close()  # mapped: needs none


# --- zip archives made to harm ---


def test_a_compressed_bomb_is_refused_unexpanded(path):
    """2 GiB of zeros in 2 MB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    data = block * 2**11 + packer.flush()
    pack(path, describe((4,), (1,)), data, zipfile.ZIP_STORED)
    relabel(path, "archive/data/0", compress_type=zipfile.ZIP_DEFLATED, file_size=2**31)
    tracemalloc.start()
    refuse(path, r"would expand from \d+ bytes to 2\.0 GiB.*zip bomb")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def relabel(path, name, **changes):
    """Change what an archive's central directory says of an entry."""
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = content.index(b"PK\x01\x02", archive.start_dir)
        while content[start + 46 : start + 46 + len(name)] != name.encode():
            start = content.index(b"PK\x01\x02", start + 4)
    fields = list(struct.unpack_from("<4s4B4H3L5H2L", content, start))
    where = {"flag_bits": 5, "compress_type": 6, "compress_size": 10, "file_size": 11}
    where["header_offset"] = 18
    for key, value in changes.items():
        fields[where[key]] = value
    patched = struct.pack("<4s4B4H3L5H2L", *fields)
    path.write_bytes(content[:start] + patched + content[start + len(patched) :])


def test_small_files_of_zeros_are_no_bombs(path):
    torch.save({"a": torch.zeros(10**6)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert path.stat().st_size < 10**4
    with open_tensors(path) as file:
        assert torch.equal(file.read("a"), torch.zeros(10**6))


def test_what_expands_beyond_memory_is_refused(path, monkeypatch):
    pack(path, describe((4,), (1,)), compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(zip_directory, "available_bytes", lambda: 100)
    refuse(path, "is compressed and would take")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"header_offset": 0}, "overlaps"),
        ({"header_offset": 5}, "overlaps"),
        ({"header_offset": 10**6}, "is not where it should be"),
        ({"compress_size": 10**5, "file_size": 10**5}, "overlaps archive/data/0"),
        ({"file_size": 10**6}, "has two sizes"),
        ({"flag_bits": 1}, "encrypted"),
        ({"compress_type": zipfile.ZIP_LZMA}, "packed in a way"),
    ],
)
def test_a_table_of_contents_that_lies(changes, message, path):
    pack(path, describe((4,), (1,)))
    relabel(path, "archive/data/0", **changes)
    refuse(path, message)


def test_the_last_entry_may_not_reach_into_the_table(path):
    pack(path, describe((4,), (1,)))
    relabel(path, "archive/version", compress_size=10**4, file_size=10**4)
    refuse(path, "reaches beyond")


def test_two_entries_of_one_name(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", describe((4,), (1,)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("archive/data.pkl", b"\x80\x02cposix\nsystem\n.")
        archive.writestr("archive/data/0", bytes(16))
    refuse(path, "two entries have one name")


def test_a_name_that_differs_where_the_data_is(path):
    pack(path, describe((4,), (1,)))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"archive/data/0", b"archive/data/9", 1))
    refuse(path, "has another name")


def test_contents_that_hide_behind_others(path):
    """Two archives in one file: readers could differ on which one it is."""
    pack(path, describe((4,), (1,)))
    good = path.read_bytes()
    path.write_bytes(good + good)
    refuse(path, "something stands before its contents")
    path.write_bytes(good + b"appended")
    refuse(path, "cut off")


def test_an_endless_table_of_contents(path):
    pack(path, describe((4,), (1,)))
    content = bytearray(path.read_bytes())
    struct.pack_into("<L", content, len(content) - 10, 2**30)
    path.write_bytes(content)
    refuse(path, "its table of contents is said to have 1073741824 bytes")


# --- safetensors ---


def save_header(path, header, data=bytes(16), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)


def entry(shape=(4,), dtype="F32", offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_the_hand_made_header_is_good(path):
    save_header(path, {"a": entry()})
    with open_tensors(path) as file:
        assert torch.equal(file.read("a"), torch.zeros(4))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({}, "holds no tensors"),
        ({"__metadata__": {"a": "b"}}, "holds no tensors"),
        ({"a": entry(offsets=(0, 32), shape=(8,))}, r"is cut off \(16 of 32 bytes"),
        ({"a": entry(offsets=(0, 2**62), shape=(2**60,))}, "is cut off"),
        ({"a": entry(), "b": entry()}, "overlaps another tensor"),
        ({"a": entry(), "b": entry((3,), offsets=(4, 16))}, "overlaps another tensor"),
        ({"a": entry((3,), offsets=(4, 16))}, "leaves a gap"),
        ({"a": entry((3,), offsets=(0, 12))}, "4 bytes follow the last tensor"),
        ({"a": entry((5,))}, "has 16 bytes, its shape needs 20"),
        ({"a": entry((-4,))}, "no number from 0 on"),
        ({"a": entry((True, 4))}, "no number from 0 on"),
        ({"a": entry((4.0,))}, "no number from 0 on"),
        ({"a": entry(offsets=(16, 0))}, "has -16 bytes"),
        ({"a": entry(offsets=(0, 8, 16))}, "not described in full"),
        ({"a": entry(dtype="F4")}, "number format F4, which this torch does not know"),
        ({"a": entry(dtype=["F32"])}, "number format"),
        ({"a": {"dtype": "F32"}}, "not described in full"),
        ({"a": 3}, "not described in full"),
        ({"a": entry(), "__metadata__": {"x": 3}}, "metadata is not text"),
        ({"a": entry(), "__metadata__": 3}, "metadata is not text"),
        (b'{"a": 1, "a": 2}', "a name stands twice"),
        (b'{"a": ' + b"[" * 200_000, "no table of tensors"),
        (b'{"a": ' + b"1" * 10_000 + b"}", "damaged"),
        (b'{"a\xff": 1}', "no table of tensors"),
        (b"{]", "no table of tensors"),
    ],
)
def test_safetensors_headers_that_are_wrong(header, message, path):
    save_header(path, header)
    refuse(path, message)


def test_a_header_longer_than_the_file(path):
    save_header(path, {"a": entry()}, length=10**6)
    refuse(path, r"is cut off \(its header alone should have 1000000 bytes")


def test_a_header_longer_than_any_networks(path):
    with path.open("wb") as file:
        file.write((50 * 2**20).to_bytes(8, "little") + b"{")
        file.truncate(60 * 2**20)
    refuse(path, "its header has 52428800 bytes")


# --- indexes ---


def save_index(folder, homes):
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": homes}))
    return index


@pytest.mark.parametrize(
    "name",
    ["../secret.safetensors", "sub/secret.safetensors", "..", ".", "", "C:secret", "a\\b", "a\0b"],
)
def test_an_index_may_not_reach_elsewhere(name, tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder / "sub"):
        save_file(STATE, place / "secret.safetensors")
    refuse(save_index(folder, {"weight": name}), "does not lie beside it")


def test_an_index_may_not_name_absolute_paths(tmp_path):
    save_file(STATE, tmp_path / "secret.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    index = save_index(folder, {"weight": str(tmp_path / "secret.safetensors")})
    refuse(index, "does not lie beside it")


def test_an_index_may_not_lead_over_links(tmp_path):
    save_file(STATE, tmp_path / "secret.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    try:
        (folder / "part.safetensors").symlink_to(tmp_path / "secret.safetensors")
        (folder / "circle.safetensors").symlink_to(folder / "circle.safetensors")
    except OSError:
        pytest.skip("this system makes no links without privileges")
    refuse(save_index(folder, {"weight": "part.safetensors"}), "does not lie beside it")
    refuse(save_index(folder, {"weight": "circle.safetensors"}), "beside it")


def test_an_index_whose_parts_are_missing_or_others(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors")
    index = save_index(tmp_path, {"weight": "a.safetensors", "c": "b.safetensors"})
    refuse(index, r"needs 2 files beside it, 1 are missing \(b\.safetensors\)")
    index = save_index(tmp_path, {"weight": "a.safetensors", "c": "a.safetensors"})
    with pytest.raises(CheckpointMismatch, match=r"names 1 tensors .* \(c in a\.safetensors\)"):
        open_tensors(index)
    index = save_index(tmp_path, {"weight": index.name})
    with pytest.raises(ValueError, match="is a JSON file, expected weights"):
        open_tensors(index)
    for homes in ({}, [], {"a": 3}, "a"):
        refuse(save_index(tmp_path, homes), "lists no weights|no text")


def test_a_damaged_part_is_named(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(LFS)
    index = save_index(tmp_path, {"weight": "a.safetensors"})
    with pytest.raises(ValueError, match=r"a\.safetensors is a git-lfs pointer"):
        open_tensors(index)


def test_a_part_without_its_index(tmp_path):
    part = tmp_path / "model-00001-of-00003.safetensors"
    save_file(STATE, part)
    refuse(part, r"its index .* is not beside it")
    with pytest.raises(ValueError, match="its index"):
        open_tensors(tmp_path)
    save_index(tmp_path, {"weight": "other.safetensors"})
    refuse(part, "its index")


def test_nothing_but_tensors_is_ever_unpickled():
    """No other way to load lies in the package."""
    folder = Path(torch_archive.__file__).parent
    for file in folder.glob("*.py"):
        text = file.read_text()
        for word in ("pickle.load", "pickle.Unpickler", "weights_only=False", "jit.load", "joblib"):
            assert word not in text, (file.name, word)
