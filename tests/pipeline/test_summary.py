"""The books: what came in is what was kept, rejected, quarantined or silent; else an error."""

import io

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.ledger import Item
from pipeline.summary import account, render
from schemas.errors import StorageError

RECORDINGS = pl.DataFrame({"recording_id": ["r"], "flags": [["no_speech"]]})


def item(name: str, duration_s: float, status: str = "done") -> Item:
    return Item(item_id=name, uri=name, status=status, duration_s=duration_s)


def frames(
    clips: list[tuple[float, list[str]]], quarantined: list[float]
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    ids = [f"c{i}" for i in range(len(clips))]
    clip_frame = pl.DataFrame(
        {"clip_id": ids, "duration_s": [duration for duration, _ in clips]},
        schema={"clip_id": pl.String, "duration_s": pl.Float64},
    )
    verdicts = pl.DataFrame(
        {
            "clip_id": ids,
            "accepted": [not why for _, why in clips],
            "tier": ["wideband"] * len(ids),
            "reasons": [why for _, why in clips],
        },
        schema={
            "clip_id": pl.String,
            "accepted": pl.Boolean,
            "tier": pl.String,
            "reasons": pl.List(pl.String),
        },
    )
    quarantine = pl.DataFrame(
        {"error_type": ["EmptyFile"] * len(quarantined), "duration_s": quarantined},
        schema={"error_type": pl.String, "duration_s": pl.Float64},
    )
    return clip_frame, verdicts, quarantine


lengths = st.lists(st.floats(0, 600), max_size=8)


@given(kept=lengths, rejected=lengths, ill=lengths, silence=st.floats(0, 600))
def test_hours_in_are_the_sum_of_what_became_of_them(
    kept: list[float], rejected: list[float], ill: list[float], silence: float
) -> None:
    tables = frames([*((d, []) for d in kept), *((d, ["low_snr"]) for d in rejected)], ill)
    items = [item("a", sum(kept) + sum(rejected) + silence)]
    items += [item(f"q{i}", d, "quarantined") for i, d in enumerate(ill)]
    books = account(items, *tables, RECORDINGS)
    assert books.hours_in == pytest.approx(
        books.hours_kept
        + books.hours_rejected
        + books.hours_quarantined
        + books.hours_without_speech
    )
    assert books.clips_kept == len(kept)
    assert books.recordings_without_speech == 1


def test_reasons_are_counted_alone_and_together() -> None:
    clips = [(36.0, ["low_snr", "clipped"]), (72.0, ["low_snr"]), (36.0, [])]
    books = account([item("a", 200.0)], *frames(clips, []), RECORDINGS)
    by_name = {reason.name: reason for reason in books.reasons}
    assert (by_name["low_snr"].clips, by_name["low_snr"].clips_alone) == (2, 1)
    assert by_name["low_snr"].hours_alone == pytest.approx(0.02)
    assert by_name["clipped"].clips_alone == 0


@pytest.mark.parametrize(
    "fault",
    [
        *("more clips than audio", "no verdict", "twice", "lost row"),
        *("one verdict twice and one missing", "no length", "no length of an item"),
    ],
)
def test_books_that_do_not_balance_are_an_error(fault: str) -> None:
    clips, verdicts, quarantine = frames([(10.0, []), (10.0, ["x"])], [5.0])
    items = [item("a", 30.0), item("q", 5.0, "quarantined")]
    if fault == "more clips than audio":
        items[0] = item("a", 19.0)
    elif fault == "no verdict":
        verdicts = verdicts.head(1)
    elif fault == "one verdict twice and one missing":
        verdicts = pl.concat([verdicts.head(1), verdicts.head(1)])
    elif fault == "no length":
        clips = clips.with_columns(duration_s=pl.lit(float("nan")))
    elif fault == "no length of an item":
        items[0] = item("a", float("nan"))
    elif fault == "twice":
        clips, verdicts = pl.concat([clips, clips]), pl.concat([verdicts, verdicts])
    else:
        quarantine = quarantine.head(0)
    with pytest.raises(StorageError, match=r"\d"):
        account(items, clips, verdicts, quarantine, RECORDINGS)


def test_the_table_tells_hours_reasons_and_speed() -> None:
    books = account(
        [item("a", 3600.0), item("q", 36.0, "quarantined")],
        *frames([(1800.0, []), (900.0, ["low_snr"])], [36.0]),
        RECORDINGS,
    )
    out = io.StringIO()
    facts = {
        "audio_s": 3600.0,
        "run_s": 120.0,
        "ray_start_s": 3.0,
        "worker_start_s": 6.0,
        "stage_seconds": {"vad": 4.0, "dnsmos": 160.0},
    }
    render(books, facts, Console(file=out, width=100))
    text = out.getvalue()
    for figure in ("0.500", "low_snr", "EmptyFile", "30.0 audio hours per hour", "900"):
        assert figure in text
