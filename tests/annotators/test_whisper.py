"""Clips that share a window keep their own words, and none of their neighbour's."""

import json
from pathlib import Path

import jiwer
import numpy as np
import polars as pl
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper_normalizer.english import EnglishTextNormalizer

from annotators.packing import PackedWindow, Piece, owners_of, pack, pieces_of, placed, window_of
from annotators.registry import resolve
from annotators.tokens import TimedWord
from annotators.whisper import Whisper, compression_ratio, knows_language
from schemas.errors import ModelLoadError
from schemas.rows import Wave

DEVSET = Path(__file__).parents[1] / "data" / "devset"
RATE = 16_000
normalise = EnglishTextNormalizer()


def read(name: str) -> Wave:
    wave, _ = sf.read(DEVSET / "audio" / f"{name}.flac", dtype="float32")
    return wave


def utterances(name: str) -> list[tuple[str, Wave]]:
    """Text and samples of each true utterance, with 0.1 s around it."""
    wave = read(name)
    truth = pl.read_parquet(DEVSET / "ground_truth.parquet")
    return [
        (
            row["text"],
            wave[max(0, round((row["start"] - 0.1) * RATE)) : round((row["end"] + 0.1) * RATE)],
        )
        for row in truth.filter(pl.col("recording_id") == name).sort("start").iter_rows(named=True)
    ]


@pytest.fixture(scope="module")
def whisper() -> Whisper:
    return Whisper(resolve("tiny.en").path)


@pytest.mark.parametrize(
    ("name", "most"),
    [("en_allison_s1", 0.02), ("en_allison_s2", 0.04), ("en_allison_s1__music5", 0.05)],
)
def test_words_stay_with_their_own_clip(whisper: Whisper, name: str, most: float) -> None:
    truth = utterances(name)
    heard = whisper.transcribe([wave for _, wave in truth])
    # Scored clip by clip: a word that leaks to its neighbour costs two errors.
    rate = jiwer.wer([normalise(text) for text, _ in truth], [normalise(h.text) for h in heard])
    assert rate <= most
    for (_, wave), transcription in zip(truth, heard, strict=True):
        times = [at for word in transcription.words for at in (word.start_s, word.end_s)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= wave.size / RATE + 1e-3
        assert transcription.text.split() == [word.word for word in transcription.words]


def test_clips_without_silence_at_their_edges_leak_nothing(whisper: Whisper) -> None:
    truth = utterances("en_allison_s1")
    tight = [wave[1_600:-1_600] for _, wave in truth]
    heard = whisper.transcribe(tight)
    rate = jiwer.wer([normalise(text) for text, _ in truth], [normalise(h.text) for h in heard])
    assert rate <= 0.02


def test_a_clip_longer_than_the_window_is_read_to_its_end(whisper: Whisper) -> None:
    wave = read("en_allison_s1")
    (heard,) = whisper.transcribe([wave])
    truth = " ".join(text for text, _ in utterances("en_allison_s1"))
    assert jiwer.wer(normalise(truth), normalise(heard.text)) <= 0.03
    assert wave.size / RATE - 5 < heard.words[-1].end_s <= wave.size / RATE


def test_a_second_run_hears_the_same(whisper: Whisper) -> None:
    waves = [wave for _, wave in utterances("en_allison_s2__noise5")]
    assert whisper.transcribe(waves) == whisper.transcribe(waves)


def test_confidence_belongs_to_the_clip_and_not_to_its_window(whisper: Whisper) -> None:
    clean = utterances("en_allison_s1")[0][1]
    foreign = read("fr_june_s1")[8_000 : 8_000 + 4 * RATE]
    first, second = whisper.transcribe([clean, foreign])
    assert first.avg_logprob is not None
    assert second.avg_logprob is not None
    assert first.avg_logprob > -0.3 > second.avg_logprob


def test_silence_and_emptiness_are_no_error(whisper: Whisper) -> None:
    heard = whisper.transcribe([np.zeros(RATE, np.float32), np.zeros(10, np.float32)])
    assert len(heard) == 2
    assert whisper.transcribe([]) == []


def test_an_english_model_says_so(whisper: Whisper) -> None:
    assert not whisper.multilingual
    assert whisper.knows("en")
    assert not whisper.knows("fr")


def test_a_clip_that_is_read_alone_is_read_as_if_there_were_no_others(whisper: Whisper) -> None:
    waves = [wave for _, wave in utterances("en_allison_s1")[:3]]
    each = [whisper.transcribe([wave])[0] for wave in waves]
    assert whisper.transcribe(waves, alone=True) == each
    assert [heard.words for heard in whisper.transcribe(waves)] != [h.words for h in each]


def test_the_languages_of_a_model_are_known_before_it_is_opened(
    whisper: Whisper, tmp_path: Path
) -> None:
    for language in ("en", "fr", "xx"):
        assert knows_language(resolve("tiny.en").path, language) == whisper.knows(language)
    (tmp_path / "vocabulary.json").write_text(json.dumps(["a"] * 51_865))
    assert knows_language(tmp_path, "fr")
    assert not knows_language(tmp_path, "xx")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"model\.bin"):
        Whisper(tmp_path)


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    for file in resolve("tiny.en").path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:5_000])
    with pytest.raises(ModelLoadError):
        Whisper(tmp_path)


def test_repetition_shows_in_the_compression_ratio() -> None:
    assert compression_ratio("thank you for watching " * 20) > 2.4
    assert compression_ratio("") == 0
    assert compression_ratio("please enter your password followed by the pound key") < 2.4


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 320_000), min_size=1, max_size=30), gap_s=st.floats(0, 1))
def test_packing_keeps_order_and_every_sample(lengths: list[int], gap_s: float) -> None:
    pieces = [
        Piece(clip=i, offset=0, wave=np.full(size, 0.5, np.float32))
        for i, size in enumerate(lengths)
    ]
    windows = pack(pieces, max_s=29.6, gap_s=gap_s)
    assert [piece.clip for window in windows for piece in window.pieces] == list(
        range(len(lengths))
    )
    for window in windows:
        assert window.wave.size <= 29.6 * RATE
        assert np.count_nonzero(window.wave) == sum(piece.wave.size for piece in window.pieces)


@settings(max_examples=20, deadline=None)
@given(seconds=st.floats(0.1, 300), seed=st.integers(0, 9))
def test_a_long_clip_is_cut_without_loss(seconds: float, seed: int) -> None:
    wave = np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)
    pieces = pieces_of(7, wave, 29.6)
    assert np.array_equal(np.concatenate([piece.wave for piece in pieces]), wave)
    assert all(piece.wave.size <= 29.6 * RATE for piece in pieces)
    assert all(np.array_equal(p.wave, wave[p.offset : p.offset + p.wave.size]) for p in pieces)


def test_a_long_clip_is_cut_in_its_pause() -> None:
    wave = np.random.default_rng(0).standard_normal(45 * RATE).astype(np.float32)
    wave[21 * RATE : 21 * RATE + 4_800] *= 0.01
    first, _ = pieces_of(0, wave, 29.6)
    assert 21 * RATE < first.wave.size < 21 * RATE + 4_800


def two_clips() -> PackedWindow:
    """A second of sound in the middle of two clips of 2 s, with 0.3 s between them."""
    wave = np.zeros(2 * RATE, np.float32)
    wave[RATE // 2 : 3 * RATE // 2] = 0.1
    return window_of([Piece(clip=i, offset=0, wave=wave) for i in (0, 1)], gap=4_800)


def word(text: str, start_s: float, end_s: float) -> TimedWord:
    return TimedWord(text=text, start_s=start_s, end_s=end_s, prob=0.9, logprobs=(-0.1,))


def test_a_word_belongs_where_its_sound_is_however_much_silence_it_spans() -> None:
    # The second word begins in the first clip's silence: attention paints pauses onto words.
    words = [word(" one", 0.4, 1.5), word(" two", 1.5, 3.0)]
    owners, unsure = owners_of(two_clips(), words)
    assert owners == [0, 1]
    assert not unsure
    (placed_word,) = placed(words[1:], two_clips().pieces[1].wave, two_clips().starts[1])
    assert placed_word.start_s == pytest.approx(0.5)
    assert placed_word.end_s == pytest.approx(0.7)


@pytest.mark.parametrize(("text", "owner", "sure"), [(" one.", 1, True), (" one", 0, False)])
def test_a_word_of_no_length_opens_the_next_sentence_or_is_unsure(
    text: str, owner: int, sure: bool
) -> None:
    words = [word(text, 0.5, 1.5), word(" That", 1.8, 1.8), word(" two", 2.8, 3.8)]
    owners, unsure = owners_of(two_clips(), words)
    assert owners == [0, owner, 1]
    assert unsure == (set() if sure else {0, 1})
