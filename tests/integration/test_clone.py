"""`voxquarry clone` on an annotated corpus: the real command, killed, and again."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.clone_plan import PHASE
from jobs.judge_synthetic import accepted_synthetic
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, DESCRIPTIONS, SYNTHETIC, SYNTHETIC_VERDICTS
from tests.integration.conftest import voxquarry

pytestmark = [pytest.mark.ray, pytest.mark.slow]

V2 = str(Path(__file__).parents[1] / "data" / "core" / "v2")
FAST = (
    *("speaking.candidates=1", "speaking.num_steps=2", "speaking.longest=1.0"),
    *("clone.unit_s=3", "clone.transcripts.spread=100"),
)


def arguments(root: str) -> list[str]:
    return ["clone", root, "--checkpoint", V2, *(f"--set={setting}" for setting in FAST)]


def kill_after_a_commit(root: str, log: Path) -> None:
    """Start the command and end its driver with no warning once something is committed."""
    with log.open("wb") as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *arguments(root)], stdout=told, stderr=told
        )
        deadline = time.monotonic() + 300
        while not list(Path(root).glob(f"_commits/{PHASE}/*.json")):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the run hangs"
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def test_a_killed_run_is_ended_by_the_next_and_every_clone_is_there_once(
    annotated: Corpus, tmp_path: Path
) -> None:
    root = str(tmp_path / "corpus")
    shutil.copytree(annotated.path, root)
    kill_after_a_commit(root, tmp_path / "log")
    corpus = Corpus(root)
    made = corpus.read(SYNTHETIC, ["clip_id", "audio"])
    ended = voxquarry(*arguments(root))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = " ".join(ended.stdout.split())
    assert "rejected: words_wrong" in told
    assert "judging" in told

    rows = corpus.read(SYNTHETIC)
    (run,) = [run for run in corpus.runs() if run["phase"] == PHASE and run["status"] == "finished"]
    # The smallest of checkpoints has room for few words beside a voice.
    ill = corpus.read_quarantine().filter(phase=PHASE)
    assert all("positions" in message for message in ill["message"])
    assert rows.height == rows["clip_id"].n_unique() > 2
    assert rows.height + ill.height == run["counts"]["planned"]
    assert set(rows["clip_id"]) == {
        item.item_id for unit in corpus.committed(PHASE) for item in unit.items if item.done
    }
    assert made.height >= 1
    kept = rows.filter(rows["clip_id"].is_in(made["clip_id"].implode()))
    assert kept.sort("clip_id")["audio"].to_list() == made.sort("clip_id")["audio"].to_list()

    sessions = dict(corpus.read(CLIPS, ["clip_id", "session_id"]).iter_rows())
    described = dict(corpus.read(DESCRIPTIONS, ["clip_id", "text"]).iter_rows())
    for row in rows.iter_rows(named=True):
        assert sessions[row["described_id"]] != sessions[row["transcript_id"]]
        assert row["description"] == described[row["described_id"]]
        assert row["clip_id"] not in sessions
        assert row["cosine"] is not None
    verdicts = corpus.read(SYNTHETIC_VERDICTS)
    assert set(verdicts["clip_id"]) == set(rows["clip_id"])
    assert not verdicts["accepted"].any()  # the checkpoint is random

    again = voxquarry(*arguments(root))
    assert again.returncode == 0, again.stderr
    assert "Nothing to do" in again.stdout
    assert corpus.read(SYNTHETIC, ["clip_id"]).height == rows.height

    lax = tmp_path / "lax.yaml"
    lax.write_text("rules: {anything: {column: cer, max: 1000.0}}")
    filtered = voxquarry("filter", root, "--synthetic-policy", str(lax))
    assert filtered.returncode == 0, filtered.stderr
    assert f"{rows.height} of {rows.height} accepted" in " ".join(filtered.stdout.split())
    assert accepted_synthetic(corpus).height == rows.height


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--checkpoint", str(Path(V2).parent / "v15")], "V1 class"),
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--synthetic-policy", "none"], "no policy none"),
        (["--set", "speaking.candidates=0"], "speaking.candidates must be at least 1"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    annotated: Corpus, more: list[str], message: str
) -> None:
    ended = voxquarry("clone", annotated.path, "--checkpoint", V2, *more)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (Path(annotated.path) / "_commits" / PHASE).exists()
