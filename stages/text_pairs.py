"""How alike texts are, in words and in meaning, for many pairs at once.

Shapes: T texts, M pairs, D numbers of a sentence embedding, V words.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

F32 = npt.NDArray[np.float32]
I16 = npt.NDArray[np.int16]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

SCALE = 4000
"""Embeddings are whole numbers of 1/SCALE: a product of two is exact in float32 then, whatever the
order of its sum, and so is the choice. It is good to about 1e-4."""

_PAIRS = 1024
_BLOCK = 8192


def keys_of(names: Sequence[str]) -> Keys:
    """(N,) a number of 64 bits for each name."""
    digests = b"".join(blake2b(name.encode(), digest_size=8).digest() for name in names)
    keys: Keys = np.frombuffer(digests, "<u8").astype(np.uint64)
    return keys


def as_whole(vectors: F32) -> I16:
    """Vectors of unit length as whole numbers of 1/SCALE."""
    whole: I16 = np.rint(vectors * SCALE).astype(np.int16)
    return whole


def overlaps(words: csr_array, first: Ints, second: Ints) -> F32:
    """(M,) share of content words that pairs of texts have in common; 0 where neither has any."""
    if not first.size:
        return np.zeros(0, np.float32)
    sizes = np.diff(words.indptr)
    both = np.asarray(words[first].multiply(words[second]).sum(axis=1)).reshape(-1)
    either = sizes[first] + sizes[second] - both
    shared: F32 = (both / np.maximum(either, 1)).astype(np.float32)
    return shared


def cosines(vectors: I16, first: Ints, second: Ints) -> F32:
    """(M,) between pairs of texts."""
    found = np.zeros(first.size, np.float32)
    # In pieces that stay in the processor's cache.
    for start in range(0, first.size, _PAIRS):
        some = slice(start, start + _PAIRS)
        one, other = (vectors[rows[some]].astype(np.float32) for rows in (first, second))
        found[some] = np.einsum("nd,nd->n", one, other)
    return found / np.float32(SCALE**2)


def mean_cosine(vectors: I16, clips: Ints, usable: Bools) -> float:
    """Over all pairs of a clip's text and another usable one; 0 where there is no pair.

    clips: (N,) number of each clip's text. usable: (T,) texts of the other side.
    """
    said = np.bincount(clips, minlength=usable.size)
    of_clips, of_texts = np.zeros((2, vectors.shape[1]), np.int64)
    own = 0
    for start in range(0, usable.size, _BLOCK):
        some = slice(start, start + _BLOCK)
        whole = vectors[some].astype(np.int64)
        of_clips += said[some] @ whole
        of_texts += usable[some].astype(np.int64) @ whole
        own += int((said[some] * usable[some]) @ (whole**2).sum(axis=1))
    pairs = clips.size * int(usable.sum()) - int(said @ usable)
    return (int(of_clips @ of_texts) - own) / SCALE**2 / pairs if pairs else 0.0
