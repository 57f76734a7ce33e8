"""Choose for a described clip what it shall say: words that have nothing to do with its own.

The texts of a language lie on a ring, at places that derive from the texts. A clip looks at a few
stretches of it, at places that derive from the clip: so a corpus of any size costs each clip the
same, and a text more or less changes what few clips see. Of what it sees it keeps the texts of other
sessions that it can say in good time and that share hardly a word with its own; of those the ones
that are farthest in meaning, and in any case farther than two texts of the corpus are on average. Of
those, one is given to it so that no text is said far more often than others.

Shapes: N described clips, T texts, P texts that a clip looks at, D numbers of a sentence embedding.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from schemas.errors import ConfigError
from stages.even_choice import chosen_evenly, mixed
from stages.text_pairs import F32, I16, Bools, Ints, Keys, cosines, keys_of, mean_cosine, overlaps

F64 = npt.NDArray[np.float64]

REASONS = {
    "no_other_session": "no other session says anything in its language",
    "no_unrelated_transcript": "none of the texts it looked at is unrelated and of its length",
    "used_up": "the unrelated ones are said often enough by others",
}
"""Why a described clip says nothing; the first that holds."""

_STRETCH = 8
"""Neighbours on the ring that are looked at together: their share of the ring is more even."""
_BLOCK = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class UnrelatedConfig:
    """What makes a text unrelated and suitable."""

    min_s: float = 1.5
    """Seconds that the text takes at the described clip's characters per second."""
    max_s: float = 15.0
    max_ratio: float = 4.0
    """Times that the text may be longer or shorter than the described clip's own."""
    max_overlap: float = 0.1
    """Share of content words in common (Jaccard)."""
    lowest: float = 0.25
    """Share of the suitable texts, those of the lowest cosine, that are taken into account."""
    pool: int = 128
    """Texts that each clip looks at."""
    spread: float = 3.0
    """How many times as often as the average of its language a text may be said."""

    def __post_init__(self) -> None:
        if not 0 < self.min_s < self.max_s:
            raise ConfigError(
                f"clone.transcripts needs 0 < min_s < max_s, got {self.min_s}, {self.max_s}"
            )
        for name in ("max_ratio", "spread"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"clone.transcripts.{name} must be at least 1, got {getattr(self, name)}"
                )
        if not 0 <= self.max_overlap < 1 or not 0 < self.lowest <= 1:
            raise ConfigError(
                "clone.transcripts needs max_overlap in [0, 1) and lowest in (0, 1], got "
                f"{self.max_overlap}, {self.lowest}"
            )
        if self.pool < _STRETCH:
            raise ConfigError(
                f"clone.transcripts.pool must be at least {_STRETCH}, got {self.pool}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """The different texts of one language."""

    keys: Keys
    """(T,) of the texts, by `keys_of`."""
    usable: Bools
    """(T,) may be said by others."""
    letters: Ints
    """(T,) letters and digits."""
    words: csr_array = field(repr=False)
    """(T, V) 1 where a text has a content word."""
    vectors: I16 | None = field(repr=False)
    """(T, D) sentence embeddings, by `as_whole`; null where no embedder knows the language."""
    said: Ints = field(repr=False)
    """(S, 2) text and session: who says what. The described clips' own are among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """The clips that shall say something else."""

    keys: Keys
    """(N,) of the clip ids, by `keys_of`."""
    text: Ints
    """(N,) number of the clip's own text."""
    session: Ints
    """(N,)"""
    letters_per_s: F64
    """(N,) of its speech."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What each described clip says."""

    text: Ints
    """(N, K) number of the text; -1 where there is none."""
    cosine: F32
    """(N, K) of the sentence embeddings; NaN where there are none."""
    overlap: F32
    """(N, K)"""
    reason: npt.NDArray[np.str_]
    """(N,) why a clip says nothing, a key of `REASONS`; empty where it says something."""
    mean_cosine: float | None
    """Of a described clip's text and any other usable one."""


def choose(
    described: Described, texts: Texts, config: UnrelatedConfig, *, slots: int, seed: int
) -> Choice:
    """Up to `slots` texts for each described clip of one language.

    Depends on the clips and texts that there are and on the seed, and not on their order.
    """
    ring = np.flatnonzero(texts.usable)
    ring = ring[np.argsort(texts.keys[ring], kind="stable")]
    mean = None
    if texts.vectors is not None:
        mean = mean_cosine(texts.vectors, described.text, texts.usable)
    said = _Said.of(texts.said)
    wishes = _Wishes(described.keys.size, math.ceil(config.lowest * config.pool))
    for rows in _blocks(described.keys.size):
        looked_at = _looked_at(described.keys[rows], texts.keys[ring], config.pool, seed)
        _wish(wishes, rows, described, texts, said, ring[looked_at], config, mean)
    return _granted(wishes, described, texts, config.spread, slots, mean)


@dataclass(slots=True)
class _Wishes:
    """The texts that each clip would say, in the order in which it asks for them."""

    num: int
    width: int
    text: npt.NDArray[np.int32] = field(init=False)
    """(N, width) numbers of texts; -1 after the last."""
    cosine: F32 = field(init=False)
    overlap: F32 = field(init=False)
    met: Bools = field(init=False)
    """(N,) saw a text of another session."""

    def __post_init__(self) -> None:
        self.text = np.full((self.num, self.width), -1, np.int32)
        self.cosine = np.full((self.num, self.width), np.nan, np.float32)
        self.overlap = np.full((self.num, self.width), np.nan, np.float32)
        self.met = np.zeros(self.num, np.bool_)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Said:
    """Who says what, to be asked many times."""

    pairs: Ints
    """Of text and session as one number, ascending."""
    sessions: int

    @classmethod
    def of(cls, said: Ints) -> "_Said":
        sessions = int(said[:, 1].max(initial=0)) + 1
        return cls(pairs=np.unique(said[:, 0] * sessions + said[:, 1]), sessions=sessions)

    def holds(self, texts: Ints, sessions: Ints) -> Bools:
        """Whether a session says a text; both broadcast."""
        asked = texts * self.sessions + sessions
        at = np.minimum(np.searchsorted(self.pairs, asked), self.pairs.size - 1)
        found: Bools = self.pairs[at] == asked
        return found


def _looked_at(clips: Keys, ring: Keys, pool: int, seed: int) -> Ints:
    """(B, P) places on the ring that each clip looks at, ascending; a few may repeat."""
    if ring.size <= pool:
        return np.broadcast_to(np.arange(ring.size), (clips.size, ring.size))
    draws = mixed(keys_of([f"draw {seed} {draw}" for draw in range(pool // _STRETCH)]))
    starts = np.searchsorted(ring, mixed(clips[:, None], draws))
    places = (starts[..., None] + np.arange(_STRETCH)) % ring.size
    found: Ints = np.sort(places.reshape(clips.size, -1), axis=1)
    return found


def _wish(
    wishes: _Wishes,
    rows: slice,
    described: Described,
    texts: Texts,
    said: _Said,
    seen: Ints,
    config: UnrelatedConfig,
    mean: float | None,
) -> None:
    """Fill in what the clips of a block would say. seen: (B, P) numbers of texts."""
    if not seen.size:
        return
    own, session = described.text[rows], described.session[rows]
    foreign = np.ones(seen.shape, np.bool_)
    foreign[:, 1:] = seen[:, 1:] != seen[:, :-1]
    foreign &= ~said.holds(seen, session[:, None])
    wishes.met[rows] = foreign.any(axis=1)
    rate, letters = described.letters_per_s[rows], texts.letters[own]
    least = np.maximum(config.min_s * rate, letters / config.max_ratio)
    most = np.minimum(config.max_s * rate, letters * config.max_ratio)
    long = texts.letters[seen]
    clip, at = np.nonzero(foreign & (long >= least[:, None]) & (long <= most[:, None]))
    text = seen[clip, at]
    overlap = overlaps(texts.words, own[clip], text)
    keep = overlap <= config.max_overlap
    clip, text, overlap = clip[keep], text[keep], overlap[keep]
    cosine = np.full(text.size, np.nan, np.float32)
    if texts.vectors is not None:
        cosine = cosines(texts.vectors, own[clip], text)
    luck = mixed(texts.keys[text], described.keys[rows][clip])
    # The lowest share of each clip, and of those what lies below the mean.
    order = np.lexsort((luck, overlap if mean is None else cosine, clip))
    suitable = np.bincount(clip, minlength=own.size)
    lowest = order[_rank(clip[order]) < np.ceil(config.lowest * suitable)[clip[order]]]
    if mean is not None:
        lowest = lowest[cosine[lowest] < mean]
    lowest = lowest[np.lexsort((luck[lowest], clip[lowest]))]
    place = rows.start + clip[lowest], _rank(clip[lowest])
    wishes.text[place] = text[lowest]
    wishes.cosine[place] = cosine[lowest]
    wishes.overlap[place] = overlap[lowest]


def _granted(
    wishes: _Wishes,
    described: Described,
    texts: Texts,
    spread: float,
    slots: int,
    mean: float | None,
) -> Choice:
    """One wish of each clip for each slot; no text more often than `spread` times the average."""
    usable = max(1, int(texts.usable.sum()))
    room = np.full(texts.keys.size, math.ceil(spread * wishes.num * slots / usable), np.int64)
    taken = np.full((wishes.num, slots), -1, np.int64)
    cosine, overlap = (np.full((wishes.num, slots), np.nan, np.float32) for _ in range(2))
    left = wishes.text.astype(np.int64)
    for slot in range(slots):
        # What was granted before leaves a gap, and gaps go to the end.
        order = np.argsort(left < 0, axis=1, kind="stable")
        columns = chosen_evenly(
            np.take_along_axis(left, order, axis=1), described.keys, texts.keys, room
        )
        rows = np.flatnonzero(columns >= 0)
        place = rows, order[rows, columns[rows]]
        taken[rows, slot] = wishes.text[place]
        cosine[rows, slot] = wishes.cosine[place]
        overlap[rows, slot] = wishes.overlap[place]
        room -= np.bincount(wishes.text[place], minlength=room.size)
        left[place] = -1
    return Choice(
        text=taken,
        cosine=cosine,
        overlap=overlap,
        reason=_reasons(wishes, taken),
        mean_cosine=mean,
    )


def _reasons(wishes: _Wishes, taken: Ints) -> npt.NDArray[np.str_]:
    wished = (wishes.text >= 0).any(axis=1)
    return np.select(
        [(taken >= 0).any(axis=1), ~wishes.met, ~wished],
        ["", "no_other_session", "no_unrelated_transcript"],
        "used_up",
    )


def _rank(groups: Ints) -> Ints:
    """Place of each row in its group; the groups are together."""
    ranks: Ints = np.arange(groups.size) - np.searchsorted(groups, groups)
    return ranks


def _blocks(num: int) -> Iterator[slice]:
    return (slice(start, min(num, start + _BLOCK)) for start in range(0, num, _BLOCK))
