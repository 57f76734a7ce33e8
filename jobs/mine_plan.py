"""What there is to mine: every clip's place, its session's order, and the texts that repeat.

Light columns only: embeddings and audio are read by the workers.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from jobs.mine import Places, SessionPlan, TextPlan
from pipeline.derived import Derived
from pipeline.ledger import Item
from pipeline.profile import as_plain
from pipeline.shelf import Shelf
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, RECORDINGS, VERDICTS
from schemas.ids import content_id
from stages.near_duplicates import DuplicatesConfig

_LIGHT = ("clip_id", "session_id", "recording_id", "start_s", "end_s", "duration_s", "text")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """Every clip of the corpus, session by session in order, and where its row lies."""

    corpus: str
    parts: tuple[str, ...]
    clips: pl.DataFrame
    """clip_id, session_id, duration_s, key (of its text; null where it has none), accepted, part,
    row."""

    def places(self, clips: pl.DataFrame) -> Places:
        """Where some of the clips lie."""
        numbers, part = np.unique(clips["part"].to_numpy(), return_inverse=True)
        return Places(
            corpus=self.corpus,
            parts=tuple(self.parts[number] for number in numbers),
            part=part.astype(np.int64),
            row=clips["row"].to_numpy().astype(np.int64),
        )


def take_inventory(corpus: Corpus) -> Inventory:
    """Read the light columns of all clips, their verdicts, and put them in order."""
    scanned = list(corpus.scan(CLIPS, _LIGHT))
    if not scanned:
        return Inventory(corpus=corpus.root, parts=(), clips=pl.DataFrame())
    rows = np.array([piece.num_rows for _, piece in scanned])
    starts = np.repeat(np.cumsum(rows) - rows, rows)
    clips = pl.from_arrow(pa.concat_tables([piece for _, piece in scanned]))
    assert isinstance(clips, pl.DataFrame)
    parts = tuple(part for part, _ in scanned)
    del scanned
    uris = corpus.read(RECORDINGS, ["recording_id", "uri"]).unique("recording_id")
    clips = (
        clips.with_columns(
            key_of_text().alias("key"),
            part=pl.Series(np.repeat(np.arange(rows.size), rows)),
            row=pl.Series(np.arange(starts.size) - starts),
        )
        .drop("text")
        .join(uris, on="recording_id", how="left")
        .join(corpus.read(VERDICTS, ["clip_id", "accepted"]), on="clip_id", how="left")
        .with_columns(pl.col("accepted").fill_null(False))
        # Time rules, not the index: it is what "directly before" means.
        .sort("session_id", "uri", "recording_id", "start_s", "end_s", "clip_id")
        .drop("uri", "recording_id", "start_s", "end_s")
    )
    return Inventory(corpus=corpus.root, parts=parts, clips=clips)


def key_of_text() -> pl.Expr:
    """The text as repeats are sought by: letters, marks and digits, without case."""
    bare = pl.col("text").str.normalize("NFKC").str.to_lowercase()
    bare = bare.str.replace_all(r"[^\p{L}\p{M}\p{N}]+", "")
    return pl.when(bare != "").then(bare)


def comparison_id(key: str) -> str:
    """The id of an item of the comparison: the clips with this key of their text."""
    return content_id("text", key)


def texts_to_compare(
    inventory: Inventory,
    config: DuplicatesConfig,
    encoder: str,
    ledger: Mapping[str, tuple[int, Item]],
) -> Iterator[Derived]:
    """Texts that several accepted clips of about one length have, and those that once were."""
    if inventory.clips.is_empty():
        return
    before = pl.col("duration_s").diff().over("key")
    near = before <= config.max_length_gap_s
    several = (
        inventory.clips.filter(pl.col("accepted") & pl.col("key").is_not_null())
        .filter(pl.len().over("key") > 1)
        .sort("key", "duration_s", "clip_id")
        .filter(near.fill_null(False) | near.shift(-1).over("key").fill_null(False))
    )
    settings = content_id(json.dumps(as_plain(config), sort_keys=True), encoder)
    known: Shelf[bool] = Shelf()
    for (key,), group in several.group_by("key", maintain_order=True):
        ordered = group.sort("part", "row")
        text_id = comparison_id(str(key))
        known.setdefault((text_id, ""), True)
        yield _text_item(
            text_id,
            inventory.places(ordered),
            config,
            content_id(settings, *ordered["clip_id"]),
            float(ordered["duration_s"].sum()),
        )
    # A text that no longer repeats, by another policy perhaps, takes back its marks.
    nowhere = Places(
        corpus=inventory.corpus, parts=(), part=np.zeros(0, np.int64), row=np.zeros(0, np.int64)
    )
    for item_id in ledger:
        if not known.get((item_id, "")):
            yield _text_item(item_id, nowhere, config, "gone", 0.0)


def _text_item(
    text_id: str, places: Places, config: DuplicatesConfig, fingerprint: str, duration_s: float
) -> Derived:
    return Derived(
        item_id=text_id,
        uri=f"text:{text_id}",
        fingerprint=fingerprint,
        duration_s=duration_s,
        plan=TextPlan(text_id=text_id, places=places, config=config),
        size=max(1, places.part.size),
    )


def sessions_to_mine(
    inventory: Inventory, repeats: pl.Series, settings: Mapping[str, Any]
) -> Iterator[Derived]:
    """Every session with its clips' places and flags, ordered by where they lie.

    repeats: ids of the near-duplicates. settings: all that the pairs depend on beside the clips.
    """
    clips = inventory.clips.with_columns(repeats=pl.col("clip_id").is_in(repeats.implode()))
    head = content_id(json.dumps(settings, sort_keys=True)).encode()
    accepted, marked = clips["accepted"].to_numpy(), clips["repeats"].to_numpy()
    flags = (accepted.astype(np.uint8) + 2 * marked.astype(np.uint8)).tobytes()
    ids = _IdBytes(clips["clip_id"])
    sessions = clips["session_id"].rle().struct
    names = sessions.field("value")
    stops = sessions.field("len").cast(pl.Int64).cum_sum().to_numpy()
    starts = stops - sessions.field("len").to_numpy()
    part, row = clips["part"].to_numpy().astype(np.int64), clips["row"].to_numpy().astype(np.int64)
    seconds = clips["duration_s"].to_numpy()
    # A session's first row tells where it lies.
    place = part * (int(row.max()) + 1) + row
    order = np.lexsort((names.to_numpy(), np.minimum.reduceat(place, starts)))
    for index in order.tolist():
        session_id, start, stop = names[index], int(starts[index]), int(stops[index])
        digest = hashlib.blake2b(head, digest_size=16)
        digest.update(ids.between(start, stop))
        digest.update(flags[start:stop])
        numbers, mine = np.unique(part[start:stop], return_inverse=True)
        plan = SessionPlan(
            session_id=session_id,
            places=Places(
                corpus=inventory.corpus,
                parts=tuple(inventory.parts[number] for number in numbers),
                part=mine.astype(np.int64),
                row=row[start:stop],
            ),
            accepted=accepted[start:stop],
            repeats=marked[start:stop],
        )
        yield Derived(
            item_id=session_id,
            uri=session_id,
            fingerprint=digest.hexdigest(),
            duration_s=float(seconds[start:stop].sum()),
            plan=plan,
            size=stop - start,
        )


class _IdBytes:
    """The bytes of many ids, without a Python object for each."""

    def __init__(self, ids: pl.Series) -> None:
        array = ids.to_arrow().cast(pa.large_string())
        _, offsets, data = array.buffers()
        assert offsets is not None
        assert data is not None
        starts = np.frombuffer(memoryview(offsets), np.int64)
        self.offsets = starts[array.offset : array.offset + len(ids) + 1]
        self.data = memoryview(data)

    def between(self, start: int, stop: int) -> memoryview:
        """The ids of some neighbours, one after the other."""
        return self.data[self.offsets[start] : self.offsets[stop]]
