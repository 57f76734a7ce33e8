"""Sentence embeddings of a corpus' texts: found out once, and kept in the table `sentences`."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from annotators.sentence import SentenceEmbedder
from pipeline.ledger import UnitRecord
from pipeline.storage import Corpus
from schemas.arrow import SENTENCES
from schemas.ids import content_id
from stages.text_pairs import I16, as_whole

PHASE = "sentences"
TEXTS_PER_COMMIT = 4096
"""Half a minute of a core: what a crash may cost."""


def vectors_of(
    corpus: Corpus,
    texts: Sequence[str],
    open_embedder: Callable[[], SentenceEmbedder],
    model_hash: str,
    progress: Callable[[int, int], None] | None = None,
) -> I16:
    """(N, D) embeddings by `as_whole`. Texts that are new to the corpus are embedded and kept.

    progress: told how many of the new ones are done, and of how many.
    """
    names = [content_id(text) for text in texts]
    known = _kept(corpus, model_hash)
    missing = {name: text for name, text in zip(names, texts, strict=True) if name not in known}
    found = list(known.items())
    done = 0
    # Opening it takes seconds, which a run that goes on has no need of.
    embedder = open_embedder() if missing else None
    for block in _blocks(sorted(missing)):
        assert embedder is not None, "there is something to embed"
        vectors = as_whole(embedder.embed([missing[name] for name in block]))
        content = [row.astype("<i2").tobytes() for row in vectors]
        _keep(corpus, block, content, model_hash)
        found += zip(block, content, strict=True)
        done += len(block)
        if progress:
            progress(done, len(missing))
    if not texts:
        return np.zeros((0, 0), np.int16)
    vector_of = dict(found)
    whole = np.frombuffer(b"".join(vector_of[name] for name in names), "<i2")
    return whole.astype(np.int16).reshape(len(texts), -1)


def _kept(corpus: Corpus, model_hash: str) -> dict[str, bytes]:
    kept = corpus.read(SENTENCES, filters=[("model_hash", "=", model_hash)])
    return dict(kept.select("text_id", "vector").iter_rows())


def _keep(corpus: Corpus, names: Sequence[str], vectors: Sequence[bytes], model_hash: str) -> None:
    """Commit some vectors: all of them or none."""
    columns = {
        "text_id": pl.Series(names, dtype=pl.String).to_arrow(),
        "model_hash": pa.array([model_hash] * len(names), pa.string()),
        "vector": pa.array(vectors, pa.large_binary()),
    }
    rows = pa.table(columns).cast(SENTENCES.schema)
    unit = UnitRecord(
        unit_id=content_id(model_hash, *names),
        attempt=1,
        items=(),
        rows={SENTENCES.name: len(names)},
        seconds={},
    )
    corpus.commit(PHASE, [unit], {SENTENCES.name: rows})


def _blocks(names: Sequence[str]) -> Iterable[Sequence[str]]:
    for start in range(0, len(names), TEXTS_PER_COMMIT):
        yield names[start : start + TEXTS_PER_COMMIT]
