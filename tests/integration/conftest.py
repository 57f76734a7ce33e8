"""One corpus, curated from the bundled recordings by the real command, for every test here."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.storage import Corpus


def voxquarry(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, as a user runs it."""
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="session")
def finished(
    devset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Corpus, subprocess.CompletedProcess[str]]:
    """`voxquarry run` over all bundled recordings, good and bad."""
    root = tmp_path_factory.mktemp("run") / "corpus"
    done = voxquarry("run", str(devset / "manifest.csv"), "--out", str(root))
    assert done.returncode == 0, done.stdout + done.stderr
    return Corpus(str(root)), done


@pytest.fixture(scope="session")
def corpus(finished: tuple[Corpus, subprocess.CompletedProcess[str]]) -> Corpus:
    return finished[0]


@pytest.fixture(scope="session")
def annotated(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The curated corpus, annotated by its own profile. Copy it before writing to it."""
    root = tmp_path_factory.mktemp("annotated") / "corpus"
    shutil.copytree(corpus.path, root)
    done = voxquarry("annotate", str(root))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "described" in done.stdout
    return Corpus(str(root))
