"""An AudioVAE without the latent channels that say nothing, and which sounds as it did.

    python -m jobs.shipped.narrow_latent CORPUS --checkpoint CHECKPOINT --out FOLDER

The KL leaves a few channels that speak, whose deviations differ by a factor of twenty, and many that
are next to silent beside their posterior's deviation of 1. A language model would learn to predict
noise in those. So they are cut off; each channel that is left is divided by the square root of its
deviation (what says more stays larger), and all by what makes their mean square 1, as flow matching
starts from noise of deviation 1. Encoder and decoder take the factors up: the last layer of one and
the first of the other are linear in each channel. FOLDER has a tokenizer and no language model:
`voxquarry init --vae FOLDER` puts one beside it.
"""

import argparse
import io
import json
from dataclasses import replace
from pathlib import Path

import soundfile
import torch
from rich.console import Console
from torch import Tensor

from annotators.registry import checkpoint_folder
from model_core.audio_vae import AudioVAE
from model_core.checkpoint import VAE_FILES, load_vae, read_config
from model_core.vae_training.checkpoint import save_weights, weights_of
from pipeline.storage import Corpus
from schemas.arrow import CLIPS

SILENT = 0.25
"""Deviation of a channel that says nothing: such a channel has a posterior of deviation 0.9."""


def main(root: str, checkpoint: str, out: Path) -> None:
    """Write the folder."""
    source = checkpoint_folder(checkpoint)
    vae = load_vae(source)
    before = deviations(vae, root)
    live = before > SILENT
    narrow = narrowed(vae, live, 1 / (before * before[live].mean()).sqrt())
    config = read_config(source)
    config = replace(config, feat_dim=narrow.config.latent_dim, audio_vae_config=narrow.config)
    save_weights(out / VAE_FILES[0], weights_of(narrow))
    (out / "config.json").write_text(json.dumps(config.to_dict(), indent=1), encoding="utf-8")
    for name, found in (("before", before[live]), ("after", deviations(narrow, root))):
        Console().print(
            f"{name}: {len(found)} channels of deviation {found.min():.2f} to {found.max():.2f}"
        )


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


def narrowed(vae: AudioVAE, live: Tensor, factors: Tensor) -> AudioVAE:
    """The AudioVAE with the `live` (D,) of its latent channels alone, times their factors (D,)."""
    weights = weights_of(vae)
    scale = factors[live]
    for name in ("encoder.fc_mu", "encoder.fc_logvar"):
        for part in ("weight_g", "weight_v", "bias"):
            weights[f"{name}.{part}"] = weights[f"{name}.{part}"][live]
    weights["encoder.fc_mu.weight_g"] = weights["encoder.fc_mu.weight_g"] * scale[:, None, None]
    weights["encoder.fc_mu.bias"] = weights["encoder.fc_mu.bias"] * scale
    weights["encoder.fc_logvar.bias"] = weights["encoder.fc_logvar.bias"] + 2 * scale.log()
    # The decoder begins with a convolution of each channel alone, and one that mixes them.
    each, mix = "decoder.model.0", "decoder.model.1"
    v, g = weights[f"{mix}.weight_v"], weights[f"{mix}.weight_g"]
    mixing = g * v / v.flatten(1).norm(dim=1)[:, None, None]
    silence = mixing[:, ~live, 0] @ weights[f"{each}.bias"][~live]
    weights[f"{mix}.bias"] = weights[f"{mix}.bias"] + silence
    weights[f"{mix}.weight_v"] = mixing[:, live]
    weights[f"{mix}.weight_g"] = mixing[:, live].flatten(1).norm(dim=1)[:, None, None]
    for part in ("weight_g", "weight_v", "bias"):
        weights[f"{each}.{part}"] = weights[f"{each}.{part}"][live]
    weights[f"{each}.weight_g"] = weights[f"{each}.weight_g"] / scale[:, None, None]
    found = AudioVAE(replace(vae.config, latent_dim=int(live.sum())))
    found.load_state_dict(weights)
    return found.eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("corpus")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    main(given.corpus, given.checkpoint, given.out)
