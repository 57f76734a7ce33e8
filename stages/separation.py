"""Take the background from below speech, where there is some, before anything else is measured.

Separation is the dearest stage by far. It runs over the regions of a chunk in which music plays, or
noise stands that is neither harmless nor beyond hope, and leaves the rest as it is, sample by sample. What
it made is judged like everything else, and by what is left of the music and of the speech (`stages.music`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import soxr
from pydantic import BeforeValidator

from annotators.demucs import Separator
from annotators.music import FRAME_S
from annotators.registry import resolve
from annotators.silero import SAMPLE_RATE, Silero, speech_spans
from schemas.errors import ConfigError
from schemas.rows import Chunk, Separated, Span, Wave
from stages.spans import common

FADE_S = 0.05
"""Seconds in which a region goes over into what is left as it was."""


def _word(mode: object) -> object:
    """YAML reads a bare `off` as false."""
    return "off" if mode is False else mode


@dataclass(frozen=True, kw_only=True, slots=True)
class SeparationConfig:
    """Where to separate, and by what."""

    mode: Annotated[Literal["auto", "always", "off"], BeforeValidator(_word)] = "off"
    """auto: where there is background; always: everything; off: nothing."""
    model: str = "htdemucs"
    """Name, or path of a folder with a demucs model; `htdemucs` comes from the hub."""
    threshold: float = 0.8
    """Probability of music in (0, 1) from which a frame has some."""
    noise_from_db: float = 14.0
    """`stnr_db` from which noise is no longer beyond hope: below, the policy takes no clip even after
    separation."""
    noise_to_db: float = 23.0
    """`stnr_db` from which noise is harmless; 0: noise alone is left where it is."""
    min_background_s: float = 2.0
    """Seconds; less background than this is left alone."""
    join_s: float = 3.0
    """Seconds; regions nearer to each other become one."""
    pad_s: float = 3.0
    """Seconds that a region grows at either end: music fades in and out below what is heard."""
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    """Threads of the model, on the CPU."""
    batch_size: int = 1
    """Stretches of a few seconds that go through the model at a time."""

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "always", "off"):
            raise ConfigError(f"separation.mode must be auto, always or off, got {self.mode!r}")
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"separation.device must be cpu or cuda, got {self.device!r}")
        if not 0 < self.threshold < 1:
            raise ConfigError(f"separation.threshold must be in (0, 1), got {self.threshold}")
        for name in ("noise_from_db", "noise_to_db"):
            if not 0 <= getattr(self, name) <= 100:
                raise ConfigError(
                    f"separation.{name} must be in [0, 100], got {getattr(self, name)}"
                )
        for name in ("min_background_s", "join_s", "pad_s"):
            if not 0 <= getattr(self, name) <= 60:
                raise ConfigError(
                    f"separation.{name} must be in [0, 60], got {getattr(self, name)}"
                )
        for name in ("threads", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"separation.{name} must be at least 1, got {getattr(self, name)}"
                )


def background(
    music: npt.NDArray[np.float32], stnr_db: npt.NDArray[np.float32], config: SeparationConfig
) -> npt.NDArray[np.bool_]:
    """(frames,) each -> which of them have background that is worth a separation."""
    noisy = (stnr_db >= config.noise_from_db) & (stnr_db < config.noise_to_db)
    return (music >= config.threshold) | noisy


def regions(
    there: npt.NDArray[np.bool_], duration_s: float, config: SeparationConfig
) -> tuple[Span, ...]:
    """Where to separate, in seconds: background of some length, its neighbours joined, with a margin."""
    frames = np.flatnonzero(there)
    if not frames.size:
        return ()
    runs = np.split(frames, np.flatnonzero(np.diff(frames) * FRAME_S > config.join_s) + 1)
    grown = [
        (run[0] * FRAME_S - config.pad_s, (run[-1] + 1) * FRAME_S + config.pad_s)
        for run in runs
        if run.size * FRAME_S >= config.min_background_s
    ]
    joined: list[tuple[float, float]] = []
    for start, end in grown:
        if joined and start <= joined[-1][1]:
            start = joined.pop()[0]
        joined.append((max(0.0, start), min(duration_s, end)))
    return tuple(Span(start_s=start, end_s=end) for start, end in joined)


def without_background(
    chunk: Chunk, spans: Sequence[Span], separator: Separator
) -> tuple[Wave, Wave]:
    """The chunk's wave at its rate and at 16 kHz, with speech alone in the spans."""
    wave, wave_16k = chunk.wave.copy(), chunk.wave_16k.copy()
    for span in spans:
        start, end = (round(at * chunk.sample_rate) for at in (span.start_s, span.end_s))
        low_start, low_end = (round(at * SAMPLE_RATE) for at in (span.start_s, span.end_s))
        if separator.sample_rate == SAMPLE_RATE and separator.channels == 1:
            heard = chunk.wave_16k[low_start:low_end, None]
        else:
            sound = chunk.wave[:, None] if chunk.stereo is None else chunk.stereo
            heard = at_rate(sound[start:end], chunk.sample_rate, separator.sample_rate)
            if separator.channels == 1:
                heard = heard.mean(axis=1, keepdims=True)
            elif heard.shape[1] == 1:
                heard = np.repeat(heard, separator.channels, axis=1)
        said = separator.speech(np.ascontiguousarray(heard, np.float32)).mean(axis=1)
        at_native = at_rate(said, separator.sample_rate, chunk.sample_rate)
        fade_in(wave, at_native, start, end, chunk.sample_rate)
        at_low = at_rate(said, separator.sample_rate, SAMPLE_RATE)
        fade_in(wave_16k, at_low, low_start, low_end, SAMPLE_RATE)
    return np.clip(wave, -1, 1), np.clip(wave_16k, -1, 1)


def fade_in(wave: Wave, new: Wave, start: int, end: int, sample_rate: int) -> None:
    """Put the new samples from start to end, in place; at a border inside the wave, by and by."""
    end = min(end, wave.size)
    size = end - start
    held = np.zeros(size, np.float32)
    held[: min(size, new.size)] = new[:size]
    fade = min(int(FADE_S * sample_rate), size // 2)
    share = np.ones(size, np.float32)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    if start > 0:
        share[:fade] = ramp
    if end < wave.size:
        share[size - fade :] = ramp[::-1]
    wave[start:end] = share * held + (1 - share) * wave[start:end]


def at_rate(wave: npt.NDArray[np.float32], rate: int, wanted: int) -> npt.NDArray[np.float32]:
    """(N,) or (N, C) at another rate."""
    if rate == wanted:
        return wave
    return np.asarray(soxr.resample(wave, rate, wanted, quality="HQ"), np.float32)


class Separation:
    """Changes `wave` and `wave_16k` of chunks with background, and says so in `separated`."""

    name = "separation"

    def __init__(self, config: SeparationConfig, vad: str) -> None:
        """vad: name or path of the voice activity model, which tells what speech there was."""
        self.config, self.vad = config, vad
        self._separator: Separator | None = None
        self._silero: Silero | None = None
        self._by = ""

    def setup(self) -> None:
        """Find the models; the separator is opened at the first background. Raises ModelLoadError."""
        if self.config.mode != "off":
            model = resolve(self.config.model)
            self._by = f"{model.name}@{model.hash}"
            self._silero = Silero(resolve(self.vad).path)

    def process(self, batch: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks, those with background without it."""
        if self.config.mode == "off":
            return list(batch)
        return [self._one(chunk) for chunk in batch]

    def _one(self, chunk: Chunk) -> Chunk:
        spans: tuple[Span, ...] = ()
        if self.config.mode == "always":
            spans = (Span(start_s=0.0, end_s=chunk.duration_s),)
        elif chunk.music is not None and chunk.stnr_db is not None:
            there = background(chunk.music, chunk.stnr_db, self.config)
            spans = regions(there, chunk.duration_s, self.config)
        if not spans:
            return replace(chunk, stereo=None)
        assert self._silero is not None, "setup() comes first"
        wave, wave_16k = without_background(chunk, spans, self._open())
        probs = self._silero.probs(chunk.wave_16k)
        speech = common(speech_spans(probs, duration_s=chunk.duration_s), spans)
        separated = Separated(spans=spans, by=self._by, speech=speech)
        return replace(chunk, wave=wave, wave_16k=wave_16k, stereo=None, separated=separated)

    def _open(self) -> Separator:
        """The model, which most workers never need: it brings torch with it."""
        if self._separator is None:
            self._separator = Separator(
                resolve(self.config.model).path,
                device=self.config.device,
                threads=self.config.threads,
                batch_size=self.config.batch_size,
            )
        return self._separator
