"""Noise schedules of DreamRec as `diffusers` schedulers, and a sampler's steps as plain coefficients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def linear_betas(timesteps: int) -> Tensor:
    """From 1e-4 to 0.02 in equal steps, whatever T."""
    return torch.linspace(1e-4, 0.02, timesteps, dtype=torch.float64)


def cosine_betas(timesteps: int) -> Tensor:
    r""":math:`\bar\alpha(u) = \cos^2\left(\frac{u + s}{1 + s} \frac\pi2\right)`, s = 0.008; beta in [1e-4, 0.9999]."""
    time = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    remaining = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - remaining[1:] / remaining[:-1]).clamp(1e-4, 0.9999)


def exp_betas(timesteps: int) -> Tensor:
    r""":math:`1 - \exp\left(-\frac bT - x \frac{B - b}{2 T^2}\right)`, x = linspace(1, 2T + 1, T), b = 0.1, B = 10."""
    x = torch.linspace(1, 2 * timesteps + 1, timesteps, dtype=torch.float64)
    return 1 - torch.exp(-0.1 / timesteps - x * 0.5 * (10 - 0.1) / timesteps**2)


def sqrt_betas(timesteps: int) -> Tensor:
    r""":math:`\bar\alpha(u) = 1 - \sqrt{u + 10^{-4}}`, which gives betas of at most 0.999."""
    time = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    remaining = 1 - torch.sqrt(time + 1e-4)
    return (1 - remaining[1:] / remaining[:-1]).clamp(max=0.999)


SCHEDULES: dict[str, Callable[[int], Tensor]] = {
    "linear": linear_betas,
    "cosine": cosine_betas,
    "exp": exp_betas,
    "sqrt": sqrt_betas,
}

# All three are one class of diffusers. Its first-order update is DDIM, and with noise it is the posterior of DDPM: an
# identity of the formulas. Unlike `DDPMScheduler` it takes the noise from outside, so that a row's noise need not
# depend on its batch; unlike `DDIMScheduler` it accepts a number of steps that does not divide T.
SAMPLERS: dict[str, dict[str, Any]] = {
    "ddpm": {"algorithm_type": "sde-dpmsolver++", "solver_order": 1},
    "ddim": {"algorithm_type": "dpmsolver++", "solver_order": 1},
    "dpm-solver++": {"algorithm_type": "dpmsolver++", "solver_order": 2},
}


def betas(schedule: str, timesteps: int) -> Tensor:
    """Variance of the noise that each diffusion step adds, (T,) float32; as in the official code within 1e-6.

    Args:
        schedule: "linear", "cosine", "exp" or "sqrt".
        timesteps: T, the number of diffusion steps, at least 1.

    Raises:
        ValueError: an unknown schedule, or T < 1.

    Examples:
        >>> [round(beta, 4) for beta in betas("linear", 2).tolist()]
        [0.0001, 0.02]
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)} (got {schedule!r})")
    if timesteps < 1:
        raise ValueError(f"timesteps must be at least 1 (got {timesteps})")
    return SCHEDULES[schedule](timesteps).float()


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # the cached tensors serve training too
def signal_and_noise(schedule: str, timesteps: int) -> tuple[Tensor, Tensor]:
    r""":math:`\sqrt{\bar\alpha_t}` and :math:`\sqrt{1 - \bar\alpha_t}`, two (T,): x_t = signal * x_0 + noise * eps."""
    remaining = torch.cumprod(1 - betas(schedule, timesteps).double(), dim=0)
    return remaining.sqrt().float(), (1 - remaining).sqrt().float()


def make_scheduler(sampler: str, schedule: str, timesteps: int, steps: int | None = None) -> Any:
    """The `diffusers` scheduler of a sampler, its timesteps set.

    The visited timesteps are spaced evenly and include the last one ("trailing"): sampling starts where training's
    noise is strongest, and its last step goes to the noiseless x_0. With `steps == timesteps` every one is visited.

    Args:
        sampler: "ddpm" (the paper's), "ddim" or "dpm-solver++" (second order).
        schedule: of the betas.
        timesteps: T.
        steps: of the sampler, 1..T; None: T.

    Returns:
        A `diffusers.DPMSolverMultistepScheduler`, with `prediction_type="sample"`; nothing is clipped.

    Raises:
        ValueError: an unknown sampler or schedule, or steps outside 1..T.

    Examples:
        >>> make_scheduler("ddim", "linear", 10, steps=3).timesteps.tolist()
        [9, 6, 2]
    """
    from diffusers import DPMSolverMultistepScheduler

    steps = timesteps if steps is None else steps
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)} (got {sampler!r})")
    if not 1 <= steps <= timesteps:
        raise ValueError(f"steps must be in 1..{timesteps}, the number of diffusion steps (got {steps})")
    scheduler: Any = DPMSolverMultistepScheduler(
        num_train_timesteps=timesteps,
        trained_betas=betas(schedule, timesteps).tolist(),
        prediction_type="sample",
        **SAMPLERS[sampler],
    )
    visited = [math.floor(timesteps * (steps - i) / steps + 0.5) - 1 for i in range(steps)]
    scheduler.set_timesteps(timesteps=visited)
    return scheduler


@dataclass(frozen=True)
class SamplerPlan:
    r"""A sampler's steps, each linear in what it is given.

    With the predicted :math:`\hat x_0`, that of the step before, and standard normal noise,

    .. math:: x \leftarrow a \hat x_0 + a' \hat x_0^{before} + b x + c \epsilon.

    Attributes:
        timesteps: the visited ones, first to last, (S,) int64.
        coefficients: (a, a', b, c) per step.
    """

    timesteps: Tensor
    coefficients: tuple[tuple[float, float, float, float], ...]


@lru_cache(maxsize=32)
def sampler_plan(sampler: str, schedule: str, timesteps: int, steps: int | None = None) -> SamplerPlan:
    """The coefficients that the scheduler of `make_scheduler` applies, read off it once.

    The scheduler itself spends longer on the scalars of a step than the whole batch takes. It is run on unit vectors
    here: one for x, one for the noise, and one each for the predictions of even and odd steps, since a second-order
    solver remembers the last prediction.

    Examples:
        >>> plan = sampler_plan("ddim", "linear", 10, steps=2)
        >>> plan.timesteps.tolist(), plan.coefficients[-1]
        ([9, 4], (1.0, 0.0, 0.0, 0.0))
    """
    scheduler = make_scheduler(sampler, schedule, timesteps, steps)
    x, noise, *predictions = torch.eye(4)
    coefficients = []
    for i, t in enumerate(scheduler.timesteps):
        moved = scheduler.step(predictions[i % 2], t, x, variance_noise=noise).prev_sample.tolist()
        coefficients.append((moved[2 + i % 2], moved[3 - i % 2], moved[0], moved[1]))
    return SamplerPlan(scheduler.timesteps, tuple(coefficients))


def run_sampler(
    plan: SamplerPlan, start: Tensor, denoise: Callable[[Tensor, int], Tensor], noise: Callable[[int], Tensor]
) -> Tensor:
    """From pure noise to x_0.

    Args:
        plan: the steps.
        start: x_T, standard normal, (B, d).
        denoise: x and the number of the step (0 first) to the predicted x_0.
        noise: the number of the step to standard normal noise (B, d); called by stochastic samplers only.

    Returns:
        x_0, (B, d).
    """
    x, before = start, start
    for i, (a, a_before, b, c) in enumerate(plan.coefficients):
        clean = denoise(x, i)
        x = torch.add(a * clean, x, alpha=b)
        if a_before:
            x = x.add_(before, alpha=a_before)
        if c:
            x = x.add_(noise(i), alpha=c)
        before = clean
    return x
