"""Edge guard: a clip starts and ends in silence, keeps little of it, and cuts no word.

Each pause between two clips is looked at once, for both: where the sound of the left one really
ends and that of the right one begins decides how much silence each keeps, at most half of it.
So neighbours never overlap. Words and speech move with the clip's start, and the clip gets its id.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Span, Word
from stages.edge_scores import edge_scores
from stages.envelope import FRAME_S, Floor, frame_levels, noise_floor, pause_bounds


@dataclass(frozen=True, kw_only=True, slots=True)
class EdgesConfig:
    """How far an edge may move and how much silence it keeps."""

    keep_silence_s: float = 0.3
    """Seconds of silence kept at either end, at most half of the pause to the neighbour."""
    reach_s: float = 0.5
    """Seconds that an edge may follow sound into the pause, beyond the voice activity."""
    trim_s: float = 0.2
    """Seconds that an edge may move into the voice activity where that is silent."""
    context_s: float = 3.0
    """Seconds to either side of an edge that tell its noise floor."""
    range_db: float = 50.0
    """dB under the speech at which sound no longer belongs to it, however silent the noise."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 0:
                raise ConfigError(f"edges.{name} must not be negative, got {getattr(self, name)}")


def clip_id(recording_id: str, start_sample: int, end_sample: int, sample_rate: int) -> str:
    """blake2b-128 of the recording and the sample bounds, hexadecimal."""
    key = f"{recording_id}:{start_sample}:{end_sample}:{sample_rate}"
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """What lies between two clips, in seconds from the start of the chunk."""

    cut_left_s: float
    """End of the left clip."""
    sound_end_s: float
    sound_start_s: float
    cut_right_s: float
    """Start of the right clip."""
    floor: Floor


def pauses_of(chunk: Chunk, config: EdgesConfig) -> list[Pause]:
    """The pauses before, between and after the clips: (num_clips + 1,)."""
    levels = frame_levels(chunk.wave_16k)
    speech = np.zeros(levels.size, np.bool_)
    for span in chunk.speech:
        speech[int(span.start_s / FRAME_S) : int(np.ceil(span.end_s / FRAME_S))] = True
    offset_s = chunk.start_sample / chunk.sample_rate
    starts = [c.start_s - offset_s + (c.speech[0].start_s if c.speech else 0) for c in chunk.clips]
    ends = [
        c.start_s - offset_s + (c.speech[-1].end_s if c.speech else c.duration_s)
        for c in chunk.clips
    ]
    pauses: list[Pause] = []
    for left_s, right_s in zip([0.0, *ends], [*starts, chunk.duration_s], strict=True):
        has_left, has_right = bool(pauses), len(pauses) < len(chunk.clips)
        first, last = round(left_s / FRAME_S), round(right_s / FRAME_S)
        floor = noise_floor(
            levels,
            speech,
            (first + last) // 2,
            (last - first) // 2 + round(config.context_s / FRAME_S),
            config.range_db,
        )
        if right_s - left_s < 2 * FRAME_S and has_left and has_right:
            end_s, start_s = left_s, right_s  # to the sample, where 10 ms frames cannot tell
        else:
            end, start = pause_bounds(
                levels,
                floor,
                first,
                last,
                reach=round(config.reach_s / FRAME_S),
                trim=round(config.trim_s / FRAME_S),
                has_left=has_left,
                has_right=has_right,
            )
            end_s, start_s = end * FRAME_S, start * FRAME_S
        share = 1 if not (has_left and has_right) else 2
        keep = min(config.keep_silence_s, max(0.0, start_s - end_s) / share)
        pauses.append(
            Pause(
                cut_left_s=end_s + keep,
                sound_end_s=end_s,
                sound_start_s=start_s,
                cut_right_s=start_s - keep,
                floor=floor,
            )
        )
    return pauses


def guard(chunk: Chunk, config: EdgesConfig) -> tuple[Clip, ...]:
    """The clips with final edges, edge scores and ids."""
    if not chunk.clips:
        return ()
    pauses = pauses_of(chunk, config)
    num_samples = chunk.wave.shape[0]
    clips = []
    taken = 0
    for clip, (before, after) in zip(chunk.clips, pairwise(pauses), strict=True):
        start = max(taken, round(before.cut_right_s * chunk.sample_rate))
        end = min(num_samples, round(after.cut_left_s * chunk.sample_rate))
        if end <= start:  # nothing sounds where the voice activity heard speech
            start = max(taken, clip.start_sample - chunk.start_sample)
            end = max(start + 1, clip.end_sample - chunk.start_sample)
        taken = end
        moved = with_bounds(chunk, clip, start, end, before.sound_start_s, after.sound_end_s)
        clips.append(replace(moved, **edge_scores(chunk, moved, before.floor, after.floor)))
    return tuple(clips)


def with_bounds(
    chunk: Chunk, clip: Clip, start: int, end: int, sound_start_s: float, sound_end_s: float
) -> Clip:
    """The clip cut at other samples of its chunk; words and speech keep their place in time.

    start and end count from the start of the chunk; the sound's bounds are in seconds from there
    and become those of the clip's speech.
    """
    rate = chunk.sample_rate
    shift_s = (clip.start_sample - chunk.start_sample - start) / rate
    duration_s = (end - start) / rate

    def inside(time_s: float) -> float:
        return min(max(time_s, 0.0), duration_s)

    words = tuple(
        Word(
            word=w.word,
            start_s=inside(w.start_s + shift_s),
            end_s=inside(w.end_s + shift_s),
            prob=w.prob,
        )
        for w in clip.words
    )
    bounds = [(inside(s.start_s + shift_s), inside(s.end_s + shift_s)) for s in clip.speech]
    if bounds:
        bounds[0] = (min(inside(sound_start_s - start / rate), bounds[0][1]), bounds[0][1])
        bounds[-1] = (bounds[-1][0], max(inside(sound_end_s - start / rate), bounds[-1][0]))
    speech = tuple(Span(start_s=a, end_s=b) for a, b in bounds if b > a)
    start_sample, end_sample = chunk.start_sample + start, chunk.start_sample + end
    return replace(
        clip,
        clip_id=clip_id(clip.recording_id, start_sample, end_sample, rate),
        start_sample=start_sample,
        end_sample=end_sample,
        start_s=start_sample / rate,
        end_s=end_sample / rate,
        duration_s=duration_s,
        speech=speech,
        speech_ratio=sum(s.end_s - s.start_s for s in speech) / duration_s,
        words=words,
    )


class Edges:
    """Moves each clip's edges into silence and measures what is left to hear there."""

    name = "edges"

    def __init__(self, config: EdgesConfig) -> None:
        self.config = config

    def setup(self) -> None:
        """Nothing to load."""

    def process(self, batch: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with their clips' final edges."""
        return [replace(chunk, clips=guard(chunk, self.config)) for chunk in batch]
