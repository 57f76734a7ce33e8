"""`make bench`: what a person waits for on a corpus of a million clips.

The clips are made up, their tables are real, as curation leaves them: no audio, and no attributes.
`filter` and `report` run as a user runs them, from start to end; a what-if update and a page of
`browse` are measured in a process that has read the corpus. Each page asks for something new. The
first `filter` finds no column index, which curation leaves, and writes it. Beside what was waited for
stand the CPU seconds, of child processes too: what it takes where the cores are busy.
"""

import argparse
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from playwright.sync_api import Error
from rich.console import Console
from rich.table import Table

from jobs.what_if import what_if
from pipeline.policy import load_policy
from pipeline.storage import Corpus
from tests.benchmarks.synthetic_corpus import make_corpus, session_sizes
from tests.benchmarks.systems import CORES, ROOT, busy_cores, fresh
from tests.pipeline.browse_server import serving
from tests.pipeline.browser import CHROMIUM, opened_browser

CLIPS = 1_000_000
PAGES = {
    "kept, by language and score": "verdict=kept&language=en&column=snr_db&operator=at+least&value=20",
    "text": "search=W123+w4",
    "text, kept, of a file": "search=w77&verdict=kept&column=uri&operator=contains&value=ab",
    "rejected for a reason": "reason=low_snr",
    "kept, sorted by a score": "verdict=kept&sort=dnsmos_ovrl&order=descending",
    "deep in a sorted list": "verdict=rejected&sort=duration_s&page=900",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """One thing that was waited for."""

    name: str
    seconds: float
    cpu_s: float
    """Of this process and all below it."""
    most_s: float | None
    """The bar; None where there is none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 1 when a run failed. A bar that is missed is printed, since machines differ."""
    parser = argparse.ArgumentParser(prog="bench_audit", description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out", help="emptied first")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 132)
    out = fresh(options.out.resolve())
    corpus = make_corpus(
        str(out / "corpus"), session_sizes(options.clips, 50, 5000, seed=1), seed=1
    )
    busy = busy_cores()
    console.print(
        f"{CORES} cores, of which {busy:.1f} were busy; the bars were set for 2 free ones."
    )
    waits = [*_commands(corpus), *_report(corpus), *_what_if(corpus), *_pages(corpus)]
    show(console, options.clips, waits)
    subprocess.run(["rm", "-r", corpus.path], check=True)
    return 0


def show(console: Console, clips: int, waits: Sequence[Wait]) -> None:
    """The table."""
    table = Table(title=f"A corpus of {clips:,} clips", title_justify="left")
    table.add_column("what")
    for heading in ("seconds", "CPU seconds", "bar", ""):
        table.add_column(heading, justify="right")
    for wait in waits:
        bar = "–" if wait.most_s is None else f"{wait.most_s:g}"
        met = "" if wait.most_s is None else "PASS" if wait.seconds <= wait.most_s else "FAIL"
        table.add_row(wait.name, f"{wait.seconds:.3f}", f"{wait.cpu_s:.3f}", bar, met)
    console.print(table)


def _commands(corpus: Corpus) -> Iterator[Wait]:
    for name, command, most_s in (
        ("voxquarry filter, without an index", "filter", None),
        ("voxquarry filter", "filter", 5.0),
        ("voxquarry report", "report", 30.0),
    ):
        arguments = [sys.executable, "-m", "jobs.cli", command, corpus.root]
        run = partial(subprocess.run, arguments, cwd=ROOT, check=True, capture_output=True)
        yield _timed(name, run, most_s)


def _report(corpus: Corpus) -> Iterator[Wait]:
    if CHROMIUM is None:
        return
    try:
        with opened_browser() as (page, _):
            address = (Path(corpus.path) / "report.html").as_uri()
            yield _timed("the report opens", partial(page.goto, address), 2.0)
    except Error as error:
        raise SystemExit(f"the report does not open: {error}") from error


def _what_if(corpus: Corpus) -> Iterator[Wait]:
    tried = what_if(corpus, load_policy("default"))
    changes = {"low_snr": {"min": 20.0}, "low_dnsmos_ovrl": {"min": 3.0}}
    yield _timed("what-if: two thresholds moved", lambda: tried.hours(tried.kept(changes)), 1.0)


def _pages(corpus: Corpus) -> Iterator[Wait]:
    with ExitStack() as stack:
        addresses: list[str] = []
        yield _timed(
            "browse: the corpus is read",
            lambda: addresses.append(stack.enter_context(serving(corpus))),
            None,
        )
        [address] = addresses
        urllib.request.urlopen(f"{address}/clips").read()
        for name, asked in PAGES.items():
            page = partial(urllib.request.urlopen, f"{address}/clips?{asked}")
            yield _timed(f"browse: {name}", lambda page=page: page().read(), 0.3)


def _timed(name: str, work: Callable[[], object], most_s: float | None) -> Wait:
    started, cpu_s = time.perf_counter(), _cpu_s()
    work()
    seconds = time.perf_counter() - started
    return Wait(name=name, seconds=seconds, cpu_s=_cpu_s() - cpu_s, most_s=most_s)


def _cpu_s() -> float:
    """Of this process, of those below it, and of those that have ended."""
    below = psutil.Process().children(recursive=True)
    return sum(sum(process.cpu_times()[:4]) for process in (psutil.Process(), *below))


if __name__ == "__main__":
    sys.exit(main())
