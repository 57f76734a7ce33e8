"""Whatever a decoder reads becomes the same mono chunk at every call; what it cannot is named."""

import io
import json
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from pipeline.audio import read_chunk
from pipeline.opening import WatchedFile
from pipeline.sources import Source
from pipeline.survey import survey
from schemas.errors import DataError, EmptyAudio, MissingSource, UndecodableAudio
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


def test_both_sides_of_a_stereo_recording_are_kept_on_request(
    tmp_path: Path, devset: Path, speech: np.ndarray
) -> None:
    path = tmp_path / "wide.wav"
    sides = np.stack([speech, 0.5 * speech[::-1]], axis=1)
    soundfile.write(path, sides, 16_000, subtype="FLOAT")
    plans = survey(source(path), 600.0).chunks
    (chunk,) = (read_chunk(plan, stereo=True) for plan in plans)
    assert chunk.stereo is not None
    np.testing.assert_array_equal(chunk.stereo, sides)
    np.testing.assert_allclose(chunk.wave, sides.mean(axis=1), atol=1e-6)
    assert chunk_of(path).stereo is None
    high = survey(source(devset / "bad" / "hires_192k_stereo.flac"), 600.0).chunks[0]
    brought_down = read_chunk(high, stereo=True)
    assert brought_down.stereo is not None
    assert brought_down.stereo.shape == (brought_down.wave.size, 2)
    np.testing.assert_allclose(brought_down.stereo.mean(axis=1), brought_down.wave, atol=1e-5)
    soundfile.write(path, np.stack([speech, 0 * speech], axis=1), 16_000, subtype="FLOAT")
    one_sided = survey(source(path), 600.0).chunks[0]
    assert read_chunk(one_sided, stereo=True).stereo is None, "the other side is silent"


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


@pytest.mark.parametrize(
    ("subtype", "tolerance"),
    [("PCM_16", 2**-15), ("PCM_24", 2**-23), ("FLOAT", 1e-7), ("ULAW", 0.02)],
)
def test_every_sample_format_has_the_same_scale(
    tmp_path: Path, speech: np.ndarray, subtype: str, tolerance: float
) -> None:
    soundfile.write(tmp_path / "a.wav", speech, 16_000, subtype=subtype)
    np.testing.assert_allclose(chunk_of(tmp_path / "a.wav").wave, speech, atol=tolerance)


def test_24_bit_flac_keeps_its_depth(tmp_path: Path, speech: np.ndarray) -> None:
    quiet = speech * np.float32(2**-9)
    soundfile.write(tmp_path / "a.flac", quiet, 16_000, subtype="PCM_24")
    np.testing.assert_allclose(chunk_of(tmp_path / "a.flac").wave, quiet, atol=2**-23)


def test_the_mean_is_of_the_channels_that_carry_signal(tmp_path: Path, speech: np.ndarray) -> None:
    silence = np.zeros_like(speech)
    five = np.stack([speech, silence, speech * 0.5, silence, speech * 0.25], axis=1)
    soundfile.write(tmp_path / "a.wav", five, 16_000, subtype="FLOAT")
    chunk = chunk_of(tmp_path / "a.wav")
    assert (chunk.flags, chunk.recording.channels) == (("silent_channel",), 5)
    np.testing.assert_allclose(chunk.wave, speech * (1.75 / 3), atol=1e-6)


@pytest.mark.parametrize("suffix", ["mp3", "m4a", "flac"])
def test_damage_in_the_middle_costs_only_itself(
    tmp_path: Path, speech: np.ndarray, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "flac":
        soundfile.write(path, speech, 16_000)
    else:
        encode(path, speech, {"mp3": "mp3", "m4a": "aac"}[suffix])
    whole = chunk_of(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = np.random.default_rng(0).bytes(300)
    path.write_bytes(data)
    chunk = chunk_of(path)
    assert chunk.flags
    assert 0 < whole.duration_s - chunk.duration_s < 0.6
    assert closest_correlation(whole.wave[-48_000:], chunk.wave[-48_000:]) > 0.97


def test_a_flac_that_was_piped_has_no_declared_length_and_is_read(
    tmp_path: Path, speech: np.ndarray
) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, speech, 16_000)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    chunk = chunk_of(path)
    assert (chunk.wave.size, chunk.flags) == (160_000, ())
    assert chunk.recording.declared_duration_s is None


def test_a_wav_that_was_piped_is_not_called_truncated(tmp_path: Path, speech: np.ndarray) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, speech, 16_000)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", 0xFFFF_FFFF)
    path.write_bytes(data)
    assert chunk_of(path).flags == ()


def test_raw_aac_is_not_judged_by_a_guessed_length(tmp_path: Path, speech: np.ndarray) -> None:
    recording = chunk_of(encode(tmp_path / "a.aac", speech, "aac")).recording
    assert (recording.declared_duration_s, recording.flags) == (None, ())
    assert recording.duration_s == pytest.approx(10.0, abs=0.15)


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile secret.wav\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.wav\n#EXT-X-ENDLIST\n",
    ],
)
def test_a_playlist_in_disguise_opens_no_other_file(
    tmp_path: Path, speech: np.ndarray, playlist: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "secret.wav", speech, 16_000)
    (tmp_path / "a.mp3").write_text(playlist)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UndecodableAudio, match=r"a\.mp3"):
        chunk_of(tmp_path / "a.mp3")


def test_a_video_without_sound_is_named(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(UndecodableAudio, match="no audio track"):
        chunk_of(tmp_path / "a.mp4")


def test_a_header_without_samples_is_empty(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0, np.float32), 16_000)
    with pytest.raises(EmptyAudio):
        chunk_of(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_a_lost_connection_is_not_taken_for_the_end(
    tmp_path: Path, speech: np.ndarray, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The medium fails half-way: the recording must not pass for a shorter one."""
    path = tmp_path / f"a.{suffix}"
    if suffix == "mp3":
        encode(path, speech, "mp3")
    else:
        soundfile.write(path, speech, 16_000)
    [plan] = survey(source(path), 600.0).chunks

    class Failing(io.FileIO):
        def readinto(self, buffer: memoryview) -> int:
            if self.tell() + len(buffer) > path.stat().st_size // 2 + 4096:
                raise OSError(5, "the line is dead")
            return super().readinto(buffer) or 0

    def opened(uri: str, *, quiet: bool) -> WatchedFile:
        return WatchedFile(Failing(uri), quiet=quiet)

    monkeypatch.setattr("pipeline.opening.BUFFER_BYTES", 4096)
    monkeypatch.setattr("pipeline.decoders.watched", opened)
    with pytest.raises(MissingSource, match="the line is dead"):
        read_chunk(plan)
