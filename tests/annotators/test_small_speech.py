"""The separator that ships, on a voice and tracks that its training never heard."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio as si_sdr

from annotators.demucs import Separator
from annotators.registry import resolve

AUDIO = Path(__file__).parents[1] / "data" / "devset" / "audio"


def read(name: str) -> np.ndarray:
    wave, rate = sf.read(AUDIO / f"{name}.flac", dtype="float32", frames=30 * 16_000)
    assert rate == 16_000
    return wave


def distance_db(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(si_sdr(torch.from_numpy(ours), torch.from_numpy(theirs)))


@pytest.fixture(scope="module")
def separator() -> Separator:
    return Separator(resolve("small-speech").path)


def test_music_below_speech_is_taken_away(separator: Separator) -> None:
    mixed, clean = read("en_allison_s1__music5"), read("en_allison_s1")
    said = separator.speech(mixed[:, None])[:, 0]
    assert distance_db(said, clean) > distance_db(mixed, clean) + 5


@pytest.mark.parametrize("name", ["en_allison_s1", "es_allison_s1"])
def test_clean_speech_stays_as_it_is(separator: Separator, name: str) -> None:
    clean = read(name)
    assert distance_db(separator.speech(clean[:, None])[:, 0], clean) > 20


def test_of_music_alone_little_is_left(separator: Separator) -> None:
    music = read("en_allison_s1__music5") - read("en_allison_s1")
    said = separator.speech(music[:, None])[:, 0]
    assert 10 * np.log10(np.mean(np.square(said)) / np.mean(np.square(music))) < -10


def test_silence_stays_silent(separator: Separator) -> None:
    silence = np.zeros((16_000 * 9, 1), np.float32)
    assert np.abs(separator.speech(silence)).max() < 1e-4
