"""Our training step beside the official package's, and our reader alone, in one run.

Same random weights at the 0.5B shape, same clips a step, with the lengths of real ones. The package
encodes audio as it trains and pads a batch to its longest clip; ours reads latents and packs. The
exit code says whether ours ran, never how fast.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from model_core.training.order import OrderConfig, packs_of
from tests.benchmarks.bench_curate import machine
from tests.benchmarks.latent_corpus import frames_per_second
from tests.benchmarks.peer_voxcpm import prepare
from tests.benchmarks.peers import PeerUnavailable, own_environment, run_program
from tests.benchmarks.random_checkpoint import Shape, write_random_checkpoint
from tests.benchmarks.results import QUIET_CORES, Bar
from tests.benchmarks.systems import CORES, ROOT, busy_cores

LENGTHS = Path(__file__).with_name("clip_lengths.json")
CHARACTERS_PER_TOKEN = 4
PEER_SCRIPT = Path(__file__).with_name("peer_train_run.py")
FASTER = {"cpu": 2.5, "cuda": 3.0}
MFU = 0.35
MOST_PADDING, FEWEST_FRAMES = 0.05, 20_000


@dataclass(frozen=True, slots=True)
class Side:
    """What one side took over all its steps."""

    seconds: float
    targets: int
    positions: int
    rows: int
    """Positions computed, padding included."""
    peak_gib: float
    parts_s: dict[str, float]
    mfu: float | None
    """Share of the arithmetic that the device could do; None for the package."""

    @classmethod
    def of(cls, found: dict[str, Any]) -> "Side":
        """From what a run printed."""
        steps, fastest = found["steps"], found.get("peak_flops")

        def total(name: str) -> Any:
            return sum(step[name] for step in steps)

        parts = {
            name: total(name) for name in ("pack_s", "model_s", "optimizer_s") if name in steps[0]
        }
        return cls(
            total("seconds"),
            total("targets"),
            total("positions"),
            total("rows"),
            found["peak_gib"],
            parts,
            total("flops") / total("seconds") / fastest if fastest else None,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 1 when our own side failed."""
    options = _options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    facts = machine()
    where = torch.cuda.get_device_name() if options.device == "cuda" else facts["cpu"]
    console.print(f"[bold]Machine[/bold]  {where}, {CORES} cores, {facts['date']}, bfloat16")
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"machine": facts, "device": where}
    frames = frames_per_second()
    padding = padding_share()
    console.print(f"Reader alone, one core: {frames:,.0f} latent frames per second")
    console.print(f"Packs of 4096 positions, 20,000 clips of real lengths: {padding:.2%} left free")
    found |= {"reader_frames_per_s": frames, "padding": padding}

    shape: Shape = "0.5B"
    folder = options.out / f"checkpoint-{shape}"
    if not (folder / "config.json").is_file():
        console.print(f"… random weights of {shape}")
        write_random_checkpoint(folder, shape)
    batches = batches_of(options.batch, options.steps)
    listed = options.out / "batches.json"
    listed.write_text(json.dumps(batches))
    busy = busy_cores()
    console.print("… voxquarry")
    ours = measure_ours(folder, listed, options)
    console.print("… the official package")
    peer = None
    try:
        peer = measure_peer(folder, listed, options)
    except PeerUnavailable as error:
        console.print(f"The official package gave no figures: {error}", markup=False)
    show(console, ours, peer, options)
    clean = busy <= QUIET_CORES
    for bar in bars(ours, peer, frames, padding, options.device, clean=clean):
        console.print(str(bar), markup=False)
    found |= {
        "ours": asdict(ours),
        "peer": None if peer is None else asdict(peer),
        "busy_cores_before": busy,
    }
    (options.out / "train.json").write_text(json.dumps(found, indent=1))
    return 0


def batches_of(size: int, number: int) -> list[list[list[float]]]:
    """Clips of real lengths in random order: [text tokens, seconds] each."""
    clips = json.loads(LENGTHS.read_text())["clips"]
    picked = [clip for _ in range(9) for clip in random.Random(0).sample(clips, len(clips))]
    return [
        [
            [max(1, characters // CHARACTERS_PER_TOKEN), seconds]
            for characters, seconds in picked[i * size : (i + 1) * size]
        ]
        for i in range(number)
    ]


def padding_share() -> float:
    """Of packs of an epoch's clips: what no sample fills."""
    clips = json.loads(LENGTHS.read_text())["clips"]
    drawn = random.Random(1).choices(clips, k=20_000)
    positions = np.array([c // CHARACTERS_PER_TOKEN + -(-round(s * 25) // 2) + 2 for c, s in drawn])
    blocks = [positions[i : i + 4096] for i in range(0, len(positions), 4096)]
    config = OrderConfig(pack_positions=4096)
    num_packs = sum(len(packs_of(block, config, i)) for i, block in enumerate(blocks))
    return float(1 - positions.sum() / (num_packs * 4096))


def measure_ours(folder: Path, batches: Path, options: argparse.Namespace) -> Side:
    """In a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.train_run", str(folder), str(batches)]
    command += [f"--device={options.device}", f"--threads={CORES}"]
    command += ["--compile"] if options.device == "cuda" else []
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return Side.of(json.loads(done.stdout.splitlines()[-1]))


def measure_peer(folder: Path, batches: Path, options: argparse.Namespace) -> Side:
    """In its own environment. Raises PeerUnavailable."""
    environment = ROOT / ".venv-voxcpm"
    prepare(environment)
    command = [str(environment / "bin" / "python"), "-P", str(PEER_SCRIPT), str(folder)]
    command += [f"--batches={batches}", f"--device={options.device}", f"--threads={CORES}"]
    plain = {k: v for k, v in own_environment().items() if not k.endswith("_NUM_THREADS")}
    output = run_program(
        command,
        options.out / "voxcpm-train.log",
        PEER_SCRIPT.name,
        plain | {"HF_HUB_OFFLINE": "1"},
    )
    return Side.of(json.loads(output.strip().splitlines()[-1]))


def show(console: Console, ours: Side, peer: Side | None, options: argparse.Namespace) -> None:
    """Both sides, a row each."""
    table = Table(
        title=f"0.5B: {options.steps} steps of {options.batch} clips", title_justify="left"
    )
    table.add_column("")
    for name in ("s a step", "targets/s", "positions/s", "padding", "peak GiB", "MFU"):
        table.add_column(name, justify="right")
    for name, side in (("official", peer), ("voxquarry", ours)):
        if side is None:
            continue
        table.add_row(
            name,
            f"{side.seconds / options.steps:.2f}",
            f"{side.targets / side.seconds:.1f}",
            f"{side.positions / side.seconds:.1f}",
            f"{1 - side.positions / side.rows:.0%}",
            f"{side.peak_gib:.1f}",
            "–" if side.mfu is None else f"{side.mfu:.0%}",
        )
    console.print(table)
    if peer is not None:
        parts = ", ".join(
            f"{name.removesuffix('_s')} {seconds / options.steps:.2f} s"
            for name, seconds in peer.parts_s.items()
        )
        console.print(f"Official step: {parts} (pack encodes the audio)")


def bars(
    ours: Side, peer: Side | None, frames: float, padding: float, device: str, *, clean: bool
) -> list[Bar]:
    """What training is held to."""
    speed = ours.targets / ours.seconds
    faster = None if peer is None else speed / (peer.targets / peer.seconds)
    encoded = (
        None if peer is None else speed / (peer.targets / (peer.seconds - peer.parts_s["pack_s"]))
    )
    gpu = [Bar(name="MFU", value=ours.mfu, bound=MFU, at_least=True, is_clean=clean)]
    return [
        *(gpu if device == "cuda" else []),
        Bar(
            name="useful target patches per second, × official",
            value=faster,
            bound=FASTER[device],
            at_least=True,
            is_clean=clean,
        ),
        Bar(
            name="… beside an official step without its encoding of audio",
            value=encoded,
            bound=1.0,
            at_least=True,
            is_clean=clean,
        ),
        Bar(name="padding", value=padding, bound=MOST_PADDING, at_least=False, is_clean=clean),
        Bar(
            name="latent frames read per second on a core",
            value=frames,
            bound=FEWEST_FRAMES,
            at_least=True,
            is_clean=clean,
        ),
    ]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_train", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batch", type=int, default=4, help="clips of a step")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out" / "train")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
