"""A run made ready by accelerate, and one step of it."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, send_to_device
from torch import nn

from ..recipe import Recipe
from .averages import Averages
from .learning_rate import learning_rate
from .optimizer import build_optimizer
from .settings import EngineSettings, TrainSettings
from .sharding import gathered
from .trained import TrainedLoss, trainable


class NonFiniteLoss(RuntimeError):
    """A loss or a gradient is infinite or no number; the weights are those of before."""


@dataclass
class Prepared:
    """All that a step needs.

    model: what accelerate wrapped; module: what is in it. parameters: the trained ones, by name.
    averages: of them, or None.
    """

    recipe: Recipe
    settings: EngineSettings
    accelerator: Accelerator
    model: nn.Module
    module: TrainedLoss
    optimizer: torch.optim.Optimizer
    parameters: dict[str, nn.Parameter]
    averages: Averages | None


@dataclass(frozen=True)
class Step:
    """What a step tells.

    terms: of the loss, the means over all processes and parts, "loss" first.
    gradient_norm: before clipping, of all processes' mean. stop: some process wants to stop.
    """

    terms: dict[str, float]
    gradient_norm: float
    learning_rate: float
    stop: bool


def part_processes(code: int = 0) -> None:
    """End this process, if it shared its work with others; else do nothing. Call it last of all.

    Groups' threads must end before the interpreter does, or they may abort it ("terminate called
    without an active exception"). Those of divided weights (FSDP) outlive their group: torch keeps
    them in caches. So such a process leaves without taking the interpreter down.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    torch.distributed.destroy_process_group()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def prepare(recipe: Recipe, settings: EngineSettings) -> Prepared:
    """Put the networks where they are trained, in as many processes as accelerate was told.

    A recipe with a method `place(device)` is told where its frozen networks belong.
    """
    train = settings.train
    # Else one process could not train a second thing with another precision.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        gradient_accumulation_steps=train.accumulate,
        mixed_precision=train.precision,
        cpu=train.cpu,
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        _tell_deepspeed(accelerator, train)
    place = getattr(recipe, "place", None)
    if place is not None:
        place(accelerator.device)
    module = TrainedLoss(recipe, settings)
    optimizer = build_optimizer(settings.optimizer, trainable(module).values())
    model, optimizer = accelerator.prepare(module, optimizer)
    module = accelerator.unwrap_model(model)
    parameters = trainable(module)
    averages = None
    if train.ema_decay:
        averages = Averages(parameters, train.ema_decay, warm_up=train.ema_warm_up)
    return Prepared(recipe, settings, accelerator, model, module, optimizer, parameters, averages)


def take_step(run: Prepared, step: int, *, stop: Callable[[], bool] = bool) -> Step:
    """One step of the optimizer, counted from 0.

    stop: whether this process wants to stop; all learn of it, so that they stop together.

    Raises NonFiniteLoss, in all processes, before anything is changed.
    """
    accelerator, train = run.accelerator, run.settings.train
    rate = learning_rate(run.settings.optimizer, step, train.steps)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    # Whatever draws from torch's own generator, such as dropout, draws the same after a resume.
    torch.manual_seed(_seed(train.seed, step, accelerator.process_index))
    sums: dict[str, float] = {}
    norm, stopping = 0.0, False
    for part in range(train.accumulate):
        # A process that takes its share in parts stands for as many processes.
        batch = run.recipe.batch(
            step,
            accelerator.process_index * train.accumulate + part,
            accelerator.num_processes * train.accumulate,
        )
        with accelerator.accumulate(run.model):
            loss, terms = run.model(send_to_device(batch, accelerator.device))
            means, stopping = _together(accelerator, loss, terms, stop())
            _check_finite(means, step)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                norm = _clip(run, step)
            run.optimizer.step()
            run.optimizer.zero_grad()
        for name, value in means.items():
            sums[name] = sums.get(name, 0.0) + value / train.accumulate
    if run.averages is not None:
        run.averages.update(run.parameters, step)
    return Step(sums, norm, rate, stopping)


def _seed(seed: int, step: int, rank: int) -> int:
    digest = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
    return int.from_bytes(digest[:7], "little")


def _together(
    accelerator: Accelerator, loss: torch.Tensor, terms: dict[str, float], stop: bool
) -> tuple[dict[str, float], bool]:
    """The means over all processes, where one that is not finite makes the mean so."""
    names = sorted(terms)
    values = [float(loss.detach()), *(float(terms[name]) for name in names), float(stop)]
    told = torch.tensor(values, dtype=torch.float32, device=accelerator.device)
    means = accelerator.reduce(told, "mean").tolist() if accelerator.use_distributed else values
    return dict(zip(["loss", *names], means, strict=False)), means[-1] > 0


def _check_finite(means: dict[str, float], step: int) -> None:
    wrong = {name: value for name, value in means.items() if not math.isfinite(value)}
    if not wrong:
        return
    # "loss" is the sum of the terms: one of them is the cause, if any is wrong.
    named = {name: value for name, value in wrong.items() if name != "loss"} or wrong
    told = ", ".join(f"{name} is {value}" for name, value in named.items())
    raise NonFiniteLoss(
        f"step {step}: {told}. Nothing was changed or written; the last checkpoint is good. Try a "
        "lower optimizer.learning_rate, a longer warm_up_steps, or precision bf16 instead of fp16"
    )


def _clip(run: Prepared, step: int) -> float:
    """Scale the gradients down to the longest length allowed; returns the length before."""
    accelerator, train = run.accelerator, run.settings.train
    longest = train.clip_norm or math.inf
    length = accelerator.clip_grad_norm_(list(run.parameters.values()), longest)
    # DeepSpeed tells it only later; of gradients in parts, the length is in parts too.
    norm = 0.0 if length is None else float(gathered({"length": length})["length"])
    # With fp16, the scaler skips such a step and lowers its scale.
    if not math.isfinite(norm) and accelerator.scaler is None:
        run.optimizer.zero_grad()
        raise NonFiniteLoss(
            f"step {step}: the gradient's length is {norm}, though the loss is finite. Nothing was "
            "changed or written; the last checkpoint is good"
        )
    return norm


def _tell_deepspeed(accelerator: Accelerator, train: TrainSettings) -> None:
    """What DeepSpeed wants to know and can't see without a data loader."""
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    config["train_micro_batch_size_per_gpu"] = 1  # for its own log alone
    config["gradient_accumulation_steps"] = train.accumulate
    config["gradient_clipping"] = train.clip_norm
    # The optimizer is torch's own, which DeepSpeed can't tell from one that would not do.
    config["zero_allow_untested_optimizer"] = True
