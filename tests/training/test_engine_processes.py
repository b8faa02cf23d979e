"""Runs in processes of their own: killed ones, several at once, and parts of weights in each."""

import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training.engine.loop import train

from .engine_recipes import SineRecipe, settings

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds until a process counts as stuck


def start(folder, options, kind="SineRecipe", environment=None):
    command = [sys.executable, "-m", "tests.training.engine_recipes", str(folder), kind]
    return subprocess.Popen(
        [*command, json.dumps(options)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*processes):
    """Wait for all; what the first one printed last."""
    try:
        told = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, told, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return json.loads(told[0][0].splitlines()[-1])


def together(folder, options, count=2, kind="SineRecipe", environment=None):
    """Start as many processes as one run, as torch's and accelerate's launchers do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        **(environment or {}),
    }
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    return finish(*(start(folder, options, kind, {**shared, **rank}) for rank in ranks))


def last(folder, steps, name="weights.safetensors"):
    return load_file(folder / "checkpoints" / f"step_{steps:07d}" / name)


def assert_same(first, second, tolerance=0.0):
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(
            value, second[name], rtol=0, atol=tolerance, msg=lambda text, name=name: name + text
        )


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path):
    steps = {"steps": 60, "save_every": 3}
    train(SineRecipe(), settings(steps), tmp_path / "whole", quiet=True)
    slow = {"train": steps, "recipe": {"pause": 0.02}}
    process = start(tmp_path / "killed", slow)
    log = tmp_path / "killed" / "log.jsonl"
    # A random step, and a random moment in it: within a checkpoint, a step, or the log.
    wanted, patience = random.randint(4, 40), time.monotonic() + PATIENCE
    while not log.exists() or len(log.read_text().splitlines()) < wanted:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < patience
        time.sleep(0.002)
    time.sleep(random.random() * 0.03)
    process.kill()  # SIGKILL
    process.communicate()
    assert not (tmp_path / "killed" / "checkpoints" / "step_0000060").exists()
    told = finish(start(tmp_path / "killed", {"train": steps, "resume": "must"}))
    assert (told["steps"], told["reason"]) == (60, None)
    for name in ("weights", "ema", "training"):
        first, second = (
            last(tmp_path / run, 60, f"{name}.safetensors") for run in ("whole", "killed")
        )
        assert_same(first, second)


def test_two_processes_take_the_step_of_one(tmp_path):
    chosen = {"save_every": 1, "keep": 12}
    train(SineRecipe(), settings(chosen), tmp_path / "one", quiet=True)
    told = together(tmp_path / "two", {"train": chosen})
    assert told["parameters"] == "Parameter"
    for steps in (1, 2, 12):
        assert_same(last(tmp_path / "one", steps), last(tmp_path / "two", steps), 1e-5)
    lines = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for one, two in zip(*lines, strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-6)


def test_two_processes_with_parts_resume_as_one(tmp_path):
    chosen = {"steps": 12, "accumulate": 2}
    train(SineRecipe(), settings({"steps": 12}), tmp_path / "one", quiet=True)
    told = together(tmp_path / "two", {"train": chosen, "recipe": {"stop_in_rank": [1, 5]}})
    # Only the second process was told to stop; both did, and wrote what they had.
    assert (told["steps"], told["reason"]) == (6, "another process stopped")
    told = together(tmp_path / "two", {"train": chosen, "resume": "must"})
    assert (told["steps"], told["reason"]) == (12, None)
    assert_same(last(tmp_path / "one", 12), last(tmp_path / "two", 12), 1e-5)


def test_weights_in_parts_train_and_resume_alike(tmp_path):
    """FSDP 2: each process holds half of every parameter, moment and average."""
    train(SineRecipe(), settings(), tmp_path / "one", quiet=True)
    stop = {"recipe": {"stop_in_rank": [0, 5]}, "divided": True}
    told = together(tmp_path / "two", stop)
    assert (told["steps"], told["parameters"]) == (6, "DTensor")
    together(tmp_path / "two", {"resume": "must", "divided": True})
    for name in ("weights", "ema", "training"):
        one, two = (last(tmp_path / run, 12, f"{name}.safetensors") for run in ("one", "two"))
        assert_same(one, two, 1e-5)


@pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs the package deepspeed"
)
def test_deepspeed_trains_and_resumes_alike(tmp_path):
    """ZeRO 2: each process holds half of the exact weights and moments."""
    zero = {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2",
        "DS_ACCELERATOR": "cpu",
        "LOCAL_SIZE": "2",
        "ACCELERATE_USE_CPU": "false",
        "ACCELERATE_TORCH_DEVICE": "cpu",
    }
    train(SineRecipe(), settings(), tmp_path / "one", quiet=True)
    there = {"train": {"cpu": False}, "deepspeed": True}
    stop = {"recipe": {"stop_in_rank": [0, 5]}, **there}
    told = together(tmp_path / "two", stop, environment=zero)
    assert told["steps"] == 6
    names = last(tmp_path / "two", 6, "training.safetensors")
    assert "master.networks.0.weight" in names
    together(tmp_path / "two", {"resume": "must", **there}, environment=zero)
    for name in ("weights", "ema"):
        one, two = (last(tmp_path / run, 12, f"{name}.safetensors") for run in ("one", "two"))
        assert_same(one, two, 1e-5)
