"""The generate command as users meet it, with networks that draw a ball instead of painting."""

import json
import weakref
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from hi3d_core import __main__ as command_line
from hi3d_core import pipeline
from hi3d_core.cameras import Cameras
from hi3d_core.commands import generate
from hi3d_core.model_defaults import OFFICIAL, ModelDefaults
from hi3d_core.splat.fit import SplatConfig
from hi3d_core.surface.fit import Level, SurfaceConfig
from hi3d_core.texture import TextureConfig
from hi3d_core.views_folder import as_stored
from hi3d_core.weights import find

from .synthetic import sphere_views

QUICK = pipeline.ReconstructConfig(
    interpolate=0,
    face_budget=1500,
    splat=SplatConfig(count=600, size=64, iterations=10),
    surface=SurfaceConfig(levels=(Level(24, 64, 10), Level(32, 64, 10)), rays=4096),
    texture=TextureConfig(size=128),
)


@cache
def ball(size, seed=0):
    """(16, S, S, 3): a ball whose size tells the seed."""
    cameras = Cameras.orbit(16, 10.0, width=size, height=size)
    return sphere_views(cameras, radius=0.4 - 0.01 * seed, supersample=2).images


class Painters:
    """Stand-ins for the networks, and what they were asked."""

    def __init__(self):
        self.calls = []
        self.orbit_model = lambda: None
        self.fails_at = {}

    def check(self, path, stage, image_encoder, depth):
        if path.read_text() == "broken":
            raise ValueError(f"{path} is broken")
        small = ModelDefaults({"orbit": 128, "refiner": 256}[stage], (1.0, 1.5), "fast", 3)
        return small if path.parent.name == "tiny" else OFFICIAL[stage]

    def load(self, path, stage, **settings):
        self.calls.append(("load", stage, path.name, settings["dtype"]))
        model = type("Model", (), {})()
        model.itself = model  # as the parts of networks refer to each other
        if stage == "orbit":
            self.orbit_model = weakref.ref(model)
        else:
            assert self.orbit_model() is None, "two stages' networks in memory"
        return model

    def work(self, stage, on_step):
        for step in range(3):
            on_step(step + 1, 3)
            if self.fails_at.get(stage) == step:
                raise KeyboardInterrupt

    def orbit(self, request, settings, model, picture, on_step):
        self.calls.append(("orbit", settings.size, request.elevation_degrees, settings.steps))
        self.picture = picture
        self.work("orbit", on_step)
        draw = torch.rand(1, generator=request.generator())
        return (ball(settings.size, seed=request.seed) - 1e-4 * draw).clamp(0, 1)

    def refine(self, request, settings, model, orbit, picture, on_step):
        self.calls.append(("refine", tuple(orbit.shape), tuple(picture.shape)))
        self.coarse = orbit
        self.work("refine", on_step)
        draw = torch.rand(1, generator=request.generator())
        tint = orbit.mean() * 0.01
        return (ball(settings.size, seed=request.seed) - 1e-4 * draw - tint).clamp(0, 1)

    @property
    def stages(self):
        return [call[0] for call in self.calls if call[0] != "load"]


@pytest.fixture
def painters(monkeypatch):
    painters = Painters()
    monkeypatch.setitem(pipeline.QUALITIES, "preview", QUICK)
    monkeypatch.setattr(generate, "_check_weights", painters.check)
    monkeypatch.setattr(generate, "_load_model", painters.load)
    monkeypatch.setattr(generate, "_generate_orbit", painters.orbit)
    monkeypatch.setattr(generate, "_refine_orbit", painters.refine)
    monkeypatch.setenv("HI3D_MODELS", "")
    monkeypatch.setattr(find, "BUNDLED_FOLDER", Path("no small model"))
    return painters


@pytest.fixture
def products(monkeypatch):
    """Skip the keying and the reconstruction; keep the views that it would get."""
    kept = []

    def cut_out(images):
        return images, (images.amin(dim=3) < 1).float()

    def keep(views, config, arguments, clock, about, device):
        clock.end()
        kept.append(views)
        arguments.out.write_text("mesh")

    monkeypatch.setattr(generate, "cut_out", cut_out)
    monkeypatch.setattr(generate, "make_products", keep)
    return kept


@pytest.fixture
def work(tmp_path, monkeypatch, painters) -> Path:
    """A folder with a cut-out ball and two checkpoints, in which the command runs."""
    view = sphere_views(Cameras.orbit(1, 10, width=96, height=96))
    alpha = view.alphas[0].numpy()
    colors = (view.images[0].numpy() - 1 + alpha[..., None]) / np.maximum(alpha, 1e-3)[..., None]
    pixels = np.dstack([colors.clip(0, 1), alpha])
    Image.fromarray((pixels * 255).round().astype(np.uint8)).save(tmp_path / "ball.png")
    for name in ("first.pt", "second.pt"):
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


WEIGHTS = ("--orbit-checkpoint", "first.pt", "--refiner-checkpoint", "second.pt")


def call(*arguments: object) -> int:
    return command_line.main([str(argument) for argument in arguments])


def run(*arguments, weights=WEIGHTS, image="ball.png", out="x.glb"):
    return call(
        "generate", image, "--out", out, "--size", 64, "--elevation", 10, "--quality", "preview",
        *weights, *arguments,
    )  # fmt: skip


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


KEPT = {"settings.json", "picture.png", "orbit", "refined"} | {
    f"{stage}/{index:03d}.png" for stage in ("orbit", "refined") for index in range(16)
}


def test_a_picture_becomes_a_mesh(work, painters, capsys):
    before = names(work)
    code = run("--report", "x.json", "--splat-out", "x.ply", "--sheet", "x.png", "--seed", 0)
    assert code == 0, capsys.readouterr().err
    assert names(work) - before == {"x.glb", "x.json", "x.ply", "x.png"}
    mesh = trimesh.load(work / "x.glb", force="mesh")
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(0.4, abs=0.1)
    report = json.loads((work / "x.json").read_text())
    assert report["source"] == "ball.png"
    assert report["generation"]["elevation"] == 10 and report["generation"]["dtype"] == "fp32"
    assert {"picture", "load orbit", "orbit", "load refiner", "refine", "masks", "surface"} <= set(
        report["seconds"]
    )
    assert report["views"]["mean_mask_iou"] > 0.9
    assert painters.calls == [
        ("load", "orbit", "first.pt", torch.float32),
        ("orbit", 64, 10.0, 25),
        ("load", "refiner", "second.pt", torch.float32),
        ("refine", (16, 64, 64, 3), (128, 128, 3)),
    ]
    assert painters.picture.shape == (64, 64, 3) and painters.picture[0].min() == 1


def test_stages_are_kept_and_taken_up_again(work, painters, products):
    assert run("--views-dir", "views") == 0
    assert names(work / "views") == KEPT
    shown = np.asarray(Image.open(work / "views" / "picture.png"))
    assert np.array_equal(shown, (painters.picture * 255).round().byte().numpy())
    assert run("--views-dir", "views") == 0
    assert painters.stages == ["orbit", "refine"]
    assert torch.equal(products[0].images, products[1].images)
    # Neither weights nor the number format matter to what is done.
    assert run("--views-dir", "views", weights=()) == 0
    assert torch.equal(products[0].images, products[2].images)
    assert names(work / "views") == KEPT


def test_a_run_in_two_parts_equals_one_without_a_break(work, painters, products):
    assert run("--no-refine", "--views-dir", "parts") == 0
    assert run("--views-dir", "parts") == 0
    assert run() == 0
    assert painters.stages == ["orbit", "refine", "orbit", "refine"]
    assert products[0].images.shape[1] == 64
    assert products[1].images.shape[1] == 128
    assert torch.equal(products[1].images, products[2].images)
    assert torch.equal(products[1].alphas, products[2].alphas)


@pytest.mark.parametrize(
    ("option", "word"),
    [
        (("--seed", 1), "seed was 0, now 1"),
        (("--elevation", 11), "elevation was 10.0, now 11.0"),
        (("--steps", 7), "steps was 25, now 7"),
        (("--solver", "heun"), "solver was euler"),
        (("--size", 128), "size was 64, now 128"),
        (("--aesthetic", 5), "aesthetic was computed, now 5.0"),
        (("--foreground-ratio", 0.8), "foreground ratio was none, now 0.8"),
        (("--dtype", "bf16"), "dtype was fp32, now bf16"),
        (("--mask", "mask.png"), "mask was none"),
        (("--orbit-checkpoint", "second.pt"), "orbit checkpoint was"),
        (("--image-encoder", "second.pt"), "image encoder was None"),
    ],
)
def test_other_settings_are_refused_by_name(work, painters, products, capsys, option, word):
    Image.open(work / "ball.png").getchannel("A").save(work / "mask.png")
    assert run("--views-dir", "views", "--no-refine") == 0
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    assert run("--views-dir", "views", "--no-refine", *option, out="y.glb") == 2
    told = capsys.readouterr().err
    assert word in told and "--overwrite" in told and "another folder" in told
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before
    assert painters.stages == ["orbit"]


def test_another_picture_is_refused(work, products, capsys):
    assert run("--views-dir", "views") == 0
    Image.open(work / "ball.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("other.png")
    assert run("--views-dir", "views", image="other.png") == 2
    assert "picture was" in capsys.readouterr().err


def test_overwriting_makes_again_what_changed(work, painters, products):
    assert run("--views-dir", "views") == 0
    assert run("--views-dir", "views", "--overwrite") == 0
    assert painters.stages == ["orbit", "refine"]
    assert run("--views-dir", "views", "--overwrite", "--seed", 2) == 0
    assert painters.stages == ["orbit", "refine"] * 2
    assert run("--seed", 2) == 0
    assert torch.equal(products[2].images, products[3].images)
    assert not torch.equal(products[0].images, products[2].images)
    # Only the second stage depends on its weights.
    assert run("--views-dir", "views", "--overwrite", "--seed", 2, weights=(
        "--orbit-checkpoint", "first.pt", "--refiner-checkpoint", "first.pt",
    )) == 0  # fmt: skip
    assert painters.stages == ["orbit", "refine"] * 3 + ["refine"]


def test_retouched_frames_are_used(work, painters, products, capsys):
    assert run("--views-dir", "views", "--no-refine") == 0
    path = work / "views" / "orbit" / "003.png"
    frame = Image.open(path)
    frame.paste((0, 0, 255), (28, 28, 36, 36))
    frame.save(path)
    assert run("--views-dir", "views") == 0
    assert painters.coarse[3, 30, 30].tolist() == [0, 0, 1]
    # The refined orbit is of these frames: others are not silently ignored.
    frame.paste((0, 255, 0), (28, 28, 36, 36))
    frame.save(path)
    assert run("--views-dir", "views") == 2
    assert "orbit was" in capsys.readouterr().err
    assert run("--views-dir", "views", "--overwrite") == 0
    assert painters.stages == ["orbit", "refine", "refine"]
    assert painters.coarse[3, 30, 30].tolist() == [0, 1, 0]
    path = work / "views" / "refined" / "005.png"
    frame = Image.open(path)
    frame.paste((0, 0, 255), (60, 60, 70, 70))
    frame.save(path)
    assert run("--views-dir", "views") == 0
    assert products[-1].images[5, 64, 64].tolist() == pytest.approx([0, 0, 1], abs=0.02)


@pytest.mark.parametrize("stage", ["orbit", "refine"])
def test_control_c_keeps_whole_stages_only(work, painters, products, capsys, stage):
    painters.fails_at = {stage: 1}
    before = names(work)
    assert run("--views-dir", "views") == 130
    if stage == "orbit":
        assert names(work) == before
    else:
        assert names(work / "views") == {name for name in KEPT if not name.startswith("refined")}
    painters.fails_at = {}
    assert run("--views-dir", "views") == 0
    assert run() == 0
    assert torch.equal(products[0].images, products[1].images)


def test_control_c_while_a_stage_is_written(work, painters, products, monkeypatch):
    save, saved = Image.Image.save, []

    def cancelled(image, file, *rest):
        saved.append(file)
        if len(saved) == 5:
            raise KeyboardInterrupt
        save(image, file, *rest)

    before = names(work)
    monkeypatch.setattr(Image.Image, "save", cancelled)
    assert run("--views-dir", "views") == 130
    assert names(work) == before


def test_the_orbit_is_put_where_the_elevation_says(work, products):
    assert run("--no-refine") == 0
    (views,) = products
    assert torch.allclose(
        views.cameras.camera_to_world, Cameras.orbit(16, 10.0).camera_to_world, atol=1e-6
    )
    assert (views.cameras.width, views.cameras.height) == (64, 64)
    assert torch.equal(as_stored(views.images), views.images)


def test_a_mask_of_ones_own(work, painters, products):
    green = Image.new("RGB", (96, 96), (30, 200, 60))
    ball = Image.open(work / "ball.png")
    green.paste(ball, mask=ball.getchannel("A"))
    green.save("green.png")
    ball.getchannel("A").save("mask.png")
    assert run("--no-refine") == 0
    cut_out = painters.picture
    assert run("--no-refine", "--mask", "mask.png", image="green.png") == 0
    # No green is left along the outline.
    assert float((painters.picture - cut_out).abs().max()) < 0.02


BAD = [
    (("--elevation", "nan"), "elevation"),
    (("--elevation", "inf"), "elevation"),
    (("--elevation", "91"), "elevation"),
    (("--size", "100"), "--size"),
    (("--size", "0"), "--size"),
    (("--size", "1088"), "64 to 1024"),
    (("--steps", "0"), "--steps"),
    (("--seed", "-1"), "--seed"),
    (("--aesthetic", "nan"), "--aesthetic"),
    (("--foreground-ratio", "2"), "--foreground-ratio"),
    (("--foreground-ratio", "nan"), "--foreground-ratio"),
    (("--mask", "nowhere.png"), "nowhere.png"),
    (("--orbit-checkpoint", "nowhere.pt"), "nowhere.pt"),
    (("--refiner-checkpoint", "nowhere.pt"), "nowhere.pt"),
    (("--image-encoder", "nowhere.pt"), "nowhere.pt"),
    (("--depth-checkpoint", "nowhere.pt"), "nowhere.pt"),
    (("--views-dir", "no/such/folder"), "does not exist"),
    (("--views-dir", "first.pt"), "is a file"),
    (("--overwrite",), "--views-dir"),
    (("--report", "x.txt"), ".json"),
    (("--out", "x.fbx"), ".fbx"),
    (("--out", "no/x.glb"), "does not exist"),
    (("--sheet", "ball.png"), "is the input picture"),
    (("--interpolate", "-1"), "--interpolate"),
    (("--device", "mps"), "--device"),
]


@pytest.mark.parametrize(("option", "word"), BAD)
def test_bad_options_say_so_before_any_work(work, painters, capsys, monkeypatch, option, word):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    before = names(work)
    assert run(*option) == 2
    assert word in capsys.readouterr().err
    assert names(work) == before and painters.calls == []


def test_missing_weights_are_said_before_any_work(work, painters, capsys):
    assert run(weights=()) == 2
    assert "refiner" in capsys.readouterr().err
    assert run("--no-refine", weights=()) == 2
    assert "orbit model" in capsys.readouterr().err
    assert run(weights=WEIGHTS[:2]) == 2  # not after the orbit is painted
    assert "refiner" in capsys.readouterr().err
    (work / "second.pt").write_text("broken")
    assert run() == 2
    assert "second.pt is broken" in capsys.readouterr().err
    assert painters.calls == []


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The package's small model."""
    folder = tmp_path / "package" / "tiny"
    folder.mkdir(parents=True)
    for stage in ("orbit", "refiner"):
        (folder / f"{stage}.safetensors").write_text(f"tiny {stage}")
    monkeypatch.setattr(find, "BUNDLED_FOLDER", folder)
    return folder


def generate_from(*arguments):
    return call("generate", "ball.png", "--out", "x.glb", "--elevation", 10, *arguments)


PAINTED_BY_TINY = [
    ("load", "orbit", "orbit.safetensors", torch.float32),
    ("orbit", 128, 10.0, 3),
    ("load", "refiner", "refiner.safetensors", torch.float32),
    ("refine", (16, 128, 128, 3), (256, 256, 3)),
]


def test_without_weights_the_small_model_paints_as_it_says(work, painters, products, tiny, caplog):
    caplog.set_level("INFO")
    assert generate_from("--views-dir", "views") == 0
    assert painters.calls == PAINTED_BY_TINY
    assert products[0].images.shape == (16, 256, 256, 3)
    said = [message for message in caplog.messages if "hi3d-tiny" in message]
    assert len(said) == 1 and "first_stage.pt" in said[0] and "second_stage.pt" in said[0]
    record = json.loads((work / "views" / "settings.json").read_text())["hi3d_views"]
    for stage, size in (("orbit", 128), ("refined", 256)):
        kept = {key: record[stage][key] for key in ("size", "solver", "steps")}
        assert kept == {"size": size, "solver": "fast", "steps": 3}
    # What nobody named is not asked of the kept stages; what is named is.
    assert generate_from("--views-dir", "views") == 0
    assert painters.calls == PAINTED_BY_TINY
    assert generate_from("--views-dir", "views", "--steps", 4) == 2


def test_the_small_model_takes_a_size_that_is_given(work, painters, products, tiny):
    assert generate_from("--size", 64, "--steps", 2) == 0
    assert painters.calls[1] == ("orbit", 64, 10.0, 2)
    assert painters.calls[3] == ("refine", (16, 64, 64, 3), (128, 128, 3))


@pytest.mark.parametrize("named", [WEIGHTS[:2], WEIGHTS[2:]])
def test_one_stage_of_another_model_is_not_completed_by_it(work, painters, tiny, capsys, named):
    before = names(work)
    assert run(weights=named) == 2
    said = capsys.readouterr().err
    missing = "second_stage.pt" if named == WEIGHTS[:2] else "first_stage.pt"
    assert missing in said and "--no-refine" in said and "does not stand in" in said
    assert painters.calls == [] and names(work) == before


def test_a_kept_orbit_is_refined_by_its_own_model(
    work, painters, products, tiny, capsys, monkeypatch
):
    assert run("--views-dir", "theirs", "--no-refine", weights=WEIGHTS[:2]) == 0
    assert run("--views-dir", "theirs", weights=()) == 2
    assert "second_stage.pt" in capsys.readouterr().err
    assert run("--views-dir", "theirs", weights=("--refiner-checkpoint", "hi3d-tiny")) == 0
    assert generate_from("--views-dir", "tiny", "--no-refine") == 0
    painters.calls.clear()
    (work / "second_stage.pt").write_text("theirs")
    monkeypatch.setenv("HI3D_MODELS", str(work))
    assert generate_from("--views-dir", "tiny") == 0
    assert painters.calls == PAINTED_BY_TINY[2:]


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (Image.new("RGB", (1, 1)), "1 x 1"),
        (Image.new("RGB", (64, 64), "white"), "no object"),
        (Image.new("RGBA", (64, 64), (200, 0, 0, 0)), "empty"),
        (None, "can't be read"),
    ],
)
def test_bad_pictures_say_so_and_leave_nothing(work, painters, capsys, image, word):
    if image is None:
        (work / "bad.png").write_bytes(b"")
    else:
        image.save("bad.png")
    before = names(work)
    assert run("--views-dir", "views", image="bad.png") == 2
    assert word in capsys.readouterr().err
    assert names(work) == before and painters.calls == []


def test_the_prepared_picture_is_not_an_input_for_the_same_folder(work, products, capsys):
    assert run("--views-dir", "views") == 0
    assert run("--views-dir", "views", image="views/picture.png") == 2
    assert "is the input picture" in capsys.readouterr().err


def test_a_folder_with_an_orbit_of_ones_own_is_left_alone(work, painters, capsys):
    (work / "views" / "orbit").mkdir(parents=True)
    (work / "views" / "orbit" / "000.png").write_text("mine")
    for option in ((), ("--overwrite",)):
        assert run("--views-dir", "views", *option) == 2
        assert "not made by this command" in capsys.readouterr().err
    assert names(work / "views") == {"orbit", "orbit/000.png"}
    assert painters.calls == []
