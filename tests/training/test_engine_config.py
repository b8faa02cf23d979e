"""TOML files become settings, or a message that says which key is wrong and what it should be."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from training.engine.config_changes import check_unchanged
from training.engine.learning_rate import learning_rate
from training.engine.read_config import as_values, from_values, read_config
from training.engine.settings import (
    MAY_CHANGE,
    EngineSettings,
    LoraSettings,
    OptimizerSettings,
    TrainSettings,
)
from training.engine.video_run import ModelSettings, OrbitRun, RefinerRun


@dataclass(frozen=True)
class DataSettings:
    folder: Path
    sizes: tuple[int, ...] = (1,)
    kind: Literal["toys", "renders"] = "toys"
    depth: float | None = None
    workers: int = field(default=0, metadata=MAY_CHANGE)


@dataclass(frozen=True)
class RunSettings(EngineSettings):
    data: DataSettings = field(default_factory=lambda: DataSettings(Path("here")))


def written(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_tables_become_dataclasses(tmp_path):
    path = written(
        tmp_path,
        """
        [train]
        steps = 7
        clip_norm = 2
        [optimizer]
        betas = [0.8, 0.9]
        [data]
        folder = "renders"
        sizes = [64, 128]
        depth = 3
        """,
    )
    settings = read_config(path, RunSettings, ["train.steps=9", 'data.kind="renders"'])
    assert settings == RunSettings(
        train=TrainSettings(steps=9, clip_norm=2.0),
        optimizer=OptimizerSettings(betas=(0.8, 0.9)),
        data=DataSettings(Path("renders"), (64, 128), "renders", 3.0),
    )
    assert type(settings.train.clip_norm) is float
    assert from_values(RunSettings, as_values(settings)) == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nstepps = 3", "unknown key train.stepps, the nearest known one is train.steps"),
        ("[trian]\nsteps = 3", "unknown key trian, the nearest known one is train"),
        ("[train]\nsteps = 3.0", "train.steps is 3.0, expected a whole number"),
        ("[train]\nsteps = true", "train.steps is True, expected a whole number"),
        ("[train]\nema_decay = '0.9'", "train.ema_decay is '0.9', expected a number"),
        ("[train]\ncpu = 1", "train.cpu is 1, expected true or false"),
        ("[train]\nprecision = 'fp32'", "expected one of 'no', 'bf16', 'fp16'"),
        ("[train]\nsteps = 0", "train.steps is 0, expected 1 or more"),
        ("[train]\nema_decay = 1.0", "train.ema_decay is 1.0"),
        ("train = 3", "train is 3, expected a table"),
        ("[optimizer]\nbetas = [0.9]", "expected a list of 2, each a number"),
        ("[optimizer]\nlearning_rate = -1.0", "optimizer.learning_rate is -1.0"),
        ("[lora]\nlayers = []", "lora.layers"),
        ("[data]\nkind = 'toys'", "missing: data.folder"),
        ("[data]\nfolder = 'x'\nsizes = [1, 'a']", "data.sizes is 'a', expected a whole number"),
        ("[train\n", "is no TOML"),
    ],
)
def test_wrong_files_are_refused(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(ValueError) as error:
        read_config(path, RunSettings)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("override", ["train.steps", "train.steps=", "train.steps.more=3"])
def test_wrong_overrides_are_refused(tmp_path, override):
    with pytest.raises(ValueError, match=r"--set"):
        read_config(written(tmp_path, "[train]\nsteps = 3"), RunSettings, [override])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"check the name"):
        read_config(tmp_path / "none.toml", RunSettings)


def changed(**tables):
    return dataclasses.replace(RunSettings(), **tables)


def test_unchanged_settings_pass():
    assert check_unchanged(as_values(RunSettings()), RunSettings(), False) == []


def test_a_bound_change_is_refused_even_if_changes_are_allowed():
    before = as_values(RunSettings())
    now = changed(optimizer=OptimizerSettings(learning_rate=0.5), train=TrainSettings(steps=3))
    for allowed in (False, True):
        with pytest.raises(ValueError, match=r"optimizer.learning_rate: 1e-05 -> 0.5"):
            check_unchanged(before, now, allowed)


def test_a_free_change_wants_to_be_allowed():
    before = as_values(RunSettings())
    now = changed(train=TrainSettings(steps=3), data=DataSettings(Path("here"), workers=2))
    with pytest.raises(
        ValueError, match=r"train.steps: 1000 -> 3\n  data.workers: 0 -> 2\n.*--allow"
    ):
        check_unchanged(before, now, False)
    expected = ["train.steps: 1000 -> 3", "data.workers: 0 -> 2"]
    assert check_unchanged(before, now, True) == expected


def test_keys_that_came_or_went_are_changes():
    before = as_values(RunSettings())
    before["train"]["gone"] = 1
    del before["data"]["sizes"]
    with pytest.raises(ValueError) as error:
        check_unchanged(before, RunSettings(), True)
    assert "train.gone: 1 -> nothing" in str(error.value)
    assert "data.sizes: nothing -> [1]" in str(error.value)


def test_the_learning_rate_rises_then_falls_or_stays():
    plain = OptimizerSettings(learning_rate=0.4, warm_up_steps=4)
    rates = [learning_rate(plain, step, 14) for step in range(14)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[4:] == [0.4] * 10
    falling = dataclasses.replace(plain, decay="cosine", last_rate=0.1)
    rates = [learning_rate(falling, step, 14) for step in range(14)]
    assert rates[4] == pytest.approx(0.4)
    assert rates[-1] == pytest.approx(0.04)
    middle = learning_rate(falling, 4 + 3, 4 + 7)  # half of the way
    assert middle == pytest.approx(0.04 + 0.36 * (1 + math.cos(math.pi / 2)) / 2)
    even = dataclasses.replace(plain, decay="linear")
    differences = {
        round(learning_rate(even, step, 14) - learning_rate(even, step + 1, 14), 9)
        for step in range(4, 13)
    }
    assert differences == {round(0.4 / 9, 9)}


CONFIGS = Path(__file__).parents[2] / "training" / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_the_shipped_settings_are_read(path):
    kind = {"orbit": OrbitRun, "refiner": RefinerRun}.get(path.name.split("_")[0])
    if kind is None:
        pytest.skip("another script's")
    settings = read_config(path, kind)
    assert from_values(kind, as_values(settings)) == settings
    official = {"orbit": (80_000, 1e-5, 16, 512), "refiner": (20_000, 5e-5, 8, 1024)}
    train, recipe = settings.train, settings.recipe
    if "8xa100" in path.name:
        told = (train.steps, settings.optimizer.learning_rate, recipe.batch_size, recipe.size)
        assert told == official[path.name.split("_")[0]]
        assert recipe.batch_size % (8 * train.accumulate) == 0
    else:
        assert recipe.batch_size % train.accumulate == 0


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "accelerate").glob("*.yaml")), ids=lambda path: path.name
)
def test_accelerate_reads_its_configs(path):
    config = load_config_from_file(str(path))
    assert config.num_processes % config.num_machines == 0
    kinds = {"multi_gpu": "MULTI_GPU", "multi_node": "MULTI_GPU"}
    kinds |= {"zero2": "DEEPSPEED", "fsdp": "FSDP"}
    assert str(config.distributed_type.value) == kinds[path.stem]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "neither checkpoint, svd nor small"),
        ({"small": True, "svd": "x"}, "svd and small"),
    ],
)
def test_training_starts_from_one_thing(table, message):
    with pytest.raises(ValueError, match=message):
        from_values(ModelSettings, table)


def test_lora_settings_are_checked():
    with pytest.raises(ValueError, match=r"lora.rank"):
        LoraSettings(rank=-1)
