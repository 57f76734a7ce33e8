"""Clips start and end in silence, share nothing, and say so when a word is cut."""

import pickle
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigError
from schemas.rows import Chunk, Recording, Span, Wave, Word
from stages.edges import Edges, EdgesConfig, clip_id, guard
from stages.segmentation import SegmentationConfig, segment

DEVSET = Path(__file__).parents[1] / "data" / "devset"
RATE = 16_000
REGIONS: dict[str, list[tuple[float, float]]] = defaultdict(list)
for _row in pq.read_table(DEVSET / "speech_regions.parquet").to_pylist():
    REGIONS[_row["recording_id"]].append((_row["start"], _row["end"]))


def read(name: str) -> Wave:
    return sf.read(DEVSET / "audio" / f"{name}.flac", dtype="float32")[0]


def make_chunk(
    wave: Wave, spans: list[tuple[float, float]], rate: int = RATE, start_sample: int = 0
) -> Chunk:
    """A chunk cut into clips; every clip has a word at the start and end of its speech."""
    recording = Recording(
        recording_id="r",
        uri="r.flac",
        session_id="s",
        duration_s=wave.size / RATE,
        sample_rate=rate,
        channels=1,
        codec="flac",
        size_bytes=1,
        num_chunks=1,
    )
    chunk = Chunk(
        recording=recording,
        index=0,
        start_sample=start_sample,
        sample_rate=rate,
        wave=wave if rate == RATE else soxr.resample(wave, RATE, rate).astype(np.float32),
        wave_16k=wave,
        speech=tuple(Span(start_s=max(0.0, a), end_s=b) for a, b in spans if b > max(0.0, a)),
    )
    clips = segment(chunk, SegmentationConfig())
    return replace(
        chunk,
        clips=tuple(
            replace(
                clip,
                words=tuple(
                    Word(word="w", start_s=s.start_s, end_s=s.end_s, prob=0.9) for s in clip.speech
                ),
            )
            for clip in clips
        ),
    )


def jittered(spans: list[tuple[float, float]], offsets: list[float]) -> list[tuple[float, float]]:
    """Spans as a voice activity detector gives them: every edge off by up to 0.1 s."""
    moved = [
        (a + offsets[2 * i % len(offsets)], b + offsets[(2 * i + 1) % len(offsets)])
        for i, (a, b) in enumerate(spans)
    ]
    return [(a, b) for a, b in moved if b - a > 0.1]


OFFSETS = st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=40)
NAMES = st.sampled_from(["en_allison_s1", "fr_june_s1", "es_allison_s1", "en_allison_s3__clip"])
WAVES = {name: read(name) for name in ("en_allison_s1", "fr_june_s1", "es_allison_s1")}
WAVES["en_allison_s3__clip"] = read("en_allison_s3__clip")


@settings(deadline=None, max_examples=60)
@given(name=NAMES, offsets=OFFSETS)
def test_no_edge_lies_inside_speech_though_the_voice_activity_is_off(
    name: str, offsets: list[float]
) -> None:
    chunk = make_chunk(WAVES[name], jittered(REGIONS[name], offsets))
    for clip in guard(chunk, EdgesConfig()):
        for edge_s in (clip.start_s, clip.end_s):
            assert not any(a + 0.02 < edge_s < b - 0.02 for a, b in REGIONS[name])
        assert not clip.word_cut_start
        assert not clip.word_cut_end


@settings(deadline=None, max_examples=60)
@given(
    name=NAMES,
    offsets=OFFSETS,
    rate=st.sampled_from([8_000, 16_000, 44_100]),
    start_sample=st.integers(0, 10**8),
    config=st.builds(
        EdgesConfig,
        keep_silence_s=st.floats(0, 0.5),
        reach_s=st.floats(0, 1),
        trim_s=st.floats(0, 0.3),
    ),
)
def test_neighbours_never_overlap_and_words_keep_their_place(
    name: str, offsets: list[float], rate: int, start_sample: int, config: EdgesConfig
) -> None:
    chunk = make_chunk(
        WAVES[name][: 30 * RATE],
        jittered([r for r in REGIONS[name] if r[1] < 30], offsets),
        rate,
        start_sample,
    )
    clips = guard(chunk, config)
    assert len(clips) == len(chunk.clips)
    for left, right in pairwise(clips):
        assert left.end_sample <= right.start_sample
    for old, new in zip(chunk.clips, clips, strict=True):
        assert chunk.start_sample <= new.start_sample < new.end_sample
        assert new.end_sample <= chunk.start_sample + chunk.wave.shape[0]
        assert new.lead_silence_s <= config.keep_silence_s + 1 / rate
        assert new.trail_silence_s <= config.keep_silence_s + 1 / rate
        for before, after in zip(old.words, new.words, strict=True):
            then = min(max(old.start_s + before.start_s, new.start_s), new.end_s)
            assert new.start_s + after.start_s == pytest.approx(then, abs=1e-5)
            assert 0 <= after.start_s <= after.end_s <= new.duration_s


def test_clean_clips_start_and_end_at_the_noise_floor() -> None:
    chunk = make_chunk(WAVES["en_allison_s1"], REGIONS["en_allison_s1"])
    for clip in guard(chunk, EdgesConfig()):
        assert abs(clip.edge_start_db) < 4
        assert abs(clip.edge_end_db) < 4
        assert 0.1 < clip.lead_silence_s <= 0.3 + 1 / RATE
        assert not clip.breath_cut
        assert clip.click_db < 10


def loudest_near(wave: Wave, at_s: float) -> int:
    """The sample amid the loudest 20 ms within 0.2 s of a time: the inside of a vowel."""
    first = round((at_s - 0.2) * RATE)
    frames = wave[first : first + 6_400].reshape(-1, 320)
    return first + 320 * int(np.argmax(np.mean(frames**2, axis=1))) + 160


def test_a_recording_cut_inside_a_word_is_told_at_the_right_end() -> None:
    wave, regions = WAVES["en_allison_s1"], REGIONS["en_allison_s1"]
    found_start = found_end = tried = 0
    for start_s, end_s in regions:
        if end_s - start_s < 1.5:
            continue
        cut = loudest_near(wave, (start_s + end_s) / 2)
        cut_s = cut / RATE
        after = [(max(0.0, a - cut_s), b - cut_s) for a, b in regions if b > cut_s]
        before = [(a, min(b, cut_s)) for a, b in regions if a < cut_s]
        first = guard(make_chunk(wave[cut:], after), EdgesConfig())[0]
        last = guard(make_chunk(wave[:cut], before), EdgesConfig())[-1]
        tried += 1
        found_start += bool(first.word_cut_start) and not first.word_cut_end
        found_end += bool(last.word_cut_end) and not last.word_cut_start
    assert tried >= 10
    assert found_start == tried
    assert found_end == tried


def test_a_click_in_the_silence_is_heard() -> None:
    wave, regions = WAVES["en_allison_s1"], REGIONS["en_allison_s1"]
    quiet = guard(make_chunk(wave, regions), EdgesConfig())[0]
    clicked = wave.copy()
    at = quiet.start_sample + 800
    clicked[at : at + 8] += np.float32(0.02) * np.array([1, -1] * 4, np.float32)
    loud = guard(make_chunk(clicked, regions), EdgesConfig(trim_s=0, reach_s=0))[0]
    assert loud.click_db > quiet.click_db + 15


def test_ids_follow_the_final_bounds() -> None:
    chunk = make_chunk(WAVES["en_allison_s1"], REGIONS["en_allison_s1"])
    stage = pickle.loads(pickle.dumps(Edges(EdgesConfig())))
    (first,), (second,) = stage.process([chunk]), stage.process([chunk])
    assert first.clips == second.clips
    assert len({c.clip_id for c in first.clips}) == len(first.clips)
    for clip in first.clips:
        assert clip.clip_id == clip_id("r", clip.start_sample, clip.end_sample, RATE)
        assert len(clip.clip_id) == 32


def test_digital_silence_and_no_clips_pass() -> None:
    stage = Edges(EdgesConfig())
    assert stage.process([]) == []
    silent = make_chunk(np.zeros(10 * RATE, np.float32), [(2.0, 5.0)])
    nothing = make_chunk(np.zeros(10 * RATE, np.float32), [])
    with_clip, without = stage.process([silent, nothing])
    assert without.clips == ()
    (clip,) = with_clip.clips
    assert not clip.word_cut_start
    assert np.isfinite(clip.edge_start_db)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="reach_s"):
        EdgesConfig(reach_s=-0.1)
