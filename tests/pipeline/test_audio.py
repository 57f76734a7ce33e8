"""Whatever a decoder reads becomes the same mono chunk at every call; what it cannot is named."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from pipeline.audio import read_chunk
from pipeline.sources import Source
from pipeline.survey import survey
from schemas.errors import DataError, MissingSource
from schemas.rows import Chunk


def source(path: Path) -> Source:
    return Source(uri=str(path), size_bytes=path.stat().st_size, modified="1", session_id="s")


def chunk_of(path: Path, chunk_s: float = 600.0) -> Chunk:
    [plan] = survey(source(path), chunk_s).chunks
    return read_chunk(plan)


@pytest.fixture(scope="session")
def speech(devset: Path) -> np.ndarray:
    """Ten seconds of real speech at 16 kHz: (160000,)."""
    wave, _ = soundfile.read(devset / "audio" / "en_allison_s1.flac", dtype="float32")
    return wave[:160_000]


def encode(path: Path, wave: np.ndarray, codec: str, rate: int = 16_000) -> Path:
    """Write a wave with FFmpeg."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        data = (wave * 32767).astype(np.int16)[None, :]
        frame = av.AudioFrame.from_ndarray(data, format="s16", layout="mono")
        frame.rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


def closest_correlation(a: np.ndarray, b: np.ndarray, slack: int = 3000) -> float:
    """Best normalised correlation over small shifts, since lossy formats pad their start."""
    size = min(len(a), len(b)) - 2 * slack
    middle = a[slack : slack + size]
    scores = np.correlate(b[: size + 2 * slack], middle, mode="valid")
    best = int(np.argmax(scores))
    other = b[best : best + size]
    return float(middle @ other / (np.linalg.norm(middle) * np.linalg.norm(other)))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.m4a", "aac"), ("a.mp4", "aac"), ("a.mkv", "aac"), ("a.webm", "libopus"), ("a.mp3", "mp3")],
)
def test_compressed_formats_decode_to_the_speech_they_hold(
    tmp_path: Path, speech: np.ndarray, name: str, codec: str
) -> None:
    rate = 48_000 if codec == "libopus" else 16_000
    wave = np.repeat(speech, 3) if rate == 48_000 else speech
    chunk = chunk_of(encode(tmp_path / name, wave, codec, rate))
    assert chunk.duration_s == pytest.approx(10.0, abs=0.15)
    assert closest_correlation(speech[:100_000], chunk.wave_16k[:100_000]) > 0.97


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "aiff"])
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100])
def test_the_native_rate_is_kept_and_models_hear_16k(
    tmp_path: Path, speech: np.ndarray, suffix: str, rate: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    stereo = np.stack([speech, speech], axis=1)
    soundfile.write(path, stereo, rate)
    chunk = chunk_of(path)
    assert chunk.sample_rate == rate
    assert chunk.wave.shape == (160_000,)
    assert chunk.wave_16k.shape[0] == pytest.approx(160_000 * 16_000 / rate, abs=2)
    assert chunk.recording.channels == 2
    if suffix in {"wav", "flac"}:
        np.testing.assert_allclose(chunk.wave, speech, atol=1e-4)


def test_a_silent_channel_is_left_out_and_noted(devset: Path, speech: np.ndarray) -> None:
    chunk = chunk_of(devset / "bad" / "three_channel.wav")
    assert chunk.flags == ("silent_channel",)
    raw, _ = soundfile.read(devset / "bad" / "three_channel.wav")
    np.testing.assert_allclose(chunk.wave, raw[:, :2].mean(axis=1), atol=1e-4)


def test_a_rate_above_48k_is_brought_down_whatever_the_blocks(
    devset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = devset / "bad" / "hires_192k_stereo.flac"
    whole = chunk_of(path)
    assert (whole.sample_rate, whole.recording.sample_rate) == (48_000, 192_000)
    monkeypatch.setattr("pipeline.ffmpeg.BLOCK_FRAMES", 1_000)
    np.testing.assert_array_equal(chunk_of(path).wave, whole.wave)


def test_bad_inputs_end_as_expected(devset: Path) -> None:
    """Every file that must not pass is named by an error; the others decode."""
    errors = {
        "zero_byte.flac": "EmptyFile",
        "text_renamed.wav": "UndecodableAudio",
        "nan_float.wav": "NonFiniteAudio",
        "short_0.1s.wav": "TooShortAudio",
    }
    listed = [
        json.loads(line) for line in (devset / "bad" / "expected.jsonl").read_text().splitlines()
    ]
    seen = {}
    for row in listed:
        path = devset / row["path"]
        try:
            chunk = chunk_of(path)
        except DataError as error:
            seen[path.name] = type(error).__name__
        else:
            assert np.isfinite(chunk.wave).all()
    assert seen == errors
    assert len(listed) == 9


def test_a_truncated_file_is_salvaged_with_its_real_length(devset: Path) -> None:
    recording = chunk_of(devset / "bad" / "truncated.flac").recording
    assert "truncated" in recording.flags
    assert recording.declared_duration_s == pytest.approx(60.85, abs=0.01)
    assert 15 < recording.duration_s < 22


def test_a_wav_that_promises_more_than_it_holds_is_noted(
    tmp_path: Path, speech: np.ndarray
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, speech, 16_000)
    path.write_bytes(path.read_bytes()[:100_000])
    recording = chunk_of(path).recording
    assert recording.flags == ("truncated",)
    assert recording.duration_s == pytest.approx(3.12, abs=0.01)
    assert recording.declared_duration_s == pytest.approx(10.0, abs=0.01)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    gone = Source(uri=str(tmp_path / "gone.wav"), session_id="s")
    with pytest.raises(MissingSource, match=r"gone\.wav"):
        survey(gone, 600.0)
