import os

import pytest

from hi3d_core.atomic_file import check_writable, replacing


def test_a_finished_write_replaces_the_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows files have no mode")
def test_a_new_file_has_the_usual_mode(tmp_path):
    usual = tmp_path / "usual"
    usual.touch()
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").stat().st_mode == usual.stat().st_mode


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("ne")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_refuses_a_missing_folder_and_a_folder_as_file(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        check_writable(tmp_path / "none" / "a.glb")
    with pytest.raises(ValueError, match="is a folder"):
        check_writable(tmp_path)


def test_refuses_a_folder_without_permission(tmp_path, monkeypatch):
    # Tests may run as root, who may write anywhere: ask the question, don't rely on the answer.
    monkeypatch.setattr("hi3d_core.atomic_file.os.access", lambda path, mode: False)
    with pytest.raises(ValueError, match="permission"):
        check_writable(tmp_path / "a.glb")
