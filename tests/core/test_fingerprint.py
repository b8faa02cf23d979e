import os

import pytest

from hi3d_core.fingerprint import fingerprint


def test_contents_count_and_names_do_not(tmp_path):
    for name, data in (("a", b"one"), ("b", b"one"), ("c", b"two"), ("d", b"")):
        (tmp_path / name).write_bytes(data)
    a, b, c, d = (fingerprint(tmp_path / name) for name in "abcd")
    assert a == b and len({a, c, d}) == 3
    assert len(a) == 16


@pytest.mark.parametrize("position", [0, 2**20 - 1, 2**20 + 5, -1, -(2**20)])
def test_a_byte_in_a_large_file_shows_where_it_is_looked_for(tmp_path, position):
    path = tmp_path / "large"
    data = bytearray(8 * 2**20)
    path.write_bytes(data)
    before = fingerprint(path)
    data[position] = 1
    path.write_bytes(data)
    assert fingerprint(path) != before


def test_pieces_are_read_all_over_a_large_file(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(2**24))
    before = fingerprint(path)
    for start in range(2**20, 2**24 - 2**20, 2**20):
        data = bytearray(2**24)
        data[start : start + 2**18] = b"x" * 2**18
        path.write_bytes(data)
        assert fingerprint(path) != before


def test_a_longer_file_of_zeros_is_another(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(2**23))
    before = fingerprint(path)
    os.truncate(path, 2**23 + 1)
    assert fingerprint(path) != before


def test_a_folder_is_told_by_names_and_contents(tmp_path):
    (tmp_path / "unet").mkdir()
    file = tmp_path / "unet" / "weights"
    file.write_bytes(b"one")
    first = fingerprint(tmp_path)
    file.write_bytes(b"two")
    second = fingerprint(tmp_path)
    file.rename(tmp_path / "unet" / "other")
    assert len({first, second, fingerprint(tmp_path)}) == 3
