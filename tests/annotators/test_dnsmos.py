"""Windows score as the authors' package scores them; the wider hop changes little."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from annotators.dnsmos import HOP, WINDOW, Dnsmos, windows_of
from annotators.registry import resolve
from schemas.errors import EmptyAudio, ModelLoadError
from schemas.rows import Wave

AUDIO = Path(__file__).parents[1] / "data" / "devset" / "audio"


def read(name: str) -> Wave:
    wave, _ = sf.read(AUDIO / f"{name}.flac", dtype="float32")
    return wave


def reference(wave: Wave) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa's, about a band without bins
        from speechmos import dnsmos

        scores: dict[str, Any] = dnsmos.run(wave, 16_000)
    return scores


@pytest.fixture(scope="module")
def dnsmos() -> Dnsmos:
    return Dnsmos(resolve("dnsmos").path)


@pytest.mark.parametrize("name", ["en_allison_s1", "en_allison_s2__noise5", "fr_armelle_s1"])
def test_a_window_scores_as_in_the_authors_package(dnsmos: Dnsmos, name: str) -> None:
    wave = read(name)[:WINDOW]
    (ours,), theirs = dnsmos.score([wave]), reference(wave)
    assert ours.sig == pytest.approx(theirs["sig_mos"], abs=1e-3)
    assert ours.bak == pytest.approx(theirs["bak_mos"], abs=1e-3)
    assert ours.ovrl == pytest.approx(theirs["ovrl_mos"], abs=1e-3)
    assert ours.p808 == pytest.approx(theirs["p808_mos"], abs=1e-3)


def test_a_short_clip_scores_about_as_in_the_authors_package(dnsmos: Dnsmos) -> None:
    # The package doubles a clip until it is long enough and may then average several windows.
    wave = read("en_allison_s1")[: 5 * 16_000]
    (ours,), theirs = dnsmos.score([wave]), reference(wave)
    assert ours.ovrl == pytest.approx(theirs["ovrl_mos"], abs=0.05)


def test_a_clip_scores_the_same_in_any_company(dnsmos: Dnsmos) -> None:
    waves = [read("en_allison_s1")[:80_000], read("fr_armelle_s1")[: 2 * WINDOW]]
    together = Dnsmos(resolve("dnsmos").path, batch_size=2).score(waves)
    for wave, score in zip(waves, together, strict=True):
        (alone,) = dnsmos.score([wave])
        assert score.ovrl == pytest.approx(alone.ovrl, abs=1e-5)
        assert score.p808 == pytest.approx(alone.p808, abs=1e-5)


def test_noise_costs_background_quality(dnsmos: Dnsmos) -> None:
    clean, noisy = dnsmos.score(
        [read("en_allison_s2")[:WINDOW], read("en_allison_s2__noise5")[:WINDOW]]
    )
    assert noisy.bak < clean.bak - 0.5
    assert noisy.ovrl < clean.ovrl - 0.5


@pytest.mark.parametrize(
    ("samples", "starts"),
    [
        (1, 1),
        (WINDOW, 1),
        (WINDOW + 1, 1),
        (WINDOW + WINDOW // 2, 2),
        (WINDOW + HOP, 2),
        (30 * 16_000, 3),
    ],
)
def test_windows_cover_all_but_a_short_rest(samples: int, starts: int) -> None:
    wave = np.arange(samples, dtype=np.float32)
    windows = windows_of(wave)
    assert len(windows) == starts
    assert all(window.shape == (WINDOW,) for window in windows)
    seen = np.unique(np.concatenate(windows))
    assert samples - seen.size < WINDOW // 2


def test_no_samples_are_an_error_of_the_data(dnsmos: Dnsmos) -> None:
    with pytest.raises(EmptyAudio):
        dnsmos.score([np.zeros(0, np.float32)])


def test_broken_weights_are_an_error_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "sig_bak_ovr.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelLoadError, match="sig_bak_ovr"):
        Dnsmos(tmp_path)
