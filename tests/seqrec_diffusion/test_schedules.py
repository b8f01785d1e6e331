"""Schedules equal the formulas, samplers equal the posterior."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec_diffusion.schedules import (
    SAMPLERS,
    SCHEDULES,
    betas,
    make_scheduler,
    run_sampler,
    sampler_plan,
    signal_and_noise,
)

each_schedule = pytest.mark.parametrize("schedule", SCHEDULES)
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def linear(i: int, T: int) -> float:
    return 1e-4 + (0.02 - 1e-4) * i / (T - 1) if T > 1 else 1e-4


def cosine(i: int, T: int) -> float:
    def abar(step: int) -> float:
        return math.cos((step / T + 0.008) / 1.008 * math.pi / 2) ** 2

    return min(max(1 - abar(i + 1) / abar(i), 1e-4), 0.9999)


def exp(i: int, T: int) -> float:
    x = 1 + 2 * T * i / (T - 1) if T > 1 else 1
    return 1 - math.exp(-0.1 / T - x * 0.5 * 9.9 / (T * T))


def sqrt(i: int, T: int) -> float:
    def abar(u: float) -> float:
        return 1 - math.sqrt(u + 1e-4)

    return min(1 - abar((i + 1) / T) / abar(i / T), 0.999)


FORMULAS = {"linear": linear, "cosine": cosine, "exp": exp, "sqrt": sqrt}


def posterior(schedule: str, T: int) -> list[tuple[float, float, float]]:
    """(c1, c2, variance) per timestep, from the formulas in double precision."""
    result, before = [], 1.0
    for beta in (float(b) for b in betas(schedule, T)):
        abar = before * (1 - beta)
        c1 = beta * math.sqrt(before) / (1 - abar)
        c2 = (1 - before) * math.sqrt(1 - beta) / (1 - abar)
        result.append((c1, c2, beta * (1 - before) / (1 - abar)))
        before = abar
    return result


@each_schedule
@pytest.mark.parametrize("T", [1, 2, 50, 500, 2000])
def test_betas_equal_the_formulas(schedule, T):
    expected = [FORMULAS[schedule](i, T) for i in range(T)]
    assert (betas(schedule, T).double() - torch.tensor(expected, dtype=torch.float64)).abs().max() < 1e-6


@each_schedule
def test_signal_and_noise_are_those_of_abar(schedule):
    signal, noise = signal_and_noise(schedule, 100)
    torch.testing.assert_close(signal**2 + noise**2, torch.ones(100))
    assert signal[0] ** 2 == pytest.approx(1 - FORMULAS[schedule](0, 100), abs=1e-6)
    assert (signal[1:] < signal[:-1]).all()


@each_schedule
@pytest.mark.parametrize("T", [10, 500])
def test_ddpm_is_the_posterior(schedule, T):
    plan = sampler_plan("ddpm", schedule, T)
    assert plan.timesteps.tolist() == list(range(T - 1, -1, -1))
    for (a, before, b, c), (c1, c2, variance) in zip(plan.coefficients, reversed(posterior(schedule, T)), strict=True):
        assert before == 0
        assert a == pytest.approx(c1, rel=2e-3, abs=1e-5)
        assert b == pytest.approx(c2, rel=2e-3, abs=1e-5)
        assert c == pytest.approx(math.sqrt(variance), rel=2e-3, abs=1e-5)


@each_schedule
def test_posterior_identity(schedule):
    """c1 + c2 sqrt(abar_t) = sqrt(abar_{t-1}): a sample at its mean stays at the mean, for every sampler."""
    signal, _ = signal_and_noise(schedule, 500)
    for sampler in SAMPLERS:
        for t, (a, before, b, _) in zip(
            range(499, -1, -1), sampler_plan(sampler, schedule, 500).coefficients, strict=True
        ):
            expected = float(signal[t - 1]) if t else 1.0
            assert a + before + b * float(signal[t]) == pytest.approx(expected, abs=2e-5)


@each_schedule
def test_ddpm_equals_that_of_diffusers(schedule):
    T, x, clean = 50, torch.tensor([[0.3, -2.0]]), torch.tensor([[1.5, 0.7]])
    theirs = DDPMScheduler(T, trained_betas=betas(schedule, T).tolist(), prediction_type="sample", clip_sample=False)
    for t, (a, _, b, c) in zip(range(T - 1, -1, -1), sampler_plan("ddpm", schedule, T).coefficients, strict=True):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(t))
        moved = theirs.step(clean, t, x, generator=torch.Generator().manual_seed(t)).prev_sample
        torch.testing.assert_close(a * clean + b * x + c * noise, moved, rtol=1e-3, atol=1e-4)


@each_schedule
@pytest.mark.parametrize("steps", [5, 50])
def test_ddim_equals_that_of_diffusers(schedule, steps):
    T, x, clean = 50, torch.tensor([[0.3, -2.0]]), torch.tensor([[1.5, 0.7]])
    theirs = DDIMScheduler(
        T,
        trained_betas=betas(schedule, T).tolist(),
        prediction_type="sample",
        clip_sample=False,
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(steps)
    plan = sampler_plan("ddim", schedule, T, steps)
    assert plan.timesteps.tolist() == theirs.timesteps.tolist()
    for t, (a, _, b, c) in zip(plan.timesteps.tolist(), plan.coefficients, strict=True):
        assert c == 0
        torch.testing.assert_close(a * clean + b * x, theirs.step(clean, t, x).prev_sample, rtol=1e-3, atol=1e-4)


@each_schedule
@each_sampler
@pytest.mark.parametrize("steps", [None, 1, 2, 7, 30])
def test_coefficients_do_what_the_scheduler_does(schedule, sampler, steps):
    generator = torch.Generator().manual_seed(0)
    plan, scheduler = sampler_plan(sampler, schedule, 40, steps), make_scheduler(sampler, schedule, 40, steps)
    count = len(plan.timesteps)
    clean, noise = torch.randn(2, count, 3, 4, generator=generator)
    start = x = torch.randn(3, 4, generator=generator)
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(clean[i], t, x, variance_noise=noise[i]).prev_sample
    ours = run_sampler(plan, start, lambda _, i: clean[i], lambda i: noise[i])
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    schedule=st.sampled_from(list(SCHEDULES)),
    sampler=st.sampled_from(list(SAMPLERS)),
    T=st.integers(1, 200),
    data=st.data(),
)
def test_an_oracle_denoiser_ends_at_its_x0(schedule, sampler, T, data):
    plan = sampler_plan(sampler, schedule, T, data.draw(st.integers(1, T)))
    x0 = torch.linspace(-3, 3, 12).view(3, 4)
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(3, 4, generator=generator)
    end = run_sampler(plan, start, lambda x, i: x0, lambda i: torch.randn(3, 4, generator=generator))
    torch.testing.assert_close(end, x0, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(T=st.integers(1, 400), data=st.data())
def test_visited_timesteps_are_even_distinct_and_start_at_the_last(T, data):
    steps = data.draw(st.integers(1, T))
    visited = make_scheduler("ddim", "linear", T, steps).timesteps.tolist()
    assert len(visited) == steps
    assert visited[0] == T - 1
    gaps = [a - b for a, b in zip(visited, [*visited[1:], -1], strict=True)]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


def test_with_few_steps_ddpm_has_the_right_marginals():
    """x_T ~ N(0, 1) and x_0 ~ N(0, s^2), for which the best denoiser is known: what comes out has variance s^2."""
    spread, T = 0.5, 100
    signal, noise = signal_and_noise("cosine", T)
    generator = torch.Generator().manual_seed(0)
    for sampler in SAMPLERS:
        plan = sampler_plan(sampler, "cosine", T)
        gains = spread**2 * signal / (spread**2 * signal**2 + noise**2)

        def denoise(x, i, plan=plan, gains=gains):
            return gains[plan.timesteps[i]] * x

        start = torch.randn(20_000, generator=generator)
        end = run_sampler(plan, start, denoise, lambda i: torch.randn(20_000, generator=generator))
        assert float(end.std()) == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: betas("quadratic", 10), "schedule must be one of linear, cosine, exp, sqrt .got 'quadratic'"),
        (lambda: betas("linear", 0), r"timesteps must be at least 1 \(got 0\)"),
        (
            lambda: make_scheduler("euler", "linear", 10),
            "sampler must be one of ddpm, ddim, dpm-solver.. .got 'euler'",
        ),
        (lambda: make_scheduler("ddim", "linear", 10, 11), r"steps must be in 1..10, .*\(got 11\)"),
        (lambda: make_scheduler("ddim", "linear", 10, 0), r"steps must be in 1..10, .*\(got 0\)"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
