"""The sequence reader gives what the package itself gives, without its torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.registry import resolve
from annotators.silero import FRAME, Silero, speech_spans
from schemas.errors import ModelLoadError
from schemas.rows import Wave

AUDIO = Path(__file__).parents[1] / "data" / "devset" / "audio"


def read(name: str, seconds: float = 30) -> Wave:
    wave, _ = sf.read(AUDIO / f"{name}.flac", dtype="float32", frames=int(seconds * 16_000))
    return wave


@pytest.fixture(scope="module")
def silero() -> Silero:
    return Silero(resolve("silero").path)


@pytest.mark.parametrize("name", ["en_allison_s1", "en_ami_dialogue_dev", "en_allison_s2__noise5"])
def test_probabilities_and_spans_equal_the_packages_own(silero: Silero, name: str) -> None:
    from silero_vad.sequence_vad import SileroVADSequence, get_speech_timestamps_sequence

    wave = read(name)
    theirs = SileroVADSequence(str(resolve("silero").path))
    probs = silero.probs(wave)
    np.testing.assert_allclose(probs, theirs.audio_forward(wave), atol=1e-6)
    expected = get_speech_timestamps_sequence(wave, theirs, min_silence_duration_ms=300)
    spans = speech_spans(probs, duration_s=wave.size / 16_000)
    assert len(spans) == len(expected) > 0
    for span, other in zip(spans, expected, strict=True):
        assert span.start_s == pytest.approx(other["start"] / 16_000, abs=1e-3)
        assert span.end_s == pytest.approx(other["end"] / 16_000, abs=1e-3)


def test_a_result_does_not_depend_on_what_was_heard_before(silero: Silero) -> None:
    wave = read("en_allison_s1", 5)
    first = silero.probs(wave)
    silero.probs(read("fr_june_s1", 5))
    assert np.array_equal(silero.probs(wave), first)


@pytest.mark.parametrize("samples", [0, 1, FRAME, FRAME + 1])
def test_there_is_one_probability_per_begun_frame(silero: Silero, samples: int) -> None:
    assert silero.probs(np.zeros(samples, np.float32)).size == -(-samples // FRAME)


@settings(max_examples=60, deadline=None)
@given(probs=st.lists(st.floats(0, 1), max_size=200))
def test_spans_are_disjoint_ascending_and_inside(probs: list[float]) -> None:
    duration_s = len(probs) * FRAME / 16_000
    at = 0.0
    for span in speech_spans(probs, duration_s=duration_s):
        assert at <= span.start_s < span.end_s <= duration_s
        at = span.end_s


def test_another_onnx_model_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="sequence export"):
        Silero(resolve("dnsmos").path / "model_v8.onnx")


def test_voice_activity_needs_no_torch() -> None:
    code = (
        "import sys, numpy as np\n"
        "from annotators.registry import resolve\nfrom annotators.silero import Silero\n"
        "Silero(resolve('silero').path).probs(np.zeros(16000, np.float32))\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
