"""What can be heard at a clip's edges: cut words, cut breaths, clicks, and how much silence."""

from typing import TypedDict

import numpy as np

from schemas.rows import Chunk, Clip, Wave
from stages.envelope import RATE, Floor

_EDGE = 320  # 20 ms at 16 kHz
_CLICK = 32  # 2 ms
_ONSET_S = 0.03  # the rise of the first sound is no click
_WORD_TOUCHES_S = 0.05
_PERIODIC = 0.5
_PITCH_HZ = (60, 400)
_SILENCE = 1e-12


class EdgeScores(TypedDict):
    """The edge columns of a clip."""

    lead_silence_s: float
    trail_silence_s: float
    edge_start_db: float
    edge_end_db: float
    word_cut_start: bool
    word_cut_end: bool
    click_db: float | None
    breath_cut: bool


def level_db(wave_16k: Wave) -> float:
    """Level of the first difference in dB, as `envelope.frame_levels` has it per frame."""
    if wave_16k.size < 2:
        return float(10 * np.log10(_SILENCE))
    return float(10 * np.log10(np.mean(np.diff(wave_16k).astype(np.float64) ** 2) + _SILENCE))


def periodicity(wave_16k: Wave) -> float:
    """Highest normalised autocorrelation at a lag of 60 to 400 Hz, in [-1, 1]; 0 for silence.

    wave_16k: (samples,), at least 50 ms to hold two periods of a low voice.
    """
    wave = wave_16k.astype(np.float64)
    wave = wave - wave.mean() if wave.size else wave
    shortest, longest = (RATE // hz for hz in reversed(_PITCH_HZ))
    best = 0.0
    for lag in range(shortest, min(longest, wave.size - _EDGE) + 1, 2):
        left, right = wave[:-lag], wave[lag:]
        norm = float(np.sqrt(np.dot(left, left) * np.dot(right, right)))
        if norm > 0:
            best = max(best, float(np.dot(left, right)) / norm)
    return best


def sound_crosses(wave_16k: Wave, edge: int, active_db: float) -> bool:
    """Whether sound runs across a sample: it is heard in the 20 ms on both sides of it.

    At the end of the audio there is one side only, and that decides.
    """
    sides = [wave_16k[max(0, edge - _EDGE) : edge], wave_16k[edge : edge + _EDGE]]
    return all(level_db(side) >= active_db for side in sides if side.size > _CLICK)


def click_level(silence_16k: Wave) -> float | None:
    """Level of the loudest 2 ms of a silence in dB, or None if it is too short to tell."""
    num_frames = (silence_16k.size - 1) // _CLICK
    if num_frames < 2:
        return None
    frames = np.diff(silence_16k)[: num_frames * _CLICK].reshape(num_frames, _CLICK)
    energy = np.mean(frames.astype(np.float64) ** 2, axis=1)
    return float(10 * np.log10(energy.max() + _SILENCE))


def edge_scores(chunk: Chunk, clip: Clip, at_start: Floor, at_end: Floor) -> EdgeScores:
    """Measure both edges of a clip whose bounds are final."""
    wave = chunk.wave_16k
    first = round((clip.start_sample - chunk.start_sample) / clip.sample_rate * RATE)
    last = min(wave.size, round((clip.end_sample - chunk.start_sample) / clip.sample_rate * RATE))
    lead_s = clip.speech[0].start_s if clip.speech else clip.duration_s
    trail_s = clip.duration_s - clip.speech[-1].end_s if clip.speech else clip.duration_s
    start_crossed = sound_crosses(wave, first, at_start.active_db)
    end_crossed = sound_crosses(wave, last, at_end.active_db)
    word_at_start = bool(clip.words) and clip.words[0].start_s <= _WORD_TOUCHES_S
    word_at_end = bool(clip.words) and (clip.words[-1].end_s >= clip.duration_s - _WORD_TOUCHES_S)
    cut_start = start_crossed and (word_at_start or _speaks(chunk, first, at_start))
    cut_end = end_crossed and (word_at_end or _speaks(chunk, last, at_end))
    lead = wave[first : first + max(0, round((lead_s - _ONSET_S) * RATE))]
    trail = wave[last - max(0, round((trail_s - _ONSET_S) * RATE)) : last]
    clicks = [
        level - floor.level_db
        for level, floor in ((click_level(lead), at_start), (click_level(trail), at_end))
        if level is not None
    ]
    return EdgeScores(
        lead_silence_s=lead_s,
        trail_silence_s=trail_s,
        edge_start_db=level_db(wave[first : first + _EDGE]) - at_start.level_db,
        edge_end_db=level_db(wave[max(0, last - _EDGE) : last]) - at_end.level_db,
        word_cut_start=cut_start,
        word_cut_end=cut_end,
        click_db=max(clicks, default=None),
        breath_cut=(start_crossed and not cut_start) or (end_crossed and not cut_end),
    )


def _speaks(chunk: Chunk, edge: int, floor: Floor) -> bool:
    """Whether the sound across an edge is speech: voiced, or as loud as speech is nearby."""
    around = chunk.wave_16k[max(0, edge - 2 * _EDGE) : edge + 2 * _EDGE]
    return periodicity(around) >= _PERIODIC or level_db(around) > floor.loud_db - 15
