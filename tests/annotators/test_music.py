"""Music is heard below real speech, and not where there is none."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from annotators.music import FRAME_S, Music, features
from annotators.registry import resolve
from schemas.errors import ModelLoadError

AUDIO = Path(__file__).parents[1] / "data" / "devset" / "audio"


@pytest.fixture(scope="module")
def detector() -> Music:
    return Music(resolve("music").path)


def read(name: str) -> np.ndarray:
    wave, _ = sf.read(AUDIO / f"{name}.flac", dtype="float32")
    return wave


@pytest.mark.parametrize("name", ["en_allison_s1", "es_allison_s1", "fr_june_s1", "fr_armelle_s1"])
def test_speech_alone_is_no_music(detector: Music, name: str) -> None:
    probs = detector.probs(read(name))
    assert len(probs) == -(-read(name).size // round(FRAME_S * 16_000))
    assert (probs >= 0.5).mean() < 0.03


def test_a_track_below_speech_is_heard_in_its_place(detector: Music) -> None:
    clean, mixed = read("en_allison_s1"), read("en_allison_s1__music5")
    assert (detector.probs(mixed) >= 0.5).mean() > 0.7
    music = mixed - clean * float(clean @ mixed / (clean @ clean))
    middle = slice(clean.size // 3, 2 * clean.size // 3)
    wave = clean.copy()
    wave[middle] += music[middle]
    probs = detector.probs(wave)
    third = len(probs) // 3
    assert (probs[third + 4 : 2 * third - 4] >= 0.5).mean() > 0.7
    assert (probs[: third - 8] >= 0.5).mean() < 0.05
    assert (probs[2 * third + 8 :] >= 0.5).mean() < 0.05


@pytest.mark.parametrize("level", [0.05, 0.3, 1.5])
def test_loudness_says_nothing(detector: Music, level: float) -> None:
    assert (detector.probs(read("fr_june_s1") * level) >= 0.5).mean() < 0.05
    assert (detector.probs(read("en_allison_s1__music5") * level) >= 0.5).mean() > 0.6


@pytest.mark.parametrize("size", [0, 1, 511, 4096, 4097, 100_000])
def test_every_length_has_its_frames(detector: Music, size: int) -> None:
    wave = np.zeros(size, np.float32)
    probs = detector.probs(wave)
    assert probs.shape == (-(-size // 4096),)
    assert ((probs >= 0) & (probs <= 1)).all()
    assert (probs < 0.5).all(), "silence is no music"
    assert len(features(wave)) == 8 * len(probs)


def test_another_network_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="not a music detector"):
        Music(resolve("silero").path)
