"""Our model core beside the official voxcpm package, on the same random weights in one run.

For each shape: our figures in a process of their own, then the package's in its environment, then
the table, where the time goes, and the bars. The exit code says whether ours ran, never how fast.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks.bench_curate import machine
from tests.benchmarks.core_run import PARTS, CoreFigures
from tests.benchmarks.peer_voxcpm import TEXT, PeerFigures, PeerSettings
from tests.benchmarks.peer_voxcpm import measure as measure_peer
from tests.benchmarks.peers import PeerUnavailable
from tests.benchmarks.random_checkpoint import Shape, write_random_checkpoint
from tests.benchmarks.results import QUIET_CORES, Bar
from tests.benchmarks.systems import CORES, ROOT, busy_cores

SHAPES: tuple[Shape, ...] = ("0.5B", "2B")
BARRED: Shape = "2B"
BATCHES = {"cpu": (1, 16), "cuda": (1, 16, 64, 256)}
VAE_CALLS = {
    "encode_10s": "AudioVAE encode, 10 s",
    "encode_3s": "AudioVAE encode, 3 s",
    "decode_250_frames": "AudioVAE decode, 10 s",
    "decode_stream_patch": "AudioVAE decode, streamed patch",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 1 when our own side failed."""
    options = _options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    facts = machine()
    where = torch.cuda.get_device_name() if options.device == "cuda" else facts["cpu"]
    console.print(f"[bold]Machine[/bold]  {where}, {CORES} cores, {facts['date']}, bfloat16")
    found: dict[str, object] = {"machine": facts, "device": where}
    options.out.mkdir(parents=True, exist_ok=True)
    for shape in options.shapes:
        folder = options.out / f"checkpoint-{shape}"
        if not (folder / "config.json").is_file():
            console.print(f"… random weights of {shape}")
            write_random_checkpoint(folder, shape)
        busy = busy_cores()
        console.print(f"… voxquarry, {shape}")
        ours = measure_ours(folder, options)
        console.print(f"… the official package, {shape}")
        peer = None
        try:
            settings = PeerSettings(
                device=options.device, threads=CORES, num_patches=options.patches
            )
            peer = measure_peer(folder, ROOT / ".venv-voxcpm", options.out, settings)
        except PeerUnavailable as error:
            console.print(f"The official package gave no figures: {error}", markup=False)
        show(console, shape, ours, peer)
        clean = busy <= QUIET_CORES and (peer is None or peer.busy_beside <= QUIET_CORES)
        for bar in bars(ours, peer, clean=clean) if shape == BARRED else ():
            console.print(str(bar), markup=False)
        found[shape] = {
            "ours": asdict(ours),
            "peer": None if peer is None else asdict(peer),
            "busy_cores_before": busy,
        }
        (options.out / "core.json").write_text(json.dumps(found, indent=1))
    return 0


def measure_ours(folder: Path, options: argparse.Namespace) -> CoreFigures:
    """In a fresh process, so that neither side has the other's memory or threads."""
    batches = ",".join(str(n) for n in BATCHES[options.device])
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.core_run",
        str(folder),
        TEXT,
        str(CORES),
        options.device,
        batches,
        str(options.patches),
        "3",
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    raw = json.loads(done.stdout.splitlines()[-1])
    for name in ("step_s", "parts_s", "floor_s"):
        raw[name] = {int(batch): value for batch, value in raw[name].items()}
    return CoreFigures(**raw)


def show(console: Console, shape: str, ours: CoreFigures, peer: PeerFigures | None) -> None:
    """Two tables: beside the package, and where our time goes."""
    table = Table(title=f"{shape}: seconds, and how much faster", title_justify="left")
    table.add_column("what", no_wrap=True)
    for heading in ("official", "voxquarry", "× faster"):
        table.add_column(heading, justify="right")

    def row(what: str, theirs: float | None, mine: float) -> None:
        faster = "–" if theirs is None else f"{theirs / mine:.2f}"
        table.add_row(what, "–" if theirs is None else f"{theirs:.4f}", f"{mine:.4f}", faster)

    row("prefill of 100 positions", peer and peer.prefill_s, ours.prefill_s)
    for batch, seconds in ours.step_s.items():
        what = "a patch, batch 1" if batch == 1 else f"a patch of one row, batch {batch}"
        row(what, peer and peer.patch_s, seconds / batch)
    row("a patch, batch 1, weights as loaded", peer and peer.patch_s, ours.plain_patch_s)
    many = max(batch for batch in ours.step_s if batch <= 16)
    theirs = None if peer is None else many * peer.generate_s
    row(f"{many} utterances, text to audio", theirs, ours.utterances_s)
    for key, what in VAE_CALLS.items():
        row(what, peer and peer.audio_vae[key].seconds, ours.audio_vae_s[key])
    row("AudioVAE decode, 16 × 1.6 s", None, ours.audio_vae_s["decode_16x40_frames"])
    console.print(table)

    split = Table(title=f"{shape}: where a step goes, seconds", title_justify="left")
    split.add_column("of", no_wrap=True)
    for part in (*PARTS, "rest", "step", "× floor", "× real time"):
        split.add_column(part, justify="right")
    if peer is not None:
        known = [peer.parts_s[part] for part in PARTS]
        rest = peer.patch_s - sum(known)
        split.add_row(
            "official",
            *(f"{s:.4f}" for s in (*known, rest, peer.patch_s)),
            "–",
            f"{peer.patch_audio_s / peer.patch_s:.2f}",
        )
    for batch, step in ours.step_s.items():
        known = [ours.parts_s[batch].get(part, 0.0) for part in PARTS]
        floor = [ours.floor_s[batch][part] for part in PARTS]
        split.add_row(
            f"voxquarry, batch {batch}",
            *(f"{s:.4f}" for s in (*known, step - sum(known), step)),
            f"{step / sum(floor):.2f}",
            f"{batch * ours.patch_audio_s / step:.2f}",
        )
        split.add_row(
            f"  floor: products alone, batch {batch}",
            *(f"{s:.4f}" for s in floor),
            "–",
            f"{sum(floor):.4f}",
            "1.00",
            f"{batch * ours.patch_audio_s / sum(floor):.2f}",
        )
    console.print(split)


def bars(ours: CoreFigures, peer: PeerFigures | None, *, clean: bool) -> list[Bar]:
    """What the 2B shape is held to."""

    def bar(name: str, theirs: float | None, mine: float, bound: float) -> Bar:
        value = None if theirs is None else theirs / mine
        return Bar(name=name, value=value, bound=bound, at_least=True, is_clean=clean)

    def vae(key: str) -> tuple[float | None, float]:
        return (peer.audio_vae[key].seconds if peer else None), ours.audio_vae_s[key]

    step = ours.step_s
    many = max(batch for batch in step if batch <= 16)
    theirs = peer and peer.patch_s
    return [
        bar("faster a patch at batch 1", theirs, step[1], 1.6),
        bar(f"patches per second at batch {many}, × one by one", theirs, step[many] / many, 4.0),
        bar("faster AudioVAE encode", *vae("encode_10s"), 1.2),
        bar("faster AudioVAE decode", *vae("decode_250_frames"), 1.2),
        bar("faster streaming decode", *vae("decode_stream_patch"), 2.0),
    ]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_core", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--patches", type=int, default=8, help="generated under each median")
    parser.add_argument("--device", choices=list(BATCHES), default="cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out" / "core")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
