"""What the separator's training takes for hearing is what the recogniser's own runtime makes of sound."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from faster_whisper import WhisperModel

from annotators.registry import resolve
from jobs.shipped.separator.hearing import Hearing
from jobs.shipped.separator.mixing import RATE

AUDIO = Path(__file__).parents[1] / "data" / "devset" / "audio"
CLIP_S = 3


def speech_of(name: str, seconds: int) -> np.ndarray:
    wave, _ = sf.read(AUDIO / f"{name}.flac", dtype="float32", start=RATE, frames=seconds * RATE)
    return wave


@pytest.fixture(scope="module")
def hearing() -> Hearing:
    return Hearing(resolve("tiny.en").path, CLIP_S * RATE)


def test_it_hears_what_the_recogniser_hears() -> None:
    place, wave = resolve("tiny.en").path, speech_of("en_allison_s1", 30)
    model = WhisperModel(str(place), compute_type="float32")
    theirs = np.array(model.encode(model.feature_extractor(wave)[:, :3000]))
    ours = Hearing(place, wave.size).features(torch.from_numpy(wave)[None])[-1].numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).mean() < 0.005 * np.abs(theirs).mean()


def test_music_is_far_and_less_of_it_is_nearer(hearing: Hearing) -> None:
    clean = torch.from_numpy(speech_of("en_allison_s1", CLIP_S))[None]
    mixed = torch.from_numpy(speech_of("en_allison_s1__music5", CLIP_S))[None]
    distances = [
        float(hearing(clean + share * (mixed - clean), clean)) for share in (0.0, 0.1, 0.3, 1.0)
    ]
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert 0.3 < distances[-1] < 1


def test_where_nobody_speaks_nothing_is_asked(hearing: Hearing) -> None:
    speech = torch.zeros(2, CLIP_S * RATE)
    speech[1] = torch.from_numpy(speech_of("en_allison_s1", CLIP_S))
    said = (0.01 * torch.randn(speech.shape)).requires_grad_()
    hearing(said, speech).backward()
    assert said.grad is not None
    assert not said.grad[0].any()
    assert said.grad[1].abs().max() > 0
    assert hearing(said, torch.zeros_like(speech)).item() == 0
