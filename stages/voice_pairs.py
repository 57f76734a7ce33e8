"""Which clips of a session share a voice: exact cosines, in blocks.

Two clips share a voice when two cosines are high. The first is that of their own embeddings. An
embedding of a few seconds is noisy, though, and of two similar voices some clips come closer than
many clips of one voice do. So the second is that of the voices around them: each clip together
with the few most similar clips of the session, whose noise averages out.

Legend: T targets, R references, B targets of a block, L shortlisted references, D embedding size.
Positions count in the session's order, places among its references. All work is done block by
block, so memory grows with the session's length and never with its square.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BARRED = np.float32(-2.0)
"""Stands for a cosine where a rule forbids the pair; below every cosine."""
NEIGHBOURS = 3
"""Clips that stand for the voice around a clip, beside itself. Two to four separate similar voices
best; with more of them, a voice of few clips drowns in another one."""
_TOUCHING_S = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """The clips of a session in order, one recording after another, each by its start."""

    recording: Ints
    """(N,) number of the recording, ascending."""
    start_s: F64
    """(N,) from the start of the recording, ascending within it."""
    end_s: F64
    accepted: Bools

    def offsets_s(self) -> F64:
        """(N,) where each clip's recording starts when they are laid end to end."""
        num = int(self.recording[-1]) + 1 if self.recording.size else 0
        lengths = np.zeros(num)
        np.maximum.at(lengths, self.recording, self.end_s)
        starts: F64 = np.concatenate(([0.0], np.cumsum(lengths + 1.0)[:-1])) if num else lengths
        return starts[self.recording]

    def middles_s(self) -> F64:
        """(N,) the middle of each clip on the session's own clock."""
        middles: F64 = self.offsets_s() + (self.start_s + self.end_s) / 2
        return middles

    def overlapping(self, positions: Ints) -> tuple[Ints, Ints]:
        """Pairs (index into `positions`, position) of clips that share time in a recording."""
        offsets = self.offsets_s()
        starts, ends = offsets + self.start_s, offsets + self.end_s
        # Starts ascend; the latest end so far does too, and bounds the search from below.
        first = np.searchsorted(np.maximum.accumulate(ends), starts[positions] - _TOUCHING_S)
        last = np.searchsorted(starts, ends[positions] + _TOUCHING_S)
        rows, found = _ranges(first, last)
        mine = positions[rows]
        shares = (
            (self.recording[mine] == self.recording[found])
            & (self.start_s[found] < self.end_s[mine])
            & (self.end_s[found] > self.start_s[mine])
        )
        return rows[shares], found[shares]

    def preceding(self, positions: Ints) -> tuple[Ints, Ints]:
        """Pairs as above, of each clip with the one before it, and the last accepted one before."""
        index = np.arange(self.accepted.size)
        last_accepted = np.maximum.accumulate(np.where(self.accepted, index, -1))
        before = positions - 1
        rows = np.arange(positions.size)
        known = before >= 0
        rows, before = rows[known], before[known]
        kept = last_accepted[before]
        has = kept >= 0
        return np.concatenate((rows, rows[has])), np.concatenate((before, kept[has]))


def _ranges(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """Row numbers and values of many ranges [first, last), one after the other."""
    counts = np.maximum(last - first, 0)
    rows = np.repeat(np.arange(first.size), counts)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    return rows, np.arange(rows.size) - starts + first[rows]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shortlist:
    """For each target, references spread over the session, and how alike they sound."""

    places: Ints
    """(T, L) among the references."""
    cosines: F32
    """(T, L) between the clips; `BARRED` where there is none."""
    voice_cosines: F32
    """(T, L) between the voices around them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What one look at every pair of a session leaves."""

    places: Ints
    """(T, L) the most similar allowed reference of each stretch of the session."""
    cosines: F32
    """(T, L); `BARRED` where a stretch has none."""
    near: Ints
    """(T, NEIGHBOURS) the most similar references of all, allowed or not, save the clip itself."""
    near_cosines: F32
    """(T, NEIGHBOURS); `BARRED` where there are fewer."""


def _highest(stretches: F32, num: int) -> Ints:
    """(B, num) columns of the highest values. stretches: (B, S, W), columns count over both.

    The highest values lie in the stretches of the highest maxima, so only those are searched.
    """
    rows, count, width = stretches.shape
    if count > num:
        best = np.argpartition(-stretches.max(axis=2), num - 1, axis=1)[:, :num]
        best.sort(axis=1)
    else:
        best = np.broadcast_to(np.arange(count), (rows, count))
    searched = np.take_along_axis(stretches, best[:, :, None], axis=1).reshape(rows, -1)
    found = np.argpartition(-searched, num - 1, axis=1)[:, :num]
    columns: Ints = np.take_along_axis(best, found // width, axis=1) * width + found % width
    return columns


class VoicePairs:
    """The allowed pairs of a session.

    embeddings: (N, D), unit length. targets: (T,) ascending positions. references: (R,) ascending
    positions, all of them targets too.
    """

    def __init__(
        self, embeddings: F32, timeline: Timeline, targets: Ints, references: Ints, block: int
    ) -> None:
        self.timeline = timeline
        self.targets = targets
        self.references = references
        self.block = block
        self.of_targets: F32 = np.ascontiguousarray(embeddings[targets], np.float32)
        self.of_references: F32 = np.ascontiguousarray(embeddings[references], np.float32)

    def blocks(self, of: Ints | None = None) -> Iterator[Ints]:
        """Numbers of targets, some hundreds at a time."""
        numbers = np.arange(self.targets.size) if of is None else of
        for start in range(0, numbers.size, self.block):
            yield numbers[start : start + self.block]

    def _places(self, rows: Ints, positions: Ints) -> tuple[Ints, Ints]:
        """Pairs (row, place), without the positions that are no reference."""
        places = np.searchsorted(self.references, positions)
        known = places < self.references.size
        known[known] = self.references[places[known]] == positions[known]
        return rows[known], places[known]

    def itself(self, numbers: Ints) -> tuple[Ints, Ints]:
        """Pairs (row of the block, place) of a clip with itself."""
        return self._places(np.arange(numbers.size), self.targets[numbers])

    def barred(self, numbers: Ints) -> tuple[Ints, Ints]:
        """Pairs (row of the block, place) that no rule allows: itself, overlap, the clip before."""
        positions = self.targets[numbers]
        itself = np.arange(numbers.size), positions
        pairs = (itself, self.timeline.overlapping(positions), self.timeline.preceding(positions))
        rows = np.concatenate([pair[0] for pair in pairs])
        return self._places(rows, np.concatenate([pair[1] for pair in pairs]))

    def products(self, numbers: Ints) -> F32:
        """(B, R) cosines between clips, without any rule."""
        found: F32 = self.of_targets[numbers] @ self.of_references.T
        return found

    def cosines(self, numbers: Ints) -> F32:
        """(B, R) cosines between clips, `BARRED` where a rule forbids the pair."""
        found = self.products(numbers)
        found[self.barred(numbers)] = BARRED
        return found

    def allowed(self) -> Ints:
        """(T,) how many references the rules leave each target."""
        counts = np.full(self.targets.size, self.references.size)
        for numbers in self.blocks():
            rows, places = self.barred(numbers)
            # Two rules may forbid one pair.
            pairs = np.unique(rows * self.references.size + places)
            rows = pairs // max(1, self.references.size)
            counts[numbers] -= np.bincount(rows, minlength=numbers.size)
        return counts

    def survey(self, num: int) -> "Survey":
        """One look at every pair: the best of each of `num` equal stretches of the session, and
        the voice around each target."""
        width = max(1, -(-self.references.size // num))
        num = -(-self.references.size // width)
        total = self.targets.size
        places = np.zeros((total, num), np.int64)
        cosines = np.full((total, num), BARRED, np.float32)
        near = np.zeros((total, min(NEIGHBOURS, num * width)), np.int64)
        near_cosines = np.full(near.shape, BARRED, np.float32)
        offsets = np.arange(num) * width
        for numbers in self.blocks() if self.references.size else ():
            padded = np.full((numbers.size, num * width), BARRED, np.float32)
            padded[:, : self.references.size] = self.products(numbers)
            padded[self.itself(numbers)] = BARRED
            # The clip before may not be a reference, and tells of the voice all the same.
            near[numbers] = _highest(padded.reshape(numbers.size, num, width), near.shape[1])
            near_cosines[numbers] = np.take_along_axis(padded, near[numbers], axis=1)
            padded[self.barred(numbers)] = BARRED
            best = padded.reshape(numbers.size, num, width).argmax(axis=2) + offsets
            places[numbers] = best
            cosines[numbers] = np.take_along_axis(padded, best, axis=1)
        # What was padded is barred, and only needs a place that exists.
        last = max(0, self.references.size - 1)
        near = np.minimum(near, last)
        return Survey(
            places=np.minimum(places, last), cosines=cosines, near=near, near_cosines=near_cosines
        )

    def voices(self, survey: "Survey", min_cosine: float) -> F32:
        """(T, D) the voice around each target: the mean of it and its most similar references.

        Only references at `min_cosine` or above count; a clip without one stands for itself.
        """
        voices = self.of_targets.copy()
        weights = (survey.near_cosines >= min_cosine).astype(np.float32)
        for numbers in self.blocks() if self.references.size else ():
            around = self.of_references[survey.near[numbers]]
            voices[numbers] += np.einsum("bl,bld->bd", weights[numbers], around)
        norms = np.linalg.norm(voices, axis=1, keepdims=True)
        unit: F32 = voices / np.maximum(norms, 1e-9)
        return unit

    def shortlist(self, num: int, enough: int, min_cosine: float, min_voice: float) -> Shortlist:
        """References for each target, of which those above both limits may be taken.

        num: stretches of the session that each offer their best. A target that finds fewer than
        `enough` there is compared with every reference by both cosines.
        """
        survey = self.survey(num)
        places, cosines = survey.places, survey.cosines
        voices = self.voices(survey, min_cosine)
        if not places.shape[1]:
            return Shortlist(places=places, cosines=cosines, voice_cosines=cosines)
        of_references = voices[np.searchsorted(self.targets, self.references)]
        alike = np.zeros_like(cosines)
        for numbers in self.blocks():
            pairs = of_references[places[numbers]]
            alike[numbers] = np.einsum("bd,bld->bl", voices[numbers], pairs)
        passed = (cosines >= min_cosine) & (alike >= min_voice)
        hopeful = (cosines >= min_cosine).any(axis=1) & (passed.sum(axis=1) < enough)
        if places.shape[1] < self.references.size:
            for numbers in self.blocks(np.flatnonzero(hopeful)):
                whole = self.cosines(numbers)
                whole_alike = voices[numbers] @ of_references.T
                either = np.where((whole >= min_cosine) & (whole_alike >= min_voice), whole, BARRED)
                best = np.argpartition(-either, places.shape[1], axis=1)[:, : places.shape[1]]
                best.sort(axis=1)
                places[numbers] = best
                cosines[numbers] = np.take_along_axis(whole, best, axis=1)
                alike[numbers] = np.take_along_axis(whole_alike, best, axis=1)
        return Shortlist(places=places, cosines=cosines, voice_cosines=alike)
