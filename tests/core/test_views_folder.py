"""The folder that keeps the stages: whole or not at all, and never anything else harmed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from hi3d_core.views_folder import ViewsFolder, as_stored, frames_digest

SETTINGS = {"seed": 3, "elevation": 10.0, "mask": "none", "dtype": None}


def frames(seed=0, size=24):
    return torch.rand(16, size, size, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def folder(tmp_path):
    """A folder with both stages done."""
    views = ViewsFolder(tmp_path / "views")
    views.write("orbit", frames(0), SETTINGS, frames(2)[0])
    views.write("refined", frames(1), SETTINGS)
    return views


def tree(path):
    return {
        each.relative_to(path).as_posix(): each.read_bytes()
        for each in sorted(path.rglob("*"))
        if each.is_file()
    }


def test_frames_come_back_as_they_were_stored(folder):
    assert folder.is_done("orbit", SETTINGS) and folder.is_done("refined", SETTINGS)
    assert torch.equal(folder.read("orbit"), as_stored(frames(0)))
    assert torch.equal(folder.read("refined"), as_stored(frames(1)))
    assert torch.equal(as_stored(folder.read("orbit")), folder.read("orbit"))
    levels = torch.arange(256).float() / 255
    assert torch.equal(as_stored(levels), levels)


def test_the_layout_is_the_one_that_is_told(folder):
    names = {f"{stage}/{i:03d}.png" for stage in ("orbit", "refined") for i in range(16)}
    assert set(tree(folder.path)) == names | {"settings.json", "picture.png"}


def test_nothing_is_made_until_a_stage_is_done(tmp_path):
    views = ViewsFolder(tmp_path / "views")
    assert not views.is_done("orbit", SETTINGS)
    assert not (tmp_path / "views").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_other_settings_are_named(folder, overwrite):
    views = ViewsFolder(folder.path, overwrite)
    changed = {**SETTINGS, "seed": 4, "new_option": 7}
    if overwrite:
        assert not views.is_done("orbit", changed)
    else:
        with pytest.raises(ValueError, match=r"seed was 3, now 4; new option was None, now 7.*--o"):
            views.is_done("orbit", changed)
    # What is not said is not compared, and what was not said then is.
    assert views.is_done("orbit", {"seed": None})
    if not overwrite:
        with pytest.raises(ValueError, match="dtype was None, now fp16"):
            views.is_done("orbit", {"dtype": "fp16"})


def test_replacing_a_stage_removes_what_was_made_from_it(folder):
    views = ViewsFolder(folder.path, overwrite=True)
    views.write("orbit", frames(5), {"seed": 4})
    assert torch.equal(views.read("orbit"), as_stored(frames(5)))
    assert not (folder.path / "refined").exists()
    assert set(json.loads((folder.path / "settings.json").read_text())["hi3d_views"]) == {"orbit"}
    assert views.is_done("orbit", {"seed": 4}) and not views.is_done("refined", SETTINGS)


def test_without_leave_a_later_stage_is_kept(folder):
    for file in (folder.path / "orbit").iterdir():
        file.unlink()
    (folder.path / "orbit").rmdir()
    assert not folder.is_done("orbit", SETTINGS)
    folder.write("orbit", frames(0), SETTINGS)
    assert folder.is_done("refined", SETTINGS)


def test_retouched_frames_are_read(folder):
    before = frames_digest(folder.read("orbit"))
    retouched = Image.new("RGBA", (24, 24), (255, 0, 0, 0))
    retouched.putpixel((3, 5), (0, 0, 255, 255))
    retouched.save(folder.path / "orbit" / "004.png")
    frame = folder.read("orbit")[4]
    assert frame[5, 3].tolist() == [0, 0, 1] and frame[0, 0].tolist() == [1, 1, 1]
    assert frames_digest(folder.read("orbit")) != before


def test_the_digest_sees_a_level_and_the_shape():
    some = as_stored(frames())
    other = some.clone()
    other[7, 3, 2, 1] += 1 / 255 if other[7, 3, 2, 1] < 0.5 else -1 / 255
    assert frames_digest(some) == frames_digest(some + 1e-4)
    assert len({frames_digest(x) for x in (some, other, some.reshape(16, 12, 48, 3))}) == 3


@pytest.mark.parametrize("size", [(24, 25), (32, 32)])
def test_frames_of_another_size_are_refused(folder, size):
    Image.new("RGB", size).save(folder.path / "orbit" / "004.png")
    with pytest.raises(ValueError, match="24 x 24"):
        folder.read("orbit")


def test_damaged_and_missing_frames_are_named(folder):
    path = folder.path / "orbit" / "004.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"004\.png"):
        folder.read("orbit")
    path.unlink()
    with pytest.raises(ValueError, match=r"lacks 004\.png"):
        folder.is_done("orbit", SETTINGS)
    assert not ViewsFolder(folder.path, overwrite=True).is_done("orbit", SETTINGS)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_someone_elses_is_never_touched(tmp_path, overwrite):
    (tmp_path / "orbit").mkdir()
    for name in ("000.png", "notes.txt"):
        (tmp_path / "orbit" / name).write_text("mine")
    before = tree(tmp_path)
    views = ViewsFolder(tmp_path, overwrite)
    with pytest.raises(ValueError, match="not made by this command"):
        views.is_done("orbit", SETTINGS)
    with pytest.raises(ValueError, match="would be lost"):
        views.write("orbit", frames(), SETTINGS)
    assert tree(tmp_path) == before
    assert {each.name for each in tmp_path.iterdir()} == {"orbit"}


@pytest.mark.parametrize("stage", ["orbit", "refined"])
def test_other_files_among_the_frames_keep_a_stage_from_being_replaced(folder, stage):
    (folder.path / stage / "notes.txt").write_text("mine")
    (folder.path / stage / ".DS_Store").write_text("")
    before = tree(folder.path)
    views = ViewsFolder(folder.path, overwrite=True)
    with pytest.raises(ValueError, match=r"holds notes\.txt"):
        views.is_done("orbit", {"seed": 9})
    with pytest.raises(ValueError, match=r"holds notes\.txt"):
        views.write("orbit", frames(), {"seed": 9})
    assert tree(folder.path) == before


def test_other_files_beside_the_stages_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".hi3d-other").mkdir()
    views = ViewsFolder(tmp_path, overwrite=True)
    for seed in (1, 2):
        views.write("orbit", frames(seed), {"seed": seed}, frames()[0])
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / ".hi3d-other").is_dir()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("settings.json", "{}"),
        ("settings.json", '{"editor": {}}'),
        ("settings.json", '{"hi3d_views": [1]}'),
        ("settings.json", '{"hi3d_views": {"orbit": 1}}'),
        ("settings.json", "not json"),
        ("picture.png", "mine"),
    ],
)
def test_other_files_of_our_names_are_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name):
        ViewsFolder(tmp_path, overwrite=True)
    assert (tmp_path / name).read_text() == text


def test_places_that_can_not_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        ViewsFolder(tmp_path / "file")
    with pytest.raises(ValueError, match="does not exist"):
        ViewsFolder(tmp_path / "no" / "views")
    with pytest.raises(ValueError, match="expected"):
        ViewsFolder(tmp_path / "views").write("orbit", frames()[:15], SETTINGS)
    assert {each.name for each in tmp_path.iterdir()} == {"file"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_cancelled_write_leaves_nothing(folder, tmp_path, monkeypatch, error, is_new):
    path = tmp_path / "new" if is_new else folder.path
    before = {} if is_new else tree(path)
    save, saved = Image.Image.save, []

    def fail(image, file, *rest):
        saved.append(file)
        if len(saved) == 7:
            raise error
        save(image, file, *rest)

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(error):
        ViewsFolder(path, overwrite=True).write("orbit", frames(3), {"seed": 9})
    assert path.exists() != is_new
    assert ({} if is_new else tree(path)) == before


KILLED_WHILE_SAVING = """
import os, signal, sys
import torch
from pathlib import Path
from PIL import Image
from hi3d_core.views_folder import ViewsFolder
save, saved = Image.Image.save, []
def slow(image, file, *rest):
    save(image, file, *rest)
    saved.append(file)
    if len(saved) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
Image.Image.save = slow
ViewsFolder(Path(sys.argv[1])).write("orbit", torch.rand(16, 24, 24, 3), {"seed": 3})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_run_leaves_no_stage_and_the_next_one_no_litter(tmp_path):
    path = tmp_path / "views"
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, str(path)], cwd=root, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    (litter,) = path.iterdir()
    assert litter.name.startswith(".hi3d-views-") and len(tree(litter)) == 7
    views = ViewsFolder(path)
    assert list(path.iterdir()) == []
    assert not views.is_done("orbit", SETTINGS)


def test_a_run_that_is_alive_keeps_its_hidden_folder(tmp_path):
    alive = tmp_path / f".hi3d-views-{os.getppid()}-{'0' * 16}"
    ours = tmp_path / f".hi3d-views-{os.getpid()}-{'0' * 16}"
    alive.mkdir()
    ours.mkdir()
    ViewsFolder(tmp_path)
    assert alive.exists() and not ours.exists()
