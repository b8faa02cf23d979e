"""Check a zip archive's table of contents before anything in it is unpacked.

Torch's checkpoints are zip archives. Their entries should lie one after the other, fill the file
and expand to what memory holds; an archive made to harm claims otherwise.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from ..memory import available_bytes

_END_RECORD = struct.Struct("<4s4H2LH")  # signature, 4 counts, directory size, offset, comment
_END_RECORD_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64_BYTES = 20
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")

# A full checkpoint has a few thousand entries, of about 100 bytes in the directory.
_MOST_DIRECTORY_BYTES = 32 * 2**20
# Deflate can't reach 1032; zeros come near. Trained weights reach 2 at the most, but a small file
# of test weights may well be zeros.
_MOST_RATIO = 100
_HARMLESS_BYTES = 2**30


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip archive whose table of contents can be trusted; the caller closes it.

    Raises ValueError if it is cut off, has entries that overlap, repeat, lie outside the file or
    are encrypted, or would expand to more than memory or than weights do.
    """
    with path.open("rb") as file:
        _check_end(file, path)
    try:
        archive = zipfile.ZipFile(path)
    # zipfile raises a kind of RuntimeError for a version of the format that it does not know.
    except (zipfile.BadZipFile, RuntimeError, ValueError, struct.error) as error:
        raise _damaged(path, str(error)) from error
    try:
        _check_entries(archive, path)
    except BaseException:
        archive.close()
        raise
    return archive


def _check_end(file: BinaryIO, path: Path) -> None:
    """The end record must be the file's last bytes, so that all readers find the same one."""
    size = file.seek(0, 2)
    start = size - _END_RECORD.size
    file.seek(max(start, 0))
    tail = file.read()
    if len(tail) < _END_RECORD.size or not tail.startswith(b"PK\x05\x06"):
        raise ValueError(
            f"{path} is cut off ({size} bytes, without the end that a torch checkpoint has): "
            "download it again"
        )
    directory_bytes = _END_RECORD.unpack(tail)[5]
    before = start - _LOCATOR_64_BYTES
    if before >= _END_RECORD_64.size:
        file.seek(before)
        locator = file.read(_LOCATOR_64_BYTES)
        if locator.startswith(b"PK\x06\x07"):
            file.seek(before - _END_RECORD_64.size)
            directory_bytes = _END_RECORD_64.unpack(file.read(_END_RECORD_64.size))[8]
    if directory_bytes > _MOST_DIRECTORY_BYTES:
        raise _damaged(path, f"its table of contents is said to have {directory_bytes} bytes")


def _check_entries(archive: zipfile.ZipFile, path: Path) -> None:
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    if entries and entries[0].header_offset != 0:
        raise _damaged(path, "something stands before its contents")
    if len({entry.filename for entry in entries}) < len(entries):
        raise _damaged(path, "two entries have one name")
    for entry in entries:
        if entry.flag_bits & 1 or entry.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise _damaged(path, f"{entry.filename} is encrypted or packed in a way torch is not")
    with path.open("rb") as file:
        previous, end = "", 0
        for entry in entries:
            if entry.header_offset < end:
                raise _damaged(path, f"{entry.filename} overlaps {previous or 'the beginning'}")
            previous, end = entry.filename, _end_of(entry, file, path)
        if end > archive.start_dir:
            raise _damaged(path, f"{previous} reaches beyond the file's contents")
    _check_expansion(entries, path)


def _end_of(entry: zipfile.ZipInfo, file: BinaryIO, path: Path) -> int:
    """Where the entry's data ends, by the header that stands before the data."""
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise _damaged(path, f"{entry.filename} is not where it should be")
    *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    encoding = "utf-8" if entry.flag_bits & 0x800 else "cp437"
    if file.read(name_bytes) != entry.orig_filename.encode(encoding, "replace"):
        raise _damaged(path, f"{entry.filename} has another name where its data is")
    data = entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    return data + entry.compress_size


def _check_expansion(entries: list[zipfile.ZipInfo], path: Path) -> None:
    packed = sum(entry.compress_size for entry in entries)
    unpacked = sum(entry.file_size for entry in entries)
    for entry in entries:
        stored = entry.compress_type == zipfile.ZIP_STORED
        if stored and entry.file_size != entry.compress_size:
            raise _damaged(path, f"{entry.filename} has two sizes")
    if unpacked > _HARMLESS_BYTES and unpacked > _MOST_RATIO * packed:
        raise ValueError(
            f"{path} would expand from {packed} bytes to {unpacked / 2**30:.1f} GiB, as no weights "
            "do (a zip bomb): delete it and get the weights from their authors"
        )
    inflated = sum(e.file_size for e in entries if e.compress_type != zipfile.ZIP_STORED)
    if inflated > available_bytes():
        raise ValueError(
            f"{path} is compressed and would take {inflated / 2**30:.1f} GiB of memory, "
            f"{available_bytes() / 2**30:.1f} GiB are available: convert it to .safetensors on a "
            "larger machine; that form is read in parts"
        )


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} is damaged ({what}): download it again")
