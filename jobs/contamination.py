"""How much of an evaluation set a training set has seen: its texts, and its voices."""

import numpy as np
import numpy.typing as npt
import polars as pl

from annotators.text import WITHOUT_SPACES, normalised
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, VERDICTS

WORDS, CHARACTERS = 8, 16
"""Length of the n-grams: words, and characters of languages that part no words."""
_BLOCK = 4096


def texts_and_voices(corpus: Corpus, *, accepted: bool) -> pl.DataFrame:
    """`clip_id`, `text`, `language` and `speaker_embedding` of its clips, or of the accepted."""
    columns = ["clip_id", "text", "language", "speaker_embedding"]
    clips = corpus.read(CLIPS, columns)
    if not accepted:
        return clips
    kept = corpus.read(VERDICTS, ["clip_id", "accepted"]).filter("accepted")
    return clips.join(kept, on="clip_id", how="semi", maintain_order="left")


def ngrams(text: str | None, language: str | None) -> set[tuple[str, ...]]:
    """Of the normalised text; a text that is shorter is one n-gram of its own."""
    plain = normalised(text or "", language)
    if language in WITHOUT_SPACES:
        tokens, size = list(plain.replace(" ", "")), CHARACTERS
    else:
        tokens, size = plain.split(), WORDS
    if not tokens:
        return set()
    return {tuple(tokens[i : i + size]) for i in range(max(1, len(tokens) - size + 1))}


def text_overlap(training: pl.DataFrame, evaluation: pl.DataFrame) -> pl.Series:
    """Share of each evaluation clip's n-grams that the training texts have, in [0, 1]."""
    seen: set[tuple[str, ...]] = set()
    for text, language in training.select("text", "language").iter_rows():
        seen |= ngrams(text, language)
    shares = []
    for text, language in evaluation.select("text", "language").iter_rows():
        own = ngrams(text, language)
        shares.append(len(own & seen) / len(own) if own else 0.0)
    return pl.Series("text_overlap", shares, dtype=pl.Float64)


def nearest_voice(training: pl.DataFrame, evaluation: pl.DataFrame) -> pl.Series:
    """Highest cosine of each evaluation clip's voice to any training clip's; null without one.

    Both must be measured by the same speaker encoder.
    """
    known = _voices(training.drop_nulls("speaker_embedding"))
    own = evaluation.with_row_index("row").drop_nulls("speaker_embedding")
    best: list[float | None] = [None] * evaluation.height
    if len(known) and own.height:
        for start in range(0, own.height, _BLOCK):
            piece = own.slice(start, _BLOCK)
            highest = np.full(piece.height, -1.0, np.float32)
            for begin in range(0, len(known), _BLOCK):
                products = _voices(piece) @ known[begin : begin + _BLOCK].T
                highest = np.maximum(highest, products.max(axis=1))
            for row, value in zip(piece["row"], highest.tolist(), strict=True):
                best[row] = value
    return pl.Series("nearest_voice", best, dtype=pl.Float64)


def _voices(clips: pl.DataFrame) -> npt.NDArray[np.float32]:
    """(clips, channels) unit vectors."""
    if not clips.height:
        return np.zeros((0, 0), np.float32)
    rows = np.array(clips["speaker_embedding"].to_list(), np.float32)
    unit: npt.NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
