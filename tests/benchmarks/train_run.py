"""Time our training step; a process of its own, so that neither side has the other's memory.

    python -m tests.benchmarks.train_run CHECKPOINT batches.json [--device cpu] [--threads 2]

Each batch of batches.json, clips as [text tokens, seconds of audio], is one pack and one step: the
same samples a step as the peer's. The last line of the output is JSON.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from model_core.checkpoint import load_checkpoint
from model_core.sequences import training_sequence
from model_core.training.config import OptimizerConfig, TrainerConfig
from model_core.training.flops import peak_flops, training_flops
from model_core.training.packs import START, Pack, Position, packed_up
from model_core.training.trainer import Step, train

FRAMES_PER_S = 25


class Enough(Exception):
    """All steps are timed; the checkpoint that would follow is not wanted."""


@dataclass
class Batches:
    """A stream that gives one pack a batch, over and over."""

    packs_of_batches: list[Pack]

    def packs(self, start: Position = START) -> Iterator[Pack]:
        """Without end."""
        while True:
            yield from self.packs_of_batches

    def validation(self) -> Sequence[Pack]:
        """None."""
        return ()


def pack_of(clips: Sequence[tuple[int, float]], patch_size: int, channels: int) -> Pack:
    """Clips with random text and latents."""
    rows = []
    for num_tokens, seconds in clips:
        patches = -(-round(seconds * FRAMES_PER_S) // patch_size)
        rows.append(
            training_sequence(
                torch.randint(110, 600, (num_tokens,)), torch.randn(patches, patch_size, channels)
            )
        )
    return packed_up(rows, [str(i) for i in range(len(rows))], ["text"] * len(rows))


def main() -> None:
    """Print the figures."""
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    opened = load_checkpoint(options.checkpoint, device=options.device, dtype=torch.float32)
    config = opened.model.config
    batches = json.loads(options.batches.read_text())
    packs = [pack_of(clips, config.patch_size, config.feat_dim) for clips in batches]
    packs = [packs[0], *packs]  # the first step makes the optimizer's state
    cuda = options.device == "cuda"
    ends: list[float] = []

    def told(step: Step) -> None:
        if cuda:
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
        if len(ends) == len(packs):
            raise Enough

    trainer = TrainerConfig(
        steps=len(packs) + 1,
        optimizer=OptimizerConfig(lr=1e-5),
        compile=options.compile,
        log_every=10**9,
        save_every=10**9,
        validate_every=10**9,
    )
    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        train(
            opened.model,
            opened.vae,
            options.checkpoint,
            Batches(packs),
            trainer,
            Path(folder) / "run",
            progress=told,
        )
    steps = [
        {
            "seconds": end - start,
            "targets": int(pack.is_target.sum()),
            "positions": len(pack),
            "rows": len(pack),
            "flops": training_flops(config, pack),
        }
        for (start, end), pack in zip(pairwise(ends), packs[1:], strict=True)
    ]
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = torch.cuda.max_memory_allocated() if cuda else 1024 * kib
    fastest = peak_flops(torch.device(options.device), torch.bfloat16)
    print(json.dumps({"steps": steps, "peak_gib": peak / 2**30, "peak_flops": fastest}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train_run", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("batches", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
