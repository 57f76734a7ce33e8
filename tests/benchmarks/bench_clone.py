"""Cloning: how fast it is, where the time goes, and whether its judges tell good from bad.

Real voices of the bundled recordings say real texts. Everything is measured twice in one run: all
attempts as one batch, and one after the other. Without --checkpoint the weights are random: that
costs what trained ones cost; such a model knows no end, and each attempt runs to where it is cut.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import soundfile as sf
import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks.bench_curate import machine
from tests.benchmarks.clone_speed import speed
from tests.benchmarks.results import QUIET_CORES
from tests.benchmarks.systems import CORES, busy_cores
from tests.stages.planted import GOOD, Spoken, devset_utterances, planted, shares, verdicts_of

ACCEPTED_GOOD, REJECTED_BAD = 0.9, 0.95


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables. Exit code 1 when the judges miss their bars."""
    options = _options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    where = torch.cuda.get_device_name() if options.device == "cuda" else machine()["cpu"]
    console.print(f"[bold]Machine[/bold]  {where}, {CORES} cores, {machine()['date']}")
    found: dict[str, Any] = {"machine": machine(), "device": where}
    busy = busy_cores()
    if "speed" in options.parts:
        found["speed"] = speed(options, console)
    held = True
    if "judging" in options.parts:
        held, found["judging"] = judging(options, console)
    if busy > QUIET_CORES:
        console.print(f"[yellow]{busy:.1f} cores were busy before: the times are no truth.[/]")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "clone.json").write_text(json.dumps({**found, "busy_before": busy}, indent=1))
    return 0 if held else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_clone", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=("speed", "judging"), default=["speed"])
    parser.add_argument("--checkpoint", help="a trained one, in the place of random weights")
    parser.add_argument("--size", choices=("nano", "2B"), default="nano", help="of random weights")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--asr", default="tiny.en", help="the recogniser that judges")
    parser.add_argument("--clones", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--num-steps", type=int, default=10)
    parser.add_argument("--longest", type=float, default=1.0)
    parser.add_argument("--one-by-one", type=int, default=4, help="clones that are made singly too")
    parser.add_argument("--each", type=int, default=20, help="planted clones of each kind")
    parser.add_argument("--prompts", type=Path, help="a manifest of short utterances to plant")
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    return parser.parse_args(arguments)


def judging(options: argparse.Namespace, console: Console) -> tuple[bool, dict[str, Any]]:
    """Planted clones by the shipped policy."""
    utterances = prompts_of(options.prompts) if options.prompts else devset_utterances()
    verdicts = verdicts_of(list(planted(utterances, each=options.each)))
    found = shares(verdicts)
    scores = ("cer", "cosine", "dnsmos_ovrl", "length_ratio")
    table = Table(
        *("planted", "number", "accepted", *(f"{name} 5 %, 50 %, 95 %" for name in scores)),
        *("reasons",),
        title="Planted clones",
    )
    for kind, share in found.items():
        mine = verdicts.filter(kind=kind)
        quantiles = [
            ", ".join(_number(mine[name].quantile(q)) for q in (0.05, 0.5, 0.95)) for name in scores
        ]
        reasons = mine.explode("reasons")["reasons"].drop_nulls().value_counts(sort=True)
        told = ", ".join(f"{name} {count}" for name, count in reasons.iter_rows())
        table.add_row(kind, f"{mine.height}", f"{share:.1%}", *quantiles, told)
    console.print(table)
    bad = verdicts.filter(pl.col("kind") != GOOD)
    rejected = 1 - float(bad["accepted"].mean() or 0.0)  # type: ignore[arg-type]
    held = found[GOOD] >= ACCEPTED_GOOD and rejected >= REJECTED_BAD
    console.print(
        f"{'PASS' if held else 'FAIL'}  good ones accepted: {found[GOOD]:.1%} "
        f"(bar {ACCEPTED_GOOD:.0%}), bad ones rejected: {rejected:.1%} (bar {REJECTED_BAD:.0%})"
    )
    return held, {"accepted": found, "bad_rejected": rejected}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def prompts_of(manifest: Path, each: int = 90) -> list[Spoken]:
    """Utterances of 2 to 9 s of a manifest, at most `each` of a voice."""
    rows = pl.read_csv(manifest).filter(pl.col("transcript").str.len_chars() >= 25)
    chosen = rows.filter(pl.int_range(pl.len()).shuffle(0).over("speaker") < each)
    found = []
    for row in chosen.iter_rows(named=True):
        wave, rate = sf.read(manifest.parent / row["uri"], dtype="float32")
        if 2 <= wave.size / rate <= 9:
            found.append(
                Spoken(
                    # One voice may speak two languages: allison, allison_es.
                    speaker=row["speaker"].partition("_")[0],
                    language=row["language"],
                    text=row["transcript"],
                    sample_rate=rate,
                    wave=wave,
                )
            )
    return found


if __name__ == "__main__":
    sys.exit(main())
