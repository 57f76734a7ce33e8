"""Given words go to the clips, where no recogniser heard any."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Recording, Span, Utterance, Word
from stages.alignment import Alignment, AlignmentConfig
from stages.ctc_alignment import NEAR_S, CtcAlignment, CtcAlignmentConfig, at_voice, given_in
from tests.annotators.tiny_ctc import checkpoint

RATE = 16_000
TEXT = "Uno, dos y tres. ¿Cuatro o cinco? 6 — siete."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(checkpoint(tmp_path_factory.mktemp("ctc") / "tiny"))


def chunk_of(transcript: str | None = TEXT, chunks: int = 1, **recording: object) -> Chunk:
    """Ten seconds with clips of 3, 1 and 4 seconds, the middle one screened."""
    wave = np.random.default_rng(0).normal(0, 0.1, 10 * RATE).astype(np.float32)
    known: dict[str, object] = {
        "recording_id": "r",
        "uri": "r.wav",
        "session_id": "s",
        "language": "es-MX",
        "transcript": transcript,
        "duration_s": 10.0,
        "sample_rate": RATE,
        "channels": 1,
        "codec": "WAV",
        "size_bytes": 1,
        "num_chunks": chunks,
    }
    clips = tuple(
        Clip(
            recording_id="r",
            session_id="s",
            chunk_index=0,
            start_sample=start * RATE,
            end_sample=end * RATE,
            sample_rate=RATE,
            start_s=start,
            end_s=end,
            duration_s=end - start,
            screened=screened,
        )
        for start, end, screened in ((0, 3, None), (4, 5, "too_short"), (6, 10, None))
    )
    return Chunk(
        recording=Recording(**(known | recording)),  # type: ignore[arg-type]
        index=0,
        start_sample=0,
        sample_rate=RATE,
        wave=wave,
        wave_16k=wave,
        clips=clips,
    )


def processed(chunk: Chunk, model: str | None) -> Chunk:
    stage = CtcAlignment(CtcAlignmentConfig(model=model))
    stage.setup()
    return stage.process([chunk])[0]


def test_every_given_word_goes_to_one_clip_in_order(model: str) -> None:
    chunk = processed(chunk_of(), model)
    assert not chunk.clips[1].words
    words = [word.word for clip in chunk.clips for word in clip.words]
    # What has no letter that the model knows is found by no sound.
    assert words == ["Uno,", "dos", "y", "tres.", "¿Cuatro", "o", "cinco?", "siete."]
    for clip in chunk.clips:
        assert (clip.alignment_prob is None) == (not clip.words)
        assert all(0 <= w.start_s < w.end_s <= clip.duration_s + 0.03 for w in clip.words)


def test_the_text_of_a_clip_is_the_given_one(model: str) -> None:
    chunk = processed(chunk_of(), model)
    stage = Alignment(AlignmentConfig())
    stage.setup()
    clips = stage.process([chunk])[0].clips
    texts = [clip.text for clip in clips if clip.text]
    assert all(clip.text_source == "given" for clip in clips if clip.text)
    # Nothing twice, nothing out of order: the parts are the transcript's, up to what no clip has.
    assert " ".join(texts) in (TEXT, TEXT.removesuffix("6 — siete.").strip() + " siete.")


def said(name: str, start_s: float, end_s: float) -> Word:
    return Word(word=name, start_s=start_s, end_s=end_s, prob=1.0)


def test_words_at_a_pause_begin_and_end_with_the_voice() -> None:
    words = [said("a", 0.5, 0.8), said("b", 0.9, 1.9), said("c", 2.6, 2.8), said("d", 3.6, 4.0)]
    speech = [
        Span(start_s=0.3, end_s=1.7),
        Span(start_s=2.5, end_s=3.0),
        Span(start_s=3.1, end_s=5),
    ]
    times = [(word.start_s, word.end_s) for word in at_voice(words, speech)]
    # Before d and after it there is room for words that were not found.
    assert times == [(0.3, 0.8), (0.9, 1.7), (2.5, 3.0), (3.6, 4.0)]
    assert at_voice(words, []) == tuple(words)


edges = st.lists(st.integers(0, 200), min_size=2, max_size=16, unique=True).map(
    lambda found: [one / 20 for one in sorted(found)[: len(found) // 2 * 2]]
)


@given(words=edges, speech=edges)
def test_words_stay_in_order_and_apart(words: list[float], speech: list[float]) -> None:
    before = [said(str(i), *words[i : i + 2]) for i in range(0, len(words), 2)]
    spans = [Span(start_s=a, end_s=b) for a, b in zip(speech[::2], speech[1::2], strict=True)]
    after = at_voice(before, spans)
    assert [word.word for word in after] == [word.word for word in before]
    assert all(word.start_s < word.end_s for word in after)
    assert all(one.end_s <= other.start_s for one, other in pairwise(after))
    for one, other in zip(before, after, strict=True):
        assert abs(one.start_s - other.start_s) <= NEAR_S + 1e-9
        assert abs(one.end_s - other.end_s) <= NEAR_S + 1e-9


def test_what_a_recogniser_heard_is_left_to_it(model: str) -> None:
    chunk = chunk_of()
    first = replace(chunk.clips[0], text_asr="hello", text="hello")
    chunk = replace(chunk, clips=(first, *chunk.clips[1:]))
    assert processed(chunk, model).clips == chunk.clips


def test_without_a_model_or_a_text_nothing_happens(model: str) -> None:
    assert processed(chunk_of(), None).clips == chunk_of().clips
    assert processed(chunk_of(None), model).clips == chunk_of().clips


def test_of_a_long_recording_what_is_heard_stands_for_its_place(model: str) -> None:
    chunk = processed(chunk_of(chunks=3), model)
    letters = {letter for clip in chunk.clips for word in clip.words for letter in word.word}
    assert letters <= set("abcdefghijklmnopqrstuvwxyz")


def test_timed_utterances_are_the_chunk_s_own() -> None:
    told = tuple(
        Utterance(start_s=start, end_s=start + 2.0, text=f" {text} ")
        for start, text in ((0.0, "uno"), (5.0, "dos"), (9.5, "tres"), (12.0, "cuatro"))
    )
    assert given_in(chunk_of(utterances=told)) == "uno dos"
    second = replace(chunk_of(utterances=told, chunks=2), start_sample=10 * RATE)
    assert given_in(second) == "tres cuatro"


@pytest.mark.parametrize(
    ("settings", "message"), [({"device": "tpu"}, "cpu or cuda"), ({"threads": 0}, "at least 1")]
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CtcAlignmentConfig(**settings)  # type: ignore[arg-type]
