"""Clips cover all speech, never overlap, and keep within their bounds."""

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigError
from schemas.rows import Chunk, Recording, Span
from stages.segmentation import (
    Segmentation,
    SegmentationConfig,
    islands_of,
    quietness_db,
    segment,
    split_island,
)

AUDIO = Path(__file__).parents[1] / "data" / "devset" / "audio"
SPEECH = sf.read(AUDIO / "en_allison_s1.flac", dtype="float32")[0]

RECORDING = Recording(
    recording_id="r",
    uri="r.flac",
    session_id="s",
    speaker="allison",
    language="en",
    duration_s=1.0,
    sample_rate=16_000,
    channels=1,
    codec="flac",
    size_bytes=1,
    num_chunks=1,
)


def make_chunk(
    spans: list[tuple[float, float]],
    duration_s: float,
    sample_rate: int = 16_000,
    start_sample: int = 0,
    index: int = 0,
) -> Chunk:
    """A chunk of real speech, repeated to the length, with the given voice activity."""
    num_16k = round(duration_s * 16_000)
    return Chunk(
        recording=RECORDING,
        index=index,
        start_sample=start_sample,
        sample_rate=sample_rate,
        wave=np.zeros(round(duration_s * sample_rate), np.float32),
        wave_16k=np.resize(SPEECH, num_16k),
        speech=tuple(Span(start_s=a, end_s=b) for a, b in spans),
    )


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    """Islands from 60 ms to 80 s with pauses from nothing to 4 s, at common rates."""
    lengths = draw(st.lists(st.floats(0.06, 80), min_size=1, max_size=25))
    pauses = draw(st.lists(st.floats(0, 4), min_size=len(lengths), max_size=len(lengths)))
    spans, at = [], 0.0
    for length, pause in zip(lengths, pauses, strict=True):
        at += pause
        spans.append((at, at + length))
        at += length
    return make_chunk(
        spans,
        at + draw(st.floats(0, 2)),
        draw(st.sampled_from([8_000, 16_000, 44_100, 48_000])),
        draw(st.integers(0, 10**9)),
        draw(st.integers(0, 100)),
    )


CONFIGS = st.builds(
    SegmentationConfig,
    min_s=st.floats(0.5, 3),
    target_s=st.floats(3, 20),
    max_s=st.floats(20, 60),
    edge_silence_s=st.floats(0, 0.3),
)


@settings(deadline=None, max_examples=60)
@given(chunk=chunks(), config=CONFIGS)
def test_every_sample_of_speech_lies_in_exactly_one_clip(
    chunk: Chunk, config: SegmentationConfig
) -> None:
    clips = segment(chunk, config)
    inside = np.zeros(chunk.wave.shape[0], np.int8)
    heard = np.zeros_like(inside)
    for clip in clips:
        at = clip.start_sample - chunk.start_sample
        inside[at : clip.end_sample - chunk.start_sample] += 1
        for span in clip.speech:
            heard[at + round(span.start_s * clip.sample_rate) :][
                : round((span.end_s - span.start_s) * clip.sample_rate)
            ] += 1
    assert inside.max(initial=0) <= 1
    for start, end in islands_of(chunk.speech, chunk.sample_rate, chunk.wave.shape[0]):
        assert inside[start:end].all()
        assert (heard[start:end] == 1).all()


@settings(deadline=None, max_examples=60)
@given(chunk=chunks(), config=CONFIGS)
def test_clips_keep_their_bounds(chunk: Chunk, config: SegmentationConfig) -> None:
    clips = segment(chunk, config)
    slack = 2 / chunk.sample_rate
    assert [c.index_in_recording for c in clips] == [
        chunk.index * 100_000 + i for i in range(len(clips))
    ]
    for clip in clips:
        assert clip.start_sample >= chunk.start_sample
        assert clip.end_sample <= chunk.start_sample + chunk.wave.shape[0]
        assert clip.duration_s <= config.max_s + slack
        assert (clip.screened == "too_short") == (clip.duration_s < config.min_s)
        assert clip.speech[0].start_s <= config.edge_silence_s + slack
        assert clip.duration_s - clip.speech[-1].end_s <= config.edge_silence_s + slack
        for left, right in pairwise(clip.speech):
            assert right.start_s - left.end_s <= config.max_rescue_pause_s + slack


def test_islands_that_belong_together_become_one_clip() -> None:
    clips = segment(make_chunk([(1, 3), (3.5, 6), (9, 12)], 15), SegmentationConfig())
    assert [(c.start_s, c.end_s) for c in clips] == [(0.7, 6.3), (8.7, 12.3)]
    assert clips[0].speech == (Span(start_s=0.3, end_s=2.3), Span(start_s=2.8, end_s=5.3))


def test_neighbours_share_a_short_pause_by_halves() -> None:
    config = SegmentationConfig(target_s=5, max_s=6)
    first, second = segment(make_chunk([(1, 5.2), (5.6, 10)], 12), config)
    assert first.end_sample == second.start_sample == round(5.4 * 16_000)


def test_cuts_are_made_in_the_longest_pauses() -> None:
    spans = [(1, 5), (5.4, 9), (9.9, 14), (14.4, 18)]
    clips = segment(make_chunk(spans, 20), SegmentationConfig())
    assert [len(c.speech) for c in clips] == [2, 2]


def test_a_lone_word_reaches_over_a_longer_pause_than_a_sentence_does() -> None:
    word_then_sentence = make_chunk([(1, 1.5), (2.8, 7)], 8)
    two_sentences = make_chunk([(1, 4), (5.3, 9)], 10)
    assert len(segment(word_then_sentence, SegmentationConfig())) == 1
    assert len(segment(two_sentences, SegmentationConfig())) == 2


def test_an_unmergeable_word_is_kept_and_marked() -> None:
    (clip,) = segment(make_chunk([(5, 5.8)], 12), SegmentationConfig())
    assert clip.screened == "too_short"


def test_endless_speech_is_cut_where_it_is_quiet() -> None:
    # The voice activity claims one island; the audio under it does pause.
    chunk = make_chunk([(0.4, 60.5)], 60.85)
    clips = segment(chunk, SegmentationConfig())
    energy = quietness_db(chunk.wave_16k)
    assert len(clips) >= 3
    for clip in clips[1:]:
        assert energy[clip.start_sample // 320] < np.percentile(energy, 15)


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(1, 10_000_000),
    start=st.integers(0, 1_000_000),
    limit=st.integers(32_000, 960_000),
)
def test_pieces_of_an_island_cover_it_and_are_balanced(length: int, start: int, limit: int) -> None:
    energy = np.resize(quietness_db(SPEECH), (start + length) // 320)
    pieces = split_island((start, start + length), energy, 16_000, limit)
    assert pieces[0][0] == start
    assert pieces[-1][1] == start + length
    assert all(a[1] == b[0] for a, b in pairwise(pieces))
    if length > limit:
        assert max(b - a for a, b in pieces) <= limit
        assert min(b - a for a, b in pieces) >= limit // 5


def test_silence_gives_no_clip_and_nothing_gives_nothing() -> None:
    stage = pickle.loads(pickle.dumps(Segmentation(SegmentationConfig())))
    assert stage.process([]) == []
    (chunk,) = stage.process([make_chunk([], 5)])
    assert chunk.clips == ()


@pytest.mark.parametrize(
    "setting",
    [{"min_s": 0}, {"target_s": 40}, {"max_s": 301}, {"max_pause_s": 2}, {"edge_silence_s": -0.1}],
)
def test_impossible_settings_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="segmentation"):
        SegmentationConfig(**setting)
