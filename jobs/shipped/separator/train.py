"""Train a small Hybrid Demucs that parts speech from what is below it.

    python -m jobs.shipped.separator.train sources separator --steps 6000

`sources` is what jobs.shipped.separator.sources wrote. `separator` receives `small_speech.yaml` and a
safetensors file, as the demucs package lays out its models. A second call goes on where the first stopped;
a folder with nothing but these two is a start, as annotators/shipped/small_speech is for a longer training.
Under `torchrun --nproc-per-node N -m jobs.shipped.separator.train` N processes have a batch each: on a CPU
two of one thread get through more mixtures than one of two. `--words` adds what a recogniser hears to the
loss (jobs.shipped.separator.hearing), once the waves are near: it costs half as much again.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import yaml
from demucs.hdemucs import HDemucs
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from annotators.registry import resolve
from jobs.shipped.separator.hearing import Hearing
from jobs.shipped.separator.mixing import RATE, Mixer, Sources

NAME = "small_speech"
MODEL = {
    "sources": ["speech", "background"],
    "audio_channels": 1,
    "samplerate": RATE,
    "segment": 8,
    "hybrid": False,
    "cac": False,
    "wiener_iters": -1,
    "end_iters": -1,
    "nfft": 1024,
    "kernel_size": 32,
    "stride": 16,
    "depth": 2,
    "channels": 96,
    "context": 0,
    "norm_starts": 1,
    "dconv_init": 0.1,
    "dconv_lstm": 1,
    "dconv_attn": 2,
}
"""1.7 million weights; of one core 0.04 s for a second of audio.

Magnitudes with the phase of the mixture (`cac`, negative `wiener_iters`). They fall into 32 bands at once
and then into one vector a frame, over which the LSTM goes. On a CPU, where thousands of steps are all
there are, this learns more in 200 of them than the package's own four-fold strides and complex spectra in
3,000; a residual branch that counts from the first step (`dconv_init`) is part of it.
"""
WINDOWS = (256, 1024)
FLOOR = 1e-3
"""Errors 30 dB below the mixture count as none."""


def loss_of(parted: Tensor, wanted: Tensor) -> Tensor:
    """Mean over (B, sources, 1, T): error in dB of the mixture, and distance of spectra.

    The error is measured against the mixture and not against the source, so that a source that is
    silent has a loss as well (arXiv 2006.12701, equation 2).
    """
    mixture = wanted.sum(1, keepdim=True)
    scale = mixture.square().sum(-1)
    error = (parted - wanted).square().sum(-1)
    in_db = 10 * torch.log10((error + FLOOR * scale) / scale)
    total = in_db.mean()
    for size in WINDOWS:
        window = torch.hann_window(size)
        ours, theirs, both = (
            torch.stft(x.flatten(0, -2), size, size // 4, window=window, return_complex=True).abs()
            for x in (parted, wanted, mixture)
        )
        distance = (ours - theirs).abs().mean((1, 2)).view(-1, wanted.shape[1])
        total = total + 10 * (distance / both.mean((1, 2))[:, None]).mean()
    return total


def rate_at(step: int, steps: int, peak: float) -> float:
    """Learning rate: rises for 100 steps, then falls along a cosine."""
    return (
        peak
        * min(1, (step + 1) / 100)
        * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
    )


def main() -> None:
    """Train, save every 200 steps and at the end."""
    parser = argparse.ArgumentParser(prog="train", description=__doc__.split("\n")[0])
    parser.add_argument("sources", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a mixture")
    parser.add_argument("--rate", type=float, default=4e-3, help="learning rate, at its peak")
    parser.add_argument("--words", type=float, default=0.0, help="weight of what tiny.en hears")
    parser.add_argument("--threads", type=int, default=2, help="of a process")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    options.out.mkdir(parents=True, exist_ok=True)
    if launched := dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    rank = dist.get_rank() if launched else 0
    model = HDemucs(**MODEL).train()
    weights = options.out / f"{NAME}.safetensors"
    if weights.exists():
        model.load_state_dict(load_file(weights))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998))  # type: ignore[no-untyped-call]
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate)
    state, step = options.out / "training.pt", 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    draws = np.random.default_rng((step, rank))
    mixer = Mixer(Sources.read(options.sources, "train"), options.seconds, draws)
    network: nn.Module = DistributedDataParallel(model) if launched else model
    hearing = Hearing(resolve("tiny.en").path, mixer.size) if options.words else None
    console = Console(quiet=rank > 0)
    began, seen = time.perf_counter(), []
    while step < options.steps:
        drawn = [mixer.draw()[:2] for _ in range(options.batch)]
        wanted = torch.from_numpy(np.array(drawn))[:, :, None]
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, options.steps, options.rate)
        parted = network(wanted.sum(1))
        loss = loss_of(parted, wanted)
        if hearing is not None:
            loss = loss + options.words * hearing(parted[:, 0, 0], wanted[:, 0, 0])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        if torch.isfinite(norm):
            optimizer.step()
        average.update_parameters(model)
        step += 1
        seen.append(float(loss.detach()))
        if step % 50 == 0:
            pace = (time.perf_counter() - began) / len(seen)
            console.print(f"{step} {np.mean(seen):.3f} {pace:.2f} s a step")
        if rank == 0 and (step % 200 == 0 or step == options.steps):
            keep = {"model": model, "average": average, "optimizer": optimizer}
            part = state.with_suffix(".part")
            torch.save({**{k: v.state_dict() for k, v in keep.items()}, "step": step}, part)
            part.replace(state)
            write(average.module, options.out)
            began, seen = time.perf_counter(), []
    if launched:
        dist.destroy_process_group()


def write(model: nn.Module, out: Path) -> None:
    """Weights and settings, as demucs.hf reads them."""
    metadata = {
        "klass": "demucs.hdemucs.HDemucs",
        "args": "[]",
        "kwargs": json.dumps(MODEL),
    }
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, out / f"{NAME}.safetensors", metadata)
    (out / f"{NAME}.yaml").write_text(yaml.safe_dump({"models": [NAME]}))


if __name__ == "__main__":
    main()
