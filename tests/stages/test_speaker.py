"""A clip's voice is measured, and a clip of two voices is told from a clip of one."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.registry import resolve
from annotators.silero import Silero, speech_spans
from annotators.speaker import Window, print_of, unit
from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Recording
from stages.speaker import Speaker, SpeakerConfig, purity

DEVSET = Path(__file__).parents[1] / "data" / "devset"
RATE = 16_000


def chunk_of(name: str, spans: list[tuple[float, float]]) -> Chunk:
    wave, _ = sf.read(DEVSET / "audio" / f"{name}.flac", dtype="float32")
    recording = Recording(
        recording_id=name,
        uri=name,
        session_id=name,
        duration_s=wave.size / RATE,
        sample_rate=RATE,
        channels=1,
        codec="flac",
        size_bytes=1,
        num_chunks=1,
    )
    clips = tuple(
        Clip(
            recording_id=name,
            session_id=name,
            chunk_index=0,
            start_sample=round(start * RATE),
            end_sample=round(end * RATE),
            sample_rate=RATE,
            start_s=start,
            end_s=end,
            duration_s=end - start,
        )
        for start, end in spans
    )
    return Chunk(
        recording=recording,
        index=0,
        start_sample=0,
        sample_rate=RATE,
        wave=wave,
        wave_16k=wave,
        clips=clips,
    )


@pytest.fixture(scope="module")
def stage() -> Speaker:
    made: Speaker = pickle.loads(pickle.dumps(Speaker(SpeakerConfig())))
    made.setup()
    return made


def test_clips_get_a_voice_and_screened_ones_do_not(stage: Speaker) -> None:
    chunk = chunk_of("en_allison_s1", [(0.4, 9.8), (10.1, 18.8), (20.0, 24.0)])
    skipped = replace(chunk.clips[2], screened="snr")
    (done,) = stage.process([replace(chunk, clips=(*chunk.clips[:2], skipped))])
    first, second, third = done.clips
    assert third == skipped
    voices = [np.asarray(clip.speaker_embedding) for clip in (first, second)]
    assert voices[0].dtype == np.float32
    assert voices[0] @ voices[1] > 0.8


def test_two_voices_in_a_clip_lower_its_purity(stage: Speaker) -> None:
    """Each clip of one voice, and the same length joined from two, in halves and as a turn."""
    one = chunk_of("en_allison_s1", [])
    other = chunk_of("fr_june_s1", [])
    pure, mixed = [], []
    for start in range(0, 40, 10):
        a, b = (chunk.wave[start * RATE : (start + 10) * RATE] for chunk in (one, other))
        pure += [a, b]
        mixed += [
            np.concatenate([a[: 5 * RATE], b[: 5 * RATE]]),
            np.concatenate([a[: 3 * RATE], b[: 4 * RATE], a[3 * RATE : 6 * RATE]]),
        ]
    silero = Silero(resolve("silero").path)
    scores = []
    for waves in (pure, mixed):
        wave = np.concatenate(waves)
        spans = [(10.0 * i, 10.0 * (i + 1)) for i in range(len(waves))]
        clips = tuple(
            replace(clip, speech=speech_spans(silero.probs(own), duration_s=10.0))
            for clip, own in zip(chunk_of("en_allison_s1", spans).clips, waves, strict=True)
        )
        (done,) = stage.process([replace(one, wave=wave, wave_16k=wave, clips=clips)])
        scores.append([clip.speaker_purity or 0.0 for clip in done.clips])
    assert min(scores[0]) > max(scores[1]), scores


def test_a_short_clip_has_no_purity(stage: Speaker) -> None:
    (done,) = stage.process([chunk_of("en_allison_s1", [(0.4, 2.6)])])
    assert done.clips[0].speaker_purity is None
    assert done.clips[0].speaker_embedding is not None


@settings(max_examples=40, deadline=None)
@given(num=st.integers(4, 12), seed=st.integers(0, 99))
def test_purity_is_the_minimum_over_all_stretches(num: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).random((num, 8)).astype(np.float32)
    voice = print_of(
        [Window(start_s=i, end_s=i + 1, embedding=unit(v)) for i, v in enumerate(vectors)]
    )
    windows = np.stack([window.embedding for window in voice.windows]).astype(np.float64)
    expected = 1.0
    for start in range(num):
        for stop in range(start + 2, num + 1):
            inside = windows[start:stop].sum(axis=0)
            outside = windows.sum(axis=0) - inside
            if num - (stop - start) >= 2:
                cosine = inside @ outside / np.linalg.norm(inside) / np.linalg.norm(outside)
                expected = min(expected, float(cosine))
    assert purity(voice.windows, 2) == pytest.approx(expected)


@pytest.mark.parametrize(
    "wrong", [{"model": "weights.pt"}, {"encoder": "xvector"}, {"min_stretch": 0}]
)
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="encoder" if "model" in wrong else next(iter(wrong))):
        SpeakerConfig(**wrong)  # type: ignore[arg-type]
