"""The generate command on real networks: small ones, in files as the official ones are."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from hi3d_core import __main__ as command_line
from hi3d_core.commands import generate
from hi3d_core.networks.depth_network import build_depth_network
from hi3d_core.weights import find

from .test_weights_load import save_official
from .tiny_models import TINY_DEPTH, filled, tiny_model

SET = ["unet.head_channels=8", "image_encoder.heads=2", "depth.heads=2"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    depth = filled(build_depth_network(TINY_DEPTH), torch.Generator().manual_seed(2))
    save_official(tiny_model("orbit"), folder / "first_stage.pt")
    refiner = dataclasses.replace(tiny_model("refiner"), depth=depth)
    save_official(refiner, folder / "second_stage.pt")
    return folder


@pytest.fixture
def picture(tmp_path):
    return _draw_cup(tmp_path / "cup.png")


def _draw_cup(path):
    image = Image.new("RGBA", (96, 96))
    image.paste((200, 60, 30, 255), (24, 20, 70, 80))
    image.save(path)
    return path


@pytest.fixture
def products(monkeypatch):
    """Keep the frames instead of reconstructing from untrained networks' noise."""
    kept = []

    def keep(views, config, arguments, clock, about, device):
        clock.end()
        kept.append((views.images, about["generation"]))

    monkeypatch.setattr(generate, "make_products", keep)
    monkeypatch.setattr(
        generate, "cut_out", lambda frames: (frames, torch.ones(frames.shape[:3]) / 2)
    )
    return kept


def arguments(picture, weights, *more):
    return [
        "generate",
        str(picture),
        "--out",
        str(picture.with_suffix(".glb")),
        "--orbit-checkpoint",
        str(weights / "first_stage.pt"),
        "--refiner-checkpoint",
        str(weights / "second_stage.pt"),
        "--size",
        "64",
        "--steps",
        "2",
        "--device",
        "cpu",
        *(word for each in SET for word in ("--set", each)),
        *more,
    ]


def run(*command):
    assert command_line.main(arguments(*command)) == 0


@pytest.fixture(scope="module")
def kept_run(weights, tmp_path_factory):
    """The frames of a run with the default options, and the folder that kept them."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        kept = []
        patch.setattr(generate, "make_products", lambda views, *rest: kept.append(views.images))
        patch.setattr(
            generate, "cut_out", lambda frames: (frames, torch.ones(frames.shape[:3]) / 2)
        )
        run(_draw_cup(folder / "cup.png"), weights, "--views-dir", str(folder / "views"))
    return kept[0], folder / "views"


def test_both_stages_from_official_files(picture, weights, products, tmp_path):
    run(picture, weights)
    run(picture, weights, "--views-dir", str(tmp_path / "views"))
    run(picture, weights, "--views-dir", str(tmp_path / "views"))  # from the kept frames
    whole, kept, resumed = (frames for frames, _ in products)
    assert whole.shape == (16, 128, 128, 3)
    assert torch.equal(kept, whole) and torch.equal(resumed, whole)
    assert len(list((tmp_path / "views" / "orbit").glob("*.png"))) == 16


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--strength", "0.5"),
        ("--sharpness", "2"),
        ("--reuse-every", "2"),
        ("--solver", "heun"),
        ("--free-first-frame", None),
        ("--seed", "1"),
        ("--elevation", "20"),
        ("--aesthetic", "3"),
    ],
)
def test_every_option_reaches_the_networks_and_the_record(
    picture, weights, products, kept_run, option, value, capsys
):
    frames, folder = kept_run
    more = [option] if value is None else [option, value]
    run(picture, weights, *more)
    assert not torch.equal(frames, products[-1][0])
    capsys.readouterr()
    assert command_line.main(arguments(picture, weights, *more, "--views-dir", str(folder))) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_options_that_only_save_memory_go_on_from_the_same_frames(
    picture, weights, products, kept_run
):
    frames, folder = kept_run
    saving = ["--guide", "apart", "--frames-at-once", "4", "--feed-forward-chunks", "2"]
    run(picture, weights, *saving, "--views-dir", str(folder))
    assert torch.equal(products[0][0], frames)


def test_without_the_heads_the_message_says_how_to_set_them(picture, weights, capsys):
    words = [word for word in arguments(picture, weights) if word not in ("--set", *SET)]
    assert command_line.main(words) == 2
    message = capsys.readouterr().err
    assert "first_stage.pt" in message and "--set unet.head_channels" in message


def test_all_missing_weights_are_told_at_once(picture, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HI3D_MODELS", str(tmp_path / "none"))
    monkeypatch.setattr(find, "BUNDLED_FOLDER", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    out = str(picture.with_suffix(".glb"))
    assert command_line.main(["generate", str(picture), "--out", out]) == 2
    message = capsys.readouterr().err
    assert "first_stage.pt" in message and "second_stage.pt" in message
    assert command_line.main(["generate", str(picture), "--out", out, "--no-refine"]) == 2
    message = capsys.readouterr().err
    assert "first_stage.pt" in message and "second_stage.pt" not in message


def test_other_heads_are_other_weights(picture, weights, products, kept_run, capsys):
    _, folder = kept_run
    more = ["--set", "unet.head_channels=16", "--views-dir", str(folder)]
    assert command_line.main(arguments(picture, weights, *more)) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_frames_without_an_object_are_said_to_be_painted_and_where(
    picture, weights, kept_run, monkeypatch, capsys
):
    def finds_nothing(frames):
        raise ValueError("no object could be told from the background")

    monkeypatch.setattr(generate, "cut_out", finds_nothing)
    _, folder = kept_run
    assert command_line.main(arguments(picture, weights, "--views-dir", str(folder))) == 2
    message = capsys.readouterr().err
    assert "painted frames no object" in message and f"the frames are in {folder}" in message


@pytest.mark.parametrize("words", ["MPS backend out of memory", "can't allocate memory: 8 bytes"])
def test_running_out_of_memory_says_what_to_do(picture, weights, monkeypatch, capsys, words):
    def fails(*arguments):
        raise RuntimeError(words)

    monkeypatch.setattr(generate, "_generate_orbit", fails)
    assert command_line.main(arguments(picture, weights)) == 2
    assert "--guide apart" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_no_part(picture, weights, tmp_path, stop):
    views, out = tmp_path / "views", picture.with_suffix(".glb")
    command = [sys.executable, "-m", "hi3d_core", *arguments(picture, weights)]
    command += ["--steps", "400", "--no-refine", "--views-dir", str(views)]
    # What a shell starts in the background inherits that Ctrl-C is ignored; this process must not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    told = ""
    while "/417 " not in told:  # 1 condition, 400 steps, 16 frames
        character = process.stderr.read(1)
        assert character, told
        told += character
    time.sleep(0.1)
    process.send_signal(stop)
    code = process.wait(timeout=60)
    assert code == (-signal.SIGKILL if stop == signal.SIGKILL else 130)
    process.stderr.close()
    assert not out.exists()
    assert not (views / "orbit").exists()
    record = views / "settings.json"
    assert not record.exists() or "orbit" not in json.loads(record.read_text())
    assert not list(tmp_path.glob(".hi3d-*"))
