"""Mixtures of speech and background, made anew for every step of training.

A mixture is a stretch of one speaker's utterances with pauses, and music, noise or nothing below it.
Voices are made more by other speeds, bands and rooms; what a room does to speech belongs to the speech.
"""

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

Wave = NDArray[np.float32]
RATE = 16_000

SNR_DB = (-5.0, 15.0)
LEVEL_DBFS = (-38.0, -14.0)
SPEEDS = (0.82, 1.22)
ROOM_S = (0.1, 0.7)
"""Reverberation times."""
CLEAN, WORDLESS, WITH_NOISE, IN_A_ROOM, NARROW = 0.1, 0.06, 0.2, 0.2, 0.2
"""Shares: nothing below the speech; no speech; noise below, beside or in the place of music; ..."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What there is to mix, in memory: speech by speaker, music by track."""

    speech: Mapping[str, list[Wave]]
    music: Mapping[str, list[Wave]]

    @classmethod
    def read(cls, folder: Path, split: str) -> Self:
        """From what `jobs.shipped.separator.sources` wrote."""
        kinds: dict[str, dict[str, list[Wave]]] = {
            "speech": defaultdict(list),
            "music": defaultdict(list),
        }
        with (folder / "sources.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["split"] == split:
                    wave, _ = sf.read(folder / row["uri"], dtype="float32")
                    kinds[row["kind"]][row["name"]].append(wave)
        return cls(kinds["speech"], kinds["music"])


@dataclass(slots=True)
class Mixer:
    """Draws mixtures: every call another one."""

    sources: Sources
    seconds: float
    rng: np.random.Generator = field(default_factory=np.random.default_rng)

    @property
    def size(self) -> int:
        """Samples of a mixture."""
        return round(self.seconds * RATE)

    def draw(self) -> tuple[Wave, Wave, float | None]:
        """Speech (N,), background (N,), and the ratio between them in dB where there are both."""
        speech = self.speech()
        kind = self.rng.random()
        if kind < CLEAN:
            background, snr = np.zeros_like(speech), None
        else:
            background, snr = self.background(), self.rng.uniform(*SNR_DB)
            if kind < CLEAN + WORDLESS:
                speech, snr = np.zeros_like(speech), None
        if snr is not None:
            background = at_snr(speech, background, snr)
        gain = 10 ** (self.rng.uniform(*LEVEL_DBFS) / 20) / max(rms(speech + background), 1e-6)
        gain = min(gain, 0.99 / max(float(np.abs(speech + background).max()), 1e-6))
        return (speech * gain).astype(np.float32), (background * gain).astype(np.float32), snr

    def speech(self) -> Wave:
        """Utterances of one speaker with pauses between them."""
        rng, out, at = self.rng, np.zeros(self.size, np.float32), 0
        of_speaker = list(self.sources.speech.values())[rng.integers(len(self.sources.speech))]
        speed = rng.uniform(*SPEEDS)
        at -= int(rng.integers(0, RATE))  # the first one is under way
        while at < self.size:
            wave = of_speaker[rng.integers(len(of_speaker))]
            if wave.size > 2 * self.size:  # of a meeting
                begin = int(rng.integers(0, wave.size - 2 * self.size))
                wave = wave[begin : begin + 2 * self.size]
            wave = soxr.resample(wave, RATE, RATE * speed, quality="LQ")
            wave = wave / max(rms(wave), 1e-6) * 0.1
            begin, end = max(0, -at), min(wave.size, self.size - at)
            if end > begin:
                out[at + begin : at + end] += wave[begin:end]
            at += wave.size + int(rng.exponential(0.3) * RATE)
        if rng.random() < IN_A_ROOM:
            out = self.in_a_room(out)
        return self.coloured(out)

    def background(self) -> Wave:
        """Music, noise or both."""
        rng = self.rng
        both = rng.random()
        music, noise = self.music(), np.zeros(self.size, np.float32)
        if both < WITH_NOISE:
            noise = self.noise()
            if both < WITH_NOISE / 2:
                return noise
        return self.coloured(music) + noise * rng.uniform(0.1, 1.0)

    def music(self) -> Wave:
        """A stretch of one track, at times of two."""
        rng, out = self.rng, np.zeros(self.size, np.float32)
        for _ in range(1 + (rng.random() < 0.15)):
            tracks = list(self.sources.music.values())
            (track,) = tracks[rng.integers(len(tracks))]
            speed = rng.uniform(*SPEEDS)
            wanted = int(self.size / speed) + 64
            begin = int(rng.integers(0, max(1, track.size - wanted)))
            wave = soxr.resample(track[begin : begin + wanted], RATE, RATE * speed, quality="LQ")
            wave = np.resize(wave, self.size) if wave.size < self.size else wave[: self.size]
            out += wave / max(rms(wave), 1e-4) * 0.1 * rng.uniform(0.5, 1.0)
        return out

    def noise(self) -> Wave:
        """Noise whose power falls with some power of the frequency, and swells at times."""
        rng = self.rng
        spectrum = np.fft.rfft(rng.standard_normal(self.size))
        tilt = np.arange(1, spectrum.size + 1) ** -rng.uniform(0.0, 1.0)
        wave = np.fft.irfft(spectrum * tilt, self.size)
        if rng.random() < 0.5:
            knots = np.linspace(0, self.size, int(rng.integers(3, 25)))
            wave *= np.interp(np.arange(self.size), knots, rng.uniform(0.1, 1.0, knots.size))
        return np.asarray(wave / max(rms(wave), 1e-6) * 0.1, np.float32)

    def coloured(self, wave: Wave) -> Wave:
        """Through a smooth random filter, at times through a narrow band."""
        rng, bins = self.rng, wave.size // 2 + 1
        knots = np.linspace(0, 1, 8)
        gain_db = np.interp(np.linspace(0, 1, bins), knots, rng.normal(0, 3.0, knots.size))
        gain = 10 ** (gain_db / 20)
        if rng.random() < NARROW:
            edge = rng.uniform(3_000, 7_500) / (RATE / 2)
            gain *= 1 / (1 + (np.linspace(0, 1, bins) / edge) ** 24)
        return np.fft.irfft(np.fft.rfft(wave) * gain, wave.size).astype(np.float32)

    def in_a_room(self, wave: Wave) -> Wave:
        """With decaying noise as the room's answer: what it does to speech, not where anybody stands."""
        rng = self.rng
        reverberation_s = rng.uniform(*ROOM_S)
        size = int(reverberation_s * RATE)
        tail = rng.standard_normal(size) * 10 ** (-3 * np.arange(size) / size)
        answer = tail / np.linalg.norm(tail) * 10 ** (-rng.uniform(0, 12) / 20)
        answer[0] = 1.0
        padded = wave.size + size
        wet = np.fft.irfft(np.fft.rfft(wave, padded) * np.fft.rfft(answer, padded), padded)
        return wet[: wave.size].astype(np.float32)


def at_snr(speech: Wave, background: Wave, snr_db: float) -> Wave:
    """The background, so loud that the speech is snr_db above it."""
    wanted = rms(speech) / 10 ** (snr_db / 20)
    return (background * (wanted / max(rms(background), 1e-6))).astype(np.float32)


def rms(wave: NDArray[np.floating]) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(wave), dtype=np.float64)))
