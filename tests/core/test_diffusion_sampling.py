"""Solvers, against data whose denoiser and whose paths are known in closed form."""

import itertools
import math

import pytest
import torch

from hi3d_core.diffusion.sampling import (
    SOLVERS,
    network_calls,
    sample_dpmpp_2m,
    sample_euler,
    sample_heun,
)
from hi3d_core.diffusion.schedule import align_your_steps_sigmas, edm_sigmas

FUNCTIONS = [sample_euler, sample_heun, sample_dpmpp_2m]
MEAN, SPREAD = torch.linspace(-2, 2, 24).view(2, 3, 4), 0.5


def denoise(x, sigma):
    """The exact denoiser of data that are normal around MEAN with standard deviation SPREAD."""
    return (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def solution(x, sigma, sigma_end=0.0):
    """Where the exact path through x at sigma is at sigma_end."""
    return MEAN + math.sqrt((SPREAD**2 + sigma_end**2) / (SPREAD**2 + sigma**2)) * (x - MEAN)


def start(sigma, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return MEAN + math.sqrt(SPREAD**2 + sigma**2) * torch.randn(2, 3, 4, generator=generator)


def error(function, steps):
    """Root mean square error over a stretch without the ends' special steps."""
    high, low = 10.0, 0.5
    sigmas = torch.exp(torch.linspace(math.log(high), math.log(low), steps + 1))
    x = start(high)
    found = function(denoise, x, sigmas)
    return float((found - solution(x, high, low)).square().mean().sqrt())


@pytest.mark.parametrize(
    ("function", "order"), [(sample_euler, 1), (sample_heun, 2), (sample_dpmpp_2m, 2)]
)
def test_errors_fall_with_the_order_of_the_method(function, order):
    errors = [error(function, steps) for steps in (16, 32, 64)]
    assert errors[-1] < 0.02
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("schedule", [edm_sigmas, align_your_steps_sigmas])
def test_whole_schedules_end_where_the_exact_path_ends(function, schedule):
    sigmas = schedule(200)
    x = start(700)
    assert (function(denoise, x, sigmas) - solution(x, 700)).abs().max() < 0.05


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_single_sample_is_found_in_one_step(function):
    x = start(700)
    assert torch.allclose(function(lambda x, sigma: MEAN, x, edm_sigmas(1)), MEAN, atol=1e-3)


def by_exponentials(x, sigmas):
    """DPM-Solver++(2M) as the paper writes it, in double precision."""
    x, sigmas, last = x.double(), [float(sigma) for sigma in sigmas], None
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        clean = denoise(x, sigma)
        if sigma_next == 0:
            return clean
        h = -math.log(sigma_next) + math.log(sigma)
        combined = clean
        if last is not None:
            r = (-math.log(sigma) + math.log(sigmas[i - 1])) / h
            combined = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * last
        x = sigma_next / sigma * x - math.expm1(-h) * combined
        last = clean
    return x


@pytest.mark.parametrize("sigmas", [edm_sigmas(9), align_your_steps_sigmas(7), edm_sigmas(9)[:-1]])
def test_2m_is_the_papers_formula(sigmas):
    x = start(700)
    expected = by_exponentials(x, sigmas)
    assert torch.allclose(sample_dpmpp_2m(denoise, x, sigmas).double(), expected, atol=2e-4)


def test_euler_takes_the_straight_steps_that_the_paper_takes():
    x, sigmas = start(700), edm_sigmas(5)
    expected = x
    for sigma, sigma_next in itertools.pairwise(sigmas):
        slope = (expected - denoise(expected, sigma)) / sigma
        expected = expected + slope * (sigma_next - sigma)
    assert torch.equal(sample_euler(denoise, x, sigmas), expected)


@pytest.mark.parametrize("name", SOLVERS)
def test_network_calls_are_counted_right(name):
    calls = []

    def counted(x, sigma):
        assert sigma.ndim == 0
        assert sigma > 0
        calls.append(float(sigma))
        return denoise(x, sigma)

    solver = SOLVERS[name]
    assert len(solver.sigmas(solver.steps)) == solver.steps + 1
    for steps in (1, 2, solver.steps):
        calls.clear()
        solver.solve(counted, start(700), solver.sigmas(steps))
        assert len(calls) == network_calls(name, steps)


def test_fast_asks_the_network_at_most_half_as_often_as_the_official_solver():
    official = SOLVERS["euler"]
    assert official.solve is sample_euler
    assert torch.equal(official.sigmas(official.steps), edm_sigmas(25))
    assert 2 * network_calls("fast", SOLVERS["fast"].steps) <= 25


def test_an_unknown_solver_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no solver 'ddim': expected one of euler, heun"):
        network_calls("ddim", 5)


@pytest.mark.parametrize("function", FUNCTIONS)
class TestCallbacks:
    def test_they_come_in_order_with_what_they_are_promised(self, function):
        events = []
        sigmas = edm_sigmas(3)

        def before_step(i, x, sigma):
            assert x.dtype == torch.float32
            events.append(("before", i, float(sigma)))
            return x

        def on_denoised(i, denoised):
            assert denoised.shape == MEAN.shape
            events.append(("denoised", i))

        def on_step(done, total):
            events.append(("step", done, total))

        function(
            denoise,
            start(700),
            sigmas,
            before_step=before_step,
            on_denoised=on_denoised,
            on_step=on_step,
        )
        assert events == [
            event
            for i in range(3)
            for event in (("before", i, float(sigmas[i])), ("denoised", i), ("step", i + 1, 3))
        ]

    def test_the_exchanged_sample_is_the_one_that_goes_on(self, function):
        sigmas, other = edm_sigmas(4), start(700, seed=1)
        seen = []

        def watched(x, sigma):
            seen.append(x)
            return denoise(x, sigma)

        exchanged = function(
            watched,
            start(700),
            sigmas,
            before_step=lambda i, x, sigma: other if i == 0 else x,
        )
        assert torch.equal(seen[0], other)
        assert torch.equal(exchanged, function(denoise, other, sigmas))

    @pytest.mark.parametrize("where", ["before_step", "on_denoised", "on_step"])
    def test_what_they_raise_ends_the_run(self, function, where):
        class Cancelled(Exception):
            pass

        calls = []

        def counted(x, sigma):
            calls.append(sigma)
            return denoise(x, sigma)

        def cancel(i, x_or_total, sigma=None):
            if i == 2:
                raise Cancelled
            return x_or_total

        with pytest.raises(Cancelled):
            function(counted, start(700), edm_sigmas(9), **{where: cancel})
        assert len(calls) <= 2 * 3

    def test_nothing_that_is_given_changes(self, function):
        x, sigmas, given = start(700), edm_sigmas(4), []

        def kept(x, sigma):
            given.append((x, x.clone()))
            return denoise(x, sigma)

        before = x.clone(), sigmas.clone()
        function(kept, x, sigmas, on_denoised=lambda i, d: given.append((d, d.clone())))
        assert torch.equal(x, before[0])
        assert torch.equal(sigmas, before[1])
        assert all(torch.equal(now, then) for now, then in given)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_they_work_in_float32_whatever_the_network_does(function, dtype):
    seen = set()

    def half(x, sigma):
        seen.add((x.dtype, sigma.dtype))
        return denoise(x, sigma).to(dtype)

    x, sigmas = start(700), edm_sigmas(25)
    found = function(
        half,
        x,
        sigmas,
        before_step=lambda i, x, sigma: x.to(dtype) if i == 0 else x,
        on_denoised=lambda i, denoised: seen.add((denoised.dtype,) * 2),
    )
    assert seen == {(torch.float32, torch.float32)}
    assert found.dtype == torch.float32
    # Rounding to half precision in every step would cost far more than rounding its results.
    exact = function(denoise, x.to(dtype), sigmas)
    assert (found - exact).abs().max() < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_graph_is_kept(function):
    weight = torch.ones((), requires_grad=True)
    found = function(lambda x, sigma: weight * denoise(x, sigma), start(700), edm_sigmas(3))
    assert not found.requires_grad


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    "sigmas", [[], [1.0], [1.0, 2.0], [2.0, 2.0], [1.0, -1.0], [float("nan"), 0], [float("inf"), 0]]
)
def test_levels_that_do_not_fall_are_refused(function, sigmas):
    with pytest.raises(ValueError, match="falling noise levels"):
        function(denoise, start(1), torch.tensor(sigmas))
