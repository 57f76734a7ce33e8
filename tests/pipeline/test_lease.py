"""Of two runs on one corpus one works; what a dead one held is free again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import lease as leases
from pipeline.lease import LEASE, lease
from pipeline.storage import Corpus
from schemas.errors import CorpusInUse

QUIET = Console(quiet=True)
HOLD = """
import sys, time
from rich.console import Console
from pipeline import lease
from pipeline.storage import Corpus
lease.BEAT_S = 0.1
with lease.lease(Corpus(sys.argv[1]), "curate-other", Console()):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.1)
    monkeypatch.setattr(leases, "PATIENCE_S", 2.0)
    monkeypatch.setattr(leases, "SETTLE_S", 0.1)


@pytest.fixture(params=["disk", "objects"])
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> Corpus:
    """Objects: a file system that counts as none on this disk."""
    # Object storage has no folders that must be made first.
    (tmp_path / "corpus").mkdir()
    made = Corpus(str(tmp_path / "corpus"))
    made.is_local = request.param == "disk"
    return made


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another run that holds the corpus."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "corpus")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def left_behind(corpus: Corpus, **changes: object) -> None:
    Corpus(corpus.root).write_json(
        LEASE, {"run": "old", "host": "elsewhere", "pid": 7, "beat": 3, **changes}
    )


def test_a_run_holds_the_corpus_until_it_ends(corpus: Corpus) -> None:
    with lease(corpus, "curate-1", QUIET):
        assert corpus.read_json(LEASE)["run"] == "curate-1"
        assert not corpus.exists()
    assert corpus.find_json(LEASE) is None
    with pytest.raises(ZeroDivisionError), lease(corpus, "curate-2", QUIET):
        _ = 1 / 0
    assert corpus.find_json(LEASE) is None


def test_a_second_run_is_told_of_the_first(corpus: Corpus, other: subprocess.Popen[str]) -> None:
    told = rf"run curate-other \(process {other.pid} on .*\) is writing to .*corpus"
    with pytest.raises(CorpusInUse, match=told), lease(corpus, "curate-mine", QUIET):
        raise AssertionError
    assert corpus.read_json(LEASE)["run"] == "curate-other"


def test_what_a_killed_run_held_is_free_at_once(
    corpus: Corpus, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "PATIENCE_S", 1e6)
    other.send_signal(signal.SIGKILL)
    other.wait()
    with lease(corpus, "curate-mine", QUIET):
        assert corpus.read_json(LEASE)["run"] == "curate-mine"


def test_a_machine_that_shows_no_sign_of_life_is_waited_for(corpus: Corpus) -> None:
    left_behind(corpus)
    started = time.monotonic()
    with lease(corpus, "curate-mine", QUIET):
        assert time.monotonic() - started >= leases.PATIENCE_S
        assert corpus.read_json(LEASE)["run"] == "curate-mine"


def test_a_container_that_starts_again_knows_its_own_former_life(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "PATIENCE_S", 1e6)
    left_behind(corpus, host=leases.socket.gethostname(), pid=os.getpid())
    with lease(corpus, "curate-mine", QUIET):
        pass


def test_of_many_that_come_at_once_one_has_it(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))

    def attempt(number: int) -> bool:
        return leases._created(corpus, {"run": f"run{number}", "host": "a", "pid": 1, "beat": 0})

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_a_run_that_was_taken_for_dead_stops(corpus: Corpus) -> None:
    def robbed() -> None:
        with lease(corpus, "curate-mine", QUIET):
            left_behind(corpus, run="curate-other")
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        robbed()
    assert corpus.read_json(LEASE)["run"] == "curate-other"


def test_storage_that_is_away_for_a_while_ends_no_run(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(name: str) -> None:
        raise OSError("connection refused")

    with lease(corpus, "curate-mine", QUIET):
        monkeypatch.setattr(corpus, "find_json", away)
        time.sleep(0.5)
        monkeypatch.undo()
        monkeypatch.setattr(leases, "BEAT_S", 0.1)
        beat = corpus.read_json(LEASE)["beat"]
        time.sleep(0.5)
        assert corpus.read_json(LEASE)["beat"] > beat
