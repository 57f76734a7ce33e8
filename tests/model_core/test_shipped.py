"""The checkpoint that ships: small, documented, trained, and it speaks with a voice of its own."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from annotators.ge2e import Ge2e
from annotators.registry import checkpoint_folder, resolve
from model_core.checkpoint import load_checkpoint, load_vae, read_config
from model_core.fresh import fresh_vae
from model_core.synthesis import Recording, SpeechRequest, Synthesizer
from model_core.vae_training.settings import MelConfig
from model_core.vae_training.spectra import MelDistance

MOST_BYTES = 60e6
RATE = 16_000


@pytest.fixture(scope="module")
def speech(devset: Path) -> torch.Tensor:
    """Eight seconds of the voice that the checkpoint knows, as another microphone heard it."""
    wave, rate = sf.read(devset / "audio" / "en_allison_s2.flac", frames=8 * RATE, dtype="float32")
    assert rate == RATE
    return torch.from_numpy(wave)


def test_it_is_found_by_its_name_and_small_enough_to_ship() -> None:
    folder = checkpoint_folder("nano")
    files = [file for file in folder.parent.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < MOST_BYTES
    told = (folder / "README.md").read_text(encoding="utf-8")
    for word in (
        "hours",
        "steps",
        "CC BY-SA 3.0",
        "Allison Smith",
        "CER",
        "cosine",
        "mel distance",
    ):
        assert word in told, word


def test_it_gives_speech_back_as_no_random_one_does(speech: torch.Tensor) -> None:
    folder = checkpoint_folder("nano")
    distance = MelDistance(MelConfig(), RATE)
    found = []
    for vae in (load_vae(folder), fresh_vae(read_config(folder), seed=0)):
        with torch.inference_mode():
            back = vae.decode(vae.encode(speech[None, None]))[:, 0]
            found.append(float(distance(back, speech[None])))
    assert found[0] < 0.5 * found[1]


def test_it_speaks_with_its_voice_and_comes_to_an_end(speech: torch.Tensor) -> None:
    speaker = Synthesizer(load_checkpoint(checkpoint_folder("nano")))
    texts = ("Please enter your password.", "Press one for the directory.", "The number is busy.")
    voice = Recording(speech[: 3 * RATE], RATE)
    requests = (SpeechRequest(text=text, reference=voice, seed=0) for text in texts)
    spoken = [made for _, made in speaker.speak(requests)]
    assert all(made.stopped for made in spoken)
    # Fifteen characters take about a second.
    assert all(0.3 < len(made.wave) / RATE < 5 for made in spoken)
    voices = Ge2e(resolve("ge2e").path).embed(
        [speech.numpy(), *(np.asarray(made.wave, np.float32) for made in spoken)]
    )
    ours = [float(voices[0].embedding @ voice.embedding) for voice in voices[1:]]
    assert np.mean(ours) > 0.5, ours
