"""The training loop: from settings and a recipe to checkpoints, exact across interruptions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from hi3d_core.atomic_file import replacing

from ..recipe import Recipe
from .checkpoint import read_facts, restore, write_checkpoint
from .checkpoint_folder import checkpoint_path, checkpoints_in, keep_last, sweep
from .config_changes import check_unchanged
from .interrupts import Interrupts
from .prepared import Prepared, Step, prepare, take_step
from .read_config import as_values
from .run_log import RunLog
from .settings import EngineSettings

CHECKPOINTS, SETTINGS = "checkpoints", "settings.json"
Resume = Literal["never", "must", "can"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    steps: done in all. reason: why it stopped before the last one, or None.
    checkpoint: the last one there is. terms: of the last step's loss, empty if none was left.
    """

    steps: int
    reason: str | None
    checkpoint: Path | None
    terms: dict[str, float]


def train(
    recipe: Recipe,
    settings: EngineSettings,
    folder: str | Path,
    *,
    resume: Resume = "never",
    allow_changed: bool = False,
    minutes: float | None = None,
    quiet: bool = False,
) -> Outcome:
    """Train a recipe, writing all there is into one folder.

    settings: of the engine, or a subclass with the recipe's own tables; all are compared on resume.
    folder: of the run: settings.json, log.jsonl, samples/, tensorboard/, checkpoints/.
    resume: "must" goes on from the last checkpoint, "can" also begins if there is none, "never"
        refuses a folder that has any. allow_changed: see `check_unchanged`.
    minutes: after these, write a checkpoint and stop. quiet: no progress bar.

    Ctrl-C and SIGTERM write a checkpoint and stop; a second Ctrl-C stops at once.

    Raises ValueError if there is nothing to resume, or to be resumed, or settings changed;
    NonFiniteLoss, leaving the last checkpoint; OSError if a checkpoint can't be written.
    """
    folder = Path(folder)
    last = check_resume(settings, folder, resume, allow_changed)
    interrupts = Interrupts(minutes)
    with interrupts.listening():
        run = prepare(recipe, settings)
        main = run.accelerator.is_main_process
        if main:
            _begin(folder, settings)
        run.accelerator.wait_for_everyone()
        done = 0 if last is None else restore(run, last)
        log = RunLog(folder, done, active=main)
        try:
            return _loop(run, folder, done, last, interrupts, log, quiet=quiet or not main)
        finally:
            log.close()


def check_resume(
    settings: EngineSettings, folder: Path, resume: Resume, allow_changed: bool
) -> Path | None:
    """The checkpoint to go on from, or None to begin; ValueError if that is not as wanted."""
    there = checkpoints_in(folder / CHECKPOINTS)
    if there and resume == "never":
        raise ValueError(
            f"{folder} holds a run's checkpoints: go on with --resume, or name another folder"
        )
    if not there:
        if resume == "must":
            raise ValueError(f"{folder} holds no checkpoint to resume from: begin without --resume")
        return None
    check_unchanged(read_facts(there[-1])["settings"], settings, allow_changed)
    return there[-1]


def _begin(folder: Path, settings: EngineSettings) -> None:
    (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    sweep(folder / CHECKPOINTS)
    with replacing(folder / SETTINGS) as temporary:
        temporary.write_text(json.dumps(as_values(settings), indent=1), encoding="utf-8")


def _loop(
    run: Prepared,
    folder: Path,
    done: int,
    last: Path | None,
    interrupts: Interrupts,
    log: RunLog,
    *,
    quiet: bool,
) -> Outcome:
    train = run.settings.train
    terms: dict[str, float] = {}
    stopped = False
    with tqdm(initial=done, total=train.steps, disable=quiet, unit="step") as bar:
        while done < train.steps and not stopped:
            told = take_step(run, done, stop=interrupts.wanted)
            done, terms, stopped = done + 1, told.terms, told.stop
            bar.update()
            bar.set_postfix(loss=f"{terms['loss']:.4g}", refresh=False)
            end = stopped or done == train.steps
            if done % train.log_every == 0 or end:
                log.numbers(done, _numbers(told))
            if train.samples_every and (done % train.samples_every == 0 or done == train.steps):
                _draw(run, log, done)
            if done % train.save_every == 0 or end:
                last = _save(run, folder, done)
    unfinished = done < train.steps
    reason = (interrupts.reason or "another process stopped") if unfinished else None
    return Outcome(done, reason, last, terms)


def _numbers(told: Step) -> dict[str, float]:
    more = {"learning_rate": told.learning_rate, "gradient_norm": told.gradient_norm}
    return {**told.terms, **more}


def _save(run: Prepared, folder: Path, done: int) -> Path:
    target = checkpoint_path(folder / CHECKPOINTS, done)
    write_checkpoint(run, target, done)
    if run.accelerator.is_main_process:
        keep_last(target.parent, run.settings.train.keep)
    return target


def _draw(run: Prepared, log: RunLog, done: int) -> None:
    """Samples of the averages, if there are any: they are what will be used."""
    # All processes draw: where weights lie in parts, one alone could not.
    training = run.module.training
    with torch.no_grad():
        if run.averages is None:
            pictures = run.recipe.samples()
        else:
            with run.averages.swapped_in(run.parameters):
                pictures = run.recipe.samples()
    run.module.train(training)
    if pictures is not None:
        log.pictures(done, pictures)
