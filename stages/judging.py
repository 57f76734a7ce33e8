"""Which attempt at a clone is best, and how good it is: words, voice, quality, length.

Judged is what would be stored. Cheap tests come first: whether the model ended it, whether there is
sound, then the words that a recogniser hears; voice and quality only of the attempts with about the
fewest errors.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import soxr

from annotators.dnsmos import Dnsmos
from annotators.speaker import SpeakerEncoder
from annotators.text import char_error_rate
from annotators.watermark import Watermark
from annotators.whisper import Whisper
from schemas.cloning import Candidate, Clone
from schemas.errors import ConfigError
from schemas.rows import Wave
from stages.flac import wave_of

MODEL_RATE = 16_000
"""Hertz of what the models hear."""
_FRAME = MODEL_RATE // 50


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgingConfig:
    """When two attempts are about equal."""

    near_cer: float = 0.03
    """Attempts whose character error rate is within this of the lowest have no more errors that
    count: two letters of seventy, where recognisers are of two minds."""
    near_cosine: float = 0.02
    """Of those, attempts whose cosine is within this of the highest are as like the voice."""
    silence_dbfs: float = -50.0
    """An attempt whose loudest 20 ms are below this says nothing; no model is asked, since a
    recogniser invents words for silence."""

    def __post_init__(self) -> None:
        for name in ("near_cer", "near_cosine"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"judging.{name} must be in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Judges:
    """The models that judge, opened: those of the curate phase, so that scores compare."""

    asr: Whisper
    voices: SpeakerEncoder
    quality: Dnsmos
    watermark: Watermark


@dataclass(kw_only=True, slots=True)
class _Heard:
    """An attempt with what the models hear of it."""

    candidate: Candidate
    wave: Wave = field(repr=False)
    """At the rate of its file."""
    wave_16k: Wave = field(repr=False)
    audible: bool


def at_model_rate(wave: Wave, sample_rate: int) -> Wave:
    """The wave at 16 kHz."""
    return np.asarray(soxr.resample(wave, sample_rate, MODEL_RATE, quality="HQ"), np.float32)


def loudest_dbfs(wave_16k: Wave) -> float:
    """Level of the loudest 20 ms; -200 for none. A rest shorter than 20 ms does not count."""
    frames = wave_16k[: wave_16k.size // _FRAME * _FRAME].reshape(-1, _FRAME).astype(np.float64)
    power = float(np.square(frames).mean(axis=1).max(initial=0.0))
    return 10 * float(np.log10(max(power, 1e-20)))


def worth_hearing(candidates: Sequence[Candidate]) -> list[int]:
    """The attempts that the model ended; where it ended none, all of them."""
    ended = [i for i, one in enumerate(candidates) if one.stopped]
    return ended or list(range(len(candidates)))


def fewest_errors(candidates: Sequence[Candidate], near: float) -> list[int]:
    """Who is still in after the words: attempts that the model ended, if there are any, within
    `near` of the lowest CER among them.
    """
    running = worth_hearing(candidates)
    lowest = min(candidates[i].cer for i in running)
    return [i for i in running if candidates[i].cer <= lowest + near]


def best(candidates: Sequence[Candidate], config: JudgingConfig) -> int:
    """Which attempt is kept.

    Those that the model ended come before those that were cut; then the lowest CER; among about
    equal ones the highest cosine; among about equal ones the highest DNSMOS; then the lower CER, the
    higher cosine and the first. What was not measured counts as worst.
    """
    running = fewest_errors(candidates, config.near_cer)
    cosines = {i: _or_worst(candidates[i].cosine) for i in running}
    highest = max(cosines.values())
    running = [i for i in running if cosines[i] >= highest - config.near_cosine]
    quality = {i: _or_worst(candidates[i].dnsmos_ovrl) for i in running}
    return min(running, key=lambda i: (-quality[i], candidates[i].cer, -cosines[i], i))


def _or_worst(score: float | None) -> float:
    return -math.inf if score is None else score


def cosine_of(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    """Cosine of two embeddings; 0 where either is all zero."""
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.dot(one, other)) / norms if norms > 0 else 0.0


class Judging:
    """Measures the attempts and leaves the best one in `candidates`."""

    name = "judging"

    def __init__(self, config: JudgingConfig, open_judges: Callable[[], Judges]) -> None:
        """open_judges: opens the models in the worker; pickles."""
        self.config = config
        self.open_judges = open_judges
        self._judges: Judges | None = None

    def setup(self) -> None:
        """Open the models. Raises ModelLoadError."""
        self._judges = self.open_judges()

    def process(self, batch: Sequence[Clone]) -> list[Clone]:
        """Return the clones with their best attempt. Raises DataError for audio that is none."""
        assert self._judges is not None, "setup() comes first"
        silence = self.config.silence_dbfs
        heard = [[_heard(one, silence) for one in clone.candidates] for clone in batch]
        self._read(batch, heard)
        return [
            self._judged(clone, some, self._judges)
            for clone, some in zip(batch, heard, strict=True)
        ]

    def _read(self, batch: Sequence[Clone], heard: Sequence[Sequence[_Heard]]) -> None:
        """Words and errors of the attempts that may be kept, in batches of one language."""
        assert self._judges is not None
        asked = [
            (clone, one)
            for clone, some in zip(batch, heard, strict=True)
            for one in (some[i] for i in worth_hearing(clone.candidates))
            if one.audible
        ]
        for language in dict.fromkeys(clone.language for clone, _ in asked):
            mine = [(clone, one) for clone, one in asked if clone.language == language]
            # Each alone: beside another attempt at its text a poor one would be read the better.
            texts = self._judges.asr.transcribe(
                [one.wave_16k for _, one in mine], language, alone=True
            )
            for (clone, one), text in zip(mine, texts, strict=True):
                one.candidate = replace(
                    one.candidate,
                    text_asr=text.text,
                    asr_avg_logprob=text.avg_logprob,
                    cer=char_error_rate(clone.text, text.text, clone.language),
                )

    def _judged(self, clone: Clone, heard: Sequence[_Heard], judges: Judges) -> Clone:
        running = fewest_errors([one.candidate for one in heard], self.config.near_cer)
        audible = [heard[i] for i in running if heard[i].audible]
        if audible:
            with_voice(clone, audible, judges.voices)
            with_quality(audible, judges.quality)
        kept = heard[best([one.candidate for one in heard], self.config)]
        score = judges.watermark.score(kept.wave, kept.candidate.sample_rate)
        return replace(
            clone,
            described=b"",
            speaker_embedding=None,
            candidates=(replace(kept.candidate, watermark_score=float(score)),),
        )


def with_voice(clone: Clone, heard: Sequence[_Heard], encoder: SpeakerEncoder) -> None:
    """Fill the embeddings, and their cosines to the described clip's."""
    waves = [one.wave_16k for one in heard]
    known = clone.speaker_embedding
    if known is None:
        waves.append(at_model_rate(*wave_of(clone.described)))
    voices = [voice.embedding for voice in encoder.embed(waves)]
    target = voices.pop() if known is None else known
    for one, voice in zip(heard, voices, strict=True):
        one.candidate = replace(
            one.candidate, speaker_embedding=voice, cosine=cosine_of(voice, target)
        )


def with_quality(heard: Iterable[_Heard], quality: Dnsmos) -> None:
    """Fill the opinion scores."""
    several = list(heard)
    for one, score in zip(several, quality.score([o.wave_16k for o in several]), strict=True):
        one.candidate = replace(
            one.candidate,
            dnsmos_sig=score.sig,
            dnsmos_bak=score.bak,
            dnsmos_ovrl=score.ovrl,
            dnsmos_p808=score.p808,
        )


def _heard(candidate: Candidate, silence_dbfs: float) -> _Heard:
    wave, rate = wave_of(candidate.audio)
    low = at_model_rate(wave, rate)
    audible = loudest_dbfs(low) >= silence_dbfs
    return _Heard(candidate=candidate, wave=wave, wave_16k=low, audible=audible)
