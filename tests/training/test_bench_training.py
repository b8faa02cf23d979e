"""The benchmark of training: what is set is what is run."""

import dataclasses

import pytest
import torch

from benchmarks import bench_training
from hi3d_core.networks.depth_network import build_depth_network
from hi3d_core.video_model import VideoModel

from ..core.tiny_models import TINY_DEPTH, filled, tiny_model
from .orbit_folders import orbit_frames, write_orbit

CONFIGS = bench_training.CONFIGS


@pytest.fixture
def toys(monkeypatch):
    sides = []

    def render(folder, size):
        sides.append(size)
        write_orbit(folder / "images" / "a", orbit_frames(0, 16, size))

    monkeypatch.setattr(bench_training, "render_toys", render)
    return sides


def networks(stage):
    model = tiny_model(stage)
    if stage == "orbit":
        return model
    depth = filled(build_depth_network(TINY_DEPTH), torch.Generator().manual_seed(0))
    return dataclasses.replace(model, depth=depth)


SMALL = ["recipe.size=64", "recipe.batch_size=1", "data.resolution=64", "train.cpu=true"]


@pytest.mark.parametrize("stage", ["orbit", "refiner"])
def test_the_full_size_run_on_small_networks(toys, monkeypatch, stage):
    """bf16 and gradient checkpointing, as the configuration of eight cards has them."""
    runs = []
    really = bench_training.prepare

    def prepare(recipe, settings):
        runs.append(really(recipe, settings))
        return runs[-1]

    monkeypatch.setattr(bench_training, "prepare", prepare)
    config = CONFIGS / f"{stage}_8xa100.toml"
    row = bench_training.measured(config, 2, SMALL, networks)
    told = {"precision": "bf16", "gradient_checkpointing": True, "optimizer": "adamw", "set": SMALL}
    assert {key: row[key] for key in told} == told and row["random_weights"] is True
    assert row["size"] == 64 and row["orbits_a_step"] == 1 and toys == [64]
    assert row["orbits_a_second"] == 1 / row["seconds_a_step"]["median"]
    (run,) = runs
    assert run.accelerator.mixed_precision == "bf16"
    model = networks(stage)
    assert row["parameters"] == sum(each.numel() for each in model.unet.parameters())
    assert all(each.dtype == torch.float32 for each in run.parameters.values())


def test_full_size_networks_are_the_authors():
    with torch.device("meta"):
        orbit, refiner = (bench_training.random_model(stage) for stage in ("orbit", "refiner"))
    count = {
        model.stage: sum(each.numel() for each in model.unet.parameters())
        for model in (orbit, refiner)
    }
    assert isinstance(orbit, VideoModel) and orbit.depth is None and refiner.depth is not None
    assert all(1.5e9 < number < 1.6e9 for number in count.values())
