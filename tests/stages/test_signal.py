"""Noise, clipping and bandwidth of real recordings are told apart, whatever was done later."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Recording, Span, Wave
from stages.signal import (
    Signal,
    SignalConfig,
    ceiling_share,
    clipped_ratio,
    flat_top_ratio,
    measure,
)
from stages.spectrum import band_powers, snr_db

AUDIO = Path(__file__).parents[1] / "data" / "devset" / "audio"
RATE = 16_000


def read(name: str) -> Wave:
    """The first 30 s of a recording of the development set, 16 kHz."""
    wave, rate = sf.read(AUDIO / f"{name}.flac", dtype="float32", frames=30 * RATE)
    assert rate == RATE
    return wave


# Utterances of the babble recording within its first 30 s, from the ground truth.
UNDER_BABBLE = [
    (0.51, 3.7),
    (4.29, 5.82),
    (7.14, 9.41),
    (10.72, 12.42),
    (13.71, 16.75),
    (17.53, 19.9),
    (20.28, 22.03),
    (22.96, 25.37),
    (25.96, 27.54),
]
CEILING = SignalConfig().ceiling_ratio


def loud_spans(clean: Wave) -> list[tuple[float, float]]:
    """Where a clean recording is within 35 dB of its loudest 100 ms, with gaps closed."""
    frames = clean[: clean.size // 1600 * 1600].reshape(-1, 1600)
    level = 10 * np.log10(np.mean(frames.astype(np.float64) ** 2, axis=1) + 1e-12)
    active = np.flatnonzero(level > level.max() - 35)
    breaks = np.flatnonzero(np.diff(active) > 3)
    firsts = [active[0], *active[breaks + 1]]
    lasts = [*active[breaks], active[-1]]
    return [(a * 0.1, (b + 1) * 0.1) for a, b in zip(firsts, lasts, strict=True)]


def make_chunk(wave: Wave, spans: list[tuple[float, float]], rate: int = RATE) -> Chunk:
    """One clip per span, 0.2 s of silence around it."""
    recording = Recording(
        recording_id="r",
        uri="r.flac",
        session_id="s",
        duration_s=wave.size / rate,
        sample_rate=rate,
        channels=1,
        codec="flac",
        size_bytes=1,
        num_chunks=1,
    )
    clips = []
    for start_s, end_s in spans:
        start, end = max(0, round((start_s - 0.2) * rate)), round((end_s + 0.2) * rate)
        end = min(end, wave.size)
        speech = Span(start_s=start_s - start / rate, end_s=min(end_s, end / rate) - start / rate)
        clips.append(
            Clip(
                recording_id="r",
                session_id="s",
                chunk_index=0,
                start_sample=start,
                end_sample=end,
                sample_rate=rate,
                start_s=start / rate,
                end_s=end / rate,
                duration_s=(end - start) / rate,
                speech=(speech,),
            )
        )
    return Chunk(
        recording=recording,
        index=0,
        start_sample=0,
        sample_rate=rate,
        wave=wave,
        wave_16k=wave,
        speech=tuple(Span(start_s=a, end_s=b) for a, b in spans),
        clips=tuple(clips),
    )


def scores(
    name: str, rate: int = RATE, spans: list[tuple[float, float]] | None = None
) -> tuple[Clip, ...]:
    """The measured clips of a recording, cut at the spans or else where it is loud."""
    wave = read(name)
    spans = spans or loud_spans(wave)
    if rate != RATE:
        wave = soxr.resample(wave, RATE, rate).astype(np.float32)
    return measure(make_chunk(wave, spans, rate), SignalConfig())


def test_clean_speech_stands_far_above_its_noise() -> None:
    for clip in scores("en_allison_s1"):
        assert clip.snr_db > 28
        assert clip.screened is None


def test_music_and_babble_at_5_db_are_measured_as_such() -> None:
    under_music = scores("en_allison_s1__music5", spans=loud_spans(read("en_allison_s1")))
    under_babble = scores("en_allison_s2__noise5", spans=UNDER_BABBLE)
    for clips in (under_music, under_babble):
        values = [clip.snr_db for clip in clips]
        assert 2 < np.median(values) < 9
        assert max(values) < 15


def test_clipping_is_found_in_every_clipped_clip_and_in_no_clean_one() -> None:
    clipped = [c.clipping for c in scores("en_allison_s3__clip")]
    clean = [c.clipping for c in scores("en_allison_s1")]
    assert min(clipped) > 1e-3
    assert max(clean) < 1e-4


@settings(deadline=None, max_examples=25)
@given(gain=st.floats(0.03, 1.0), sign=st.sampled_from([-1.0, 1.0]))
def test_turning_a_clipped_file_down_does_not_hide_it(gain: float, sign: float) -> None:
    wave = read("en_allison_s3__clip")[: 10 * RATE]
    before = flat_top_ratio(wave, RATE)
    turned = np.round(wave * gain * sign * 32_768).astype(np.float32) / 32_768
    assert flat_top_ratio(turned, RATE) == pytest.approx(before, rel=0.2)


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_resampling_a_clipped_file_does_not_hide_it(rate: int) -> None:
    clipped = soxr.resample(read("en_allison_s3__clip"), RATE, rate).astype(np.float32)
    clean = soxr.resample(read("en_allison_s1"), RATE, rate).astype(np.float32)
    assert clipped_ratio(clipped, rate, CEILING) > 1e-3
    assert clipped_ratio(clean, rate, CEILING) < 1e-4
    assert ceiling_share(clean, rate, CEILING) == 0


@settings(deadline=None, max_examples=25)
@given(share=st.floats(0.002, 0.05))
def test_more_clipping_measures_as_more(share: float) -> None:
    wave = read("en_allison_s1")[: 10 * RATE]
    mild, hard = (np.quantile(np.abs(wave), 1 - s) for s in (share, 2 * share))
    assert flat_top_ratio(np.clip(wave, -mild, mild), RATE) < flat_top_ratio(
        np.clip(wave, -hard, hard), RATE
    )


@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_telephone_band_is_told_from_wideband_in_any_container(rate: int) -> None:
    narrow = scores("en_allison_s3__band8k", rate)
    source_8k = scores("fr_armelle_s1", rate)
    wide = scores("en_allison_s1", rate)
    assert all(3_000 < c.bandwidth_hz <= 5_000 for c in (*narrow, *source_8k))
    assert all(6_500 < c.bandwidth_hz <= 8_000 for c in wide)
    assert all(c.upsampled for c in (*narrow, *source_8k))
    assert all(c.upsampled == (rate == 48_000) for c in wide)


def test_only_the_hopeless_is_screened_and_keeps_its_scores() -> None:
    wave = read("en_allison_s1")
    spans = loud_spans(wave)
    noise = np.random.default_rng(0).standard_normal(wave.size).astype(np.float32)
    speech_rms = np.sqrt(np.mean(wave**2))
    reasons = {}
    for label, degraded in {
        "drowned": wave + 2 * speech_rms * noise,
        "10 dB": wave + 0.25 * speech_rms * noise,
        "faint": wave * 1e-3,
        "crushed": np.clip(wave * 20, -1, 1),
    }.items():
        clips = measure(make_chunk(degraded.astype(np.float32), spans), SignalConfig())
        reasons[label] = {c.screened for c in clips}
        assert all(c.snr_db is not None and c.bandwidth_hz is not None for c in clips)
    assert reasons == {
        "drowned": {"snr"},
        "10 dB": {None},
        "faint": {"near_silence"},
        "crushed": {"clipping"},
    }


def test_a_reason_given_earlier_is_kept() -> None:
    chunk = make_chunk(read("en_allison_s1"), loud_spans(read("en_allison_s1")))
    marked = tuple(
        Clip(**{n: getattr(c, n) for n in c.__slots__} | {"screened": "too_short"})
        for c in chunk.clips
    )
    again = Chunk(**{n: getattr(chunk, n) for n in chunk.__slots__} | {"clips": marked})
    assert {c.screened for c in measure(again, SignalConfig())} == {"too_short"}


def test_speech_without_a_pause_still_gets_a_noise_level() -> None:
    wave = read("en_allison_s1")[round(0.5 * RATE) : round(4.5 * RATE)]
    (clip,) = measure(make_chunk(wave, [(0.0, 4.0)]), SignalConfig())
    assert clip.snr_db > 15


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_bands_add_up_to_the_power_of_the_wave(rate: int) -> None:
    wave = np.random.default_rng(1).standard_normal(3 * rate).astype(np.float32) * 0.1
    powers = band_powers(wave, rate)
    assert powers.shape == (pytest.approx(186, abs=1), int(rate / 2 / 250))
    assert powers.sum(axis=1).mean() == pytest.approx(0.01, rel=0.05)


@given(speech=st.floats(0, 1), noise=st.floats(0, 1))
def test_snr_is_always_finite(speech: float, noise: float) -> None:
    assert -60 <= snr_db(speech, noise) <= 60


def test_a_chunk_shorter_than_a_frame_or_without_clips_passes() -> None:
    stage = pickle.loads(pickle.dumps(Signal(SignalConfig())))
    assert stage.process([]) == []
    tiny = make_chunk(np.zeros(100, np.float32), [(0.0, 0.006)])
    (chunk,) = stage.process([tiny])
    assert chunk.clips[0].screened == "no_speech"


@pytest.mark.parametrize("setting", [{"noise_share": 0}, {"ceiling_ratio": 1.1}, {"context_s": -1}])
def test_impossible_settings_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="signal"):
        SignalConfig(**setting)
