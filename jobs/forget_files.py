"""What an opt-out takes out of a corpus beside its tables: answers, plans, records, leftovers."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import polars as pl

from jobs.clone_plan import LAST_PLAN
from jobs.forget_plan import Removal
from pipeline.chat.responses import FOLDER as RESPONSES
from pipeline.chat.responses import Responses
from pipeline.column_index import FOLDER as INDEX
from pipeline.storage import Corpus
from pipeline.tombstones import FOLDER as TOMBSTONES
from pipeline.tombstones import JOURNAL
from schemas.arrow import TABLES

REPORT = "report.html"
_HIDDEN = "[forgotten]"


def blank_answers(corpus: Corpus, removal: Removal) -> None:
    """Take words and clip out of what models said of the clips; what it cost stays in the books."""
    gone = set(removal.clips)
    responses = Responses(corpus)
    for name in corpus.names(RESPONSES):
        kept = responses.read(name.rpartition("/")[2].removesuffix(".json"))
        if kept is not None and kept.clip_id in gone:
            blank = replace(
                kept,
                clip_id="",
                content="",
                status="asked",
                cost=0.0,
                lost_cost=kept.total_cost,
                usage={},
            )
            responses.write(blank)


def clean_records(corpus: Corpus, removal: Removal) -> None:
    """Take ids and uris out of the plan of the clones and the run records, which have no others."""
    last = corpus.find_json(LAST_PLAN)
    if last is not None:
        gone = set(removal.clones)
        kept = [name for name in last["unplanned"] if name not in gone]
        if kept != last["unplanned"]:
            corpus.write_json(LAST_PLAN, {**last, "unplanned": kept}, indent=None)
    needles = needles_of(removal)
    for name in corpus.names("_runs"):
        record = corpus.read_json(name)
        clean = _without(record, needles)
        source = str(record.get("source", "")).removeprefix("./")
        if source and any(uri.endswith(f"/{source}") for uri in removal.uris):
            clean["source"] = _HIDDEN
        if clean != record:
            corpus.write_json(name, clean)


def sweep(corpus: Corpus) -> None:
    """Delete the report, which plays clips, the column index, which holds their rows again, and what
    crashed runs left: parts that no marker names, and files that were half written."""
    stands = {part for table in TABLES for part in corpus.parts(table)}
    for name in corpus.files():
        folder, _, file = name.rpartition("/")
        top = name.partition("/")[0]
        left_over = top == INDEX or (top in TABLES and name not in stands)
        half_written = file.startswith(".") and len(file.rpartition(".")[2]) == 32
        if left_over or half_written or (not folder and file == REPORT):
            corpus.delete(name)


def still_named_in(corpus: Corpus, removal: Removal) -> Iterator[str]:
    """Files that are none of voxquarry's tables and tell of what went: a person has put them here.

    Tombstones know recordings by the hash of their bytes, and are left out.
    """
    needles = needles_of(removal)
    for name in corpus.files():
        top = name.partition("/")[0]
        if top not in TABLES and top not in {TOMBSTONES, JOURNAL} and named(corpus, name, needles):
            yield name


def needles_of(removal: Removal) -> list[str]:
    """What must be found nowhere."""
    return sorted({*removal.ids, *removal.uris})


def named(corpus: Corpus, name: str, needles: list[str]) -> bool:
    """Whether a file holds one of the needles."""
    text = pl.Series([corpus.read_bytes(name).decode("utf-8", "replace")])
    return bool(text.str.contains_any(needles).any())


def _without(value: Any, needles: list[str]) -> Any:
    """Plain values in which nothing names what went."""
    if isinstance(value, dict):
        return {key: _without(one, needles) for key, one in value.items()}
    if isinstance(value, list):
        return [_without(one, needles) for one in value]
    if not isinstance(value, str):
        return value
    series = pl.Series([value])
    return series.str.replace_many(needles, [_HIDDEN] * len(needles)).item()
