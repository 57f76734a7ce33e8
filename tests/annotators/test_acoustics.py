"""Attributes against truth: what was changed on purpose moves, in the direction of the change."""

import itertools
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import parselmouth
import polars as pl
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from parselmouth.praat import call

from annotators.acoustic_expert import opinion_of, probabilities
from annotators.acoustics import measure
from annotators.registry import resolve
from annotators.silero import Silero, speech_spans
from schemas.attributes import Acoustics
from schemas.errors import EmptyAudio
from schemas.rows import Span, Wave, Word
from stages.prosody import emphasis_of, pauses_of

RATE = 16_000
# The curate phase's own.
VAD_SETTINGS = {"threshold": 0.5, "min_speech_s": 0.25, "min_silence_s": 0.3, "pad_s": 0.03}


@dataclass(frozen=True)
class Utterance:
    recording: str
    speaker: str
    text: str | None
    wave: Wave


def utterances(devset: Path, recordings: tuple[str, ...]) -> list[Utterance]:
    """True utterances of 2 s and more, with 0.2 s around them."""
    truth = pl.read_parquet(devset / "ground_truth.parquet")
    found = []
    for name in recordings:
        wave, rate = sf.read(devset / "audio" / f"{name}.flac", dtype="float32")
        assert rate == RATE
        for row in truth.filter(pl.col("recording_id") == name).to_dicts():
            if row["end"] - row["start"] >= 2:
                first, last = round((row["start"] - 0.2) * RATE), round((row["end"] + 0.2) * RATE)
                piece = wave[max(0, first) : last]
                found.append(Utterance(name, row["speaker"], row["text"], piece))
    return found


CLEAN = ("en_allison_s1", "en_allison_s2", "es_allison_s1", "fr_june_s1")


@pytest.fixture(scope="module")
def clean(devset: Path) -> list[Utterance]:
    return utterances(devset, CLEAN)[::2]


def changed(
    wave: Wave, *, semitones: float = 0.0, spread: float = 1.0, slower: float = 1.0
) -> Wave:
    """The same words by Praat, with another pitch, range of pitch, or tempo."""
    sound = parselmouth.Sound(wave.astype(np.float64), RATE)
    pitch = call(sound, "To Pitch", 0.0, 75, 500)
    median = call(pitch, "Get quantile", 0, 0, 0.5, "Hertz") * 2 ** (semitones / 12)
    other = call([sound, pitch], "Change gender", 1.0, median, spread, slower)
    return np.asarray(other.values[0], np.float32)


@lru_cache(maxsize=1)
def vad() -> Silero:
    return Silero(resolve("silero").path)


def chars_per_s(text: str, wave: Wave) -> float:
    """As curate measures it."""
    spans = speech_spans(vad().probs(wave), duration_s=wave.size / RATE, **VAD_SETTINGS)
    return sum(char.isalnum() for char in text) / sum(s.end_s - s.start_s for s in spans)


def test_known_changes_move_the_right_attribute_in_the_right_direction(
    clean: list[Utterance],
) -> None:
    hits: dict[str, list[bool]] = defaultdict(list)
    for utterance in clean:
        wave = utterance.wave
        plain, _ = measure(wave, RATE)
        assert plain.f0_median_hz
        assert plain.f0_range_st
        assert plain.loudness_lufs
        for semitones in (-4.0, -2.0, 2.0, 4.0):
            other, _ = measure(changed(wave, semitones=semitones), RATE)
            assert other.f0_median_hz
            moved = 12 * np.log2(other.f0_median_hz / plain.f0_median_hz)
            hits["pitch"].append(np.sign(moved) == np.sign(semitones) and abs(moved) > 0.5)
        for spread in (0.5, 1.6):
            other, _ = measure(changed(wave, spread=spread), RATE)
            assert other.f0_range_st
            hits["pitch_range"].append((other.f0_range_st > plain.f0_range_st) == (spread > 1))
        for slower in (0.8, 1.25):
            usual = chars_per_s(utterance.text or "abc", wave)
            rate = chars_per_s(utterance.text or "abc", changed(wave, slower=slower))
            hits["rate"].append((rate < usual) == (slower > 1))
        for gain_db in (-6.0, -3.0, 3.0, 6.0):
            other, _ = measure((wave * 10 ** (gain_db / 20)).astype(np.float32), RATE)
            assert other.loudness_lufs
            moved = other.loudness_lufs - plain.loudness_lufs
            hits["energy"].append(np.sign(moved) == np.sign(gain_db))
    shares = {name: float(np.mean(found)) for name, found in hits.items()}
    print({name: f"{share:.1%} of {len(hits[name])}" for name, share in shares.items()})  # noqa: T201
    assert all(len(found) >= 30 for found in hits.values())
    assert all(share >= 0.95 for share in shares.values()), shares


def test_timbre_follows_noise_tilt_and_the_vocal_tract(clean: list[Utterance]) -> None:
    rng = np.random.default_rng(0)
    hits: dict[str, list[bool]] = defaultdict(list)
    for utterance in clean[::2]:
        wave = utterance.wave
        plain, _ = measure(wave, RATE)
        noise = rng.normal(0, float(np.std(wave)) * 10 ** (-15 / 20), wave.size)
        hoarse, _ = measure((wave + noise).astype(np.float32), RATE)
        brighter, _ = measure(np.append(wave[0], wave[1:] - 0.7 * wave[:-1]), RATE)
        sound = parselmouth.Sound(wave.astype(np.float64), RATE)
        longer = call(sound, "Change gender", 75, 500, 0.92, 0, 1.0, 1.0)
        larger, _ = measure(np.asarray(longer.values[0], np.float32), RATE)
        for name, other, rises in (
            ("hnr_db", hoarse, False),
            ("shimmer", hoarse, True),
            ("alpha_ratio_db", brighter, True),
            ("f3_hz", larger, False),
        ):
            hits[name].append((getattr(other, name) > getattr(plain, name)) == rises)
    assert all(np.mean(found) >= 0.9 for found in hits.values()), hits
    usual = [measure(utterance.wave, RATE)[0].hnr_db for utterance in clean[:4]]
    assert all(value is not None and 8 < value < 25 for value in usual), usual


def vowel(jitter: float, shimmer: float) -> Wave:
    """Two seconds of pulses at 120 Hz through two resonances; period and height vary at random."""
    rng = np.random.default_rng(0)
    periods = 1 / 120 * (1 + jitter * rng.normal(size=240))
    times = np.cumsum(periods)
    # A pulse between two samples is shared among them, or the sampling itself would be jitter.
    wave = np.zeros(round((times[-1] + 0.1) * RATE))
    places = times * RATE
    heights = 1 + shimmer * rng.normal(size=240)
    low = np.floor(places).astype(int)
    np.add.at(wave, low, heights * (1 - (places - low)))
    np.add.at(wave, low + 1, heights * (places - low))
    t = np.arange(round(0.03 * RATE)) / RATE
    shape = np.exp(-t * 300) * (np.sin(2 * np.pi * 500 * t) + np.sin(2 * np.pi * 1500 * t) / 2)
    sound = np.convolve(wave, shape)
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def test_known_jitter_and_shimmer_are_measured() -> None:
    steady, _ = measure(vowel(0.0, 0.0), RATE)
    assert steady.f0_median_hz == pytest.approx(120, rel=0.01)
    assert steady.jitter is not None
    assert steady.shimmer is not None
    assert steady.jitter < 0.003
    # The mean distance of two draws of a normal distribution is 2 / sqrt(pi) of its spread.
    for spread in (0.01, 0.02):
        shaken, _ = measure(vowel(spread, 0.0), RATE)
        assert shaken.jitter == pytest.approx(1.128 * spread, rel=0.2)
    uneven, _ = measure(vowel(0.0, 0.1), RATE)
    assert uneven.shimmer is not None
    assert uneven.shimmer > steady.shimmer + 0.05


def test_gender_is_right_for_every_speaker_of_the_clean_recordings(devset: Path) -> None:
    recordings = (*CLEAN, "fr_armelle_s1", "en_ami_dialogue_dev")
    votes: dict[str, list[float]] = defaultdict(list)
    for utterance in utterances(devset, recordings):
        # The band of the 8 kHz source ends where the third formant lies.
        narrow = 4_000.0 if utterance.recording == "fr_armelle_s1" else None
        acoustics, _ = measure(utterance.wave, RATE, narrow)
        found = probabilities(acoustics)
        assert found is not None
        votes[utterance.speaker].append(float(np.log(found["female"] / found["male"])))
        assert opinion_of(acoustics).age == "adult"
    assert len(votes) == 6
    male = {name for name in votes if name.startswith("ami_M")}
    assert {name for name, scores in votes.items() if np.mean(scores) < 0} == male
    right = [(score < 0) == (name in male) for name, scores in votes.items() for score in scores]
    assert np.mean(right) >= 0.95, f"{np.mean(right):.1%} of {len(right)} utterances"


def test_a_child_is_not_taken_for_a_woman(clean: list[Utterance]) -> None:
    """A woman's voice with the vocal tract and the folds of a child, by Praat."""
    heard = []
    for utterance in clean[::3]:
        sound = parselmouth.Sound(utterance.wave.astype(np.float64), RATE)
        child = call(sound, "Change gender", 75, 500, 1.2, 300.0, 1.0, 1.0)
        acoustics, _ = measure(np.asarray(child.values[0], np.float32), RATE)
        heard.append(opinion_of(acoustics).age)
    assert np.mean([age == "child" for age in heard]) >= 0.9, heard


@given(
    f0=st.none() | st.floats(50, 700),
    f3=st.none() | st.floats(1500, 5000),
)
def test_an_opinion_is_a_probability(f0: float | None, f3: float | None) -> None:
    acoustics = Acoustics(f0_median_hz=f0, f3_hz=f3)
    found = probabilities(acoustics)
    opinion = opinion_of(acoustics)
    if f0 is None:
        assert found is None
        assert opinion.gender is opinion.age is None
        return
    assert found is not None
    assert sum(found.values()) == pytest.approx(1.0)
    for confidence in (opinion.gender_confidence, opinion.age_confidence):
        assert confidence is None or 0.0 <= confidence <= 1.0 + 1e-9
    assert (opinion.age == "child") == (opinion.gender is None)


@settings(max_examples=25)
@given(
    samples=st.integers(1, 6_000),
    kind=st.sampled_from(["silence", "noise", "click", "loud"]),
    rate=st.sampled_from([8_000, 16_000, 48_000]),
)
def test_any_sound_can_be_measured(samples: int, kind: str, rate: int) -> None:
    wave = np.zeros(samples, np.float32)
    if kind == "noise":
        wave += np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    elif kind == "click":
        wave[samples // 2] = 1.0
    elif kind == "loud":
        wave += 1.0
    acoustics, _ = measure(wave, rate)
    values = [getattr(acoustics, name) for name in Acoustics.__dataclass_fields__]
    assert all(value is None or np.isfinite(value) for value in values)


def test_no_samples_are_an_error() -> None:
    with pytest.raises(EmptyAudio):
        measure(np.zeros(0, np.float32), RATE)


def test_pauses_are_the_silences_between_speech() -> None:
    speech = [
        Span(start_s=2.0, end_s=3.0),
        Span(start_s=0.5, end_s=1.5),
        Span(start_s=3.1, end_s=4),
    ]
    pauses = pauses_of(speech)
    assert pauses is not None
    assert pauses.number == 1
    assert pauses.longest_s == pytest.approx(0.5)
    assert pauses.ratio == pytest.approx(0.5 / 3.5)
    assert pauses_of([]) is None


def test_a_word_said_louder_and_higher_is_the_emphasised_one(clean: list[Utterance]) -> None:
    """Cut into stretches as if they were words, one of them raised."""
    caught = 0
    for utterance in clean:
        length_s = utterance.wave.size / RATE - 0.4
        edges = 0.2 + np.linspace(0, length_s, 7)
        words = [
            Word(word=str(i), start_s=float(a), end_s=float(b), prob=1.0)
            for i, (a, b) in enumerate(itertools.pairwise(edges))
        ]
        _, contour = measure(utterance.wave, RATE)
        place = contour.within(words[3].start_s, words[3].end_s)
        contour.f0_hz[place] *= 2 ** (9 / 12)
        contour.level_db[place] += 9
        emphasis, strong = emphasis_of(words, contour)
        assert emphasis is not None
        caught += "3" in strong
    assert caught >= 0.9 * len(clean)
    assert emphasis_of(words[:2], contour) == (None, ())
