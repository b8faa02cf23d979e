"""The training scripts as people run them: exit codes, messages, and nothing written by a trial."""

from dataclasses import dataclass, field

import pytest

from training.engine.command import run_command
from training.engine.settings import EngineSettings

from .engine_recipes import SineRecipe

TEXT = """
[train]
steps = 6
save_every = 2
cpu = true
"""


@dataclass(frozen=True)
class SineTable:
    videos: int = 4


@dataclass(frozen=True)
class SineRun(EngineSettings):
    recipe: SineTable = field(default_factory=SineTable)


@pytest.fixture
def command(tmp_path, capsys):
    (tmp_path / "run.toml").write_text(TEXT, encoding="utf-8")

    def call(*more):
        arguments = [str(tmp_path / "run.toml"), "--out", str(tmp_path / "run"), *more]
        code = run_command(
            SineRun, lambda run: SineRecipe(videos=run.recipe.videos), "a test", arguments
        )
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def test_trained_resumed_and_refused(tmp_path, command):
    code, out, _ = command("--dry-run")
    assert code == 0
    assert "nothing was written" in out
    assert not (tmp_path / "run").exists()

    code, out, _ = command("--minutes", "0")
    assert code == 0
    assert "the time is up after 1 of 6 steps" in out
    assert "--resume" in out

    code, _, err = command()
    assert code == 1
    assert err.startswith("error: ")
    assert "--resume" in err

    code, _, err = command("--resume", "--set", "recipe.videos=2")
    assert code == 1
    assert "recipe.videos: 4 -> 2" in err

    code, out, _ = command("--resume", "--allow-changed", "--set", "train.steps=8")
    assert code == 0
    assert "8 steps are done" in out


def test_wrong_keys_and_values_are_messages(command):
    code, _, err = command("--set", "train.stepss=3")
    assert code == 1
    assert "the nearest known one is train.steps" in err
    assert "Traceback" not in err
    # A batch that the processes can't share is the recipe's to refuse.
    code, _, err = command("--set", "recipe.videos=3", "--set", "train.accumulate=2")
    assert code == 1
    assert "3 can't be shared by 2" in err
