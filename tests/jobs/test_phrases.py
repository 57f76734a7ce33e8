"""Phrases of a corpus: cut where it is quiet, with the words that were given and recognised alike."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import soundfile as sf

from jobs.shipped.phrases import main
from pipeline.ledger import Item, UnitRecord
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, RECORDINGS
from schemas.rows import Clip, Recording, Word

RATE = 16_000
SAID_S, PAUSE_S = 0.36, 0.04


def sound(words: int) -> npt.NDArray[np.float32]:
    """Words of noise with short pauses before, between and after them."""
    random = np.random.default_rng(0)
    word = 0.3 * random.standard_normal(round(SAID_S * RATE)).astype(np.float32).clip(-3, 3)
    pause = np.zeros(round(PAUSE_S * RATE), np.float32)
    return np.concatenate([pause, *[part for _ in range(words) for part in (word, pause)]])


def clip(name: str, text: str, heard: str, source: str = "given") -> Clip:
    """Said and recognised; the recogniser's times are 30 ms late."""
    words = heard.split()
    wave = sound(len(words))
    held = io.BytesIO()
    sf.write(held, wave, RATE, format="FLAC")
    step = SAID_S + PAUSE_S
    return Clip(
        clip_id=name,
        recording_id=f"r{name}",
        session_id="s",
        chunk_index=0,
        start_sample=1000,
        end_sample=1000 + len(wave),
        sample_rate=RATE,
        start_s=1000 / RATE,
        end_s=(1000 + len(wave)) / RATE,
        duration_s=len(wave) / RATE,
        audio=held.getvalue(),
        language="en",
        text=text,
        text_source=source,
        words=tuple(
            Word(
                word=word,
                start_s=PAUSE_S + i * step + 0.03,
                end_s=PAUSE_S + i * step + SAID_S + 0.03,
                prob=1.0,
            )
            for i, word in enumerate(words)
        ),
        snr_db=31.0,
    )


def phrases(folder: Path, *clips: Clip) -> pl.DataFrame:
    corpus = Corpus(str(folder / "in"))
    recordings = [
        Recording(
            recording_id=one.recording_id,
            uri=f"{one.clip_id}.flac",
            session_id="s",
            duration_s=one.duration_s,
            sample_rate=RATE,
            channels=1,
            codec="FLAC",
            size_bytes=1,
            num_chunks=1,
        )
        for one in clips
    ]
    items = tuple(
        Item(item_id=one.recording_id, uri=one.uri, status="done", duration_s=one.duration_s)
        for one in recordings
    )
    unit = UnitRecord(unit_id="u", attempt=1, items=items, rows={}, seconds={})
    corpus.commit("curate", [unit], {"clips": clips, "recordings": recordings})
    for name, phase in (("one", "curate"), ("two", "encode")):
        corpus.write_json(f"_runs/{name}.json", {"run": name, "phase": phase, "started": "2026"})
    main(corpus.root, str(folder / "out"))
    made = Corpus(str(folder / "out"))
    assert [run["run"] for run in made.runs()] == ["one"], "who gave the scores"
    found = made.read(CLIPS)
    assert set(made.read(RECORDINGS)["recording_id"]) == {one.recording_id for one in clips}
    booked = sum(item.duration_s for unit in made.committed("curate") for item in unit.items)
    assert booked == pytest.approx(found["duration_s"].sum())
    return found


def test_a_clip_comes_whole_and_in_runs_of_words(tmp_path: Path) -> None:
    found = phrases(tmp_path, clip("a", "Press 1, or hold!", "press one or hold."))
    pieces = ["press", "one", "or", "hold", "press one", "one or", "or hold"]
    pieces += ["press one or", "one or hold", "Press one, or hold!"]
    assert sorted(found["text"]) == sorted(pieces)
    assert found["clip_id"].n_unique() == len(found)
    assert set(found["snr_db"]) == {31.0}


def test_a_cut_is_where_it_is_quiet(tmp_path: Path) -> None:
    one = clip("a", "please hold the line", "please hold the line")
    found = phrases(tmp_path, one).sort("start_sample")
    whole = sound(4)
    step = SAID_S + PAUSE_S
    inside = {
        round(edge)
        for edge in (*found["start_sample"], *found["end_sample"])
        if edge not in (one.start_sample, one.end_sample)
    }
    assert len(inside) == 3
    for number, edge in enumerate(sorted(inside), start=1):
        assert abs((edge - 1000) / RATE - (PAUSE_S / 2 + number * step)) <= PAUSE_S / 2
    for row in found.iter_rows(named=True):
        wave, _ = sf.read(io.BytesIO(row["audio"]), dtype="float32")
        first = row["start_sample"] - 1000
        there = whole[first : first + len(wave)]
        assert len(there) == row["end_sample"] - row["start_sample"]
        np.testing.assert_allclose(wave[100:-100], there[100:-100], atol=1e-3)


def test_what_was_recognised_otherwise_is_in_no_phrase(tmp_path: Path) -> None:
    found = phrases(tmp_path, clip("a", "press star or hold", "press stow or hold"))
    assert sorted(found["text"]) == ["hold", "or", "or hold", "press", "press star or hold"]
    # The run ends with the clip, but does not begin with it.
    last = found.filter(pl.col("text") == "or hold")
    assert last["end_sample"].item() == found["end_sample"].max()
    assert last["start_sample"].item() > found["start_sample"].min()


def test_a_text_that_was_only_recognised_is_left_out(tmp_path: Path) -> None:
    found = phrases(
        tmp_path, clip("a", "karma", "karma", source="asr"), clip("b", "comma", "karma")
    )
    assert found["text"].to_list() == ["comma"]


def test_a_word_that_is_written_as_one_and_said_as_two_is_in_no_phrase(tmp_path: Path) -> None:
    found = phrases(tmp_path, clip("a", "press 21 or hold", "press 21 or hold"))
    assert sorted(found["text"]) == ["hold", "or", "or hold", "press", "press twenty-one or hold"]


def test_what_is_too_short_to_hear_is_no_phrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.shipped.phrases.SHORTEST_S", 0.5)
    found = phrases(tmp_path, clip("a", "press or hold", "press or hold"))
    assert sorted(found["text"]) == ["or hold", "press or", "press or hold"]
