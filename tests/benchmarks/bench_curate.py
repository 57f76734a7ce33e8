"""`make bench`: the same audio through four systems in one run, and the bars.

a  a naive one-process loop        c  the floor: each model alone, at its best setting
b  voxquarry, embedded profile     d  voxkitchen from PyPI, in its own environment
                                   e  (only if asked for) d with one thread per process

The exit code says whether everything ran, never how fast: a table from a busy machine is no
verdict. A peer that does not install is reported and costs nothing.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.audio import BenchAudio, make_folder
from tests.benchmarks.results import MODELS, Result, bars
from tests.benchmarks.systems import CORES, NAMES, ORDER, ROOT, fresh, measure, prepare_peer

LIBRARIES = ("ray", "torch", "onnxruntime", "ctranslate2", "faster-whisper", "silero-vad")
PEERS = "de"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 1 when a system other than the peer failed."""
    options = _options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 132)
    out = fresh(options.out.resolve())
    audio = make_folder(options.data, out / "audio", options.minutes, options.languages)
    facts = machine()
    console.print(f"[bold]Audio[/bold]    {audio}")
    console.print(
        f"[bold]Machine[/bold]  {facts['cpu']}, {facts['cores']} cores, "
        f"{facts['memory_gib']} GiB, {facts['date']}, Python {facts['python']}"
    )
    if facts["cores"] != 2:
        console.print("The bars were set for 2 cores; this machine has another number.")
    missing_peer = None
    if set(PEERS) & set(options.only):
        console.print(f"… the environment of {NAMES['d']}")
        installed_s, missing_peer = prepare_peer()
        if installed_s:
            console.print(f"  installed in {installed_s:.0f} s, which are not counted")
    results: dict[str, Result] = {}
    for key in (key for key in ORDER if key in options.only):
        console.print(f"… {NAMES[key]}")
        if key in PEERS and missing_peer is not None:
            results[key] = Result(key=key, system=NAMES[key], failure=missing_peer)
        else:
            results[key] = measure(key, Path(audio.folder), out)
        save(out / "results.json", facts, audio, results)
    show(console, audio, results)
    return int(any(r.failure is not None and r.key not in PEERS for r in results.values()))


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cpu": _cpu_name(),
        "cores": CORES,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def save(
    path: Path, facts: Mapping[str, Any], audio: BenchAudio, results: Mapping[str, Result]
) -> None:
    """Everything measured so far, as JSON."""
    found = {
        "machine": facts,
        "audio": asdict(audio),
        "results": {key: asdict(result) for key, result in results.items()},
        "bars": [{**asdict(bar), "verdict": bar.verdict} for bar in bars(results)],
    }
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False))


def show(console: Console, audio: BenchAudio, results: Mapping[str, Result]) -> None:
    """The table, what Ray's start costs, and the bars."""
    table = Table(title=f"{audio.duration_s / 60:.1f} minutes of speech", title_justify="left")
    table.add_column("system", no_wrap=True)
    for heading in ("wall s", "× real time", "× naive", "× floor"):
        table.add_column(heading, justify="right")
    for heading in ("VAD", "ASR", "DNSMOS", "speaker", "rest", "clips", "words", "busy"):
        table.add_column(heading, justify="right")
    for key in "abcde":
        if key in results:
            table.add_row(*_row(audio, results[key], results))
    console.print(table)
    console.print(
        "Wall seconds from the start of the program to its end; × naive: how much faster than the "
        "plain loop; × floor: how much longer than the bare models.\n"
        "Then wall seconds per model (of voxquarry: worker seconds over the cores). The floor "
        "counts the models' computing only; busy: cores that other work held just before."
    )
    for result in results.values():
        if result.failure is not None:
            console.print(f"{result.system} gave no figures: {result.failure}", markup=False)
        elif result.note:
            console.print(f"{result.system}: {result.note}", markup=False)
        if not result.is_clean:
            console.print(
                f"{result.system}: other work kept {result.busy_before:.1f} cores busy just before "
                "the start, so its figures are not clean"
            )
    ours = results.get("b")
    if ours and ours.failure is None:
        console.print(
            f"Ray's start costs {ours.ray_start_s:.1f} s, opening the models in its workers "
            f"{ours.worker_start_s:.1f} s; {ours.started_wall_s:.1f} s are left of "
            f"{ours.wall_s:.1f} s."
        )
        floor = results.get("c")
        if floor and floor.failure is None:
            from_ray = (ours.wall_s - ours.ray_start_s) / floor.wall_s
            console.print(f"Counted from Ray's start alone, it is {from_ray:.2f} × the floor.")
    for bar in bars(results):
        console.print(str(bar), markup=False)


def _row(audio: BenchAudio, result: Result, results: Mapping[str, Result]) -> list[str]:
    if result.failure is not None:
        return [result.system, "no figures"]
    naive, floor = results.get("a"), results.get("c")
    known = sum(result.seconds.get(model, 0.0) for model in MODELS)
    return [
        result.system,
        f"{result.wall_s:.1f}",
        f"{audio.duration_s / result.wall_s:.1f}",
        f"{naive.wall_s / result.wall_s:.2f}" if naive and naive.failure is None else "–",
        f"{result.wall_s / floor.wall_s:.2f}" if floor and floor.failure is None else "–",
        *(f"{result.seconds[m]:.1f}" if m in result.seconds else "–" for m in MODELS),
        f"{max(0.0, result.wall_s - known):.1f}",
        str(result.num_clips),
        str(result.num_words),
        f"{result.busy_before:.1f}",
    ]


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_curate", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="at least so much audio")
    parser.add_argument(
        "--only",
        type=lambda text: [key.strip() for key in text.split(",")],
        default=list("abcd"),
        help="systems, as a,b,c,d (and e)",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out", help="emptied first")
    parser.add_argument("--data", type=Path, default=ROOT / "tests" / "data" / "devset")
    parser.add_argument(
        "--languages",
        nargs="+",
        default=["en"],
        help="of the recordings; tiny.en knows English, and on another language the systems with "
        "Whisper's temperature fallback would be billed for its guesses",
    )
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.only) - set(NAMES))
    if unknown or options.minutes <= 0:
        parser.error(f"--minutes must be positive and --only among {', '.join(NAMES)}: {unknown}")
    return options


if __name__ == "__main__":
    sys.exit(main())
