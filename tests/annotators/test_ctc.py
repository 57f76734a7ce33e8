"""CTC alignment: the maths on made-up frames, and checkpoints of transformers' own classes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.ctc import CtcModel, adapter_of, aligned, speaks
from schemas.errors import ModelLoadError
from tests.annotators.tiny_ctc import SYMBOLS, checkpoint

BLANK, BAR = 0, 1


def frames(said: list[tuple[int, int]], likely: float = 0.9) -> np.ndarray:
    """(T, V) log-probabilities in which each symbol is likely for a number of frames."""
    number = len(SYMBOLS)
    rows = []
    for symbol, count in said:
        row = np.full(number, (1 - likely) / (number - 1))
        row[symbol] = likely
        rows += [row] * count
    return np.log(np.array(rows)).astype(np.float32)


def test_words_are_found_where_they_are_said() -> None:
    a, b, c = 2, 3, 4
    heard = frames([(BLANK, 10), (a, 2), (b, 3), (BAR, 1), (BLANK, 20), (c, 4), (c, 1), (BLANK, 5)])
    assert aligned(heard, [[a, b], [c]], blank=BLANK, between=BAR) == [
        (10, 15, pytest.approx(0.9)),
        (36, 41, pytest.approx(0.9)),
    ]


def test_a_word_without_a_known_letter_has_no_place_and_takes_none() -> None:
    a, c = 2, 4
    heard = frames([(a, 3), (BAR, 2), (c, 3)])
    found = aligned(heard, [[], [a], [], [c], []], blank=BLANK, between=BAR)
    assert [bool(span) for span in found] == [False, True, False, True, False]


def test_twice_the_same_letter_is_two_letters() -> None:
    a = 2
    heard = frames([(a, 3), (BLANK, 1), (a, 3)])
    assert aligned(heard, [[a], [a]], blank=BLANK, between=None) == [
        (0, 3, pytest.approx(0.9)),
        (4, 7, pytest.approx(0.9)),
    ]


def test_more_text_than_time_is_not_aligned() -> None:
    heard = frames([(2, 4)])
    assert aligned(heard, [[2], [3, 4, 5]], blank=BLANK, between=BAR) == [None, None]
    assert aligned(heard, [[], []], blank=BLANK, between=BAR) == [None, None]


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.integers(2, len(SYMBOLS) - 1), min_size=1, max_size=4), min_size=1, max_size=6
    ),
    st.integers(1, 4),
    st.integers(0, 5),
)
def test_what_is_said_plainly_is_found_exactly(
    words: list[list[int]], lasts: int, pause: int
) -> None:
    said: list[tuple[int, int]] = [(BLANK, pause)]
    places = []
    for word in words:
        begin = sum(count for _, count in said)
        for letter in word:
            said += [(letter, lasts), (BLANK, 1)]
        places.append((begin, sum(count for _, count in said) - 1))
        said += [(BAR, 1), (BLANK, pause)]
    found = aligned(frames(said), words, blank=BLANK, between=BAR)
    assert [span and span[:2] for span in found] == places


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("ctc") / "tiny")


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(16_000 * seconds)).astype(np.float32)


def test_a_long_wave_is_heard_in_windows_without_a_frame_more_or_less(tiny: Path) -> None:
    model = CtcModel(tiny)
    for seconds in (0.01, 1.0, 29.9, 30.5, 65.0):
        probs = model.log_probs(noise(seconds))
        assert probs.shape[1] == len(SYMBOLS)
        assert np.exp(probs).sum(axis=1) == pytest.approx(1, abs=1e-4)
        # Every 20 ms a frame; the network loses one or two at its ends.
        assert abs(len(probs) - seconds * 50) <= 5


def test_words_stay_in_their_order_and_in_their_waves(tiny: Path) -> None:
    model = CtcModel(tiny)
    waves = [noise(2.0), noise(0.5), noise(3.0)]
    words = ["the", "quick", "¡42!", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]
    found = model.align(waves, words, "es")
    said = [word for clip in found for word in clip]
    assert [word.word for word in said] == [word for word in words if word != "¡42!"]
    for wave, clip in zip(waves, found, strict=True):
        times = [t for word in clip for t in (word.start_s, word.end_s)]
        assert times == sorted(times)
        assert all(0 <= t <= wave.size / 16_000 + 0.02 for t in times)
        assert all(0 < word.prob <= 1 for word in clip)


def test_what_is_heard_has_times_and_letters(tiny: Path) -> None:
    for word in CtcModel(tiny).hear(noise(3.0)):
        assert set(word.word) <= set(SYMBOLS[2:])
        assert 0 <= word.start_s < word.end_s <= 3.01


def test_letters_go_by_the_symbols_that_there_are(tiny: Path) -> None:
    model = CtcModel(tiny)
    assert model.spelled("Niño!", "es") == [SYMBOLS.index(s) for s in "nino"]
    assert model.spelled("42", "es") == []


def test_an_adapter_is_the_language_s_own(tmp_path: Path) -> None:
    assert adapter_of(tmp_path, "es") is None
    (tmp_path / "adapter.spa.safetensors").touch()
    assert adapter_of(tmp_path, "es") == "spa"
    with pytest.raises(ModelLoadError, match=r"no adapter for fr .adapter\.fra\.safetensors"):
        adapter_of(tmp_path, "fr")
    assert speaks(tmp_path, "es")
    assert not speaks(tmp_path, "fr")


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelLoadError, match="does not open as a CTC model"):
        CtcModel(tmp_path)
