"""Near-duplicates on real speech: copies of one sound are found, the same words again are not."""

import io
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile as sf
import soxr

from annotators.sound_print import LONGEST_S, likeness, sound_print
from schemas.errors import ConfigError, UndecodableAudio
from schemas.rows import Span, Wave
from stages.flac import flac_bytes
from stages.near_duplicates import (
    DuplicatesConfig,
    NearDuplicates,
    TextGroup,
    copies,
    pairs_to_compare,
    print_of,
)

RATE = 16_000
CONFIG = DuplicatesConfig()


@pytest.fixture(scope="module")
def utterances(devset: Path) -> list[Wave]:
    """Of one voice each, by the truth's times."""
    truth = pl.read_parquet(devset / "ground_truth.parquet")
    clean = truth.filter(
        (pl.col("recording_id") == "en_allison_s1") & (pl.col("end") - pl.col("start") > 1.2)
    ).sort("start")
    wave, rate = sf.read(devset / "audio" / "en_allison_s1.flac", dtype="float32")
    assert rate == RATE
    return [
        wave[round(start * RATE) : round(end * RATE)]
        for start, end in clean.select("start", "end").rows()
    ]


def noisy(wave: Wave, snr_db: float) -> Wave:
    level = np.sqrt(np.mean(wave**2)) * 10 ** (-snr_db / 20)
    noise = np.random.default_rng(0).standard_normal(wave.size)
    return (wave + noise * level).astype(np.float32)


def vorbis(wave: Wave) -> Wave:
    file = io.BytesIO()
    sf.write(file, wave, RATE, format="OGG", subtype="VORBIS", compression_level=0.9)
    file.seek(0)
    read: Wave = sf.read(file, dtype="float32")[0]
    return read


def telephone(wave: Wave) -> Wave:
    narrow = soxr.resample(wave, RATE, 8_000)
    return np.asarray(soxr.resample(narrow, 8_000, RATE), np.float32)


def later(wave: Wave) -> Wave:
    """The voice activity of a copy starts 0.13 s before it."""
    return np.concatenate((np.zeros(round(0.13 * RATE), np.float32), wave))


def printed(wave: Wave) -> np.ndarray:
    return sound_print(wave, RATE, 0.0, wave.size / RATE)


@pytest.mark.parametrize(
    "copy",
    [
        lambda wave: wave * 0.2,
        vorbis,
        telephone,
        later,
        lambda wave: noisy(wave, 20),
        lambda wave: noisy(wave, 15),
        lambda wave: later(telephone(noisy(wave, 20))),
    ],
    ids=["quieter", "vorbis", "telephone", "shifted", "noise 20", "noise 15", "all"],
)
def test_a_copy_is_alike(utterances: list[Wave], copy) -> None:  # type: ignore[no-untyped-def]
    for wave in utterances:
        assert likeness(printed(wave), printed(copy(wave))) >= CONFIG.min_likeness + 0.02


def test_a_copy_at_another_rate_is_alike(utterances: list[Wave]) -> None:
    wave = utterances[0]
    faster = np.asarray(soxr.resample(wave, RATE, 44_100), np.float32)
    other = sound_print(faster, 44_100, 0.0, faster.size / 44_100)
    assert likeness(printed(wave), other) >= 0.95


def test_other_words_of_the_voice_are_not(utterances: list[Wave]) -> None:
    prints = [printed(wave) for wave in utterances]
    others = [likeness(a, b) for i, a in enumerate(prints) for b in prints[:i]]
    assert max(others) < CONFIG.min_likeness - 0.05


def test_the_same_words_said_faster_are_not(utterances: list[Wave]) -> None:
    """No one repeats their timing: 8 % off, at the same pitch range of bands, is another reading."""
    for wave in utterances:
        stretched = np.asarray(soxr.resample(wave, RATE, RATE * 1.08), np.float32)
        assert likeness(printed(wave), printed(stretched)) < CONFIG.min_likeness


def test_a_print_is_small_and_of_nothing_is_empty() -> None:
    noise = np.random.default_rng(0).standard_normal(60 * RATE).astype(np.float32)
    assert printed(noise).nbytes < 15_000
    assert len(printed(noise)) <= LONGEST_S * 100 + 1
    nothing = sound_print(np.zeros(0, np.float32), RATE, 0.0, 1.0)
    assert nothing.shape == (0, 24)
    assert likeness(nothing, printed(noise)) == 0.0
    silence = printed(np.zeros(RATE, np.float32))
    assert likeness(silence, silence) == 0.0


def group_of(waves: list[Wave], pairs: list[tuple[int, int]]) -> TextGroup:
    return TextGroup(
        text_id="t",
        clip_ids=tuple(f"clip{number}" for number in range(len(waves))),
        duration_s=1.0,
        pairs=np.array(pairs, np.int64).reshape(-1, 2),
        prints=tuple(
            print_of(flac_bytes(wave, RATE), [Span(start_s=0.0, end_s=wave.size / RATE)])
            for wave in waves
        ),
    )


def test_copies_form_groups_through_their_chain(utterances: list[Wave]) -> None:
    one, two, three, *_ = utterances
    waves = [one, one * 0.5, two, vorbis(one), three, two * 0.7]
    stage = pickle.loads(pickle.dumps(NearDuplicates(CONFIG)))
    stage.setup()
    pairs = [(0, 1), (1, 3), (2, 5), (0, 4), (3, 4)]
    (done,) = stage.process([group_of(waves, pairs)])
    groups = {mark.clip_id: mark.group_id for mark in done.marked}
    assert groups == {
        "clip0": "clip0",
        "clip1": "clip0",
        "clip3": "clip0",
        "clip2": "clip2",
        "clip5": "clip2",
    }
    assert all(CONFIG.min_likeness <= mark.similarity <= 1 for mark in done.marked)
    assert copies(group_of(waves, []), CONFIG) == ()


def test_only_clips_of_one_length_and_voice_are_compared() -> None:
    embeddings = np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 2]]
    embeddings[4] = 0.0
    lengths = np.array([2.0, 2.2, 4.0, 2.0, 2.0])
    assert pairs_to_compare(embeddings, lengths, CONFIG).tolist() == [[0, 1]]
    assert pairs_to_compare(embeddings[:1], lengths[:1], CONFIG).shape == (0, 2)


def test_many_clips_of_one_text_are_compared_with_a_few_each() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((3000, 16)).astype(np.float32) + 3
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    pairs = pairs_to_compare(embeddings, np.full(3000, 2.0), CONFIG)
    assert len(pairs) <= 3000 * CONFIG.candidates
    assert (pairs[:, 0] < pairs[:, 1]).all()


def test_a_stored_clip_that_does_not_decode_says_so() -> None:
    with pytest.raises(UndecodableAudio):
        print_of(b"no flac", [])


@pytest.mark.parametrize("wrong", [{"min_likeness": 0.0}, {"candidates": 0}])
def test_a_setting_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        DuplicatesConfig(**wrong)  # type: ignore[arg-type]
