"""Read manifests: tables that say what is known about each recording beforehand.

Rows come out as plain values, checked; the row's number stands in every complaint.
"""

import csv
import difflib
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.opening import open_bytes
from schemas.errors import ConfigError, MissingSource
from schemas.rows import Utterance

COLUMNS = (
    "uri",
    "session_id",
    "speaker",
    "language",
    "licence",
    "consent",
    "source",
    "transcript",
)
# ISO 639-1 or -3, with a region or script where the corpus has one: en, yue, zh-tw.
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")
# The csv module's own bound is 128 KiB; an hour of timed transcript is longer.
_LONGEST_FIELD = 1 << 28
# Of a Parquet manifest in memory at once.
_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One row of a manifest."""

    where: str
    """Names the manifest and the row, for messages."""
    uri: str
    """As it stands in the manifest."""
    session_id: str | None
    speaker: str | None
    language: str | None
    licence: str | None
    consent: str | None
    source: str | None
    transcript: str | None
    utterances: tuple[Utterance, ...]


def is_manifest(spec: str) -> bool:
    """Whether a source's name is that of a manifest."""
    return _suffix(spec) in _READERS


def read_manifest(spec: str) -> Iterator[Entry]:
    """The rows of a .csv, .jsonl or .parquet file, local or remote.

    Raises `ConfigError` if it cannot be read, has columns other than `COLUMNS`, or a row is wrong.
    """
    number = 0
    try:
        with open_bytes(spec) as file:
            for number, row in enumerate(_READERS[_suffix(spec)](file), start=1):
                _refuse_unknown(spec, row)
                if number == 1 and "uri" not in row:
                    raise ConfigError(f"manifest {spec} has no column uri")
                yield _entry(f"manifest {spec}, row {number}", row)
    except MissingSource as error:
        raise ConfigError(f"there is no manifest {spec}: {error}") from error
    except (OSError, ValueError, pa.ArrowInvalid, csv.Error) as error:
        raise ConfigError(f"manifest {spec} cannot be read: {error}") from error
    if not number:
        raise ConfigError(f"manifest {spec} has no rows")


def _suffix(spec: str) -> str:
    bare = spec.partition("?")[0] if "://" in spec else spec
    return Path(bare).suffix.lower()


# -------------------------------------------------------------------- formats

Row = Mapping[str, Any]


def _csv(file: io.BufferedReader) -> Iterator[Row]:
    # newline="": line ends inside quoted transcripts are the csv module's business.
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        for number, row in enumerate(csv.DictReader(text, strict=True), start=1):
            if None in row:
                raise ValueError(f"row {number} has more fields than the header")
            yield row
    finally:
        csv.field_size_limit(before)


def _jsonl(file: io.BufferedReader) -> Iterator[Row]:
    # Not str.splitlines, which also breaks at separators that may stand inside a JSON string.
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if not isinstance(row, dict):
            raise ConfigError(f"line {number} of the manifest is no JSON object")
        yield row


def _parquet(file: io.BufferedReader) -> Iterator[Row]:
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(_ROWS):
            yield from batch.to_pylist()


_READERS: Mapping[str, Callable[[io.BufferedReader], Iterator[Row]]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}


# -------------------------------------------------------------------- rows


def _refuse_unknown(spec: str, row: Row) -> None:
    for column in row:
        if column not in COLUMNS:
            near = difflib.get_close_matches(column.lower(), COLUMNS, n=1)
            advice = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"manifest {spec}: unknown column {column}; {advice}known: {', '.join(COLUMNS)}"
            )


def _entry(where: str, row: Row) -> Entry:
    known = {
        name: _text(row.get(name), f"{where}: {name}") for name in COLUMNS if name != "transcript"
    }
    uri = known.pop("uri")
    if uri is None:
        raise ConfigError(f"{where}: uri is empty")
    language = known["language"]
    if language is not None:
        language = language.lower().replace("_", "-")
        if not _LANGUAGE.fullmatch(language):
            raise ConfigError(
                f"{where}: language {language!r} is no ISO 639 code, such as en or zh"
            )
    known["language"] = language
    transcript, utterances = _transcript(row.get("transcript"), where)
    return Entry(where=where, uri=uri, transcript=transcript, utterances=utterances, **known)


def _text(value: Any, where: str) -> str | None:
    """A cell as text; None where it is empty. A speaker may well be a number."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise ConfigError(f"{where} is neither text nor a number: {value!r}")
    return str(value).strip() or None


def _transcript(value: Any, where: str) -> tuple[str | None, tuple[Utterance, ...]]:
    """Plain text, or utterances with times."""
    if isinstance(value, str):
        if not value.lstrip().startswith("[{"):
            return value if value.strip() else None, ()
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ConfigError(f"{where}: transcript starts like JSON but is not: {error}") from None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None, ()
    try:
        utterances = tuple(
            Utterance(
                start_s=float(part["start_s"]), end_s=float(part["end_s"]), text=str(part["text"])
            )
            for part in value
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{where}: transcript is neither text nor a list of start_s, end_s, text ({error!r})"
        ) from error
    for part in utterances:
        if not 0 <= part.start_s < part.end_s < float("inf"):
            raise ConfigError(
                f"{where}: an utterance from {part.start_s} s to {part.end_s} s in the transcript"
            )
    return None, tuple(sorted(utterances, key=lambda part: part.start_s))
