"""kill -9 at any moment costs nothing but time."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from polars.testing import assert_frame_equal

from pipeline.storage import Corpus
from schemas.arrow import CLIPS, RECORDINGS
from tests.integration.conftest import voxquarry

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def wait_for_commits(process: subprocess.Popen[bytes], root: Path, count: int) -> None:
    """Until the run has committed `count` blocks. Fails when it ends or hangs before."""
    deadline = time.monotonic() + 300
    while len(list(root.glob("_commits/curate/*.json"))) < count:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run hangs"
        time.sleep(0.05)


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "MapWorker" in " ".join(child.cmdline())]


def test_a_run_killed_in_its_worker_and_its_driver_ends_as_an_undisturbed_one(
    corpus: Corpus, devset: Path, tmp_path: Path
) -> None:
    root = tmp_path / "corpus"
    manifest = str(devset / "manifest.csv")
    command = [sys.executable, "-m", "jobs.cli", "curate", manifest, "--out", str(root)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for_commits(process, root, 2)
        victims = workers_of(process)
        assert victims
        random.choice(victims).kill()
        wait_for_commits(process, root, 4)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = voxquarry("curate", manifest, "--out", str(root))
    assert done.returncode == 0, done.stderr
    disturbed = Corpus(str(root))
    for table, key in ((CLIPS, "clip_id"), (RECORDINGS, "recording_id")):
        assert_frame_equal(
            disturbed.read(table).sort(key), corpus.read(table).sort(key), check_exact=True
        )
    assert_frame_equal(
        disturbed.read_quarantine().sort("uri"), corpus.read_quarantine().sort("uri")
    )
