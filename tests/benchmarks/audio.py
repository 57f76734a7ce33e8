"""The audio that every system of the benchmark gets: the repository's recordings, repeated.

A repetition starts elsewhere in the recording (rotated at a pause) and is a little quieter, so
its bytes differ: voxquarry drops a second copy of the same file as a duplicate, and the other
systems could not.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile as sf

Wave = npt.NDArray[np.float32]

GAIN_PER_PASS_DB = -2.0
PAUSE_S = 0.3
SEARCH_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchAudio:
    """A folder of recordings to curate."""

    folder: str
    num_files: int
    duration_s: float
    num_sources: int
    passes: int
    languages: tuple[str, ...]

    def __str__(self) -> str:
        text = (
            f"{self.duration_s / 60:.1f} minutes in {self.num_files} files: {self.num_sources} "
            f"recordings ({', '.join(self.languages)})"
        )
        if self.passes == 1:
            return text
        return (
            f"{text} × {self.passes} passes; pass k starts k/{self.passes} of the way in, at a "
            f"pause, and is {-GAIN_PER_PASS_DB:g} dB quieter than the one before"
        )


def pause_near(wave: Wave, sample_rate: int, sample: int) -> int:
    """Sample in the middle of the quietest 0.3 s within 5 s of `sample`. wave: (samples,)."""
    pause, search = round(PAUSE_S * sample_rate), round(SEARCH_S * sample_rate)
    start = max(0, sample - search)
    near = wave[start : sample + search].astype(np.float64)
    if near.size <= pause:
        return sample
    energy = np.cumsum(np.concatenate(([0.0], near**2)))
    return start + int(np.argmin(energy[pause:] - energy[:-pause])) + pause // 2


def repetition(wave: Wave, sample_rate: int, index: int, passes: int) -> Wave:
    """The recording as pass `index` of `passes` has it: rotated and attenuated, (samples,)."""
    if index == 0:
        return wave
    first = pause_near(wave, sample_rate, len(wave) * index // passes)
    gain = 10 ** (GAIN_PER_PASS_DB * index / 20)
    return (np.roll(wave, -first) * gain).astype(np.float32)


def sources(data: Path, languages: Sequence[str]) -> list[Path]:
    """Recordings of a data set folder (`recordings.jsonl`, `audio/`) in these languages."""
    lines = (data / "recordings.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    paths = [data / row["path"] for row in rows if row["language"] in languages]
    found = sorted(path for path in paths if path.is_file())
    if not found:
        raise FileNotFoundError(f"{data}: no recordings in {', '.join(languages)}")
    return found


def make_folder(
    data: Path, folder: Path, minutes: float, languages: Sequence[str] = ("en",)
) -> BenchAudio:
    """Write at least `minutes` of audio to an empty `folder`, pass by pass."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder}: not empty")
    paths = sources(data, languages)
    total_s = sum(sf.info(path).duration for path in paths)
    passes = max(1, math.ceil(minutes * 60 / total_s))
    written_s, num_files = 0.0, 0
    for index in range(passes):
        for path in paths:
            if written_s >= minutes * 60:
                break
            wave, rate = sf.read(path, dtype="float32")
            name = folder / f"pass{index}" / f"{path.stem}__pass{index}.flac"
            name.parent.mkdir(exist_ok=True)
            sf.write(name, repetition(wave, rate, index, passes), rate)
            written_s += len(wave) / rate
            num_files += 1
    return BenchAudio(
        folder=str(folder),
        num_files=num_files,
        duration_s=written_s,
        num_sources=min(len(paths), num_files),
        passes=passes,
        languages=tuple(languages),
    )


def read_folder(folder: Path) -> list[tuple[str, Wave]]:
    """[(name, wave)] of a folder made here; every wave (samples,) at 16 kHz."""
    waves = []
    for path in sorted(folder.rglob("*.flac")):
        wave, rate = sf.read(path, dtype="float32")
        if rate != 16_000:
            raise ValueError(f"{path}: the models hear 16,000 Hz, this file has {rate}")
        waves.append((path.stem, wave))
    return waves
