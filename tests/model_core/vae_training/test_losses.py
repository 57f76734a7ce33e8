"""The losses against their definitions, and discriminators that look where they should."""

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal
from torch.distributions import kl_divergence as true_kl

from model_core.audio_vae.layers import CausalConv, Snake
from model_core.vae_training.batches import HeldOutClip, ahead
from model_core.vae_training.discriminators import Discriminators, Judgement
from model_core.vae_training.evaluation import Judge, means
from model_core.vae_training.losses import (
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    kl_divergence,
    sampled,
)
from model_core.vae_training.settings import DiscriminatorsConfig, LoopConfig, MelConfig
from model_core.vae_training.spectra import MelDistance, stft_distance
from schemas.errors import ConfigError
from tests.model_core.vae_training.streams import SMALL


@pytest.fixture(scope="module")
def speech(devset: Path) -> Tensor:
    """(1, S): three seconds at 16 kHz."""
    wave, _ = sf.read(devset / "audio" / "en_allison_s1.flac", dtype="float32")
    return torch.from_numpy(wave[None, 8000:56000])


def test_mel_distances_are_zero_for_the_same_and_grow_with_noise(speech: Tensor) -> None:
    distance = MelDistance(MelConfig(), 16_000)
    assert distance(speech, speech).item() == 0
    noise = torch.randn(speech.shape, generator=torch.Generator().manual_seed(0))
    found = [distance(speech + level * noise, speech).item() for level in (1e-3, 1e-2, 1e-1)]
    assert all(a < b for a, b in pairwise([0.0, *found]))
    assert stft_distance(speech, speech).item() == 0
    assert stft_distance(speech + 0.1 * noise, speech) > stft_distance(
        speech + 0.01 * noise, speech
    )


def test_half_the_loudness_is_a_third_of_a_decade_in_every_window(speech: Tensor) -> None:
    config = MelConfig(floor=1e-30)
    found = MelDistance(config, 16_000)(speech / 2, speech).item()
    assert found == pytest.approx(math.log10(2) * len(config.windows), rel=1e-4)


def test_mel_bands_see_their_own_frequencies() -> None:
    time = torch.arange(16_000) / 16_000
    distance = MelDistance(MelConfig(windows=(1024,), num_mels=(80,)), 16_000)
    for hertz in (200.0, 1000.0, 5000.0):
        mel = distance._log_mel(torch.sin(2 * math.pi * hertz * time)[None], 1024)[0]
        loudest = mel.mean(dim=1).argmax()
        bank = distance.get_buffer("bank_1024")[loudest]
        centre = (bank * torch.linspace(0, 8000, 513)).sum() / bank.sum()
        assert centre.item() == pytest.approx(hertz, abs=20, rel=0.03)


@given(mean=st.floats(-3, 3), deviation=st.floats(0.05, 5))
@settings(deadline=None, max_examples=30)
def test_the_divergence_is_that_of_the_distributions(mean: float, deviation: float) -> None:
    means_, log_variances = (
        torch.full((2, 3, 4), mean),
        torch.full((2, 3, 4), 2 * math.log(deviation)),
    )
    true = 3 * true_kl(Normal(mean, deviation), Normal(0.0, 1.0))
    assert kl_divergence(means_, log_variances).item() == pytest.approx(
        true.item(), abs=1e-4, rel=1e-4
    )


def test_draws_have_the_mean_and_the_spread_and_carry_gradients() -> None:
    mean = torch.full((1, 1, 100_000), 2.0, requires_grad=True)
    log_variance = torch.full((1, 1, 100_000), 2 * math.log(0.5), requires_grad=True)
    draw = sampled(mean, log_variance, torch.Generator().manual_seed(0))
    assert draw.mean().item() == pytest.approx(2.0, abs=0.01)
    assert draw.std().item() == pytest.approx(0.5, abs=0.01)
    draw.sum().backward()
    assert mean.grad is not None
    assert torch.equal(mean.grad, torch.ones_like(mean))
    assert log_variance.grad is not None
    assert log_variance.grad.abs().max() > 0


def test_least_squares_against_numbers() -> None:
    real = [Judgement(torch.tensor([1.0, 0.5]), [torch.tensor([1.0, 3.0])])]
    made = [Judgement(torch.tensor([0.0, 1.0]), [torch.tensor([2.0, 3.0])])]
    assert discriminator_loss(real, made).item() == pytest.approx(0.125 + 0.5)
    assert adversarial_loss(made).item() == pytest.approx(0.5)
    assert feature_loss(real, made).item() == pytest.approx(0.5)


def test_all_discriminators_judge_whatever_the_loudness(speech: Tensor) -> None:
    torch.manual_seed(0)
    judges = Discriminators(SMALL)
    wave = speech[:, None, :6000].repeat(2, 1, 1).requires_grad_(True)
    judgements = judges(wave)
    assert len(judgements) == 4
    assert [len(judgement.features) for judgement in judgements] == [3, 3, 3, 25]
    for judgement, louder in zip(judgements, judges(3 * wave + 0.1), strict=True):
        torch.testing.assert_close(judgement.score, louder.score, rtol=1e-3, atol=1e-4)
    adversarial_loss(judgements).backward()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()
    assert wave.grad.abs().max() > 0
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in judges.parameters())


def test_the_published_discriminators_have_their_published_size() -> None:
    """41.1 M in the periods (HiFi-GAN), and some 1.4 M in the spectrograms."""
    with torch.device("meta"):
        judges = Discriminators(DiscriminatorsConfig(scales=()))
    millions = sum(p.numel() for p in judges.parameters()) / 1e6
    assert millions == pytest.approx(42.5, abs=0.6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MelConfig(windows=(512,), num_mels=(10, 20)), "1 windows and 2"),
        (lambda: MelConfig(windows=(512,), num_mels=(400,)), "512 and 400"),
        (lambda: DiscriminatorsConfig(periods=(), fft_sizes=(), scales=()), "at least one"),
        (lambda: DiscriminatorsConfig(periods=(0,)), "periods"),
        (lambda: DiscriminatorsConfig(bands=((0.5, 0.1),)), "bands"),
        (lambda: LoopConfig(betas=(0.5, 1.0)), "betas"),
        (lambda: LoopConfig(steps=0), "steps"),
        (lambda: LoopConfig(decay=0), "decay"),
    ],
)
def test_settings_that_cannot_work_are_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


def test_scores_of_the_same_and_of_noise(speech: Tensor) -> None:
    judge = Judge(MelConfig(), 16_000, 16_000, torch.device("cpu"))
    clip = HeldOutClip("c", speech[0], speech[0], 16_000)
    noise = 0.1 * torch.randn(speech.shape[1], generator=torch.Generator().manual_seed(0))
    same = judge.scores(clip, speech[0], perceptual=True)
    worse = judge.scores(clip, speech[0] + noise, perceptual=True)
    assert (same.mel, same.mel_heard, same.stft) == (0, 0, 0)
    assert same.stoi == pytest.approx(1, abs=1e-3)
    assert same.pesq == pytest.approx(4.64, abs=0.02)
    assert worse.mel > 1
    assert worse.stoi is not None
    assert worse.stoi < 0.98
    assert worse.pesq is not None
    assert worse.pesq < 2
    silent = judge.scores(clip, torch.zeros(speech.shape[1]), perceptual=True)
    assert silent.mel > worse.mel
    assert means([same, worse])["mel"] == pytest.approx(worse.mel / 2)


def test_what_is_read_ahead_comes_in_order_and_with_its_errors() -> None:
    def items() -> Iterator[int]:
        yield from range(20)
        raise ConfigError("the end of it")

    some = ahead(items(), depth=2)
    assert [next(some) for _ in range(20)] == list(range(20))
    with pytest.raises(ConfigError, match="the end of it"):
        next(some)
    endless = ahead(iter(int, 1))
    assert next(endless) == 0
    endless.close()  # type: ignore[attr-defined]


# ── the gradients that the AudioVAE's layers take themselves ──────────────────────────────────────


def gradients(output: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return list(torch.autograd.grad((output * weights).sum(), wanted))


def test_snakes_gradient_is_that_of_its_formula() -> None:
    torch.manual_seed(0)
    snake = Snake(5).double()
    x = torch.randn(3, 5, 40, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        snake.alpha.uniform_(0.05, 3)
    plain = x + torch.sin(snake.alpha * x).square() / (snake.alpha + 1e-9)
    wanted = [x, snake.alpha]
    torch.testing.assert_close(snake(x), plain)
    for ours, theirs in zip(gradients(snake(x), wanted), gradients(plain, wanted), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dilation", [1, 3, 9])
@pytest.mark.parametrize("bias", [True, False])
def test_depthwise_gradients_are_pytorchs(dilation: int, bias: bool) -> None:
    torch.manual_seed(0)
    conv = CausalConv(6, 6, 7, dilation=dilation, groups=6, bias=bias).double()
    x = torch.randn(2, 6, 50, dtype=torch.float64, requires_grad=True)
    padded = torch.nn.functional.pad(x, (conv.past, 0))
    plain = torch.nn.functional.conv1d(
        padded, conv.weight(), conv.bias, dilation=dilation, groups=6
    )
    wanted = [x, *conv.parameters()]
    assert torch.equal(conv(x), plain)
    for ours, theirs in zip(gradients(conv(x), wanted), gradients(plain, wanted), strict=True):
        torch.testing.assert_close(ours, theirs)
