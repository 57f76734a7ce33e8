"""Short clips share one ASR window, and every word finds its way back to its clip.

Whisper's encoder always reads 30 s. Clips of one recording, in order of time, are laid into such
windows with a short silence between them; a word belongs to the clip whose sound it lies on.
Clips out of order, or of several recordings, are not mixed: with tiny.en that made the word
error rate of packed windows six times as high.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from annotators.tokens import TimedWord
from schemas.rows import Wave

SAMPLE_RATE = 16_000
FRAME = 320
"""Samples per energy frame: 20 ms, the grid of Whisper's word times."""
_SENTENCE_END = frozenset(".!?。！？")
_SOUND = 0.05
"""Amplitude, relative to the clip's RMS, from which a frame counts as sound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A stretch of one clip that fits into a window."""

    clip: int
    """Index of the clip."""
    offset: int
    """First sample of the piece within its clip."""
    wave: Wave


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedWindow:
    """Pieces with silence between them."""

    pieces: tuple[Piece, ...]
    starts: tuple[int, ...]
    """First sample of each piece within the window."""
    wave: Wave


def pieces_of(clip: int, wave: Wave, max_s: float) -> list[Piece]:
    """Cut a clip that is longer than a window where it is quietest.

    Each cut lies in the last half of what a window could hold, in the middle of the quietest
    0.2 s there.
    """
    pieces, start, most = [], 0, int(max_s * SAMPLE_RATE)
    while wave.size - start > most:
        # A rest of a few words would be read without context: then both parts get half.
        room = min(most, max((wave.size - start) * 2 // 3, most // 2))
        cut = _quietest(wave, start + room // 2, start + room)
        pieces.append(Piece(clip=clip, offset=start, wave=wave[start:cut]))
        start = cut
    return [*pieces, Piece(clip=clip, offset=start, wave=wave[start:])]


def _quietest(wave: Wave, low: int, high: int) -> int:
    width = SAMPLE_RATE // 5
    energy = np.cumsum(np.square(wave[low:high], dtype=np.float64))
    around = energy[width:] - energy[:-width]
    return low + int(np.argmin(around)) + width // 2


def pack(pieces: Sequence[Piece], *, max_s: float, gap_s: float) -> list[PackedWindow]:
    """Fill windows of at most `max_s` with neighbours, in order."""
    most, gap = int(max_s * SAMPLE_RATE), int(gap_s * SAMPLE_RATE)
    groups: list[list[Piece]] = []
    used = most
    for piece in pieces:
        if not groups or used + gap + piece.wave.size > most:
            groups.append([piece])
            used = piece.wave.size
        else:
            groups[-1].append(piece)
            used += gap + piece.wave.size
    return [window_of(group, gap) for group in groups]


def window_of(pieces: Sequence[Piece], gap: int = 0) -> PackedWindow:
    """Lay pieces one after another with `gap` samples of silence between them."""
    starts, at = [], 0
    for piece in pieces:
        starts.append(at)
        at += piece.wave.size + gap
    wave = np.zeros(max(at - gap, 0), dtype=np.float32)
    for start, piece in zip(starts, pieces, strict=True):
        wave[start : start + piece.wave.size] = piece.wave
    return PackedWindow(pieces=tuple(pieces), starts=tuple(starts), wave=wave)


def owners_of(window: PackedWindow, words: Sequence[TimedWord]) -> tuple[list[int], set[int]]:
    """Which piece each word belongs to, and the pieces of whose words that is not sure.

    A word belongs where most of its sound lies, and never before its predecessor. A word of no
    length (attention skipped it) goes with its neighbours; between two pieces it opens the second
    one if a sentence has just ended, else both pieces are unsure.
    """
    loudness = [Loudness(piece.wave) for piece in window.pieces]
    starts_s = [start / SAMPLE_RATE for start in window.starts]
    found: list[int | None] = []
    least = 0
    for word in words:
        sound = [
            loud.between(word.start_s - start_s, word.end_s - start_s)
            for loud, start_s in zip(loudness, starts_s, strict=True)
        ]
        best = max(range(least, len(sound)), key=sound.__getitem__)
        least = best if sound[best] > 0 else least
        found.append(best if sound[best] > 0 else None)
    last = len(window.pieces) - 1
    following: list[int] = []
    for owner in reversed(found):
        following.append(owner if owner is not None else following[-1] if following else last)
    following.reverse()
    owners: list[int] = []
    unsure: set[int] = set()
    for index, (owner, after) in enumerate(zip(found, following, strict=True)):
        if owner is None:
            before = owners[-1] if owners else 0
            ended = index > 0 and words[index - 1].text.strip()[-1:] in _SENTENCE_END
            owner = after if ended else before
            if before != after and not (ended and after == before + 1):
                unsure.update(range(before, after + 1))
        owners.append(owner)
    return owners, unsure


def placed(words: Sequence[TimedWord], wave: Wave, start: int) -> tuple[TimedWord, ...]:
    """The words of one piece in seconds from its start, inside it, without silence at their ends.

    start: first sample of the piece within the window.
    """
    loudness, start_s, end_s = Loudness(wave), start / SAMPLE_RATE, wave.size / SAMPLE_RATE
    result = []
    for word in words:
        inside = [min(max(at - start_s, 0.0), end_s) for at in (word.start_s, word.end_s)]
        first, last = loudness.trimmed(*inside)
        result.append(replace(word, start_s=first, end_s=last))
    return tuple(result)


class Loudness:
    """Sound and silence of one piece, on the grid of word times."""

    def __init__(self, wave: Wave) -> None:
        num_frames = max(1, -(-wave.size // FRAME))
        padded = np.zeros(num_frames * FRAME, dtype=np.float32)
        padded[: wave.size] = wave
        rms = np.sqrt(np.mean(np.square(padded.reshape(num_frames, FRAME)), axis=1))
        level = float(np.sqrt(np.mean(np.square(rms)))) + 1e-9
        relative: npt.NDArray[np.float32] = rms / level
        self._sounding = np.flatnonzero(relative > _SOUND)
        # A loud vowel counts no more than a soft one, so that no clip draws its neighbour's words.
        self._mass = np.concatenate(([0.0], np.cumsum(np.minimum(relative, 1.0))))

    def between(self, start_s: float, end_s: float) -> float:
        """Seconds of full sound within the span; the span may reach past the piece."""
        last = self._mass.size - 1
        first = int(np.clip(round(start_s * SAMPLE_RATE / FRAME), 0, last))
        stop = int(np.clip(round(end_s * SAMPLE_RATE / FRAME), 0, last))
        return (
            float(self._mass[stop] - self._mass[first]) * FRAME / SAMPLE_RATE
            if stop > first
            else 0.0
        )

    def trimmed(self, start_s: float, end_s: float) -> tuple[float, float]:
        """The span without the silence at its ends: attention paints pauses onto words."""
        first, stop = (round(at * SAMPLE_RATE / FRAME) for at in (start_s, end_s))
        inside = self._sounding[(self._sounding >= first) & (self._sounding < stop)]
        if inside.size == 0:
            return start_s, end_s
        frame_s = FRAME / SAMPLE_RATE
        return (
            max(start_s, float(inside[0]) * frame_s),
            min(end_s, float(inside[-1] + 1) * frame_s),
        )
