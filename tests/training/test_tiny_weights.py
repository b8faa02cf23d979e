"""The bundled small model: that it is whole, and that it does what is said of it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from hi3d_core.networks.vae import decode, encode_moments
from hi3d_core.weights.load import load_video_model
from training.tiny.measure import (
    draw_toy,
    elevation_errors,
    novel,
    orbit_of,
    psnr,
    refined_of,
    seed_spread,
    told_sampling,
)
from training.tiny.pack import LARGEST
from training.toy_objects import HELD_OUT_SEEDS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "hi3d_core" / "models" / "tiny"
STAGES = ("orbit", "refiner")
TOYS = range(HELD_OUT_SEEDS.start, HELD_OUT_SEEDS.start + 4)


@pytest.fixture(scope="module")
def orbit():
    return load_video_model(FOLDER / "orbit.safetensors", "orbit")


@pytest.fixture(scope="module")
def toys():
    return [draw_toy(seed, sizes=(128, 16)) for seed in TOYS]


@pytest.mark.parametrize("stage", STAGES)
def test_files_are_small_and_say_what_they_are(stage):
    file = FOLDER / f"{stage}.safetensors"
    assert file.stat().st_size < LARGEST
    with safe_open(file, framework="pt") as tensors:
        metadata = tensors.metadata()
        assert {str(tensors.get_tensor(name).dtype) for name in tensors.keys()} == {  # noqa: SIM118
            "torch.float16"
        }
        names = set(tensors.keys())
    assert metadata["frame_size"] == {"orbit": "128", "refiner": "256"}[stage]
    sampling = json.loads(metadata["sampling"])
    assert sampling["steps"] >= 1
    assert len(sampling["guidance"]) == 2
    networks = {"unet", "vae", "image_encoder"} | ({"depth"} if stage == "refiner" else set())
    assert {name.split(".")[0] for name in names} == networks
    model = load_video_model(file, stage)
    assert model.unet.settings.norm_groups == 8
    assert {norm.num_groups for norm in norms(model.unet)} == {8}
    assert {norm.num_groups for norm in norms(model.vae)} == {8}


def norms(network):
    return [module for module in network.modules() if isinstance(module, torch.nn.GroupNorm)]


def test_licence_and_log_are_beside():
    assert "MIT" in (FOLDER / "README.md").read_text(encoding="utf-8")
    log = json.loads((FOLDER / "training_log.json").read_text(encoding="utf-8"))
    runs = [log, log["began from"]]  # trained further, and from nothing before
    assert runs[0]["settings"]["begin"] == FOLDER.relative_to(ROOT).as_posix()
    assert runs[1]["settings"]["seed"] == 0
    stages = ["orbit", "decoder", "refiner", "refiner_decoder"]
    for run, trained in zip(runs, (stages, ["vae", "depth", *stages]), strict=True):
        assert set(run["curves"]) == set(trained)
        for stage in trained:
            assert run["curves"][stage][-1]["step"] == run["settings"][stage]["train"]["steps"]


def test_autoencoder_gives_toys_roughly_back_that_it_never_saw(toys):
    vae = load_video_model(FOLDER / "refiner.safetensors", "refiner").vae
    found = []
    with torch.no_grad():
        for toy in toys:
            frames = toy.small[::4]
            images = (frames * 2 - 1).permute(0, 3, 1, 2)
            back = decode(vae, encode_moments(vae, images, 4)[0], 4)
            back = (back / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
            found.append(float(psnr(back, frames).mean()))
    assert sum(found) / len(found) > 20


def test_orbits_are_nearer_than_the_best_guess_and_begin_with_the_picture(orbit, toys):
    sampling = told_sampling(FOLDER / "orbit.safetensors")
    gains, fronts = [], []
    for toy in toys:
        made = orbit_of(orbit, toy.small[0], toy.elevation_degrees, sampling)
        guesses = (torch.ones_like(toy.small), toy.small[:1].expand_as(toy.small))
        best = max(novel(guess, toy.small) for guess in guesses)
        gains.append(novel(made, toy.small) - best)
        fronts.append(float(psnr(made, toy.small)[0]))
    assert sum(gains) / len(gains) > 3.3
    assert sum(fronts) / len(fronts) > 16


def test_refined_frames_are_nearer_than_enlarged_ones(orbit):
    refiner = load_video_model(FOLDER / "refiner.safetensors", "refiner")
    samplings = [told_sampling(FOLDER / f"{stage}.safetensors") for stage in STAGES]
    gains = []
    for seed in TOYS[:3]:
        toy = draw_toy(seed)
        coarse = orbit_of(orbit, toy.small[0], toy.elevation_degrees, samplings[0])
        refined = refined_of(refiner, coarse, toy.large[0], toy.elevation_degrees, samplings[1])
        frames = coarse.permute(0, 3, 1, 2)
        enlarged = torch.nn.functional.interpolate(frames, toy.large.shape[1:3], mode="bicubic")
        enlarged = enlarged.clamp(0, 1).permute(0, 2, 3, 1)
        gains.append(novel(refined, toy.large) - novel(enlarged, toy.large))
    assert sum(gains) / len(gains) > 0.04


def test_elevation_is_listened_to(orbit):
    """On average an orbit is nearest to the true one where the true elevation was told."""
    sampling = told_sampling(FOLDER / "orbit.safetensors")
    offsets = (-20.0, 0.0, 20.0)
    found = []
    for seed in range(HELD_OUT_SEEDS.start, HELD_OUT_SEEDS.start + 6):
        toy = draw_toy(seed, elevation=15.0, sizes=(128, 16))
        found.append(list(elevation_errors(toy, orbit, sampling, offsets).values()))
    lower, true, higher = torch.tensor(found).mean(dim=0).tolist()
    assert true > max(lower, higher) + 0.2


def test_seeds_differ_more_behind_than_in_front(orbit, toys):
    sampling = told_sampling(FOLDER / "orbit.safetensors")
    spread = seed_spread(toys[0], orbit, sampling, range(2))
    assert spread["back"] > 1.2 * spread["front"] > 0
