"""Choose a few of many possible references: alike in voice, apart in time and in words.

References that all lie beside the target, or that all say the same, teach a model to copy the room
and the words with the voice.
"""

import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

WORDS_SIZE = 4
"""Numbers of 64 bits that hold which words a text has."""


@lru_cache(maxsize=1 << 16)
def _bit(token: str) -> int:
    return zlib.crc32(token.encode()) % (64 * WORDS_SIZE)


def word_sets(texts: Sequence[Sequence[str]]) -> Words:
    """(N, WORDS_SIZE) the words of each text as bits, the same in every process."""
    found = np.zeros((len(texts), 64 * WORDS_SIZE), np.bool_)
    lengths = [len(tokens) for tokens in texts]
    rows = np.repeat(np.arange(len(texts)), lengths)
    found[rows, [_bit(token) for tokens in texts for token in tokens]] = True
    packed: Words = np.packbits(found, axis=1, bitorder="little").view(np.uint64)
    return packed


def shared_words(first: Words, second: Words) -> F32:
    """Share of words that two texts have in common, in [0, 1]; 0 where neither has any.

    Last axes: WORDS_SIZE; the others broadcast.
    """
    both = np.bitwise_count(first & second).sum(axis=-1)
    either = np.bitwise_count(first | second).sum(axis=-1)
    shared: F32 = (both / np.maximum(either, 1)).astype(np.float32)
    return shared


def choose(
    alike: F32,
    possible: Bools,
    middles_s: F64,
    words: Words,
    *,
    target_s: F64,
    target_words: Words,
    horizon_s: float,
    num: int,
    time_weight: float,
    text_weight: float,
) -> Ints:
    """(T, num) columns of the chosen, in the order of the choice; -1 where nothing is left.

    alike, possible, middles_s: (T, L), words: (T, L, WORDS_SIZE) of the candidates. Each choice
    has the best of: how alike its voice is, less `time_weight` as it comes nearer than `horizon_s` to the
    target or to one chosen before, less `text_weight` for the words it shares with one of them.
    """
    rows = np.arange(alike.shape[0])
    chosen = np.full((alike.shape[0], num), -1, np.int64)
    if not alike.size:
        return chosen
    left = possible.copy()
    near = _nearness(middles_s, target_s, horizon_s)
    same = shared_words(words, target_words[:, None])
    for turn in range(num):
        score = np.where(left, alike - time_weight * near - text_weight * same, -np.inf)
        best = score.argmax(axis=1)
        some = left[rows, best]
        chosen[some, turn] = best[some]
        left[rows, best] = False
        near = np.maximum(near, _nearness(middles_s, middles_s[rows, best], horizon_s))
        same = np.maximum(same, shared_words(words, words[rows, best][:, None]))
    return chosen


def _nearness(times_s: F64, of_s: F64, horizon_s: float) -> F64:
    """(T, L) 1 at the same time, 0 from `horizon_s` on."""
    near: F64 = np.clip(1.0 - np.abs(times_s - of_s[:, None]) / max(horizon_s, 1e-9), 0.0, 1.0)
    return near
