"""How well an AudioVAE gives back what it heard: mel and STFT distance, STOI, PESQ.

Shapes: S samples.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import fmean

import torch
from pesq import NoUtterancesError
from torch import Tensor
from torchmetrics.functional.audio.pesq import perceptual_evaluation_speech_quality
from torchmetrics.functional.audio.stoi import short_time_objective_intelligibility

from model_core.audio import resampled
from model_core.audio_vae import AudioVAE
from model_core.vae_training.batches import HeldOutClip
from model_core.vae_training.settings import MelConfig
from model_core.vae_training.spectra import MelDistance, stft_distance

HEARING_RATE = 16_000
"""Hertz at which STOI and wide-band PESQ compare."""
SHORTEST_HEARD_S = 1.0
"""Seconds; of less neither says anything."""


@dataclass(frozen=True, slots=True)
class ClipScores:
    """One clip, as it came back. None: not measured, or the measure has no answer."""

    clip_id: str
    mel: float
    """Distance at the decoder's rate, as `spectra.MelDistance` has it."""
    mel_heard: float
    """The same at the encoder's rate: what both versions have in common."""
    stft: float
    stoi: float | None = None
    """Intelligibility, up to 1."""
    pesq: float | None = None
    """Wide-band quality, 1.0 to 4.6."""


class Judge:
    """Compares waveforms at the two rates of an AudioVAE; builds its filters once."""

    def __init__(
        self, mel: MelConfig, sample_rate: int, out_sample_rate: int, device: torch.device
    ) -> None:
        self.sample_rate, self.out_sample_rate = sample_rate, out_sample_rate
        self.mel = MelDistance(mel, out_sample_rate).to(device)
        self.mel_heard = MelDistance(mel, sample_rate).to(device)
        self.device = device

    def scores(self, clip: HeldOutClip, wave: Tensor, *, perceptual: bool) -> ClipScores:
        """wave: (S,) at the decoder's rate, as long as the clip's target."""
        ours, theirs = wave.float().cpu(), clip.target.float()
        heard = resampled(ours, self.out_sample_rate, self.sample_rate, v2=True)
        both = (ours.to(self.device)[None], theirs.to(self.device)[None])
        stoi, pesq = self._perceptual(ours, theirs) if perceptual else (None, None)
        length = min(len(heard), len(clip.heard))
        return ClipScores(
            clip_id=clip.clip_id,
            mel=self.mel(*both).item(),
            mel_heard=self.mel_heard(
                heard[None, :length].to(self.device), clip.heard[None, :length].to(self.device)
            ).item(),
            stft=stft_distance(*both).item(),
            stoi=stoi,
            pesq=pesq,
        )

    def _perceptual(self, ours: Tensor, theirs: Tensor) -> tuple[float | None, float | None]:
        ours, theirs = (
            resampled(wave, self.out_sample_rate, HEARING_RATE, v2=True) for wave in (ours, theirs)
        )
        if len(theirs) < SHORTEST_HEARD_S * HEARING_RATE or not ours.isfinite().all():
            return None, None
        stoi = short_time_objective_intelligibility(ours, theirs, HEARING_RATE).item()
        try:
            pesq = perceptual_evaluation_speech_quality(ours, theirs, HEARING_RATE, "wb").item()
        except (NoUtterancesError, ValueError):  # it finds no speech, or what came back is silent
            pesq = None
        return stoi, pesq


@torch.no_grad()
def spoken(vae: AudioVAE, clip: HeldOutClip, *, seed: int = 0) -> Tensor:
    """The clip through the AudioVAE, by the mean of its latent: (S,) as long as its target."""
    noise = torch.Generator(vae.device).manual_seed(seed)
    latent = vae.encode(clip.heard.to(vae.device)[None, None])
    wave = vae.decode(latent, clip.sample_rate, noise=noise)[0, 0]
    return wave[: len(clip.target)].float().cpu()


def evaluated(
    vae: AudioVAE, clips: Sequence[HeldOutClip], judge: Judge, *, perceptual: bool
) -> list[ClipScores]:
    """Scores of every clip. perceptual: whether to take STOI and PESQ, the slow ones."""
    with _evaluating(vae):
        return [judge.scores(clip, spoken(vae, clip), perceptual=perceptual) for clip in clips]


def silence(
    clips: Sequence[HeldOutClip], judge: Judge, *, perceptual: bool = False
) -> list[ClipScores]:
    """What saying nothing scores: the bound that any training must beat."""
    return [
        judge.scores(clip, torch.zeros_like(clip.target), perceptual=perceptual) for clip in clips
    ]


def means(scores: Sequence[ClipScores]) -> dict[str, float | None]:
    """The mean of each measure over the clips that have it."""
    rows = [asdict(row) for row in scores]
    found = {}
    for name in rows[0]:
        if name != "clip_id":
            values = [row[name] for row in rows if row[name] is not None]
            found[name] = fmean(values) if values else None
    return found


@contextmanager
def _evaluating(vae: AudioVAE) -> Iterator[None]:
    training = vae.training
    vae.eval()
    try:
        yield
    finally:
        vae.train(training)
