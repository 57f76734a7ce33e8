"""The encoder gives what Resemblyzer gives for the same samples."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from annotators.ge2e import Ge2e
from annotators.registry import resolve
from schemas.errors import EmptyAudio, ModelLoadError
from schemas.rows import Wave

AUDIO = Path(__file__).parents[1] / "data" / "devset" / "audio"


def read(name: str) -> Wave:
    wave, _ = sf.read(AUDIO / f"{name}.flac", dtype="float32")
    return wave


@pytest.fixture(scope="module")
def encoder() -> Ge2e:
    return Ge2e(resolve("ge2e").path)


def test_embeddings_equal_resemblyzers_own(encoder: Ge2e) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scipy and pkg_resources, at import
        from resemblyzer import VoiceEncoder
        from resemblyzer.audio import normalize_volume

    theirs = VoiceEncoder("cpu", verbose=False)
    wave = read("en_allison_s1")
    clips = [
        wave[:160_000],
        wave[:16_000],
        wave[80_000:197_000] * 0.05,
        read("fr_june_s1")[:99_999],
    ]
    for clip, ours in zip(clips, encoder.embed(clips), strict=True):
        expected = theirs.embed_utterance(normalize_volume(clip, -30, increase_only=True))
        np.testing.assert_allclose(ours.embedding, expected, atol=1e-3)


def test_one_voice_is_nearer_to_itself_than_to_another(encoder: Ge2e) -> None:
    allison, june = read("en_allison_s1"), read("fr_june_s1")
    one, same, other = (
        voice.embedding
        for voice in encoder.embed([allison[:96_000], allison[96_000:192_000], june[:96_000]])
    )
    assert one @ same > 0.75 > one @ other


def test_an_embedding_is_float32_of_unit_length_and_silence_gives_one_too(encoder: Ge2e) -> None:
    silent, loud = encoder.embed([np.zeros(16_000, np.float32), read("en_allison_s1")[:48_000]])
    assert loud.embedding.dtype == np.float32
    assert loud.embedding.shape == (encoder.size,)
    assert np.linalg.norm(loud.embedding) == pytest.approx(1, abs=1e-5)
    assert np.isfinite(silent.embedding).all()


def test_no_samples_are_an_error_of_the_data(encoder: Ge2e) -> None:
    with pytest.raises(EmptyAudio):
        encoder.embed([np.zeros(0, np.float32)])


def test_weights_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pretrained.pt").write_bytes(b"not weights")
    with pytest.raises(ModelLoadError, match="GE2E"):
        Ge2e(tmp_path / "pretrained.pt")
