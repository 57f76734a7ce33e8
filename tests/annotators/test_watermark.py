"""The watermark is found after what clips go through, not in real speech, and nobody hears it."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from annotators.dnsmos import Dnsmos
from annotators.registry import resolve
from annotators.watermark import THRESHOLD, Watermark, pieces, score_of
from schemas.errors import NonFiniteAudio
from tests.attacks import EVERYDAY, cut, resampled

RATE = 16_000
LENGTHS_S = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)

Wave = np.ndarray


@pytest.fixture(scope="module")
def speech(devset: Path) -> list[Wave]:
    """Clips of 1 to 8 s, with speech in each, of all the recordings."""
    clips = []
    for file in sorted((devset / "audio").glob("*.flac")):
        wave, rate = soundfile.read(file, dtype="float32")
        assert rate == RATE
        at = 0
        for seconds in LENGTHS_S:
            clip = wave[at : at + int(seconds * RATE)]
            at += clip.size
            if np.sqrt(np.mean(np.square(clip))) > 0.01:
                clips.append(clip)
    assert len(clips) >= 50
    return clips


@pytest.fixture(scope="module")
def watermark() -> Watermark:
    return Watermark()


@pytest.fixture(scope="module")
def marked(speech: list[Wave], watermark: Watermark) -> list[Wave]:
    return [watermark.mark(clip, RATE) for clip in speech]


def share_found(watermark: Watermark, clips: list[tuple[Wave, int]]) -> float:
    return float(np.mean([watermark.score(*clip) >= THRESHOLD for clip in clips]))


@pytest.mark.parametrize("attack", EVERYDAY)
def test_marked_speech_is_found_after_what_clips_go_through(
    watermark: Watermark, marked: list[Wave], attack: str
) -> None:
    assert share_found(watermark, [EVERYDAY[attack](clip, RATE) for clip in marked]) >= 0.99


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_every_rate_is_marked_and_found_at_every_other(
    watermark: Watermark, speech: list[Wave], rate: int
) -> None:
    clips = [resampled(clip, RATE, rate)[0] for clip in speech[::3]]
    marked = [watermark.mark(clip, rate) for clip in clips]
    assert [clip.shape for clip in marked] == [clip.shape for clip in clips]
    for to_rate in (rate, 16_000, 44_100):
        assert share_found(watermark, [resampled(clip, rate, to_rate) for clip in marked]) >= 0.99


def test_what_is_above_the_band_stays_as_it_was(watermark: Watermark, speech: list[Wave]) -> None:
    rng = np.random.default_rng(0)
    clip = resampled(speech[2], RATE, 48_000)[0]
    clip = clip + 0.01 * rng.standard_normal(clip.size).astype(np.float32)
    change = np.abs(np.fft.rfft(watermark.mark(clip, 48_000) - clip)) ** 2
    hertz = np.fft.rfftfreq(clip.size, 1 / 48_000)
    assert change[hertz > 6_500].sum() < 1e-3 * change.sum()


def test_real_speech_is_not_marked(watermark: Watermark, speech: list[Wave]) -> None:
    pieces = [clip[i : i + RATE] for clip in speech for i in range(0, clip.size - RATE + 1, RATE)]
    assert len(pieces) > 150
    assert share_found(watermark, [(piece, RATE) for piece in pieces]) <= 0.01


def test_the_score_is_the_chance_of_error_over_keys(speech: list[Wave]) -> None:
    """Of 1,000 keys that know nothing of a clip, few call it marked at all, and none surely."""
    scores = [
        Watermark(key.to_bytes(2, "big")).score(speech[key % len(speech)][:RATE], RATE)
        for key in range(1_000)
    ]
    for chance in (0.1, 0.01, 0.001):
        found = float(np.mean(np.array(scores) >= score_of([np.log10(chance)])))
        # A bound, and three standard deviations of a count around it.
        assert found <= chance + 3 * np.sqrt(chance / len(scores))
    assert max(scores) < 0.6


def test_another_key_does_not_find_the_mark(marked: list[Wave]) -> None:
    other = Watermark(b"another key")
    assert share_found(other, [(clip, RATE) for clip in marked]) <= 0.02


def test_nobody_hears_it(speech: list[Wave], marked: list[Wave]) -> None:
    dnsmos = Dnsmos(resolve("dnsmos").path)
    before = np.array([score.ovrl for score in dnsmos.score(speech[::4])])
    after = np.array([score.ovrl for score in dnsmos.score(marked[::4])])
    assert abs(np.mean(after - before)) < 0.05
    for clip, with_mark in zip(speech, marked, strict=True):
        change = np.sum(np.square(with_mark - clip))
        assert 10 * np.log10(np.sum(np.square(clip)) / change) > 15


def test_a_few_seconds_of_a_long_recording_is_enough(
    watermark: Watermark, marked: list[Wave], speech: list[Wave]
) -> None:
    long = [clip for clip in marked if clip.size >= 8 * RATE]
    assert len(long) >= 8
    assert share_found(watermark, [cut(4.9)(clip, RATE) for clip in long]) >= 0.9
    rest = np.concatenate([clip for clip in speech if clip.size > 4 * RATE])[: 50 * RATE]
    assert watermark.score(rest, RATE) < THRESHOLD
    for clip in long[:3]:
        assert watermark.score(np.concatenate([rest, clip, rest]), RATE) >= THRESHOLD


def test_marking_twice_gives_the_same(watermark: Watermark, speech: list[Wave]) -> None:
    again = pickle.loads(pickle.dumps(watermark))
    for clip in speech[:5]:
        before = clip.copy()
        assert np.array_equal(watermark.mark(clip, RATE), again.mark(clip, RATE))
        assert np.array_equal(clip, before), "the caller's samples are left alone"


@pytest.mark.parametrize("wave", [np.zeros(RATE, np.float32), np.zeros(0, np.float32)])
def test_silence_has_no_mark_and_takes_none(watermark: Watermark, wave: Wave) -> None:
    assert np.array_equal(watermark.mark(wave, RATE), wave)
    assert watermark.score(wave, RATE) == 0.0


def test_what_is_too_short_is_left_alone(watermark: Watermark, speech: list[Wave]) -> None:
    wave = speech[1][: RATE // 20]
    assert np.array_equal(watermark.mark(wave, RATE), wave)
    assert watermark.score(wave, RATE) == 0.0


def test_samples_that_are_no_numbers_are_an_error_of_the_data(watermark: Watermark) -> None:
    wave = np.full(RATE, np.nan, np.float32)
    with pytest.raises(NonFiniteAudio, match="16000 of 16000"):
        watermark.mark(wave, RATE)
    with pytest.raises(NonFiniteAudio):
        watermark.score(wave, RATE)


@settings(max_examples=60, deadline=None)
@given(
    wave=arrays.arrays(
        np.float32,
        st.integers(0, 6_000),
        elements=st.floats(-1, 1, width=32),
    ),
    repeats=st.integers(1, 4),
    rate=st.sampled_from([8_000, 16_000, 44_100, 48_000]),
)
def test_marking_keeps_length_and_range(wave: Wave, repeats: int, rate: int) -> None:
    watermark = Watermark()
    wave = np.tile(wave, repeats)
    marked = watermark.mark(wave, rate)
    assert marked.shape == wave.shape
    assert marked.dtype == np.float32
    assert np.isfinite(marked).all()
    assert np.abs(marked).max(initial=0.0) <= 1.0
    assert 0.0 <= watermark.score(marked, rate) <= 1.0


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 90), max_size=12),
    total=st.integers(0, 60),
)
def test_pieces_cover_a_recording_however_it_comes(sizes: list[int], total: int) -> None:
    """At a rate of 1 Hz, where a sample is a second."""
    wave = np.arange(total + sum(sizes), dtype=np.float32)
    blocks = np.split(wave, np.cumsum(sizes))
    found = list(pieces(blocks, 1))
    assert [piece.tolist() for piece in found] == [piece.tolist() for piece in pieces([wave], 1)]
    if wave.size <= 20:
        assert [piece.tolist() for piece in found] == [wave.tolist()]
        return
    assert {piece.size for piece in found} == {10}
    starts = [int(piece[0]) for piece in found]
    assert starts[0] == 0
    assert starts[-1] == wave.size - 10
    assert set(np.diff(starts[:-1])) == {5}
    assert 0 < starts[-1] - starts[-2] <= 5


def test_a_score_for_several_pieces_counts_them() -> None:
    assert score_of([]) == 0.0
    assert score_of([-3.0]) == pytest.approx(0.3)
    assert score_of([0.0, -3.0, *[0.0] * 8]) == pytest.approx(0.2)
    assert score_of([-200.0]) == 1.0
    assert score_of([0.0] * 3) == 0.0


def test_the_level_does_not_matter(watermark: Watermark, marked: list[Wave]) -> None:
    clip = marked[3]
    scores = [watermark.log_chance(clip * factor, RATE) for factor in (1.0, 0.05, 3.0)]
    assert scores == pytest.approx([scores[0]] * 3, abs=0.2)


def test_a_resampler_of_another_make_changes_nothing(
    watermark: Watermark, marked: list[Wave]
) -> None:
    from scipy.signal import resample_poly

    clips = [resample_poly(clip, 3, 2).astype(np.float32) for clip in marked[::6]]
    assert share_found(watermark, [(clip, 24_000) for clip in clips]) == 1.0
    rough = [soxr.resample(clip, RATE, 11_025, quality="QQ") for clip in marked[::6]]
    assert share_found(watermark, [(clip, 11_025) for clip in rough]) == 1.0
