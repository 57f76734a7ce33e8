"""What a training sequence is made of: where a clip is cut, which texts join, how long it gets.

Shapes: N clips, W words, of which each clip has a run.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError
from schemas.samples import LAYOUTS

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

TEXT, DESCRIBED, REFERENCE, DESCRIBED_REFERENCE, CONTINUATION = range(len(LAYOUTS))
"""Layouts by their place in `LAYOUTS`."""

WITH_DESCRIPTION = (DESCRIBED, DESCRIBED_REFERENCE)
WITH_REFERENCE = (REFERENCE, DESCRIBED_REFERENCE)

CUT_FRAMES = 4
"""A cut is a multiple of so many latent frames: the longest patch of the family."""

# Seconds; below that two times differ by rounding only.
_SAME_TIME_S = 1e-6

# Scripts that write no spaces between words, with their punctuation: Han, kana, Bopomofo, Yi,
# Thai, Lao, Tibetan, Myanmar, Khmer. Hangul writes them.
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fff\u3000-\u312f\u31a0-\u4dbf"
    "\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ContinuationConfig:
    """How continuations are cut and joined."""

    min_pause_s: float = 0.12
    """Seconds of a pause that a clip may be cut in."""
    min_side_s: float = 1.0
    """Seconds that both sides of a cut have at least."""
    max_gap_s: float = 1.5
    """Seconds between two clips of which one continues the other."""

    def __post_init__(self) -> None:
        for name in ("min_pause_s", "min_side_s", "max_gap_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"continuation.{name} must not be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pauses:
    """Stretches of many clips in which no word is said, in seconds from the start of their clip."""

    clip: Ints
    """(P,) which clip."""
    start_s: Floats
    """(P,) end of the word before."""
    end_s: Floats
    """(P,) start of the word after."""
    quiet_start_s: Floats
    """(P,) start of the silence inside it: what the voice activity also calls silence, if it does."""
    quiet_end_s: Floats


def pauses_of(words: "Runs", speech: "Runs") -> Pauses:
    """What lies between the words of each clip; of a clip without words, between its speech.

    Word times are the recogniser's, and a little off; where the voice activity hears a gap inside
    that pause, the gap is the surer place.
    """
    clip, start, end = words.gaps()
    quiet_clip, quiet_start, quiet_end = speech.gaps()
    wordless = words.counts()[quiet_clip] == 0
    clip = np.concatenate((clip, quiet_clip[wordless]))
    start = np.concatenate((start, quiet_start[wordless]))
    end = np.concatenate((end, quiet_end[wordless]))
    order = np.lexsort((start, clip))
    clip, start, end = clip[order], start[order], end[order]
    inner_start, inner_end = start.copy(), end.copy()
    # Gaps of a clip do not overlap, so the first one that ends behind the pause's start is the one
    # to look at. Clips follow each other on one axis, far enough apart.
    axis = 1.0 + max((float(times.max()) for times in (end, quiet_end) if times.size), default=0.0)
    begins = clip * axis + start + _SAME_TIME_S
    first = np.searchsorted(quiet_clip * axis + quiet_end, begins, side="right")
    there = first < quiet_clip.size
    first = np.minimum(first, max(0, quiet_clip.size - 1))
    if quiet_clip.size:
        there &= quiet_clip[first] == clip
        low = np.maximum(start, quiet_start[first])
        high = np.minimum(end, quiet_end[first])
        there &= high > low + _SAME_TIME_S
        inner_start[there], inner_end[there] = low[there], high[there]
    return Pauses(
        clip=clip,
        start_s=start,
        end_s=end,
        quiet_start_s=inner_start,
        quiet_end_s=inner_end,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """Spans of many clips, one clip after the other, ascending in each."""

    offsets: Ints
    """(N + 1,) where each clip's spans begin."""
    start_s: Floats
    """(W,)"""
    end_s: Floats
    """(W,)"""

    def counts(self) -> Ints:
        """(N,) spans of each clip."""
        found: Ints = np.diff(self.offsets)
        return found

    def gaps(self) -> tuple[Ints, Floats, Floats]:
        """(G,) clip, start and end of what lies between neighbouring spans of a clip."""
        owner = np.repeat(np.arange(self.offsets.size - 1), self.counts())
        if owner.size < 2:
            return np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
        # A span may reach beyond the one after it: what is silent begins behind all before.
        reach = _running_max(owner, self.end_s)
        inside = (owner[1:] == owner[:-1]) & (self.start_s[1:] > reach[:-1] + _SAME_TIME_S)
        return owner[:-1][inside], reach[:-1][inside], self.start_s[1:][inside]


def _running_max(owner: Ints, values: Floats) -> Floats:
    """The highest value so far, anew in each clip."""
    if not values.size:
        return values
    step = float(values.max() - values.min()) + 1.0
    found: Floats = np.maximum.accumulate(values + owner * step) - owner * step
    return found


def cuts_of(
    pauses: Pauses, durations_s: Floats, frame_s: float, config: ContinuationConfig
) -> Ints:
    """(N,) first frame of each clip's second part; 0 where there is no place to cut.

    durations_s: (N,) of each clip; frame_s: of a latent frame. A cut lies in a pause, on a multiple of `CUT_FRAMES`, as near to the
    middle of the silence as that grid allows, and never inside a word. Of several pauses the one
    nearest to the clip's middle third is taken; inside it, the longest.
    """
    grid_s = CUT_FRAMES * frame_s
    clip = pauses.clip
    length_s = durations_s[clip]
    centre = (pauses.quiet_start_s + pauses.quiet_end_s) / 2
    lowest = np.ceil(np.maximum(pauses.start_s, config.min_side_s) / grid_s - 1e-9)
    lowest = np.maximum(lowest, 1.0)
    highest = np.floor(np.minimum(pauses.end_s, length_s - config.min_side_s) / grid_s + 1e-9)
    highest = np.minimum(highest, np.ceil(length_s / grid_s - 1e-9) - 1.0)
    place = np.clip(np.round(centre / grid_s), lowest, highest)
    silence_s = pauses.quiet_end_s - pauses.quiet_start_s
    possible = (highest >= lowest) & (silence_s >= config.min_pause_s - 1e-9)
    at_s = place * grid_s
    beside_s = np.maximum(0.0, np.maximum(length_s / 3 - at_s, at_s - length_s * 2 / 3))
    cuts = np.zeros(durations_s.size, np.int64)
    order = np.lexsort((at_s, -silence_s, beside_s, clip))
    order = order[possible[order]]
    chosen = order[np.diff(clip[order], prepend=-1) != 0]
    cuts[clip[chosen]] = (place[chosen] * CUT_FRAMES).astype(np.int64)
    return cuts


def joined(first: str, second: str) -> str:
    """Two texts said one after the other; a space parts them where the script writes spaces."""
    before, after = first.rstrip(), second.lstrip()
    if not before or not after:
        return before or after
    touching = _WITHOUT_SPACES.fullmatch(before[-1]) or _WITHOUT_SPACES.fullmatch(after[0])
    return before + after if touching else f"{before} {after}"


def positions_of(
    layout: Ints, tokens: Ints, audio_frames: Ints, reference_frames: Ints, patch_size: int
) -> Ints:
    """(N,) positions of training sequences.

    tokens: ids of the text with its description; audio_frames: prompt and target;
    reference_frames: the reference's, where the layout has one. All frames are multiples of
    `patch_size`. Beside them stand the start and the end of the audio, and of the reference.
    """
    spoken = tokens + 2 + audio_frames // patch_size
    with_reference = np.isin(layout, WITH_REFERENCE)
    found: Ints = spoken + np.where(with_reference, 2 + reference_frames // patch_size, 0)
    return found


def held_out(
    groups: Sequence[Ints], group_keys: Sequence[Ints], clip_keys: Ints, share: float
) -> Bools:
    """(N,) which targets are kept for validation: at most `share` of them, rounded up.

    groups: (N,) numbers of the sessions, and of the recordings; group_keys: a pseudo-random number
    for each session, and for each recording; clip_keys: (N,) for each clip. Whole sessions are taken in the order of their keys while they fit,
    since their clips share voices and rooms. Where not one session fits, whole recordings are;
    where not one recording does, clips. Fewer than 20 targets keep none.
    """
    num = clip_keys.size
    kept = np.zeros(num, np.bool_)
    quota = int(np.ceil(round(share * num, 6)))
    if num < FEWEST_TO_HOLD_OUT or quota == 0:
        return kept
    for group, keys in zip(groups, group_keys, strict=True):
        sizes = np.bincount(group, minlength=keys.size)
        taken = np.zeros(keys.size, np.bool_)
        room = quota
        for number in np.lexsort((np.arange(keys.size), keys)).tolist():
            if 0 < sizes[number] <= room:
                taken[number] = True
                room -= int(sizes[number])
            if not room:
                break
        if taken.any():
            return taken[group]
    kept[np.lexsort((np.arange(num), clip_keys))[:quota]] = True
    return kept


FEWEST_TO_HOLD_OUT = 20
"""Targets; below that none can be spared for validation."""
