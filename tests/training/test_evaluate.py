"""Evaluation: scores of known numbers, rows that do what they say, runs that may be killed."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import Mesh
from hi3d_core.model_defaults import ModelDefaults
from hi3d_core.networks.depth_network import build_depth_network
from hi3d_core.optional import MissingDependency
from training import evaluate as command
from training.evaluate import Settings, evaluate, guess, measured
from training.evaluation import mesh_scores as meshes
from training.evaluation import perceptual
from training.evaluation.checks import diversity, elevation_check
from training.evaluation.image_scores import image_scores, resized
from training.evaluation.journal import Journal
from training.evaluation.painter import Painter
from training.evaluation.perceptual import Perceptual, open_perceptual
from training.evaluation.rows import ROWS
from training.evaluation.tables import markdown, summary
from training.evaluation.truth import Truth, Unusable, names_of, truths
from training.weights_naming import metadata_of, state_of

from ..core.tiny_models import TINY_DEPTH, filled, tiny_model

SIZE = 64


def orbit_of_levels(levels, size=SIZE):
    """Frames (F, S, S, 3), each of one level: white around a grey square."""
    frames = torch.ones(len(levels), size, size, 3)
    quarter = size // 4
    for frame, level in zip(frames, levels, strict=True):
        frame[quarter:-quarter, quarter:-quarter] = level
    return frames


LEVELS = torch.linspace(0.2, 0.6, 16)


@pytest.fixture
def truth():
    return Truth("box", 10.0, orbit_of_levels(LEVELS), None)


class Steady:
    """Paints from what it is told, without networks: darker by a tenth, and by 1 % a degree off."""

    size = SIZE

    def __init__(self, spread=0.0):
        self.painted, self.refined, self.spread = [], [], spread

    def paint(self, picture, elevation_degrees, seed):
        self.painted.append((round(float(picture.mean()), 4), elevation_degrees, seed))
        off = 0.01 * abs(elevation_degrees - 10.0)
        frames = (orbit_of_levels(LEVELS) - 0.1 - off).clamp(0, 1)
        frames[8] = (frames[8] + self.spread * seed).clamp(0, 1)
        return frames

    def refine(self, coarse, picture, elevation_degrees, seed, *, sees_depth):
        self.refined.append(sees_depth)
        return (coarse + (0.05 if sees_depth else 0.02)).clamp(0, 1)


def test_the_same_frames_have_the_best_scores_there_are(truth):
    scores = image_scores(truth.frames, truth.frames, None)
    assert scores == {"psnr": 100.0, "ssim": pytest.approx(1.0)}


def test_an_offset_has_its_exact_psnr_and_frame_0_does_not_count(truth):
    flat = torch.full((16, SIZE, SIZE, 3), 0.5)
    painted = flat + 0.1
    painted[0] = 0
    assert image_scores(painted, flat, None)["psnr"] == pytest.approx(20.0, abs=1e-4)
    painted[3] = flat[3] + 0.01
    assert image_scores(painted, flat, None)["psnr"] == pytest.approx((14 * 20 + 40) / 15, abs=1e-3)
    with pytest.raises(ValueError, match="15 frames, expected 16"):
        image_scores(flat[:15], flat, None)


def test_smaller_frames_are_enlarged_before_they_are_compared():
    large, small = orbit_of_levels(LEVELS, 128), orbit_of_levels(LEVELS, 64)
    enlarged = resized(small, 128)
    assert enlarged.shape == large.shape
    middle = np.s_[:, 48:80, 48:80]
    assert (enlarged[middle] - large[middle]).abs().max() <= 0.5 / 255
    assert torch.allclose(resized(large, 64), small)
    assert image_scores(small, large, None)["psnr"] > 25


def test_a_learned_distance_is_given_frames_one_to_fifteen(truth):
    seen = []

    def distance(pictures, others):
        seen.append((pictures, others))
        return (pictures - others).abs().mean(dim=(1, 2, 3))

    scores = image_scores(truth.frames + 0.1, truth.frames, Perceptual("mine", distance))
    assert scores["perceptual"] == pytest.approx(0.1, abs=1e-5)
    assert torch.equal(seen[0][1], truth.frames[1:])


def test_guesses_are_what_they_say(truth):
    mean = torch.rand(16, SIZE, SIZE, 3)
    assert torch.equal(guess("white", truth, None), torch.ones(16, SIZE, SIZE, 3))
    assert torch.equal(guess("mean", truth, mean), mean)
    repeated = guess("input", truth, None)
    assert all(torch.equal(frame, truth.frames[0]) for frame in repeated)
    # Known numbers: white is off by 1 - level on a quarter of the picture.
    expected = [-10 * np.log10(float((1 - level) ** 2) / 4) for level in LEVELS[1:]]
    scores = image_scores(guess("white", truth, None), truth.frames, None)
    assert scores["psnr"] == pytest.approx(np.mean(expected), abs=1e-3)


def test_each_row_is_painted_and_meshed_as_it_says(truth, monkeypatch):
    asked = []

    def scores(frames, elevation, true, quality, between, seed):
        asked.append((round(float(frames[5, 32, 32, 0]), 3), between, quality))
        return {"chamfer": 0.5, "iou": 0.25}

    monkeypatch.setattr(command, "mesh_scores", scores)
    triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    painter = Steady()
    settings = Settings("toys:1000000", seeds=0, checks_elevation=False)
    record, frames = measured(
        dataclasses.replace(truth, mesh=triangle), settings, painter, None, truth.frames
    )
    orbit, full, blind = (round(float(LEVELS[5]) - off, 3) for off in (0.1, 0.05, 0.08))
    assert asked == [
        (full, 0, "preview"),
        (orbit, 0, "preview"),
        (blind, 0, "preview"),
        *((full, between, "preview") for between in (16, 32, 48)),
    ]
    # Each is painted once, refined once in each way, all from the front and at the elevation.
    assert painter.painted == [(round(float(truth.frames[0].mean()), 4), 10.0, 0)]
    assert painter.refined == [True, False]
    rows = record["rows"]
    assert list(rows) == list(ROWS) and rows["mean"]["psnr"] == 100
    psnr = {name: round(rows[name]["psnr"], 2) for name in ("full", "no-refiner", "no-depth")}
    # An offset d on a quarter of the pixels, and half of it around, where white ends at 1.
    assert psnr["full"] > psnr["no-depth"] > psnr["no-refiner"]
    assert list(frames) == ["true", "orbit", "refined", "refined without depth"]


@pytest.fixture(scope="module")
def models():
    """Both stages at 64 pixels, one step, with a depth network."""
    depth = filled(build_depth_network(TINY_DEPTH), torch.Generator().manual_seed(2))
    told = ModelDefaults(SIZE, (1.0, 1.5), "euler", 1)
    refiner = dataclasses.replace(tiny_model("refiner"), depth=depth, own_defaults=told)
    return dataclasses.replace(tiny_model("orbit"), own_defaults=told), refiner


def test_without_depth_the_refiner_knows_none(models, truth):
    orbit, refiner = models
    other = filled(build_depth_network(TINY_DEPTH), torch.Generator().manual_seed(3))
    painters = [
        Painter(orbit, each) for each in (refiner, dataclasses.replace(refiner, depth=other))
    ]
    seeing, blind = (
        [
            painter.refine(truth.frames, truth.frames[0], 10.0, 0, sees_depth=sees)
            for painter in painters
        ]
        for sees in (True, False)
    )
    assert torch.equal(blind[0], blind[1])
    assert not torch.equal(seeing[0], seeing[1])
    assert not torch.equal(seeing[0], blind[0])


def test_the_painter_uses_all_that_it_is_given(models, truth):
    painter = Painter(*models)
    assert painter.size == SIZE

    def paint(picture=truth.frames[0], elevation=10.0, seed=0):
        return painter.paint(picture, elevation, seed)

    base = paint()
    assert torch.equal(paint(), base)
    for other in (paint(elevation=30.0), paint(seed=1), paint(picture=truth.frames[9])):
        assert not torch.equal(other, base)


def test_the_elevation_check_paints_at_the_true_and_a_wrong_one(truth):
    painter = Steady()
    orbit = painter.paint(truth.frames[0], 10.0, 3)
    found = elevation_check(painter, truth, orbit, seed=3)
    assert [call[1:] for call in painter.painted] == [(10.0, 3), (30.0, 3)]
    assert found["true"] == image_scores(orbit, truth.frames, None)["psnr"]
    assert found["wrong_degrees"] == 30.0 and found["true"] > found["wrong"] + 3
    # Where 20 degrees more are beyond what models know, it is 20 less.
    high = elevation_check(Steady(), dataclasses.replace(truth, elevation_degrees=35.0), orbit, 0)
    assert high["wrong_degrees"] == 15.0


def test_diversity_is_the_spread_over_seeds_of_back_and_front(truth):
    painter = Steady(spread=0.02)
    found = diversity(painter, truth, painter.paint(truth.frames[0], 10.0, 0), range(1, 3))
    # Frame 8 alone varies, by 0, 0.02 and 0.04: a deviation of 0.02, in one of five frames.
    assert found["back"] == pytest.approx(255 * 0.02 / 5, rel=1e-3)
    assert found["beside_front"] == pytest.approx(0, abs=1e-6)


def quick(out, painter, count=3, **settings):
    settings = Settings(
        "toys:1000000-1000002", count, rows=("no-refiner", "white"), quality=None, **settings
    )
    return evaluate(settings, painter, None, out, {"orbit": "mine"}, say=lambda line: None)


@pytest.fixture
def toys(monkeypatch):
    """Three toys that need not be drawn."""
    made = [Truth(f"toy-{n}", 10.0, orbit_of_levels(LEVELS - 0.02 * n), None) for n in range(3)]

    def given(source, size, count=None, meshes=None, skip=()):
        return (each for each in made[:count] if each.name not in skip)

    monkeypatch.setattr(command, "truths", given)
    monkeypatch.setattr(
        command, "names_of", lambda source, count=None: [each.name for each in made[:count]]
    )
    return made


class Killed(Steady):
    """Stops the run at its third orbit of the main pass."""

    def paint(self, picture, elevation_degrees, seed):
        if len(self.painted) == 2:
            raise KeyboardInterrupt
        return super().paint(picture, elevation_degrees, seed)


def test_a_killed_run_goes_on_where_it_was(tmp_path, toys):
    plain = {"seeds": 0, "checks_elevation": False}
    whole = quick(tmp_path / "whole", Steady(), **plain)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "killed", Killed(), **plain)
    kept = json.loads((tmp_path / "killed" / "results.json").read_text())["objects"]
    assert list(kept) == ["toy-0", "toy-1"]
    assert not (tmp_path / "killed" / "table.md").exists()
    painter = Steady()
    assert quick(tmp_path / "killed", painter, **plain) == whole
    assert len(painter.painted) == 1
    texts = [(tmp_path / each / "table.md").read_text() for each in ("whole", "killed")]
    assert texts[0] == texts[1]
    pictures = {each.name for each in (tmp_path / "killed" / "pictures").iterdir()}
    assert pictures == {"toy-0.png", "toy-1.png", "toy-2.png"}
    assert not list(tmp_path.rglob(".hi3d-*"))


def test_more_objects_join_and_other_settings_do_not(tmp_path, toys):
    plain = {"seeds": 0, "checks_elevation": False}
    assert quick(tmp_path, Steady(), count=2, **plain)["objects"] == 2
    assert quick(tmp_path, Steady(), **plain)["objects"] == 3
    assert quick(tmp_path, Steady(), count=2, **plain)["objects"] == 2
    with pytest.raises(ValueError, match="seed was 0, now 1"):
        quick(tmp_path, Steady(), **plain, seed=1)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match="not of this command's making"):
        quick(tmp_path, Steady(), **plain)


def test_the_mean_row_is_the_mean_of_the_training_orbits(tmp_path, toys):
    rows = {"rows": ("mean",), "quality": None, "seeds": 0, "checks_elevation": False}
    told = evaluate(
        Settings("toys:1000000-1000002", 3, **rows), Steady(), None, tmp_path, {}, lambda line: None
    )
    # The middle one of three is their mean, but for rounding: at least 48 dB; the others 0.02 off.
    values = sorted(
        record["rows"]["mean"]["psnr"]
        for record in json.loads((tmp_path / "results.json").read_text())["objects"].values()
    )
    assert values[2] > 48
    assert values[0] == pytest.approx(values[1], abs=1.5) and values[1] == pytest.approx(
        40, abs=1.5
    )
    assert told["rows"]["mean"]["psnr"]["count"] == 3


RECORDS = {
    "a": {
        "rows": {"full": {"psnr": 20.0, "ssim": 0.8, "chamfer": 0.01, "iou": 0.5}},
        "elevation_check": {"true": 20.0, "wrong": 18.0},
        "diversity": {"back": 6.0, "beside_front": 2.0},
    },
    "b": {
        "rows": {"full": {"psnr": 22.0, "ssim": 0.9, "failed": "no object"}},
        "elevation_check": {"true": 20.0, "wrong": 21.0},
        "diversity": {"back": 4.0, "beside_front": 2.0},
    },
    "c": {"skipped": "c/003.png can't be read"},
}


def test_a_table_says_what_the_records_say():
    told = summary(RECORDS, ["full"])
    row = told["rows"]["full"]
    assert row["psnr"] == {"mean": 21.0, "error": pytest.approx(1.0), "count": 2}
    assert row["chamfer"] == {"mean": 0.01, "error": 0.0, "count": 1}
    assert row["meshes_failed"] == 1 and row["perceptual"] is None and told["objects"] == 2
    assert told["checks"]["elevation"]["better_when_true"] == 1
    assert told["skipped"] == {"c": "c/003.png can't be read"}
    settings = {"source": "here", "size": 64, "seeds": 4, "perceptual": None}
    text = markdown(told, settings)
    assert (
        "| full model (1 without a mesh) | 21.00 ± 1.00 | 0.850 ± 0.050 | 0.0100 ± 0.0000 |" in text
    )
    assert "better for 1 of 2" in text and "backs vary by 5.0 ± 1.0" in text
    assert "1 objects could not be used: c." in text and "LPIPS" not in text
    assert "| ST-LPIPS |" in markdown(told, {**settings, "perceptual": "ST-LPIPS"})


def test_frames_without_an_object_give_no_mesh_and_say_so():
    triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    found = meshes.mesh_scores(torch.ones(16, SIZE, SIZE, 3), 0.0, triangle, "preview", 0, 0)
    assert set(found) == {"failed"} and "object" in found["failed"]


def test_meshes_are_made_with_m_views_in_between_and_measured(monkeypatch, truth):
    asked = []
    cube = Mesh(*box())

    def reconstruct(views, config, *, seed):
        asked.append((config.interpolate, len(views), seed))
        expected = Cameras.orbit(16, 10.0, width=SIZE, height=SIZE)
        assert torch.equal(views.cameras.camera_to_world, expected.camera_to_world)
        half = Mesh(cube.vertices * torch.tensor([0.5, 1.0, 1.0]), cube.faces)
        return type("Found", (), {"mesh": half})()

    monkeypatch.setattr(meshes, "reconstruct", reconstruct)
    found = meshes.mesh_scores(truth.frames, 10.0, cube, "preview", 32, seed=4)
    assert asked == [(32, 16, 4)]
    assert found["iou"] == pytest.approx(0.5, abs=0.03) and 0.02 < found["chamfer"] < 0.2


def box():
    """The cube of side 0.8, closed, faces outwards."""
    corners = torch.tensor([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]).float()
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))]
    return (corners - 0.5) * 0.8, torch.tensor(faces)


def write_orbit(folder, frames=16, size=SIZE, level=90):
    folder.mkdir(parents=True)
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[size // 4 : -size // 4, size // 4 : -size // 4] = (level, level, level, 255)
    for number in range(frames):
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


def test_a_folder_is_measured_but_for_what_is_damaged_in_it(tmp_path):
    for name in ("a", "b", "c"):
        write_orbit(tmp_path / "images" / name)
    write_orbit(tmp_path / "images" / "short", frames=15)
    (tmp_path / "images" / "b" / "007.png").write_bytes(b"no picture")
    (tmp_path / "extras" / "a").mkdir(parents=True)
    (tmp_path / "extras" / "a" / "manifest.json").write_text('{"source": "toy 1000001"}')
    found = list(truths(str(tmp_path), SIZE))
    assert [each.name for each in found] == ["a", "b", "c"] == names_of(str(tmp_path))
    assert isinstance(found[1], Unusable) and "007.png" in found[1].reason
    assert found[0].mesh is not None and found[2].mesh is None
    assert found[0].elevation_degrees == -10.0 and found[0].frames.shape == (16, SIZE, SIZE, 3)
    assert float(found[0].frames[4, 32, 32, 0]) == pytest.approx(90 / 255, abs=1.1 / 255)
    assert float(found[0].frames[4, 0, 0, 0]) == 1.0
    assert [each.name for each in truths(str(tmp_path), SIZE, 2, skip={"a"})] == ["b"]


def test_the_damaged_are_counted_and_nothing_but_damaged_is_an_error(tmp_path):
    write_orbit(tmp_path / "images" / "a")
    write_orbit(tmp_path / "images" / "b")
    (tmp_path / "images" / "b" / "007.png").write_bytes(b"no picture")
    plain = {"rows": ("no-refiner",), "quality": None, "seeds": 0, "checks_elevation": False}
    said = []
    told = evaluate(
        Settings(str(tmp_path), **plain), Steady(), None, tmp_path / "out", {}, said.append
    )
    assert told["objects"] == 1 and list(told["skipped"]) == ["b"]
    assert "007.png" in said[1]
    (tmp_path / "images" / "a" / "000.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"none of the 2 objects.*000\.png"):
        evaluate(
            Settings(str(tmp_path), **plain), Steady(), None, tmp_path / "new", {}, said.append
        )


def test_pictures_smaller_than_the_models_are_no_truth(tmp_path):
    write_orbit(tmp_path / "images" / "a", size=32)
    (tmp_path / "dataset.json").write_text('{"hi3d_dataset": {"size": 32}}')
    with pytest.raises(ValueError, match="32 pixels wide, the model paints 64"):
        list(truths(str(tmp_path), SIZE))


def call(tmp_path, *arguments):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--out", str(tmp_path / "out"), *map(str, arguments)])
    return str(stopped.value.code)


def test_bad_input_is_said_in_a_sentence(tmp_path, models):
    from safetensors.torch import save_file

    (tmp_path / "empty").mkdir()
    assert "holds no object" in call(tmp_path, "--data", tmp_path / "empty")
    assert "does not exist" in call(tmp_path, "--data", tmp_path / "nowhere")
    assert "no row" in call(tmp_path, "--rows", "full,best")
    assert "--objects is 0" in call(tmp_path, "--objects", 0)
    assert "held out" in call(tmp_path, "--seed", 999_999)
    path = tmp_path / "refiner.safetensors"
    state = {name: tensor.clone().contiguous() for name, tensor in state_of(models[1]).items()}
    save_file(state, path, metadata_of(models[1]))
    said = call(
        tmp_path, "--rows", "no-refiner", "--orbit-checkpoint", path, "--perceptual", "none"
    )
    assert "is stage 2, the refiner" in said
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    for name in ("lpips", "stlpips_pytorch"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install lpips" in call(tmp_path, "--perceptual", "lpips")
    with pytest.raises(MissingDependency, match="pip install stlpips-pytorch"):
        open_perceptual("st-lpips")
    said = []
    assert open_perceptual("auto", said.append) is None
    assert "pip install lpips" in said[0] and "stlpips-pytorch" in said[0]
    assert open_perceptual("none", said.append) is None and len(said) == 1
    with pytest.raises(ValueError, match="expected one of auto"):
        open_perceptual("vgg")


def test_alexnets_weights_are_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lpips", type(sys)("lpips"))
    monkeypatch.setattr(perceptual.torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingDependency, match=r"alexnet-owt-7be5be79\.pth is not there"):
        open_perceptual("lpips")


def test_a_journal_is_whole_after_each_object(tmp_path):
    journal = Journal(tmp_path / "results.json", {"rows": ("a",)})
    journal.add("x", {"rows": {}})
    assert Journal(tmp_path / "results.json", {"rows": ["a"]}).objects == {"x": {"rows": {}}}
