"""One run at a time writes to a corpus: it holds a file there, and renews it as long as it lives.

Two runs at once would take in the same recordings twice, since neither sees what the other has not
committed yet. Clocks of different machines are never compared: whoever finds the file watches whether
its number grows.
"""

import json
import os
import socket
import threading
import time
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from pipeline.storage import Corpus
from schemas.errors import CorpusInUse

LEASE = "_lease.json"
BEAT_S = 10.0
PATIENCE_S = 35.0
"""Without a new number for so long, a holder counts as dead."""
SETTLE_S = 2.0
"""Object storage has no "create unless there": the last writer within this time has the corpus."""


@contextmanager
def lease(corpus: Corpus, run: str, console: Console) -> Iterator[None]:
    """Hold the corpus for a run of this process. Raises `CorpusInUse` if a live run holds it."""
    mine = {"run": run, "host": socket.gethostname(), "pid": os.getpid(), "beat": 0}
    while not _created(corpus, mine):
        _bury_or_raise(corpus, console)
    ended = threading.Event()
    keeper = threading.Thread(target=_renew, args=(corpus, mine, ended, console), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        # Storage that fails now has failed the run already; the file dies with this process.
        with suppress(OSError):
            if _held_by(corpus) == run:
                _delete(corpus)


def _created(corpus: Corpus, mine: dict[str, Any]) -> bool:
    """Whether the file was written where there was none."""
    if corpus.is_local:
        return _created_on_disk(Path(corpus.path), mine)
    if _held_by(corpus) is not None:
        return False
    corpus.write_json(LEASE, mine)
    time.sleep(SETTLE_S)
    return bool(_held_by(corpus) == mine["run"])


def _created_on_disk(root: Path, mine: dict[str, Any]) -> bool:
    root.mkdir(parents=True, exist_ok=True)
    aside = root / f".{mine['run']}.lease"
    aside.write_text(json.dumps(mine), encoding="utf-8")
    try:
        # The one step that only one of two can take; a file that is opened anew is empty at first.
        os.link(aside, root / LEASE)
    except FileExistsError:
        return False
    finally:
        aside.unlink()
    return True


def _bury_or_raise(corpus: Corpus, console: Console) -> None:
    """Delete the file of a dead run. Raises `CorpusInUse` when its run lives."""
    found = corpus.find_json(LEASE)
    if found is None:
        return
    if not _is_dead(found):
        with console.status(f"Waiting for a sign of life of {_told(found)}"):
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline:
                time.sleep(0.5)
                now = corpus.find_json(LEASE)
                if now != found:
                    break
            else:
                now = found
        if now is None:
            return
        if now != found:
            raise CorpusInUse(
                f"{_told(now)} is writing to {corpus.root}; start this run when that one has ended"
            )
    if corpus.find_json(LEASE) == found:
        _delete(corpus)


def _is_dead(found: dict[str, Any]) -> bool:
    """What can be said at once: on this machine, and its process is gone or is this one."""
    if found["host"] != socket.gethostname():
        return False
    return found["pid"] == os.getpid() or not psutil.pid_exists(found["pid"])


def _renew(corpus: Corpus, mine: dict[str, Any], ended: threading.Event, console: Console) -> None:
    while not ended.wait(BEAT_S):
        # A storage that does not answer for a while must not end the run; the others wait longer.
        with suppress(OSError):
            if _held_by(corpus) != mine["run"]:
                console.print(
                    f"Another run took {corpus.root}: this one showed no sign of life for "
                    f"{PATIENCE_S:g} s. It ends here."
                )
                interrupt_main()
                return
            mine["beat"] += 1
            corpus.write_json(LEASE, mine)


def _held_by(corpus: Corpus) -> str | None:
    found = corpus.find_json(LEASE)
    return None if found is None else str(found["run"])


def _delete(corpus: Corpus) -> None:
    with suppress(FileNotFoundError):
        corpus.fs.delete_file(f"{corpus.path}/{LEASE}")


def _told(found: dict[str, Any]) -> str:
    return f"run {found['run']} (process {found['pid']} on {found['host']})"
