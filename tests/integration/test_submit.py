"""Commands as jobs on a Ray cluster: a real head with its dashboard, in processes of its own."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.storage import Corpus
from schemas.arrow import RECORDINGS

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    # Unix sockets have short names.
    folder = tmp_path_factory.mktemp("r")
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    # fmt: off
    command = [
        BIN / "ray", "start", "--head", "--block", "--port", "0", "--num-cpus", "4",
        "--dashboard-host", "127.0.0.1", "--dashboard-port", str(port),
        "--object-store-memory", "300000000", "--disable-usage-stats",
    ]
    # fmt: on
    log = folder / "head.log"
    with log.open("w") as out:
        head = subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=folder)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        head.terminate()
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            head.kill()


def submitted(address: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "voxquarry", "submit", "--address", address, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def running(address: str) -> str:
    """The address, once a job can be submitted."""
    for _ in range(30):
        if submitted(address, "doctor").returncode == 0:
            return address
    raise AssertionError("no dashboard came up")


def test_a_phase_runs_as_a_job_with_a_local_profile(
    running: str, tmp_path: Path, devset: Path
) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("extends: embedded\nsegmentation: {target_s: 7}\n")
    source = devset / "audio" / "en_allison_s1.flac"
    done = submitted(running, "curate", source, "--out", tmp_path / "corpus", "--profile", profile)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The books balance." in done.stdout
    corpus = Corpus(str(tmp_path / "corpus"))
    assert corpus.read(RECORDINGS, ["recording_id"]).height == 1
    [run] = corpus.runs()
    assert run["settings"]["segmentation"]["target_s"] == 7


def test_a_job_that_fails_fails_here(running: str, tmp_path: Path) -> None:
    done = submitted(running, "curate", tmp_path / "nowhere", "--out", tmp_path / "corpus")
    assert done.returncode == 1
    assert "ConfigError" in done.stdout
    assert "failed, exit code 1" in done.stdout


def test_a_wrong_argument_has_the_exit_code_of_one(running: str) -> None:
    assert submitted(running, "curate", "--no-such-option").returncode == 2


def test_without_a_cluster_there_is_one_line() -> None:
    done = submitted(f"http://127.0.0.1:{free_port()}", "doctor")
    assert done.returncode == 1
    assert "ConfigError: no Ray dashboard answers" in done.stderr
