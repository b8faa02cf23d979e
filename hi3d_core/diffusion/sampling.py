"""Solvers of the probability-flow ODE dx/dsigma = (x - D(x, sigma)) / sigma, from noise to sample.

Letters: x the sample at noise level sigma, D = D(x, sigma) what the denoiser makes of it, N steps,
of which step i goes from sigma_i to sigma_(i+1). All solvers take and do the same:

    x: the sample at sigmas[0], for example unit noise times sqrt(1 + sigmas[0]²); any shape.
    sigmas: (N + 1,) falling levels, as of `schedule.py`; the last may be 0.
    before_step(i, x, sigma_i) -> x: may exchange the sample before the network sees it.
    on_denoised(i, D): the rough result of each step's first network call.
    on_step(done, N): after each step.

They compute in float32 whatever the denoiser returns, on x's device, without gradients, and leave x
as it is. What a callback raises ends the run and passes through. Each raises ValueError for sigmas
that don't fall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..datatypes import OnStep
from .precondition import Denoiser
from .schedule import align_your_steps_sigmas, edm_sigmas

BeforeStep = Callable[[int, Tensor, Tensor], Tensor]
"""(step, sample, its noise level) -> the sample to go on with."""

OnDenoised = Callable[[int, Tensor], None]
"""Called with (step, denoised sample)."""


@torch.no_grad()
def sample_euler(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    before_step: BeforeStep | None = None,
    on_step: OnStep | None = None,
    on_denoised: OnDenoised | None = None,
) -> Tensor:
    """Euler's method, the official one: Karras et al. 2022, Algorithm 1 without its correction."""
    x = x.float()
    for i, sigma, sigma_next in _steps(sigmas):
        x, denoised = _look(denoise, i, x, sigma, before_step, on_denoised)
        d = (x - denoised) / sigma
        x = x + (sigma_next - sigma) * d
        _report(on_step, i, sigmas)
    return x


@torch.no_grad()
def sample_heun(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    before_step: BeforeStep | None = None,
    on_step: OnStep | None = None,
    on_denoised: OnDenoised | None = None,
) -> Tensor:
    """Heun's method: Karras et al. 2022, Algorithm 1. Two network calls a step, one to sigma 0."""
    x = x.float()
    for i, sigma, sigma_next in _steps(sigmas):
        x, denoised = _look(denoise, i, x, sigma, before_step, on_denoised)
        d = (x - denoised) / sigma
        x_next = x + (sigma_next - sigma) * d
        if sigma_next > 0:
            d_next = (x_next - denoise(x_next, sigma_next).float()) / sigma_next
            x_next = x + (sigma_next - sigma) * (d + d_next) / 2
        x = x_next
        _report(on_step, i, sigmas)
    return x


@torch.no_grad()
def sample_dpmpp_2m(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    before_step: BeforeStep | None = None,
    on_step: OnStep | None = None,
    on_denoised: OnDenoised | None = None,
) -> Tensor:
    """DPM-Solver++(2M): Lu et al. 2022, Algorithm 2, with lambda = -log sigma.

    The first step and the one to sigma 0 are of first order.
    """
    x = x.float()
    last: tuple[Tensor, Tensor] | None = None  # the step before: its D and its h
    for i, sigma, sigma_next in _steps(sigmas):
        x, denoised = _look(denoise, i, x, sigma, before_step, on_denoised)
        h = torch.log(sigma / sigma_next)
        ahead = denoised
        if last is not None and sigma_next > 0:
            ahead = denoised + h / (2 * last[1]) * (denoised - last[0])
        # The paper's exp(-h) is sigma_next / sigma.
        x = sigma_next / sigma * x + (1 - sigma_next / sigma) * ahead
        last = denoised, h
        _report(on_step, i, sigmas)
    return x


@dataclass(frozen=True)
class Solver:
    """A way from noise to sample, as a user chooses it.

    solve: one of the functions above. sigmas: number of steps -> its noise levels.
    steps: how many it takes if no one says. calls: network calls a step; one fewer in the last if
    they are two.
    """

    solve: Callable[..., Tensor]
    sigmas: Callable[[int], Tensor]
    steps: int
    calls: int = 1


# "fast" is what benchmarks/bench_solvers.py found: docs/stages/sampling.md.
SOLVERS = {
    "euler": Solver(sample_euler, edm_sigmas, 25),
    "heun": Solver(sample_heun, edm_sigmas, 25, calls=2),
    "dpmpp_2m": Solver(sample_dpmpp_2m, edm_sigmas, 25),
    "fast": Solver(sample_dpmpp_2m, align_your_steps_sigmas, 12),
}


def network_calls(solver: str, steps: int) -> int:
    """How often a solver of `SOLVERS` asks the denoiser in so many steps.

    Raises ValueError for another name.
    """
    if solver not in SOLVERS:
        raise ValueError(f"there is no solver {solver!r}: expected one of {', '.join(SOLVERS)}")
    return SOLVERS[solver].calls * (steps - 1) + 1


def _steps(sigmas: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(i, sigma_i, sigma_(i+1)) of each step."""
    sigmas = sigmas.float()
    falling = sigmas.ndim == 1 and len(sigmas) > 1 and bool((sigmas[:-1] > sigmas[1:]).all())
    if not falling or sigmas[-1] < 0 or not sigmas[0].isfinite():
        raise ValueError(
            f"sigmas is {sigmas.tolist()}, expected two or more falling noise levels, none below 0"
        )
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        yield i, sigma, sigma_next


def _look(
    denoise: Denoiser,
    i: int,
    x: Tensor,
    sigma: Tensor,
    before_step: BeforeStep | None,
    on_denoised: OnDenoised | None,
) -> tuple[Tensor, Tensor]:
    """The step's sample, exchanged if anyone wishes, and what the denoiser makes of it."""
    if before_step is not None:
        x = before_step(i, x, sigma).float()
    denoised = denoise(x, sigma).float()
    if on_denoised is not None:
        on_denoised(i, denoised)
    return x, denoised


def _report(on_step: OnStep | None, i: int, sigmas: Tensor) -> None:
    if on_step is not None:
        on_step(i + 1, len(sigmas) - 1)
