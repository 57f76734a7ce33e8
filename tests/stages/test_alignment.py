"""A given transcript goes to the clips that it was spoken in, word for word."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audio import read_chunk
from pipeline.sources import Source
from pipeline.survey import survey
from schemas.errors import ConfigError
from schemas.rows import Chunk, Utterance
from stages.alignment import Alignment, AlignmentConfig, as_given
from stages.segmentation import Segmentation, SegmentationConfig
from stages.transcript_match import place, window
from stages.transcription import Transcription, TranscriptionConfig
from stages.vad import Vad, VadConfig


@pytest.fixture(scope="module")
def heard(devset: Path) -> Chunk:
    """A real minute of English, segmented and transcribed by the real models."""
    path = devset / "audio" / "en_allison_s1.flac"
    source = Source(uri=str(path), size_bytes=1, modified="1", session_id="s", language="en")
    batch = [read_chunk(survey(source, 600.0).chunks[0])]
    for stage in (
        Vad(VadConfig()),
        Segmentation(SegmentationConfig()),
        Transcription(TranscriptionConfig()),
    ):
        stage.setup()
        batch = stage.process(batch)
    return batch[0]


@pytest.fixture(scope="module")
def truth(devset: Path) -> list[Utterance]:
    rows = pl.read_parquet(devset / "ground_truth.parquet").filter(
        pl.col("recording_id") == "en_allison_s1"
    )
    return [
        Utterance(start_s=row["start"], end_s=row["end"], text=row["text"])
        for row in rows.sort("start").to_dicts()
    ]


def aligned(chunk: Chunk, **given: object) -> Chunk:
    recording = replace(chunk.recording, transcript=None, utterances=())
    recording = replace(recording, **given)  # type: ignore[arg-type]
    stage = Alignment(AlignmentConfig())
    stage.setup()
    return stage.process([replace(chunk, recording=recording)])[0]


def true_text(chunk: Chunk, truth: list[Utterance], position: int) -> str:
    clip = chunk.clips[position]
    return " ".join(u.text for u in truth if clip.start_s < (u.start_s + u.end_s) / 2 < clip.end_s)


def test_timed_utterances_go_to_their_clips(heard: Chunk, truth: list[Utterance]) -> None:
    chunk = aligned(heard, utterances=tuple(truth))
    for position, clip in enumerate(chunk.clips):
        assert clip.text_given == true_text(chunk, truth, position)
        assert clip.cer_vs_transcript is not None
        assert clip.cer_vs_transcript < 0.15
        assert (clip.text, clip.text_source) == (clip.text_given, "given")
        assert clip.text_asr == heard.clips[position].text_asr


def test_a_plain_transcript_is_cut_where_the_clips_are(
    heard: Chunk, truth: list[Utterance]
) -> None:
    chunk = aligned(heard, transcript=" ".join(u.text for u in truth))
    for position, clip in enumerate(chunk.clips):
        assert clip.text_given == true_text(chunk, truth, position)


def test_missing_sentences_cost_their_clips_alone(heard: Chunk, truth: list[Utterance]) -> None:
    gone = {position for position, u in enumerate(truth) if position in (4, 5, 6)}
    chunk = aligned(
        heard, transcript=" ".join(u.text for i, u in enumerate(truth) if i not in gone)
    )
    lost = [truth[i] for i in gone]
    for position, clip in enumerate(chunk.clips):
        if any(clip.start_s < u.end_s and u.start_s < clip.end_s for u in lost):
            assert clip.text_source == "asr" or (clip.cer_vs_transcript or 1) <= 0.25
        else:
            assert clip.text_given == true_text(chunk, truth, position)


def test_another_recordings_text_does_not_win(heard: Chunk, devset: Path) -> None:
    other = pl.read_parquet(devset / "ground_truth.parquet").filter(
        pl.col("recording_id") == "en_allison_s2"
    )
    chunk = aligned(heard, transcript=" ".join(other["text"]))
    assert [clip.text_source for clip in chunk.clips] == ["asr"] * len(chunk.clips)
    assert [clip.text for clip in chunk.clips] == [clip.text_asr for clip in chunk.clips]


def test_a_chunk_finds_its_place_in_a_book(
    heard: Chunk, truth: list[Utterance], devset: Path
) -> None:
    others = pl.read_parquet(devset / "ground_truth.parquet").filter(
        (pl.col("language") != "en") & pl.col("text").is_not_null()
    )["text"]
    filler = [f"{text} {number}" for number in range(60) for text in others]
    book = [*filler, *(u.text for u in truth), *reversed(filler)]
    chunk = aligned(heard, transcript=" ".join(book))
    right = [
        clip.text_given == true_text(chunk, truth, position)
        for position, clip in enumerate(chunk.clips)
    ]
    # The first and last clip have foreign text beside them; the ones between must be exact.
    assert all(right[1:-1])


def test_a_language_the_recogniser_does_not_know_takes_timed_text(
    heard: Chunk, truth: list[Utterance]
) -> None:
    deaf = replace(
        heard,
        clips=tuple(replace(clip, text=None, text_asr=None, words=()) for clip in heard.clips),
    )
    chunk = aligned(deaf, utterances=tuple(truth))
    for position, clip in enumerate(chunk.clips):
        assert (clip.text, clip.text_source) == (true_text(chunk, truth, position), "given")
        assert clip.cer_vs_transcript is None
    assert all(clip.text is None for clip in aligned(deaf, transcript="some text").clips)


def test_an_utterance_across_two_clips_is_parted_by_its_words(
    heard: Chunk, truth: list[Utterance]
) -> None:
    held = [
        [u for u in truth if c.start_s < (u.start_s + u.end_s) / 2 < c.end_s] for c in heard.clips
    ]
    last, first = held[0][-1], held[1][0]
    joined = Utterance(start_s=last.start_s, end_s=first.end_s, text=f"{last.text} {first.text}")
    rest = [u for u in truth if u not in (last, first)]
    given_utterances = tuple(sorted([*rest, joined], key=lambda u: u.start_s))
    chunk = aligned(heard, utterances=given_utterances)
    for position, clip in enumerate(chunk.clips):
        assert clip.text_given == true_text(chunk, truth, position)
    deaf = replace(
        heard,
        clips=tuple(replace(clip, text=None, text_asr=None, words=()) for clip in heard.clips),
    )
    unsure, also_unsure, *others = aligned(deaf, utterances=given_utterances).clips
    assert (unsure.text, also_unsure.text) == (None, None)
    assert [clip.text for clip in others] == [
        true_text(chunk, truth, position) for position in range(2, len(chunk.clips))
    ]


def test_a_lone_clip_without_recognised_words_takes_the_whole_transcript(heard: Chunk) -> None:
    lone = replace(heard.clips[0], text=None, text_asr=None, words=())
    other = replace(heard.clips[1], text=None, text_asr=None, words=(), screened="snr")
    chunk = aligned(replace(heard, clips=(lone, other)), transcript=" All of it. ")
    assert [clip.text for clip in chunk.clips] == ["All of it.", None]
    partial = replace(heard.recording, num_chunks=2)
    chunk = aligned(replace(heard, clips=(lone,), recording=partial), transcript="All of it.")
    assert chunk.clips[0].text is None


def test_a_book_that_shares_no_phrase_is_not_aligned_at_all() -> None:
    book = [f"w{i % 5_000}" for i in range(60_000)]
    heard_words = [f"v{i % 700}" for i in range(1_500)]
    assert window(book, heard_words) == (0, 0)
    assert place(book, heard_words, [0] * 1_500) == {}


def test_without_a_transcript_nothing_changes(heard: Chunk) -> None:
    assert aligned(heard).clips == heard.clips


def test_parts_keep_the_spelling_and_the_punctuation() -> None:
    given = as_given('He said: "Stop!" (Then -- silence.) End', "en")
    assert given.part(0, 3) == 'He said: "Stop!"'
    assert given.part(3, 5) == "(Then -- silence.)"


words = st.lists(st.sampled_from("abcdefgh"), max_size=40)


@given(text=words, heard_words=words, cuts=st.sets(st.integers(1, 39), max_size=4))
def test_each_given_word_goes_to_one_clip_at_most_and_in_order(
    text: list[str], heard_words: list[str], cuts: set[int]
) -> None:
    clip_of = [sum(cut <= i for cut in cuts) for i in range(len(heard_words))]
    placed = place(text, heard_words, clip_of)
    spans = [placed[clip] for clip in sorted(placed)]
    assert all(0 <= first < stop <= len(text) for first, stop in spans)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


@given(text=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40))
def test_what_was_heard_exactly_is_placed_in_whole(text: list[str]) -> None:
    assert place(text, text, [0] * len(text)) == {0: (0, len(text))}


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="max_cer"):
        AlignmentConfig(max_cer=2)
