"""A checkpoint whose latent channels are of about one size, and which sounds as it did.

    python -m jobs.shipped.even_latent CORPUS --checkpoint CHECKPOINT --out FOLDER

The KL leaves a few channels that speak, whose deviations differ by a factor of twenty, and many that
are next to silent beside their posterior's deviation of 1. Flow matching starts from noise of
deviation 1 and counts an error alike in every channel. So what is below `SILENT` becomes zero, each
other channel is divided by the square root of its deviation (what says more stays larger), and all
by what makes their mean square 1. The encoder's last layer and the decoder's first take the factors
up: both are linear in each channel.
"""

import argparse
import io
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from annotators.registry import checkpoint_folder
from model_core.audio_vae import AudioVAE
from model_core.checkpoint import load_vae
from model_core.vae_training.checkpoint import save_with_audio_vae, weights_of
from pipeline.storage import Corpus
from schemas.arrow import CLIPS

SILENT = 0.25
"""Deviation of a channel that says nothing: such a channel has a posterior of deviation 0.9."""


def main(root: str, checkpoint: str, out: Path) -> None:
    """Write the checkpoint."""
    source = checkpoint_folder(checkpoint)
    vae = load_vae(source)
    before = deviations(vae, root)
    speaks = before > SILENT
    factors = torch.where(speaks, 1 / (before * before[speaks].mean()).sqrt(), 0.0)
    save_with_audio_vae(source, out, evened(weights_of(vae), factors))
    after = deviations(load_vae(out), root)
    for name, found in (("before", before), ("after", after)):
        heard = found[speaks]
        print(f"{name}: {len(heard)} channels of deviation {heard.min():.2f} to {heard.max():.2f}")


def deviations(vae: AudioVAE, root: str) -> Tensor:
    """(D,): of each channel of the latents of a corpus' clips, at the rate of the AudioVAE."""
    latents = []
    clips = Corpus(root).read(CLIPS, ["audio"])
    with torch.inference_mode():
        for audio in clips["audio"]:
            wave, rate = soundfile.read(io.BytesIO(audio), dtype="float32")
            if rate == vae.config.sample_rate:
                latents.append(vae.encode(torch.from_numpy(wave)[None, None])[0])
    return torch.cat(latents, dim=1).std(dim=1)


def evened(weights: dict[str, Tensor], factors: Tensor) -> dict[str, Tensor]:
    """The weights of an AudioVAE whose latent channels are these factors (D,) larger."""
    changed = dict(weights)
    last, variance, first = "encoder.fc_mu", "encoder.fc_logvar.bias", "decoder.model.0.weight_g"
    changed[f"{last}.weight_g"] = weights[f"{last}.weight_g"] * factors[:, None, None]
    changed[f"{last}.bias"] = weights[f"{last}.bias"] * factors
    spoken = factors.where(factors > 0, 1.0)
    changed[variance] = weights[variance] + 2 * spoken.log()
    changed[first] = torch.where(factors[:, None, None] > 0, weights[first] / spoken[:, None, None], 0.0)
    return changed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("corpus")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    main(given.corpus, given.checkpoint, given.out)
