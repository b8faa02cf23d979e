"""The diffusion nodes on real networks of a tiny width, from files as users have them."""

import dataclasses
import importlib
import os
import shutil
import sys

import pytest
import torch
from safetensors.torch import save_file

from hi3d_core.depth import estimate_depth
from hi3d_core.model_defaults import ModelDefaults
from hi3d_core.networks.depth_network import build_depth_network
from hi3d_core.orbit import OrbitConfig, generate_orbit
from hi3d_core.picture import prepare_picture
from hi3d_core.refine import RefineConfig, refine_orbit
from hi3d_core.weights.convert import convert
from hi3d_core.weights.load import load_video_model
from training.weights_naming import metadata_of, state_of

from ..core.test_weights_load import save_official
from ..core.tiny_models import TINY_DEPTH, filled, tiny_model

# Old hosts differ in meshes and splats alone.
pytestmark = pytest.mark.parametrize("pack_on_a_stand_in", [False], indirect=True, ids=["host"])

UNSEEN = {"unet": {"head_channels": 8}, "image_encoder": {"heads": 2}, "depth": {"heads": 2}}
SIZE = 64


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """hi3d_orbit.safetensors and hi3d_refiner.safetensors, float32."""
    folder = tmp_path_factory.mktemp("weights")
    depth = filled(build_depth_network(TINY_DEPTH), torch.Generator().manual_seed(2))
    models = {
        "orbit": tiny_model("orbit"),
        "refiner": dataclasses.replace(tiny_model("refiner"), depth=depth),
    }
    for stage, model in models.items():
        source = save_official(model, folder / f"{stage}.pt")
        convert(source, folder / f"hi3d_{stage}.safetensors", dtype=None, unseen=UNSEEN)
        source.unlink()
    return folder


@pytest.fixture(autouse=True)
def no_small_model(tmp_path, pack_on_a_stand_in, monkeypatch):
    find = importlib.import_module(f"{pack_on_a_stand_in.__name__}.hi3d_core.weights.find")
    monkeypatch.setattr(find, "BUNDLED_FOLDER", tmp_path / "none")


@pytest.fixture
def models(tmp_path, pack_on_a_stand_in, weights):
    """The host's folder for models, with the weights in it."""
    folder = tmp_path / "models" / "hi3d"
    folder.mkdir(parents=True, exist_ok=True)
    for file in weights.iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.fixture
def loaded(node, models):
    settings = {"orbit_checkpoint": "auto", "refiner_checkpoint": "auto", "depth_model": "auto"}
    return node["Hi3DLoader"].execute(**settings, dtype="fp32").args[0]


@pytest.fixture
def picture():
    image = torch.ones(1, SIZE, SIZE, 3)
    image[:, 16:48, 20:44] = torch.tensor([204, 51, 26]) / 255
    return image


@pytest.fixture
def sees_all(monkeypatch, pack_on_a_stand_in):
    """Untrained networks paint no object: frames are taken whole."""
    masks = importlib.import_module(f"{pack_on_a_stand_in.__name__}.hi3d_core.masks")
    really = masks.cut_out

    def cut_out(pictures, alphas=None):
        whole = alphas is None and len(pictures) == 16
        return (pictures, pictures[..., 0]) if whole else really(pictures, alphas)

    monkeypatch.setattr(masks, "cut_out", cut_out)


def test_a_picture_becomes_the_librarys_orbit(node, loaded, weights, picture, sees_all):
    settings = {"steps": 2, "solver": "euler", "guidance": 2.0, "size": SIZE}
    with torch.inference_mode():
        sampled = node["Hi3DOrbitVideoSampler"].execute(
            loaded, picture, elevation=12.0, seed=5, **settings
        )
    frames, masks, cameras = sampled.args
    expected = generate_orbit(
        load_video_model(weights / "hi3d_orbit.safetensors", "orbit"),
        picture[0],
        12.0,
        OrbitConfig(size=SIZE, steps=2, guidance=(1.0, 2.0)),
        generator=torch.Generator().manual_seed(5),
    )
    assert torch.equal(frames, expected)
    assert masks.shape == (16, SIZE, SIZE)
    assert len(cameras) == 16 and cameras.width == SIZE
    heights = 1.5 * torch.sin(torch.deg2rad(torch.tensor(12.0)))
    assert torch.allclose(cameras.positions[:, 1], heights.expand(16), atol=1e-5)
    told = sys.modules["comfy.utils"].told
    assert told[-1][0] == told[-1][1] == 1 + 2 + 16
    needed, device = sys.modules["comfy.model_management"].freed[0]
    assert needed > 1e5 and device.type == "cpu"


def test_an_orbit_is_refined_with_depth_from_any_source(node, loaded, weights, picture, sees_all):
    frames = torch.rand(16, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))
    shown, depth = node["Hi3DDepthEstimator"].execute(loaded, frames).args
    networks = load_video_model(weights / "hi3d_refiner.safetensors", "refiner")
    assert torch.equal(depth, estimate_depth(networks, frames))
    assert shown.shape == frames.shape and torch.equal(shown[..., 1], depth)
    settings = {"elevation": 3.0, "strength": 0.5, "seed": 9, "steps": 2, "solver": "euler"}
    refiner = node["Hi3DVideoRefiner"].execute
    for given in (depth, shown):
        refined, masks = refiner(loaded, frames, picture, size=128, depth=given, **settings).args
        expected = refine_orbit(
            networks,
            frames,
            picture[0],
            3.0,
            RefineConfig(size=128, steps=2, strength=0.5),
            generator=torch.Generator().manual_seed(9),
            depths=depth,
        )
        assert torch.allclose(refined, expected, atol=2 / 255)
        assert masks.shape == (16, 128, 128)


def test_the_loader_reads_nothing_until_a_stage_is_needed(loaded, models):
    (models / "hi3d_refiner.safetensors").unlink()
    orbit = loaded.stage("orbit")
    assert loaded.stage("orbit") is orbit
    with pytest.raises(ValueError, match=r"second_stage\.pt") as raised:
        loaded.stage("refiner")
    # What it is called, how large it is, who offers it, and where it belongs.
    for part in ("5.0 GB", "huggingface.co/hbyang/Hi3D", str(models)):
        assert part in str(raised.value)


def test_the_loader_lists_files_and_notices_changes(node, models):
    schema = node["Hi3DLoader"].define_schema()
    assert schema.inputs[0].options[0] == "auto"
    assert {"hi3d_orbit.safetensors", "hi3d_refiner.safetensors"} < set(schema.inputs[0].options)
    chosen = {
        "orbit_checkpoint": "hi3d_orbit.safetensors",
        **{"refiner_checkpoint": "auto", "depth_model": "auto", "dtype": "auto"},
    }
    finger = node["Hi3DLoader"].fingerprint_inputs
    before = finger(**chosen)
    assert finger(**chosen) == before
    file = models / "hi3d_orbit.safetensors"
    stamp = file.stat().st_mtime_ns + 10**9
    os.utime(file, ns=(stamp, stamp))
    assert finger(**chosen) != before
    file.unlink()
    model = node["Hi3DLoader"].execute(**chosen).args[0]
    with pytest.raises(ValueError, match=r"hi3d_orbit\.safetensors is no longer"):
        model.stage("orbit")


@pytest.fixture
def bundled(tmp_path, pack_on_a_stand_in, weights, monkeypatch):
    """The small model that comes with the pack, painting 64 pixels and 128, in two steps."""
    folder = tmp_path / "package" / "tiny"
    folder.mkdir(parents=True)
    for stage, size in (("orbit", SIZE), ("refiner", 2 * SIZE)):
        model = load_video_model(weights / f"hi3d_{stage}.safetensors", stage)
        tensors = {name: each.clone().contiguous() for name, each in state_of(model).items()}
        told = ModelDefaults(size, (1.0, 1.5), "heun", 2).to_metadata()
        save_file(tensors, folder / f"{stage}.safetensors", {**metadata_of(model), **told})
    find = importlib.import_module(f"{pack_on_a_stand_in.__name__}.hi3d_core.weights.find")
    monkeypatch.setattr(find, "BUNDLED_FOLDER", folder)
    return folder


OWN = {"steps": 0, "solver": "auto", "size": 0}  # all left to the model
AUTO = {"orbit_checkpoint": "auto", "refiner_checkpoint": "auto", "depth_model": "auto"}


def test_without_files_the_small_model_paints_and_refines_as_it_says(
    node, bundled, picture, sees_all
):
    loaded = node["Hi3DLoader"].execute(**AUTO, dtype="fp32").args[0]
    frames, _, cameras = (
        node["Hi3DOrbitVideoSampler"]
        .execute(loaded, picture, elevation=0.0, seed=5, guidance=0.0, **OWN)
        .args
    )
    orbit = load_video_model(bundled / "orbit.safetensors", "orbit")
    expected = generate_orbit(
        orbit,
        picture[0],
        0.0,
        OrbitConfig(size=SIZE, steps=2, solver="heun", guidance=(1.0, 1.5)),
        generator=torch.Generator().manual_seed(5),
    )
    assert torch.equal(frames, expected) and cameras.width == SIZE
    refine = node["Hi3DVideoRefiner"].execute
    depth = torch.rand(16, 8, 8, generator=torch.Generator().manual_seed(0))
    settings = {"elevation": 0.0, "strength": 1.0, "seed": 9, "depth": depth}
    refined, masks = refine(loaded, frames, picture, **settings, **OWN).args
    assert refined.shape == (16, 2 * SIZE, 2 * SIZE, 3) and masks.shape[1:] == refined.shape[1:3]
    # The picture that it sees has the size of what it paints.
    large, _ = prepare_picture(picture[0], None, 2 * SIZE, straight=False, smooth=True)
    expected = refine_orbit(
        load_video_model(bundled / "refiner.safetensors", "refiner"),
        frames,
        large,
        0.0,
        RefineConfig(size=2 * SIZE, steps=2, solver="heun", guidance=(1.0, 1.5)),
        generator=torch.Generator().manual_seed(9),
        depths=depth,
    )
    assert torch.allclose(refined, expected, atol=2 / 255)


def test_the_small_model_can_be_chosen_and_never_completes_another(node, models, bundled):
    inputs = {each.id: each for each in node["Hi3DLoader"].define_schema().inputs}
    for name in ("orbit_checkpoint", "refiner_checkpoint"):
        assert inputs[name].options[:2] == ["auto", "hi3d-tiny (bundled)"]
    assert "hi3d-tiny (bundled)" not in inputs["depth_model"].options

    def sizes(**chosen):
        loaded = node["Hi3DLoader"].execute(**{**AUTO, **chosen}, dtype="fp32").args[0]
        return [loaded.stage(stage).defaults.frame_size for stage in ("orbit", "refiner")]

    assert sizes() == [512, 1024]
    assert sizes(orbit_checkpoint="hi3d-tiny (bundled)") == [SIZE, 2 * SIZE]
    (models / "hi3d_refiner.safetensors").unlink()
    loaded = node["Hi3DLoader"].execute(**AUTO, dtype="fp32").args[0]
    assert loaded.stage("orbit").defaults.frame_size == 512
    for asked in (lambda: loaded.stage("refiner"), lambda: loaded.require("orbit", "refiner")):
        with pytest.raises(ValueError, match="does not stand in for one stage alone"):
            asked()


def test_two_pictures_are_refused(node, loaded, picture):
    settings = {"steps": 1, "solver": "euler", "guidance": 2.0, "size": SIZE}
    with pytest.raises(ValueError, match="2 pictures, expected one"):
        node["Hi3DOrbitVideoSampler"].execute(
            loaded, picture.expand(2, -1, -1, -1), elevation=0.0, seed=0, **settings
        )


def test_the_cancel_button_stops_the_sampler(node, loaded, picture, sees_all):
    host, bar = sys.modules["comfy.model_management"], sys.modules["comfy.utils"]
    steps, pictures = [], []

    class Cancelling(bar.ProgressBar):
        def update_absolute(self, value, total=None, preview=None):
            steps.append(value)
            pictures.append(preview)
            host.cancelled = len(steps) >= 3

    bar.ProgressBar = Cancelling
    settings = {"steps": 4, "solver": "euler", "guidance": 2.0, "size": SIZE}
    with pytest.raises(Exception) as raised:
        node["Hi3DOrbitVideoSampler"].execute(loaded, picture, elevation=0.0, seed=0, **settings)
    assert type(raised.value).__name__ == "Interrupted"
    assert steps == [0, 1, 2]
    # All sixteen frames so far, four in a row.
    kind, sheet, largest = pictures[-1]
    assert (kind, largest) == ("JPEG", 512)
    assert sheet.width == sheet.height == 4 * (SIZE // 8)
