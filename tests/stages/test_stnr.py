"""The distance of speech from its noise, before anything tells one from the other."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from annotators.music import FRAME_S
from stages.stnr import stnr_db

AUDIO = Path(__file__).parents[1] / "data" / "devset" / "audio"
RATE = 16_000


def test_it_falls_with_the_noise_and_clean_speech_is_far_above() -> None:
    wave, rate = sf.read(AUDIO / "en_allison_s2.flac", dtype="float32")
    assert rate == RATE
    assert np.percentile(stnr_db(wave), 5) > 30
    noise = np.random.default_rng(0).standard_normal(wave.size).astype(np.float32)
    noise *= np.sqrt(np.mean(wave**2))
    medians = [float(np.median(stnr_db(wave + noise * 10 ** (-x / 20)))) for x in (5, 10, 15, 20)]
    assert medians == sorted(medians)
    assert medians[1] == pytest.approx(16, abs=2)


def test_it_is_of_the_ten_seconds_around_and_knows_no_level() -> None:
    rng = np.random.default_rng(0)
    gate = (np.arange(60 * RATE) // (RATE // 4)) % 2
    hum = rng.standard_normal(gate.size)
    wave = (
        hum * np.where(gate, 1.0, np.where(np.arange(gate.size) < gate.size / 2, 0.1, 0.01))
    ).astype(np.float32)
    found = stnr_db(wave)
    assert found.shape == (round(np.ceil(60 / FRAME_S)),)
    assert found[: int(24 / FRAME_S)] == pytest.approx(20, abs=1)
    assert found[int(36 / FRAME_S) :] == pytest.approx(40, abs=1)
    np.testing.assert_allclose(stnr_db(wave / 8), found, atol=0.01)


@pytest.mark.parametrize("samples", [0, 1, 511, 512, 4095, 4097, 16_000])
def test_however_short_it_has_a_value_for_each_frame(samples: int) -> None:
    found = stnr_db(np.zeros(samples, np.float32))
    assert found.shape == (-(-samples // 4096),)
    assert (found == 0).all()
