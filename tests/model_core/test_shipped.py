"""The AudioVAE that ships: small, documented, and trained."""

from pathlib import Path

import soundfile as sf
import torch

from annotators.registry import checkpoint_folder
from model_core.checkpoint import load_vae, read_config
from model_core.fresh import fresh_vae
from model_core.vae_training.settings import MelConfig
from model_core.vae_training.spectra import MelDistance

MOST_BYTES = 60e6
RATE = 16_000


def test_it_is_found_by_its_name_and_small_enough_to_ship() -> None:
    folder = checkpoint_folder("nano")
    files = [file for file in folder.parent.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < MOST_BYTES
    told = (folder / "AUDIOVAE.md").read_text(encoding="utf-8")
    for word in ("hours", "steps", "CC BY-SA 3.0", "Allison Smith", "CER"):
        assert word in told, word


def test_it_gives_speech_back_as_no_random_one_does(devset: Path) -> None:
    folder = checkpoint_folder("nano")
    wave, rate = sf.read(devset / "audio" / "en_allison_s2.flac", frames=8 * RATE, dtype="float32")
    assert rate == RATE
    speech = torch.from_numpy(wave)[None]
    distance = MelDistance(MelConfig(), RATE)
    found = []
    for vae in (load_vae(folder), fresh_vae(read_config(folder), seed=0)):
        with torch.inference_mode():
            found.append(float(distance(vae.decode(vae.encode(speech[:, None]))[:, 0], speech)))
    assert found[0] < 0.6 * found[1]
