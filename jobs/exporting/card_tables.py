"""Figures of an export's clips, as rows of Markdown tables."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

import polars as pl

from annotators.languages import base_code, languages

TOP_DOMAINS = 0.1
"""Share of the domains, by hours, that are listed; at least LEAST_DOMAINS."""
LEAST_DOMAINS = 10
MOST_ROWS = 100
_WEB = ("http", "https")
_STORES = {"s3": "object store", "gs": "object store", "gcs": "object store", "": "files"}


def markdown_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of text; what comes from outside breaks no cell."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def hours_of(clips: pl.DataFrame) -> float:
    """Hours of audio."""
    return float(clips["duration_s"].sum()) / 3600


def clips_and_hours(clips: pl.DataFrame) -> tuple[str, str]:
    """Both, as text."""
    return f"{clips.height:,}", f"{hours_of(clips):,.3f}"


def by(clips: pl.DataFrame, column: str, missing: str) -> list[tuple[str, ...]]:
    """(value, clips, hours, share of hours) of each value of a column, most hours first."""
    grouped = (
        clips.group_by(pl.col(column).fill_null(missing).alias("value"))
        .agg(pl.len(), pl.col("duration_s").sum())
        .sort("duration_s", "value", descending=[True, False])
    )
    total = float(clips["duration_s"].sum()) or 1.0
    rows: list[tuple[str, ...]] = [
        (str(value), f"{number:,}", f"{seconds / 3600:,.3f}", f"{seconds / total:.1%}")
        for value, number, seconds in grouped.head(MOST_ROWS).iter_rows()
    ]
    if grouped.height > MOST_ROWS:
        rows.append((f"… {grouped.height - MOST_ROWS:,} more", "", "", ""))
    return rows


def kinds_of(clips: pl.DataFrame) -> list[tuple[str, ...]]:
    """As `by`, of the kinds of place that the recordings' uris name."""
    kinds = _of_each(clips["uri"], _kind)
    return by(clips.with_columns(kind=kinds), "kind", "not stated")


def domains_of(clips: pl.DataFrame) -> list[tuple[str, ...]]:
    """As `by`, of the internet domains that uri or source name; only the largest."""
    found = pl.select(
        pl.coalesce(
            _of_each(clips["uri"], _domain),
            _of_each(clips["source"], _domain),
        ).alias("domain")
    )["domain"]
    named = clips.with_columns(domain=found).filter(pl.col("domain").is_not_null())
    most = max(LEAST_DOMAINS, math.ceil(TOP_DOMAINS * named["domain"].n_unique()))
    return by(named, "domain", "")[:most]


def language_name(code: str) -> str:
    """`English (en)`, or the code alone where no row knows it."""
    known = languages().get(base_code(code) or "")
    return f"{known.name} ({code})" if known else code


def _of_each(column: pl.Series, value: Callable[[str], str | None]) -> pl.Series:
    """The function's value for each text; asked once for each different one."""
    names = [name for name in column.unique() if name is not None]
    found = pl.Series([value(name) for name in names], dtype=pl.String)
    return column.replace_strict(
        pl.Series(names, dtype=pl.String), found, default=None, return_dtype=pl.String
    )


def _kind(uri: str) -> str:
    scheme = _split(uri)[0]
    return "web" if scheme in _WEB else _STORES.get(scheme, scheme)


def _domain(text: str) -> str | None:
    scheme, host = _split(text)
    return host if scheme in _WEB else None


def _split(uri: str) -> tuple[str, str | None]:
    if "://" not in uri:
        return "", None
    try:
        parts = urlsplit(uri)
        return parts.scheme.lower(), parts.hostname
    except ValueError:
        return "", None


def _cell(text: str) -> str:
    plain = re.sub(r"\s+", " ", text).replace("\\", "\\\\").replace("|", "\\|")
    return plain.replace("<", "&lt;")
