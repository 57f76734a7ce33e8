"""Which clips of one text are one sound: jingles, repeated intros, the same prompt twice.

All clips of a group have the same normalised text. Of those, clips of about the same length and the
same voice are compared by their sound, each with its few most similar ones only: a chain of pairs
joins the copies of one sound, so many clips with one short text cost no square of memory.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import soundfile as sf
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from annotators.sound_print import F16, likeness, sound_print
from schemas.errors import ConfigError, UndecodableAudio
from schemas.rows import Span

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BLOCK = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class DuplicatesConfig:
    """What makes two clips of one text one sound."""

    min_likeness: float = 0.9
    """Of both sounds. Development set: copies that were encoded, resampled, shifted, or lie in
    noise at 15 dB 0.949 and more; the same words said again by the same voice at most 0.82."""
    max_length_gap_s: float = 0.3
    """Seconds that their lengths may differ by."""
    min_cosine: float = 0.6
    """Between both voices; a bound on what is compared at all. GE2E hears a copy in noise at 15 dB
    as low as 0.61."""
    candidates: int = 8
    """Most similar clips that each clip is compared with."""

    def __post_init__(self) -> None:
        if not 0 < self.min_likeness <= 1:
            raise ConfigError(f"duplicates.min_likeness must be in (0, 1], got {self.min_likeness}")
        if self.max_length_gap_s < 0 or self.candidates < 1:
            raise ConfigError("duplicates needs max_length_gap_s >= 0 and candidates >= 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Marked:
    """A clip that repeats another one."""

    clip_id: str
    group_id: str
    similarity: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TextGroup:
    """Clips of one text, with the prints of those that may be copies."""

    text_id: str
    clip_ids: tuple[str, ...]
    duration_s: float
    """Of all clips."""
    pairs: Ints = field(repr=False)
    """(P, 2) numbers of clips to compare."""
    prints: tuple[F16 | None, ...] = field(repr=False)
    """Null for a clip that is in no pair."""
    marked: tuple[Marked, ...] = ()


def pairs_to_compare(embeddings: F32, durations_s: F64, config: DuplicatesConfig) -> Ints:
    """(P, 2) each clip's most similar clips of about its length, ascending and once.

    embeddings: (N, D), unit length, zero where there is none.
    """
    num = embeddings.shape[0]
    keep = min(config.candidates, num - 1)
    if keep < 1:
        return np.zeros((0, 2), np.int64)
    found = []
    for start in range(0, num, _BLOCK):
        rows = np.arange(start, min(num, start + _BLOCK))
        cosines = embeddings[rows] @ embeddings.T
        gaps = np.abs(durations_s[rows, None] - durations_s)
        cosines[gaps > config.max_length_gap_s] = -2.0
        cosines[np.arange(rows.size), rows] = -2.0
        best = np.argpartition(-cosines, keep - 1, axis=1)[:, :keep]
        near = np.take_along_axis(cosines, best, axis=1) >= config.min_cosine
        lines, columns = np.nonzero(near)
        found.append(np.stack((rows[lines], best[lines, columns]), axis=1))
    pairs: Ints = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return pairs


def print_of(audio: bytes, speech: Sequence[Span]) -> F16:
    """Print of a stored clip, from its first speech on. Raises `UndecodableAudio`."""
    try:
        wave, rate = sf.read(io.BytesIO(audio), dtype="float32")
    except (sf.LibsndfileError, RuntimeError) as error:
        raise UndecodableAudio(f"a stored clip does not decode: {error}") from error
    start_s = speech[0].start_s if speech else 0.0
    return sound_print(wave, rate, start_s, speech[-1].end_s if speech else wave.size / rate)


def copies(group: TextGroup, config: DuplicatesConfig) -> tuple[Marked, ...]:
    """The clips of the group that sound as another one does."""
    similarity = np.zeros(len(group.clip_ids))
    joined = []
    for one, two in group.pairs.tolist():
        first, second = group.prints[one], group.prints[two]
        assert first is not None, "clips that are compared have prints"
        assert second is not None, "clips that are compared have prints"
        alike = likeness(first, second)
        if alike >= config.min_likeness:
            joined.append((one, two))
            similarity[one] = max(similarity[one], alike)
            similarity[two] = max(similarity[two], alike)
    if not joined:
        return ()
    rows, columns = np.array(joined).T
    size = len(group.clip_ids)
    graph = coo_array((np.ones(rows.size), (rows, columns)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1]
    leaders: dict[int, str] = {}
    for label, clip_id in zip(labels.tolist(), group.clip_ids, strict=True):
        leaders[label] = min(leaders.get(label, clip_id), clip_id)
    return tuple(
        Marked(clip_id=clip_id, group_id=leaders[label], similarity=alike)
        for clip_id, label, alike in zip(
            group.clip_ids, labels.tolist(), similarity.tolist(), strict=True
        )
        if alike > 0
    )


class NearDuplicates:
    """Fills `marked` of every group."""

    name = "duplicates"

    def __init__(self, config: DuplicatesConfig) -> None:
        self.config = config

    def setup(self) -> None:
        """Nothing to load."""

    def process(self, batch: Sequence[TextGroup]) -> list[TextGroup]:
        """Return the groups with what repeats in them."""
        return [replace(group, marked=copies(group, self.config)) for group in batch]
