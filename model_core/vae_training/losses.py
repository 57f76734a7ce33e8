"""The losses that are not spectral: of the latent, and between AudioVAE and discriminators.

Shapes: B batch, D latent channels, F latent frames.
Sources: LSGAN (arXiv 1611.04076); feature matching and the sums over discriminators as in DAC.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model_core.vae_training.discriminators import Judgement

# exp of these is neither zero nor infinite, and a latent's spread has no business beyond.
_LOG_VARIANCES = (-30.0, 20.0)


def sampled(mean: Tensor, log_variance: Tensor, generator: torch.Generator) -> Tensor:
    """A draw from N(mean, exp(log_variance)), (B, D, F), through which gradients flow."""
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + noise * (0.5 * log_variance.clamp(*_LOG_VARIANCES)).exp()


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """(B, D, F) twice -> (): KL of N(mean, exp(log_variance)) from N(0, 1), summed over the
    channels of a frame, the mean over frames.
    """
    log_variance = log_variance.clamp(*_LOG_VARIANCES)
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(dim=1).mean()


def discriminator_loss(real: Sequence[Judgement], made: Sequence[Judgement]) -> Tensor:
    """What the discriminators shall lower: 1 for real speech, 0 for the AudioVAE's."""
    terms = [
        (1 - ours.score).square().mean() + theirs.score.square().mean()
        for ours, theirs in zip(real, made, strict=True)
    ]
    return torch.stack(terms).sum()


def adversarial_loss(made: Sequence[Judgement]) -> Tensor:
    """What the AudioVAE shall lower: its speech should score as real."""
    return torch.stack([(1 - judgement.score).square().mean() for judgement in made]).sum()


def feature_loss(real: Sequence[Judgement], made: Sequence[Judgement]) -> Tensor:
    """The L1 distance of what the discriminators' hidden layers see. Real speech is the target."""
    terms = [
        (seen - target.detach()).abs().mean()
        for ours, theirs in zip(real, made, strict=True)
        for target, seen in zip(ours.features, theirs.features, strict=True)
    ]
    return torch.stack(terms).sum()
