"""Train the network that hears music below speech.

    pip install onnx onnxscript
    python -m jobs.shipped.separator.detector sources music.onnx

Half of what it hears has music, in a third of that for a part of the time only; the other half is
speech alone, or with noise, an engine or a crowd below it. A frame is music where music plays, down to the quietest in training.
"""

import argparse
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from annotators.music import BANDS, HOP, features
from jobs.shipped.separator.mixing import LEVEL_DBFS, RATE, Mixer, Sources, Wave, at_snr, rms

SECONDS = 8.192
SNR_DB = (-8.0, 22.0)
MUSIC, SPEECHLESS, PARTLY, NOISE = 0.5, 0.1, 0.35, 0.35
CROWDS, ENGINES = 0.35, 0.3
FADE_S = 0.05


class Network(nn.Module):
    """(B, frames, BANDS) -> (B, frames / 8) logits."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        channels = (1, width, 2 * width, 3 * width, 3 * width)
        layers: list[nn.Module] = []
        for at, (before, after) in enumerate(pairwise(channels)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            layers.append(nn.MaxPool2d((2, 2) if at < 3 else (1, 2)))
        self.body = nn.Sequential(nn.BatchNorm2d(1), *layers)
        inner = channels[-1] * BANDS // 16
        self.head = nn.Sequential(
            nn.Conv1d(inner, 64, 1), nn.ReLU(), nn.Conv1d(64, 64, 9, padding=4), nn.ReLU(),
            nn.Dropout(0.2), nn.Conv1d(64, 1, 9, padding=4),
        )  # fmt: skip

    def forward(self, heard: Tensor) -> Tensor:
        """Where music is."""
        body = self.body(heard[:, None])  # (B, C, frames / 8, BANDS / 16)
        found: Tensor = self.head(body.transpose(1, 2).flatten(2).transpose(1, 2))
        return found[:, 0]


def example(mixer: Mixer) -> tuple[Wave, Wave]:
    """A mixture (N,), and (N,) where music plays."""
    rng, size = mixer.rng, mixer.size
    speech = mixer.speech()
    if rng.random() < SPEECHLESS:
        speech *= 1e-3
    where = np.zeros(size, np.float32)
    background = np.zeros(size, np.float32)
    if rng.random() < MUSIC:
        begin, end = 0, size
        if rng.random() < PARTLY:
            begin, end = sorted(int(x) for x in rng.integers(0, size, 2))
        where[begin:end] = 1
        fade = int(FADE_S * RATE)
        gate = np.convolve(where, np.full(fade, 1 / fade, np.float32), "same")
        music = at_snr(speech, mixer.coloured(mixer.music()), rng.uniform(*SNR_DB))
        background += music * gate
    if rng.random() < NOISE:
        background += at_snr(speech, noise(mixer), rng.uniform(0, 40))
    mixed = speech + background
    gain = 10 ** (rng.uniform(*LEVEL_DBFS) / 20) / max(rms(mixed), 1e-6)
    return np.clip(mixed * gain, -1, 1).astype(np.float32), where


def noise(mixer: Mixer) -> Wave:
    """What is below speech and is no music: noise, a crowd, or an engine."""
    rng, kind = mixer.rng, mixer.rng.random()
    if kind < CROWDS:
        voices = [mixer.speech() for _ in range(rng.integers(3, 8))]
        return np.asarray(np.sum(voices, axis=0), np.float32)
    wave = mixer.noise()
    if kind < CROWDS + ENGINES:
        turns = rng.uniform(4, 40) * np.arange(wave.size) / RATE
        wave *= (1 - rng.uniform(0.5, 1.0) * (turns % 1)) ** rng.uniform(1, 6)
    return wave.astype(np.float32)


def batch_of(mixer: Mixer, size: int) -> tuple[Tensor, Tensor]:
    """(B, frames, BANDS) and (B, frames / 8)."""
    pairs = [example(mixer) for _ in range(size)]
    heard = torch.from_numpy(np.stack([features(wave) for wave, _ in pairs]))
    where = np.stack([where for _, where in pairs])
    frames = where[:, : where.shape[1] // (8 * HOP) * 8 * HOP]
    return heard, torch.from_numpy(frames.reshape(size, -1, 8 * HOP).mean(-1))


def main() -> None:
    """Train and write the network in ONNX."""
    parser = argparse.ArgumentParser(prog="detector", description=__doc__.split("\n")[0])
    parser.add_argument("sources", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, options.steps)
    mixer = Mixer(Sources.read(options.sources, "train"), SECONDS, np.random.default_rng(0))
    console = Console()
    began, losses = time.perf_counter(), []
    for step in range(1, options.steps + 1):
        heard, where = batch_of(mixer, options.batch)
        loss = F.binary_cross_entropy_with_logits(network(heard), where)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % 50 == 0:
            pace = (time.perf_counter() - began) / step
            console.print(f"{step} {np.mean(losses[-50:]):.4f} {pace:.2f} s a step")
    network.eval()
    torch.onnx.export(
        network, (torch.zeros(1, 64, BANDS),), options.out, dynamo=False, opset_version=17,
        input_names=["features"], output_names=["music"], dynamic_axes={"features": {1: "frames"}, "music": {1: "frames"}},
    )  # fmt: skip


if __name__ == "__main__":
    main()
