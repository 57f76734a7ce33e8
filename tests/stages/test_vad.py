"""Speech lands where the ground truth has it."""

import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile as sf

from schemas.errors import ConfigError, ModelLoadError
from schemas.rows import Chunk, Recording
from stages.vad import Vad, VadConfig

DEVSET = Path(__file__).parents[1] / "data" / "devset"
RATE = 16_000


def chunk_of(name: str) -> Chunk:
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
    return Chunk(
        recording=recording, index=0, start_sample=0, sample_rate=RATE, wave=wave, wave_16k=wave
    )


def frames(spans: list[tuple[float, float]], num_frames: int) -> np.ndarray:
    mask = np.zeros(num_frames, bool)
    for start, end in spans:
        mask[round(start * 100) : round(end * 100)] = True
    return mask


@pytest.mark.parametrize("name", ["en_allison_s1", "fr_june_s1", "en_allison_s1__music5"])
def test_speech_agrees_with_the_truth_to_a_quarter_second(name: str) -> None:
    stage = pickle.loads(pickle.dumps(Vad(VadConfig())))
    stage.setup()
    (chunk,) = stage.process([chunk_of(name)])
    truth = pl.read_parquet(DEVSET / "speech_regions.parquet").filter(
        pl.col("recording_id") == name
    )
    num_frames = round(chunk.duration_s * 100)
    true_spans = list(zip(truth["start"], truth["end"], strict=True))
    want = frames(true_spans, num_frames)
    got = frames([(span.start_s, span.end_s) for span in chunk.speech], num_frames)
    judged = np.ones(num_frames, bool)
    for edge in (at for span in true_spans for at in span):
        judged[max(0, round((edge - 0.25) * 100)) : round((edge + 0.25) * 100)] = False
    hits = np.sum(want & got & judged)
    f1 = 2 * hits / (np.sum(want & judged) + np.sum(got & judged))
    assert f1 >= 0.99


def test_no_chunks_give_no_chunks() -> None:
    stage = Vad(VadConfig())
    stage.setup()
    assert stage.process([]) == []


def test_a_model_that_is_nowhere_stops_the_setup() -> None:
    with pytest.raises(ModelLoadError):
        Vad(VadConfig(model="nowhere.onnx")).setup()


@pytest.mark.parametrize("wrong", [{"threshold": 1.0}, {"pad_s": -0.1}, {"threads": 0}])
def test_wrong_settings_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        VadConfig(**wrong)  # type: ignore[arg-type]
