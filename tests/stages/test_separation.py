"""What had music goes through the separator, and the rest is not touched."""

import pickle
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio as si_sdr

from annotators.demucs import Separator
from annotators.music import FRAME_S
from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Separated, Span
from stages.music import MusicConfig, MusicStage, Residue, residue
from stages.separation import FADE_S, Separation, SeparationConfig, background, fade_in, regions
from stages.spans import common, mean_of, shared_s
from tests.annotators.test_demucs import model, written
from tests.stages.test_signal import make_chunk

AUDIO = Path(__file__).parents[1] / "data" / "devset" / "audio"
CLEAN, UNDER_MUSIC = "en_allison_s1", "en_allison_s1__music5"


def read(name: str, seconds: float = 20.0) -> np.ndarray:
    wave, _ = sf.read(AUDIO / f"{name}.flac", dtype="float32", frames=round(seconds * 16_000))
    return wave


def chunk_of(wave: np.ndarray, rate: int = 16_000, stereo: np.ndarray | None = None) -> Chunk:
    low = wave if rate == 16_000 else soxr.resample(wave, rate, 16_000).astype(np.float32)
    return replace(make_chunk(wave, [], rate), wave_16k=low, stereo=stereo)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A separator with random weights that hears 16 kHz: what it makes is known from itself."""
    return written(tmp_path_factory.mktemp("separator"), model(samplerate=16_000))


def separated(chunk: Chunk, folder: Path | str, mode: str = "auto") -> Chunk:
    config = SeparationConfig(mode=mode, model=str(folder))  # type: ignore[arg-type]
    listening = MusicStage(MusicConfig())
    stage = pickle.loads(pickle.dumps(Separation(config, "silero")))
    listening.setup()
    stage.setup()
    (found,) = stage.process(listening.process([chunk]))
    return found


def distance_db(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(si_sdr(torch.from_numpy(ours), torch.from_numpy(theirs)))


def test_speech_without_music_is_left_as_it_was(folder: Path) -> None:
    chunk = chunk_of(read(CLEAN))
    found = separated(chunk, folder)
    assert found.separated is None
    np.testing.assert_array_equal(found.wave, chunk.wave)
    np.testing.assert_array_equal(found.wave_16k, chunk.wave_16k)


def test_music_for_a_while_leaves_the_rest_untouched(folder: Path) -> None:
    wave, mixed = read(CLEAN, 60), read(UNDER_MUSIC, 60)
    wave[20 * 16_000 : 40 * 16_000] = mixed[20 * 16_000 : 40 * 16_000]
    found = separated(chunk_of(wave), folder)
    assert found.separated is not None
    assert found.separated.by.startswith(f"{folder}@")
    (span, *more) = found.separated.spans
    assert not more
    assert 16 < span.start_s < 21
    assert 39 < span.end_s < 44
    start, end = round(span.start_s * 16_000), round(span.end_s * 16_000)
    np.testing.assert_array_equal(found.wave[:start], wave[:start])
    np.testing.assert_array_equal(found.wave[end:], wave[end:])
    fade = round(FADE_S * 16_000)
    expected = Separator(folder).speech(wave[start:end, None])[fade:-fade, 0]
    np.testing.assert_allclose(found.wave[start + fade : end - fade], expected, atol=1e-6)
    np.testing.assert_array_equal(found.wave, found.wave_16k)
    spoken = shared_s(found.separated.speech, (span,))
    assert 0.4 * (span.end_s - span.start_s) < spoken < span.end_s - span.start_s
    assert spoken == pytest.approx(sum(s.end_s - s.start_s for s in found.separated.speech))
    assert found.music is not None
    assert mean_of(found.music, span) > 0.6, "of the recording, not of what is left"


def test_noise_is_taken_where_that_helps(folder: Path) -> None:
    """Neither where it is harmless nor where nothing helps."""
    clean, noisy = read("en_allison_s2", 60), read("en_allison_s2__noise5", 60)
    for snr_db, wanted in ((5, 0), (12, 1), (20, 0)):
        mixed = clean + (noisy - clean) * np.float32(10 ** ((5 - snr_db) / 20))
        found = separated(chunk_of(mixed), folder)
        spans = found.separated.spans if found.separated else ()
        assert sum(s.end_s - s.start_s for s in spans) / 60 == pytest.approx(wanted, abs=0.1)
    music_alone = SeparationConfig(noise_to_db=0.0)
    ratios = np.linspace(0, 40, 9, dtype=np.float32)
    assert not background(np.zeros_like(ratios), ratios, music_alone).any()


def test_off_does_nothing_and_always_everything(folder: Path) -> None:
    chunk = chunk_of(read(CLEAN, 9), stereo=np.zeros((9 * 16_000, 2), np.float32))
    off = separated(chunk, "nowhere", "off")
    np.testing.assert_array_equal(off.wave, chunk.wave)
    always = separated(chunk, folder, "always")
    assert always.separated is not None
    assert always.separated.spans == (Span(start_s=0.0, end_s=9.0),)
    assert always.stereo is None
    expected = Separator(folder).speech(chunk.wave[:, None])[:, 0]
    np.testing.assert_allclose(always.wave, expected, atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_other_rates_keep_their_length(folder: Path, rate: int) -> None:
    wave = soxr.resample(read(UNDER_MUSIC, 12), 16_000, rate).astype(np.float32)
    chunk = chunk_of(wave, rate)
    found = separated(chunk, folder, "always")
    assert found.wave.shape == chunk.wave.shape
    assert found.wave_16k.shape == chunk.wave_16k.shape
    low = min(rate, 16_000)
    ours, theirs = (
        soxr.resample(wave, at, low).astype(np.float32)
        for wave, at in ((found.wave, rate), (found.wave_16k, 16_000))
    )
    size = min(ours.size, theirs.size)
    assert distance_db(ours[:size], theirs[:size]) > 15


def test_a_stereo_model_hears_both_sides(tmp_path: Path) -> None:
    folder = written(tmp_path, model(audio_channels=2, samplerate=16_000))
    rng = np.random.default_rng(0)
    sides = rng.standard_normal((48_000, 2)).astype(np.float32) * 0.1
    mono = sides.mean(axis=1)
    both = separated(chunk_of(mono, stereo=sides), folder, "always")
    swapped = separated(chunk_of(mono, stereo=sides[:, ::-1].copy()), folder, "always")
    one = separated(chunk_of(mono), folder, "always")
    assert np.abs(both.wave - one.wave).max() > 1e-3, "the sides are not heard as their mean"
    assert np.abs(both.wave - swapped.wave).max() > 1e-4
    assert both.stereo is None


def test_silence_stays_silent(folder: Path) -> None:
    for mode in ("auto", "always"):
        found = separated(chunk_of(np.zeros(5 * 16_000, np.float32)), folder, mode)
        assert np.abs(found.wave).max() < 1e-3


def test_one_chunk_after_another_takes_no_more_memory(folder: Path) -> None:
    separator = Separator(folder)
    short, long = (np.zeros((16_000 * seconds, 1), np.float32) for seconds in (10, 300))
    separator.speech(short)
    peaks = []
    for wave in (short, long):
        tracemalloc.start()
        separator.speech(wave)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # What comes out, its weights, and one stretch: no copy for every source and stretch.
    assert peaks[1] - peaks[0] < 3 * (long.nbytes - short.nbytes)


CONFIG = SeparationConfig()


@given(arrays(np.float32, st.integers(0, 200), elements=st.floats(0, 1, width=32)))
def test_regions_hold_all_music_that_lasts_and_stay_apart(music: np.ndarray) -> None:
    duration_s = music.size * FRAME_S
    clean = np.full(music.size, 40, np.float32)
    found = regions(background(music, clean, CONFIG), duration_s, CONFIG)
    for span in found:
        assert 0 <= span.start_s < span.end_s <= duration_s + 1e-6
    for before, after in pairwise(found):
        assert after.start_s > before.end_s
    loud = np.flatnonzero(music >= CONFIG.threshold)
    if loud.size * FRAME_S >= CONFIG.min_background_s and np.diff(loud, prepend=loud[0]).max() < 4:
        (only,) = found
        assert only.start_s <= loud[0] * FRAME_S
        assert only.end_s >= min(duration_s, (loud[-1] + 1) * FRAME_S) - 1e-6
    if loud.size * FRAME_S < CONFIG.min_background_s:
        assert not found


def test_a_region_fades_only_inside_the_wave() -> None:
    wave = np.zeros(1000, np.float32)
    fade_in(wave, np.ones(2000, np.float32), 0, 1000, 1000)
    np.testing.assert_array_equal(wave, 1)
    wave = np.zeros(1000, np.float32)
    fade_in(wave, np.ones(500, np.float32), 200, 700, 1000)
    fade = round(FADE_S * 1000)
    assert (wave[:200] == 0).all()
    assert (wave[700:] == 0).all()
    assert (wave[200 + fade : 700 - fade] == 1).all()
    assert (np.diff(wave[200 : 200 + fade]) > 0).all()
    assert (np.diff(wave[700 - fade : 700]) < 0).all()


def clip(start_s: float, end_s: float) -> Clip:
    start, end = round(start_s * 16_000), round(end_s * 16_000)
    return Clip(
        recording_id="r", session_id="s", chunk_index=0, start_sample=start, end_sample=end,
        sample_rate=16_000, start_s=start_s, end_s=end_s, duration_s=end_s - start_s,
    )  # fmt: skip


def test_a_clip_tells_what_was_taken_and_what_is_left() -> None:
    music = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32)
    chunk = replace(
        chunk_of(np.zeros(round(8 * FRAME_S * 16_000), np.float32)),
        music=music,
        stnr_db=40 - 10 * music,
        speech=(Span(start_s=1.1, end_s=1.4),),
        separated=Separated(
            spans=(Span(start_s=1.0, end_s=2.0),), by="m@1", speech=(Span(start_s=1.0, end_s=1.6),)
        ),
    )
    before = residue(chunk, clip(0.0, 0.9), music / 4)
    assert (before.music, before.separated_by, before.music_left) == (0.0, None, None)
    inside = residue(chunk, clip(4 * FRAME_S, 8 * FRAME_S), music / 4)
    assert (inside.music, inside.separated_by, inside.music_left) == (1.0, "m@1", 0.25)
    assert (before.stnr_db, inside.stnr_db) == (40.0, 30.0)
    assert inside.speech_kept == pytest.approx(0.5)
    nothing = replace(chunk, separated=replace(chunk.separated, speech=()))  # type: ignore[type-var]
    assert residue(nothing, clip(1.0, 2.0), music).speech_kept is None


def test_nobody_listens_without_a_model() -> None:
    stages = (MusicStage(MusicConfig(model=None)), Residue(MusicConfig(model=None)))
    chunk = replace(chunk_of(read(CLEAN, 3)), clips=(clip(0.0, 1.0),))
    for stage in stages:
        stage.setup()
        (chunk,) = stage.process([chunk])
    assert chunk.music is chunk.stnr_db is None
    assert chunk.clips[0].music is chunk.clips[0].stnr_db is None


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "perhaps"},
        {"device": "tpu"},
        {"threshold": 1.0},
        {"pad_s": -1.0},
        {"noise_to_db": -1.0},
        {"batch_size": 0},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        SeparationConfig(**settings)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), max_size=5))
def test_what_spans_share_is_in_both(bounds: list[tuple[float, float]]) -> None:
    ours = tuple(Span(start_s=min(b), end_s=max(b)) for b in bounds)
    whole = (Span(start_s=2.0, end_s=5.0),)
    for span in common(ours, whole):
        assert 2 <= span.start_s < span.end_s <= 5
    assert shared_s(whole, whole) == 3
    assert mean_of(np.zeros(0, np.float32), whole[0]) == 0
