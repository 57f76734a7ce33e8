"""Where clips are cut, how texts join, how long sequences get, what is held out: laws."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.sequences import training_sequence
from schemas.errors import ConfigError
from schemas.samples import LAYOUTS
from stages.composition import (
    CONTINUATION,
    CUT_FRAMES,
    DESCRIBED_REFERENCE,
    FEWEST_TO_HOLD_OUT,
    REFERENCE,
    ContinuationConfig,
    Runs,
    cuts_of,
    held_out,
    joined,
    pauses_of,
    positions_of,
)

FRAME_S = 0.04
GRID_S = CUT_FRAMES * FRAME_S


@dataclass(frozen=True)
class Spoken:
    """One clip: spans of words and of speech, and its length."""

    words: list[tuple[float, float]]
    speech: list[tuple[float, float]]
    duration_s: float


def runs(clips: list[list[tuple[float, float]]]) -> Runs:
    flat = [span for spans in clips for span in spans]
    return Runs(
        offsets=np.cumsum([0, *map(len, clips)]).astype(np.int64),
        start_s=np.array([start for start, _ in flat], np.float64),
        end_s=np.array([end for _, end in flat], np.float64),
    )


def cuts(clips: list[Spoken], config: ContinuationConfig | None = None) -> list[int]:
    pauses = pauses_of(runs([c.words for c in clips]), runs([c.speech for c in clips]))
    durations = np.array([c.duration_s for c in clips], np.float64)
    return cuts_of(pauses, durations, FRAME_S, config or ContinuationConfig()).tolist()


def at(seconds: float) -> int:
    return round(seconds / FRAME_S)


@st.composite
def spans(draw: st.DrawFn, most: int = 12) -> list[tuple[float, float]]:
    steps = draw(st.lists(st.floats(0.0, 1.5), min_size=0, max_size=2 * most))
    edges = np.cumsum(steps)
    return [(float(edges[i]), float(edges[i + 1])) for i in range(0, len(edges) - 1, 2)]


@st.composite
def clip(draw: st.DrawFn) -> Spoken:
    words, speech = draw(spans()), draw(spans(4))
    end = max([0.5, *(end for _, end in words), *(end for _, end in speech)])
    return Spoken(words, speech, end + draw(st.floats(0.0, 1.0)))


def test_a_clip_is_cut_in_its_pause_and_on_the_grid() -> None:
    # Words to 3.0, silence to 3.5, words to the end: 3.2 is on the grid and next to the middle.
    one = Spoken([(0.2, 3.0), (3.5, 6.5)], [(0.2, 6.5)], 7.0)
    assert cuts([one]) == [at(3.2)]
    # The voice activity knows better where the silence is.
    narrow = Spoken(one.words, [(0.2, 3.3), (3.45, 6.5)], 7.0)
    assert cuts([narrow]) == [at(3.36)]


def test_the_pause_near_the_middle_third_wins_then_the_longest() -> None:
    words = [(0.0, 1.3), (2.0, 4.2), (4.6, 5.0), (5.4, 5.6), (6.2, 9.0)]
    assert cuts([Spoken(words, [], 9.0)]) == [at(5.92)]
    assert cuts([Spoken([(0.0, 1.3), (2.0, 9.0)], [], 9.0)]) == [at(1.6)]


def test_a_clip_without_words_is_cut_between_its_speech() -> None:
    assert cuts([Spoken([], [(0.3, 2.9), (3.4, 6.0)], 6.2)]) == [at(3.2)]
    assert cuts([Spoken([], [], 6.2)]) == [0]


@pytest.mark.parametrize(
    "words",
    [
        [(0.0, 3.0), (3.05, 6.0)],  # too short a pause
        [(0.0, 3.05), (3.19, 6.0)],  # long enough, but no frame of the grid lies in it
        [(0.0, 0.5), (0.9, 6.0)],  # too near to the start
        [(0.0, 5.3), (5.6, 6.0)],  # too near to the end
        [(0.0, 4.0), (1.0, 2.0), (3.0, 6.0)],  # a word runs across all pauses
    ],
)
def test_where_no_pause_will_do_a_clip_stays_whole(words: list[tuple[float, float]]) -> None:
    assert cuts([Spoken(words, [], 6.0)]) == [0]


@settings(deadline=None)
@given(
    clips=st.lists(clip(), max_size=6),
    min_side_s=st.sampled_from([0.0, 0.5, 1.0]),
    min_pause_s=st.sampled_from([0.0, 0.12, 0.3]),
)
def test_a_cut_is_on_the_grid_in_no_word_and_leaves_both_sides(
    clips: list[Spoken], min_side_s: float, min_pause_s: float
) -> None:
    config = ContinuationConfig(min_side_s=min_side_s, min_pause_s=min_pause_s)
    found = cuts(clips, config)
    for spoken, cut in zip(clips, found, strict=True):
        if not cut:
            continue
        seconds = cut * FRAME_S
        assert cut % CUT_FRAMES == 0
        assert 0 < cut < CUT_FRAMES * math.ceil(spoken.duration_s / GRID_S - 1e-6)
        assert min_side_s - 1e-6 <= seconds <= spoken.duration_s - min_side_s + 1e-6
        spans = spoken.words or spoken.speech
        assert not any(start + 1e-6 < seconds < end - 1e-6 for start, end in spans)
        assert any(end <= seconds + 1e-6 for _, end in spans)
        assert any(start >= seconds - 1e-6 for start, _ in spans)
    # Each clip's cut is its own: the others decide nothing.
    assert found == [cuts([spoken], config)[0] for spoken in clips]


@pytest.mark.parametrize(
    ("first", "second", "whole"),
    [
        ("Good morning. ", " How are you?", "Good morning. How are you?"),
        ("你好。", "今天很好", "你好。今天很好"),
        ("สวัสดี", "ครับ", "สวัสดีครับ"),
        ("안녕하세요.", "반갑습니다", "안녕하세요. 반갑습니다"),
        ("he said", "你好", "he said你好"),
        ("", " alone", "alone"),
        ("alone ", "", "alone"),
    ],
)
def test_texts_join_as_their_script_does(first: str, second: str, whole: str) -> None:
    assert joined(first, second) == whole


@given(
    layout=st.integers(0, len(LAYOUTS) - 1),
    tokens=st.integers(1, 30),
    target=st.integers(1, 12),
    prompt=st.integers(0, 5),
    reference=st.integers(1, 9),
    patch_size=st.sampled_from([1, 2, 4]),
)
def test_positions_are_those_of_the_training_sequence(
    layout: int, tokens: int, target: int, prompt: int, reference: int, patch_size: int
) -> None:
    def patches(frames: int) -> torch.Tensor:
        return torch.zeros(frames // patch_size, patch_size, 2)

    target, prompt, reference = 4 * target, 4 * prompt, 4 * reference
    has_reference = layout in (REFERENCE, DESCRIBED_REFERENCE)
    has_prompt = layout == CONTINUATION and prompt > 0
    row = training_sequence(
        torch.zeros(tokens, dtype=torch.long),
        patches(target),
        reference=patches(reference) if has_reference else None,
        prompt=patches(prompt) if has_prompt else None,
    )
    frames = target + (prompt if has_prompt else 0)
    count = positions_of(
        *(np.array([value]) for value in (layout, tokens, frames, reference)), patch_size
    )
    assert count.tolist() == [len(row)]


@st.composite
def corpora(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Sessions and recordings of clips; a recording lies in one session."""
    recordings = draw(st.lists(st.integers(1, 30), min_size=1, max_size=12))
    sessions = draw(st.lists(st.integers(0, 3), min_size=len(recordings), max_size=len(recordings)))
    recording = np.repeat(np.arange(len(recordings)), recordings)
    numbers = np.unique(np.array(sessions), return_inverse=True)[1]
    return numbers[recording].astype(np.int64), recording.astype(np.int64)


def keys(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, size)


@given(corpus=corpora(), share=st.sampled_from([0.0, 0.02, 0.1, 0.5]), seed=st.integers(0, 99))
def test_what_is_held_out_is_a_share_and_as_whole_as_can_be(
    corpus: tuple[np.ndarray, np.ndarray], share: float, seed: int
) -> None:
    num = corpus[0].size
    group_keys = [keys(int(group.max()) + 1, seed) for group in corpus]
    kept = held_out(corpus, group_keys, keys(num, seed + 1), share)
    quota = math.ceil(round(share * num, 6))
    assert kept.sum() <= quota
    if num < FEWEST_TO_HOLD_OUT or not share:
        assert not kept.any()
        return
    assert kept.any()
    session, recording = corpus
    sizes = [np.bincount(group) for group in corpus]
    for group, size in ((session, sizes[0]), (recording, sizes[1])):
        if size.min() <= quota:
            # It fits, so what is held out are whole ones of this kind.
            for number in np.unique(group[kept]):
                assert kept[group == number].all()
            return
    assert kept.sum() == quota


def test_what_is_held_out_does_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(0)
    session = np.repeat(np.arange(10), 10)
    group_keys = [keys(10, 1), keys(10, 2)]
    clip_keys = keys(100, 3)
    kept = held_out((session, session), group_keys, clip_keys, 0.2)
    order = rng.permutation(100)
    again = held_out((session[order], session[order]), group_keys, clip_keys[order], 0.2)
    assert kept.sum() == 20
    assert (again == kept[order]).all()


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_gap_s"):
        ContinuationConfig(max_gap_s=-1)
