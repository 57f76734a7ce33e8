"""Flow matching: how a patch is solved from noise, and what the LocDiT learns.

Convention: t = 1 is noise, t = 0 is data, x_t = (1 - t) · data + t · noise, velocity = noise - data.
Shapes: N patches, P frames of a patch, C latent channels, K solver steps.
Sources: spec §8; CFG-Zero* is arXiv 2503.18886; sway sampling is from F5-TTS (arXiv 2410.06885).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from model_core.config import FlowConfig
from model_core.local_dit import Given, LocalDiT
from schemas.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class SolverConfig:
    """How the flow is solved at inference."""

    num_steps: int = 10
    """Euler steps from noise to data."""
    cfg: float = 2.0
    """Weight of classifier-free guidance; 1 follows the condition alone."""
    zero_star: bool = True
    """CFG-Zero*: rescale the unconditional branch, and take no step at the very start."""
    sway: float = 1.0
    """Sway sampling coefficient; 0 is uniform steps, positive is finer near noise."""
    temperature: float = 1.0
    """Factor of the initial noise."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ConfigError(f"num_steps must be at least 1, got {self.num_steps}")
        for name in ("cfg", "temperature"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be a number and not negative, got {value}")
        if not math.isfinite(self.sway):
            raise ConfigError(f"sway must be a number, got {self.sway}")

    @property
    def num_idle_steps(self) -> int:
        """Steps at the start whose velocity is taken as zero."""
        return max(1, int((self.num_steps + 1) * 0.04)) if self.zero_star else 0

    def time_span(
        self, dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> Tensor:
        """(K + 1,) times from 1 to 0."""
        t = torch.linspace(1, 0, self.num_steps + 1, device=device, dtype=dtype)
        return t + self.sway * (torch.cos(math.pi / 2 * t) - 1 + t)


class Solver:
    """Euler with guidance. Both branches go through the estimator as one batch.

    What depends on time alone is computed once, here; what depends on the patch's condition, once a
    patch.
    """

    def __init__(
        self, estimator: LocalDiT, config: SolverConfig, *, mean_mode: bool = False
    ) -> None:
        self.estimator = estimator
        self.config = config
        weight = estimator.time_mlp.linear_1.weight
        span = config.time_span(weight.dtype, weight.device)
        t = span[0]
        times, deltas = [], []
        # The official solver walks t by differences; its rounding is kept.
        for step in range(config.num_steps):
            delta = t - span[step + 1] if step else span[0] - span[1]
            times.append(t)
            deltas.append(delta)
            t = t - delta
        self._deltas = torch.stack(deltas)  # (K,)
        asked = self._deltas if mean_mode else torch.zeros_like(self._deltas)
        self._time_tokens = estimator.time_token(torch.stack(times), asked)  # (K, E)

    def __call__(self, noise: Tensor, mu: Tensor, cond: Tensor) -> Tensor:
        """noise: (N, P, C) standard normal; mu: (N, M · E); cond: (N, P, C) -> patches (N, P, C)."""
        config, estimator = self.config, self.estimator
        guided = config.cfg != 1.0
        x = noise * config.temperature
        if guided:
            mu, cond = torch.cat((mu, torch.zeros_like(mu))), torch.cat((cond, cond))
        given = estimator.given(mu, cond)
        for step in range(config.num_idle_steps, config.num_steps):
            velocity = self._velocity(x, given, self._time_tokens[step : step + 1], guided)
            x = x - self._deltas[step] * velocity
        return x

    def _velocity(self, x: Tensor, given: Given, time: Tensor, guided: bool) -> Tensor:
        if not guided:
            return self.estimator.velocity(x, given, time)
        both = self.estimator.velocity(torch.cat((x, x)), given, time)
        with_mu, without = both.chunk(2)
        if self.config.zero_star:
            without = without * projection(with_mu, without)
        return without + self.config.cfg * (with_mu - without)


def projection(onto: Tensor, of: Tensor) -> Tensor:
    """CFG-Zero*'s scale s of each patch: the least-squares fit of `of` to `onto`, (N, 1, 1)."""
    dot = (onto * of).sum(dim=(1, 2), keepdim=True)
    return dot / (of.square().sum(dim=(1, 2), keepdim=True) + 1e-8)


@dataclass(frozen=True, slots=True)
class Draws:
    """The random numbers of one training step over N patches; given, a loss is a pure function."""

    keep: Tensor
    """(N,) booleans: the condition is kept."""
    t: Tensor
    """(N,) times in [0, 1]."""
    r: Tensor
    """(N,) earlier times; equal to t unless the mean velocity is learnt."""
    noise: Tensor
    """(N, P, C) standard normal."""
    cond_noise: Tensor
    """(N, P, C) what is added to the past patch; zero in every release."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a generator gives for N patches, in the order in which the official trainer asks."""

    keep: Tensor
    """(N,) uniform."""
    noised: Tensor
    """(N,) uniform."""
    cond_noise: Tensor
    """(N, P, C) standard normal."""
    r: Tensor
    """(N,) uniform, or standard normal for the scheduler log-norm."""
    t: Tensor
    """(N,) like r."""
    apart: Tensor
    """(N,) uniform."""
    noise: Tensor
    """(N, P, C) standard normal."""


def draw(
    target: Tensor,
    config: FlowConfig,
    *,
    progress: float = 0.0,
    mean_mode: bool = False,
    generator: torch.Generator | None = None,
) -> Draws:
    """Draw for (N, P, C) targets. progress in [0, 1] moves the ranges of the config."""
    n, device = len(target), target.device

    def uniform() -> Tensor:
        return torch.rand(n, device=device, generator=generator)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, generator=generator)

    def time() -> Tensor:
        return uniform() if config.t_scheduler == "uniform" else normal(n)

    shape = target.shape
    numbers = Numbers(
        uniform(), uniform(), normal(*shape), time(), time(), uniform(), normal(*shape)
    )
    return draws_of(numbers, config, progress=progress, mean_mode=mean_mode)


def draws_of(
    numbers: Numbers, config: FlowConfig, *, progress: float = 0.0, mean_mode: bool = False
) -> Draws:
    """What the config makes of random numbers."""
    noised = numbers.noised > 1 - _at(config.noise_cond_prob_range, progress)
    r, t = numbers.r, numbers.t
    if config.t_scheduler == "log-norm":
        r, t = torch.sigmoid(r - 0.4), torch.sigmoid(t - 0.4)
    # Apart, the earlier of both is r; else r is t.
    apart = (numbers.apart < _at(config.ratio_r_neq_t_range, progress)) & mean_mode
    return Draws(
        keep=numbers.keep > config.training_cfg_rate,
        t=torch.where(apart, torch.maximum(r, t), t),
        r=torch.where(apart, torch.minimum(r, t), t),
        noise=numbers.noise,
        cond_noise=numbers.cond_noise * config.noise_cond_scale * noised[:, None, None],
    )


def _at(bounds: tuple[float, float], progress: float) -> float:
    return bounds[0] + progress * (bounds[1] - bounds[0])


def flow_loss(
    estimator: LocalDiT,
    mu: Tensor,
    target: Tensor,
    cond: Tensor,
    draws: Draws,
    *,
    mean_mode: bool = False,
) -> Tensor:
    """Squared error of the velocity for each patch: (N,).

    mu: (N, M · E); target, cond: (N, P, C). The mean over the frames and channels of a patch; the
    caller weighs patches.
    """
    dtype = mu.dtype
    mu = mu * draws.keep[:, None]
    cond = cond + draws.cond_noise.to(cond.dtype)
    t = draws.t[:, None, None]
    x = ((1 - t) * target + t * draws.noise).to(dtype)
    velocity = (draws.noise - target).to(dtype)
    if mean_mode:
        predicted, wanted = _mean_velocity(estimator, mu, x, cond, draws, velocity)
    else:
        # In the type of the weights, as at inference: see `sinusoid`.
        now = draws.t.to(dtype)
        predicted = estimator(x, mu, now, cond, torch.zeros_like(now))
        wanted = velocity
    return (predicted - wanted).float().square().mean(dim=(1, 2))


def _mean_velocity(
    estimator: LocalDiT, mu: Tensor, x: Tensor, cond: Tensor, draws: Draws, velocity: Tensor
) -> tuple[Tensor, Tensor]:
    """Prediction and target of the mean velocity over [r, t] (MeanFlow, arXiv 2505.13447)."""

    def along(x: Tensor, r: Tensor, t: Tensor) -> Tensor:
        return estimator(x, mu, t, cond, t - r)

    directions = (velocity, torch.zeros_like(draws.r), torch.ones_like(draws.t))
    # Forward-mode derivatives exist only for the plain attention kernel.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        jvp = torch.func.jvp(along, (x, draws.r, draws.t), directions)
    predicted, slope = jvp[0], jvp[1]
    span = (draws.t - draws.r)[:, None, None]
    return predicted, (velocity - span * slope).detach()
