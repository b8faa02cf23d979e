"""What the engine can be told. Every class is one table of the TOML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

MAY_CHANGE: dict[str, Any] = {"may_change": True}
"""Metadata of a field that a resumed run may have another value of (`--allow-changed`)."""


def _check(right: bool, what: str, value: object, expected: str) -> None:
    if not right:
        raise ValueError(f"{what} is {value}, expected {expected}")


@dataclass(frozen=True)
class TrainSettings:
    """The table [train]: how long, how exact, what is written when.

    steps: of the optimizer, in all. accumulate: parts that a process cuts its share of a batch
        into, for less memory; the step stays the same.
    precision: "no" is float32; of "bf16" and "fp16" the weights themselves stay float32.
    clip_norm: of all gradients together; 0 leaves them as they are.
    ema_decay: of the averaged weights, kept beside; 0 keeps none. ema_warm_up: begin with short
        averages, as (1 + step) / (10 + step), which forget the beginning sooner.
    gradient_checkpointing: compute activations twice instead of keeping them.
    save_every, log_every, samples_every: steps; samples_every 0 draws no samples.
    keep: checkpoints, the last ones. cpu: stay there even if there is a GPU.
    seed: of whatever in the networks draws from torch's own generator, such as dropout.
    """

    steps: int = field(default=1000, metadata=MAY_CHANGE)
    accumulate: int = field(default=1, metadata=MAY_CHANGE)
    precision: Literal["no", "bf16", "fp16"] = "no"
    clip_norm: float = 1.0
    ema_decay: float = 0.0
    ema_warm_up: bool = True
    gradient_checkpointing: bool = field(default=False, metadata=MAY_CHANGE)
    save_every: int = field(default=500, metadata=MAY_CHANGE)
    keep: int = field(default=2, metadata=MAY_CHANGE)
    log_every: int = field(default=10, metadata=MAY_CHANGE)
    samples_every: int = field(default=0, metadata=MAY_CHANGE)
    cpu: bool = field(default=False, metadata=MAY_CHANGE)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "save_every", "keep", "log_every"):
            value = getattr(self, name)
            _check(value >= 1, f"train.{name}", value, "1 or more")
        for name in ("samples_every", "seed", "clip_norm"):
            value = getattr(self, name)
            _check(value >= 0, f"train.{name}", value, "0 or more")
        _check(0 <= self.ema_decay < 1, "train.ema_decay", self.ema_decay, "0 (none) to below 1")


@dataclass(frozen=True)
class OptimizerSettings:
    """The table [optimizer]: AdamW and the course of its learning rate.

    name: "adamw8bit" keeps its moments in 8 bits, "paged_adamw8bit" moves them to the computer's
        memory when the GPU's is full; both need the package bitsandbytes and a GPU.
    warm_up_steps: during which the rate rises evenly from 0.
    decay: what follows: "none" keeps the rate; "cosine" and "linear" lead it to `last_rate` times
        its value at the last step.
    """

    name: Literal["adamw", "adamw8bit", "paged_adamw8bit"] = "adamw"
    learning_rate: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warm_up_steps: int = 0
    decay: Literal["none", "cosine", "linear"] = "none"
    last_rate: float = 0.0

    def __post_init__(self) -> None:
        rate = self.learning_rate
        _check(0 < rate < 1, "optimizer.learning_rate", rate, "above 0 and below 1")
        right = all(0 <= beta < 1 for beta in self.betas)
        _check(right, "optimizer.betas", self.betas, "two numbers from 0 to below 1")
        _check(self.eps > 0, "optimizer.eps", self.eps, "above 0")
        for name in ("weight_decay", "warm_up_steps"):
            value = getattr(self, name)
            _check(value >= 0, f"optimizer.{name}", value, "0 or more")
        _check(0 <= self.last_rate <= 1, "optimizer.last_rate", self.last_rate, "0 to 1")


@dataclass(frozen=True)
class LoraSettings:
    """The table [lora]: train small matrices beside the attention layers, and no other weight.

    rank: of the matrices' product; 0 trains the weights themselves. scale: of what it adds.
    layers: a linear layer takes part if its name ends in one of these.
    """

    rank: int = 0
    scale: float = 1.0
    layers: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    def __post_init__(self) -> None:
        _check(self.rank >= 0, "lora.rank", self.rank, "0 (no LoRA) or more")
        _check(self.scale > 0, "lora.scale", self.scale, "above 0")
        _check(bool(self.layers), "lora.layers", self.layers, "endings of layers' names")


@dataclass(frozen=True)
class EngineSettings:
    """All that the engine can be told; see each table's class."""

    train: TrainSettings = field(default_factory=TrainSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
