"""Varied segments: the same speech, as loud, as bright and as noisy as the draws say."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from jobs.vae_variation import VariationConfig, varied
from schemas.errors import ConfigError

RATE = 16_000
MIDDLE = np.full(3, 0.5)


@pytest.fixture(scope="module")
def speech(devset: Path) -> np.ndarray:
    wave, _ = sf.read(
        devset / "audio" / "en_allison_s1.flac", start=16_000, frames=RATE, dtype="float32"
    )
    return wave * np.float32(0.25)


def level_db(wave: np.ndarray) -> float:
    return 10 * float(np.log10(np.square(wave, dtype=np.float64).mean()))


def band_db(wave: np.ndarray, low: float, high: float) -> float:
    power = np.square(np.abs(np.fft.rfft(wave)))
    hertz = np.fft.rfftfreq(len(wave), 1 / RATE)
    return 10 * float(np.log10(power[(hertz >= low) & (hertz < high)].mean()))


def test_nothing_asked_for_changes_nothing(speech: np.ndarray) -> None:
    assert np.array_equal(
        varied(speech, RATE, VariationConfig(), np.array([0.1, 0.9, 0.7])), speech
    )


@pytest.mark.parametrize(("draw", "change"), [(0.0, -6.0), (0.5, 0.0), (0.75, 3.0)])
def test_the_level_follows_its_draw(speech: np.ndarray, draw: float, change: float) -> None:
    found = varied(speech, RATE, VariationConfig(level_db=6.0), np.array([draw, 0.3, 0.3]))
    assert level_db(found) - level_db(speech) == pytest.approx(change, abs=0.01)


def test_a_tilt_makes_highs_louder_and_lows_softer(speech: np.ndarray) -> None:
    found = varied(speech, RATE, VariationConfig(tilt_db=6.0), np.array([0.5, 1.0, 0.5]))
    assert band_db(found, 3900, 4100) - band_db(speech, 3900, 4100) == pytest.approx(4.0, abs=0.1)
    assert band_db(found, 240, 260) - band_db(speech, 240, 260) == pytest.approx(-4.0, abs=0.2)


def test_noise_is_as_loud_as_asked_and_the_same_again(speech: np.ndarray) -> None:
    config = VariationConfig(noise_dbfs=-40.0)
    draws = np.array([0.5, 0.5, 0.8])
    found = varied(speech, RATE, config, draws)
    assert level_db(found - speech) == pytest.approx(-50.0, abs=0.2)
    assert np.array_equal(found, varied(speech, RATE, config, draws))
    assert not np.array_equal(found, varied(speech, RATE, config, np.array([0.5, 0.5, 0.81])))


def test_what_would_be_too_loud_is_full_scale(speech: np.ndarray) -> None:
    found = varied(speech, RATE, VariationConfig(level_db=60.0), np.array([1.0, 0.5, 0.5]))
    assert np.abs(found).max() == pytest.approx(1.0)


@pytest.mark.parametrize("wrong", [{"level_db": -1.0}, {"tilt_db": -1.0}, {"noise_dbfs": 3.0}])
def test_senseless_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        VariationConfig(**wrong)
