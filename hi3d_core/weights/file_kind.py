"""What a file is, told by its first bytes and never by its name.

Files that hold no weights are refused here, in the words of what they are: half of all "broken"
checkpoints are a pointer, a web page or the beginning of a download.
"""

from __future__ import annotations

import re
import stat
import tarfile
from pathlib import Path
from typing import Literal

Kind = Literal["safetensors", "torch_zip", "torch_legacy", "index"]

_HEAD_BYTES = 512
# What torch's format before 1.6 begins with: a pickle of a fixed number.
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_ADVICE = "give a .pt, .pth, .ckpt, .bin or .safetensors file"
_UNPACK = "unpack it and give the weights inside"

_FOREIGN = [
    (b"\x89PNG", "a PNG picture", _ADVICE),
    (b"\xff\xd8\xff", "a JPEG picture", _ADVICE),
    (b"GIF8", "a GIF picture", _ADVICE),
    (b"%PDF", "a PDF document", _ADVICE),
    (b"GGUF", "a GGUF model of llama.cpp", _ADVICE),
    (b"\x89HDF", "an HDF5 file (Keras)", _ADVICE),
    (b"\x93NUMPY", "a NumPy array", _ADVICE),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ", "an xz archive", _UNPACK),
    (b"7z\xbc\xaf", "a 7-zip archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"MZ", "a Windows program", "do not run it; get the weights from their authors"),
    (b"\x7fELF", "a Linux program", "do not run it; get the weights from their authors"),
]


def kind_of(path: Path) -> Kind:
    """Which of the forms of checkpoints a file has; nothing of it is interpreted.

    "index" is JSON text, which may list the shards of a checkpoint.

    Raises ValueError, saying what the file is and what to do, for anything else.
    """
    size, head = _head_of(path)
    if size == 0:
        raise ValueError(f"{path} is empty (0 bytes): download it again")
    if head.startswith(b"PK\x03\x04"):
        return "torch_zip"
    if head[0] == 0x80 and _LEGACY_MAGIC in head[:40] and not tarfile.is_tarfile(path):
        return "torch_legacy"
    # Eight bytes of text, read as a length, are more than any file's size.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return "safetensors"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return "index"
    what, advice = _describe(path, head)
    raise ValueError(f"{path} is {what}, not a checkpoint: {advice}")


def _head_of(path: Path) -> tuple[int, bytes]:
    """The size and the first bytes of a regular file."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is no regular file: {_ADVICE}")
        with path.open("rb") as file:
            return status.st_size, file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist: check the name") from error
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror}): check permissions") from error


def _describe(path: Path, head: bytes) -> tuple[str, str]:
    """What a file without weights is, and what to do."""
    if head.startswith(_LFS_POINTER):
        stated = re.search(rb"\nsize (\d+)", head)
        size = f" of {int(stated[1]) / 1e9:.2f} GB" if stated else ""
        advice = f"run `git lfs pull`, or download the file itself{size}"
        return "a git-lfs pointer, which stands for the real file", advice
    for magic, what, advice in _FOREIGN:
        if head.startswith(magic):
            return what, advice
    if head[4:8] == b"ftyp":
        return "a video", _ADVICE
    if not head.strip(b"\0"):
        return "filled with zeros, as a download that did not finish", "download it again"
    if head[257:262] == b"ustar" or tarfile.is_tarfile(path):
        return "a tar archive", _UNPACK
    if head[0] == 0x80 and 2 <= head[1] <= 5:
        return (
            "a Python pickle that torch did not write, which could run code when it is loaded",
            "get the weights as .safetensors, or as a file that torch.save wrote",
        )
    if re.match(rb"\s*(<!doctype|<html|<\?xml|<head|<!--)", head.lower()):
        return (
            "a web page (a server's message instead of the file)",
            "open the address in a browser, agree to what it asks and download it again",
        )
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return "a text file", _ADVICE
    return "of an unknown format", f"{_ADVICE}, or download it again if it should be one"
