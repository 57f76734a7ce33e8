"""Cut a chunk into clips: merge voice activity over short pauses, cut long speech in its pauses.

Lengths come from the pauses alone. A shortest-path search over the islands of speech weighs three
wishes: clips of about `target_s`, cuts in the longest pauses, and no clip shorter than `min_s`.
An island longer than any clip may be is first cut where 20 ms energies are lowest.
All bounds are integer samples, so neighbouring clips share no sample and lose none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Span, Wave

CLIPS_PER_CHUNK = 100_000
"""Room for clip numbers within a chunk, in `Clip.index_in_recording`."""

TOO_SHORT = "too_short"

_RATE = 16_000
_FRAME = 320  # 20 ms at 16 kHz
_PAUSE_FRAMES = 5  # a cut wants 100 ms of quiet, not the closure of one plosive

# Costs of the search, in units of "one clip more than needed".
_COST_TOO_SHORT = 10.0
_COST_LONG_PAUSE = 4.0  # reaching over a pause that a clip should not hold
_COST_FORCED_CUT = 3.0  # joining forced pieces again is welcome, where they fit

Island = tuple[int, int]
"""First sample and one past the last, from the start of the chunk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationConfig:
    """How long clips are and which silence they hold."""

    min_s: float = 2.0
    """Seconds; a shorter clip is kept in the table but screened as `too_short`."""
    target_s: float = 10.0
    """Seconds; the length that clips tend to. 3-15 s is what people say in one breath group or
    two, and one 9 s window then scores most of a clip."""
    max_s: float = 30.0
    """Seconds; no clip is longer. 30 is Whisper's window, long-form profiles go up to 300."""
    max_pause_s: float = 1.0
    """Seconds; islands of speech further apart are not merged."""
    max_rescue_pause_s: float = 1.6
    """Seconds; as `max_pause_s`, for an island that alone would be too short."""
    edge_silence_s: float = 0.3
    """Seconds of silence kept at either end, at most half of the pause to the neighbour."""

    def __post_init__(self) -> None:
        if not 0 < self.min_s <= self.target_s <= self.max_s <= 300:
            raise ConfigError(
                "segmentation needs 0 < min_s <= target_s <= max_s <= 300, got "
                f"{self.min_s}, {self.target_s}, {self.max_s}"
            )
        if not 0 <= self.max_pause_s <= self.max_rescue_pause_s:
            raise ConfigError(
                "segmentation needs 0 <= max_pause_s <= max_rescue_pause_s, got "
                f"{self.max_pause_s}, {self.max_rescue_pause_s}"
            )
        if not 0 <= self.edge_silence_s < self.max_s / 4:
            raise ConfigError(
                f"segmentation.edge_silence_s must be in [0, max_s / 4), got {self.edge_silence_s}"
            )


def islands_of(speech: Sequence[Span], sample_rate: int, num_samples: int) -> list[Island]:
    """Spans in seconds as disjoint ascending islands in samples, inside the chunk."""
    bounds = sorted(
        (
            max(0, int(s.start_s * sample_rate)),
            min(num_samples, int(-(-s.end_s * sample_rate // 1))),
        )
        for s in speech
    )
    islands: list[Island] = []
    for start, end in bounds:
        if end <= start:
            continue
        if islands and start <= islands[-1][1]:
            islands[-1] = (islands[-1][0], max(end, islands[-1][1]))
        else:
            islands.append((start, end))
    return islands


def quietness_db(wave_16k: Wave) -> npt.NDArray[np.float64]:
    """Energy per 20 ms frame in dB, smoothed over 100 ms: (samples // 320,).

    The first difference is taken, so that rumble under the voice does not hide a pause.
    """
    difference = np.diff(wave_16k, prepend=wave_16k[:1]).astype(np.float64)
    num_frames = difference.size // _FRAME
    frames = difference[: num_frames * _FRAME].reshape(num_frames, _FRAME)
    energy = np.mean(frames**2, axis=1)
    if num_frames > _PAUSE_FRAMES:
        energy = np.convolve(energy, np.full(_PAUSE_FRAMES, 1 / _PAUSE_FRAMES), mode="same")
    return np.asarray(10 * np.log10(energy + 1e-12), np.float64)


def split_island(
    island: Island, energy_db: npt.NDArray[np.float64], sample_rate: int, max_samples: int
) -> list[Island]:
    """Cut an island into balanced pieces of at most `max_samples`, where it is quietest.

    Cut i of k lies within a slack around the i-th of k equal parts; the slack is what keeps every
    piece under the limit and above half an equal part. The pieces cover the island without a gap.
    """
    start, end = island
    length = end - start
    if length <= max_samples:
        return [island]
    num_pieces = int(np.ceil(length / (0.75 * max_samples)))
    part = length / num_pieces
    slack = min((max_samples - part) / 2, part / 4)
    frame = _FRAME / _RATE * sample_rate
    cuts = [start]
    for i in range(1, num_pieces):
        centre = start + i * part
        first = int(np.ceil((centre - slack) / frame))
        last = min(int((centre + slack) / frame) - 1, energy_db.size)
        if last > first:
            cuts.append(round((first + int(np.argmin(energy_db[first:last])) + 0.5) * frame))
        else:
            cuts.append(round(centre))
    return list(zip(cuts, [*cuts[1:], end], strict=True))


def edge_silence(pauses: Sequence[float], keep: float) -> list[float]:
    """Silence that a clip takes from each pause: at most `keep`, at most half of it."""
    return [min(keep, pause / 2) for pause in pauses]


def group_islands(
    bounds: Sequence[tuple[float, float]], config: SegmentationConfig, duration_s: float
) -> list[tuple[int, int]]:
    """Which islands make a clip: (first, one past the last) of each; bounds are in seconds.

    A shortest path over the islands: a clip costs (length / target_s)², which favours short and
    balanced ones, and each further clip costs a cut, which is cheap in a long pause. Alone, the
    two make clips of about `target_s`.
    """
    num = len(bounds)
    pauses = [after[0] - before[1] for before, after in pairwise(bounds)]
    lead = edge_silence([2 * bounds[0][0], *pauses], config.edge_silence_s)
    trail = edge_silence([*pauses, 2 * (duration_s - bounds[-1][1])], config.edge_silence_s)
    best = [0.0] + [float("inf")] * num  # best[j]: islands before j are grouped
    came_from = [0] * (num + 1)
    for first in range(num):
        inner = 0.0
        for last in range(first, num):
            if last > first:
                pause = pauses[last - 1]
                if pause > config.max_rescue_pause_s:
                    break
                inner += _COST_LONG_PAUSE if pause > config.max_pause_s else 0.0
            length = bounds[last][1] + trail[last] - bounds[first][0] + lead[first]
            if length > config.max_s and last > first:
                break
            cost = best[first] + inner + (length / config.target_s) ** 2
            cost += _COST_TOO_SHORT if length < config.min_s else 0.0
            if last + 1 < num:
                cost += _cut_cost(pauses[last], config.max_pause_s)
            if cost < best[last + 1]:
                best[last + 1], came_from[last + 1] = cost, first
    groups: list[tuple[int, int]] = []
    end = num
    while end > 0:
        groups.append((came_from[end], end))
        end = came_from[end]
    return groups[::-1]


def _cut_cost(pause_s: float, max_pause_s: float) -> float:
    if pause_s <= 0:
        return _COST_FORCED_CUT
    return 1.5 - min(1.0, pause_s / max_pause_s) if max_pause_s > 0 else 0.5


def segment(chunk: Chunk, config: SegmentationConfig) -> tuple[Clip, ...]:
    """The clips of a chunk, in order of time; every sample of speech lies in exactly one."""
    rate = chunk.sample_rate
    num_samples = chunk.wave.shape[0]
    whole = islands_of(chunk.speech, rate, num_samples)
    if not whole:
        return ()
    edge = round(config.edge_silence_s * rate)
    max_samples = int(config.max_s * rate) - 2 * edge
    islands = whole
    if any(end - start > max_samples for start, end in whole):
        energy_db = quietness_db(chunk.wave_16k)
        islands = [p for i in whole for p in split_island(i, energy_db, rate, max_samples)]
    groups = group_islands(
        [(start / rate, end / rate) for start, end in islands], config, num_samples / rate
    )
    clips = []
    for ordinal, (first, last) in enumerate(groups):
        before = islands[first - 1][1] if first else -islands[first][0]
        after = islands[last][0] if last < len(islands) else 2 * num_samples - islands[last - 1][1]
        start = islands[first][0] - min(edge, (islands[first][0] - before) // 2)
        end = islands[last - 1][1] + min(edge, (after - islands[last - 1][1]) // 2)
        clips.append(_clip(chunk, ordinal, start, end, islands[first:last], config.min_s))
    return tuple(clips)


def _clip(
    chunk: Chunk, ordinal: int, start: int, end: int, islands: Sequence[Island], min_s: float
) -> Clip:
    rate = chunk.sample_rate
    recording = chunk.recording
    duration_s = (end - start) / rate
    speech = tuple(Span(start_s=(a - start) / rate, end_s=(b - start) / rate) for a, b in islands)
    return Clip(
        recording_id=recording.recording_id,
        session_id=recording.session_id,
        chunk_index=chunk.index,
        index_in_recording=chunk.index * CLIPS_PER_CHUNK + ordinal,
        speaker=recording.speaker,
        language=recording.language,
        start_sample=chunk.start_sample + start,
        end_sample=chunk.start_sample + end,
        sample_rate=rate,
        start_s=(chunk.start_sample + start) / rate,
        end_s=(chunk.start_sample + end) / rate,
        duration_s=duration_s,
        speech=speech,
        speech_ratio=sum(b - a for a, b in islands) / (end - start),
        screened=TOO_SHORT if duration_s < min_s else None,
    )


class Segmentation:
    """Fills `clips` from `speech`."""

    name = "segmentation"

    def __init__(self, config: SegmentationConfig) -> None:
        self.config = config

    def setup(self) -> None:
        """Nothing to load."""

    def process(self, batch: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with their clips, which replace any that were there."""
        return [replace(chunk, clips=segment(chunk, self.config)) for chunk in batch]
