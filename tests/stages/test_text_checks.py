"""Signs of hallucination tell invented text from spoken text."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Recording, Span, Word
from stages.text_checks import (
    TextChecks,
    TextChecksConfig,
    checked,
    load_phrases,
    stock_phrase,
    unique_ratio,
)

SPOKEN = "please hold while I try to connect you"


def clip_of(text: str | None, words: tuple[Word, ...] = (), language: str = "en") -> Clip:
    return Clip(
        recording_id="r",
        session_id="s",
        chunk_index=0,
        start_sample=0,
        end_sample=48_000,
        sample_rate=16_000,
        start_s=0.0,
        end_s=3.0,
        duration_s=3.0,
        speech=(Span(start_s=0.2, end_s=2.7),),
        language=language,
        text=text,
        text_asr=text,
        words=words,
    )


def spaced(text: str, start_s: float, step_s: float) -> tuple[Word, ...]:
    return tuple(
        Word(word=w, start_s=start_s + i * step_s, end_s=start_s + (i + 0.9) * step_s, prob=0.9)
        for i, w in enumerate(text.split())
    )


def measured(clip: Clip) -> Clip:
    return checked(clip, TextChecksConfig(), load_phrases())


def test_spoken_text_shows_no_sign() -> None:
    clip = measured(clip_of(SPOKEN, spaced(SPOKEN, 0.2, 0.3)))
    assert clip.chars_per_s == pytest.approx(31 / 2.5)
    assert (clip.unique_word_ratio, clip.unique_trigram_ratio) == (1.0, 1.0)
    assert (clip.impossible_word_ratio, clip.silent_word_ratio) == (0.0, 0.0)
    assert clip.stock_phrase is None


def test_a_loop_repeats_its_trigrams() -> None:
    assert measured(clip_of("and so on " * 6)).unique_trigram_ratio == pytest.approx(3 / 16)


def test_words_faster_than_a_mouth_or_endless_are_impossible() -> None:
    rushed = measured(clip_of(SPOKEN, spaced(SPOKEN, 0.2, 0.01))).impossible_word_ratio
    assert rushed is not None
    assert rushed > 0.5
    endless = (Word(word="a", start_s=0.2, end_s=2.5, prob=0.9),)
    assert measured(clip_of("a", endless)).impossible_word_ratio == 1.0


def test_words_outside_the_voice_activity_are_silent() -> None:
    outside = (Word(word="you", start_s=2.75, end_s=2.95, prob=0.5),)
    assert measured(clip_of("you", outside)).silent_word_ratio == 1.0


@pytest.mark.parametrize(
    ("text", "language", "found"),
    [
        ("Thank you for watching!", "en", True),
        ("Untertitel im Auftrag des ZDF für funk, 2017", "de", True),
        ("ご視聴ありがとうございました", "ja", True),
        ("字幕志愿者 李宗盛", "zh", True),
        ("Thanks for watching! Thanks for watching! Bye-bye.", "en", True),
        ("Thank you for watching the door.", "en", False),
        ("Thanks for watching! Your account is closed.", "en", False),
        ("You have no messages.", "en", False),
        ("Thank you for calling.", "en", False),
    ],
)
def test_stock_phrases_are_known_as_a_whole(text: str, language: str, found: bool) -> None:
    assert (stock_phrase(text, load_phrases()[language]) is not None) == found


def test_phrases_cover_many_languages() -> None:
    assert len(load_phrases()) >= 25


def test_a_clip_without_text_stays_unmeasured() -> None:
    assert measured(clip_of(None)) == clip_of(None)


def test_the_stage_changes_nothing_but_the_clips_text() -> None:
    recording = Recording(
        recording_id="r",
        uri="u",
        session_id="s",
        duration_s=3.0,
        sample_rate=16_000,
        channels=1,
        codec="x",
        size_bytes=1,
        num_chunks=1,
    )
    wave = np.zeros(48_000, np.float32)
    chunk = Chunk(
        recording=recording,
        index=0,
        start_sample=0,
        sample_rate=16_000,
        wave=wave,
        wave_16k=wave,
        clips=(clip_of("room 4"),),
    )
    stage = TextChecks(TextChecksConfig())
    stage.setup()
    [done] = stage.process([chunk])
    assert (done.clips[0].text_spoken, done.clips[0].has_digits) == ("room four", True)
    assert replace(done, clips=()).wave is wave
    assert stage.process([]) == []


@given(tokens=st.lists(st.sampled_from("abc"), min_size=1), times=st.integers(2, 5))
def test_repeating_a_text_never_makes_it_more_varied(tokens: list[str], times: int) -> None:
    assert unique_ratio(tokens * times) <= unique_ratio(tokens)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="min_char_s"):
        TextChecksConfig(min_char_s=0.5)
