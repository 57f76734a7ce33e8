"""A node that dies in the middle of a command costs nothing but time."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import polars as pl
import psutil
import pytest
from polars.testing import assert_frame_equal
from ray._private.node import Node
from ray.cluster_utils import Cluster

from pipeline.storage import Corpus
from schemas.arrow import (
    ATTRIBUTES,
    CLIPS,
    DESCRIPTIONS,
    LEVELS,
    RECORDINGS,
    SYNTHETIC,
    TRAITS,
    Table,
)
from tests.integration.conftest import voxquarry
from tests.integration.test_clone import arguments as clone_arguments

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.slow]

CPUS = 2.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without CPUs, and two nodes to lose."""
    head = {
        "num_cpus": 0,
        "include_dashboard": False,
        # A dead node is missed within seconds.
        "_system_config": {"health_check_period_ms": 1000, "health_check_failure_threshold": 3},
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=CPUS)
        yield cluster
    finally:
        cluster.shutdown()


def busy_workers(node: Node) -> list[psutil.Process]:
    """The node's actors that have a unit in their hands."""
    (raylet,) = node.all_processes["raylet"]
    children = psutil.Process(raylet.process.pid).children(recursive=True)
    return [child for child in children if _is_at_work(child)]


def _is_at_work(process: psutil.Process) -> bool:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "MapWorker" in title and ".submit" in title


def switch_off(cluster: Cluster, node: Node) -> None:
    """As if its machine lost power: every process at once, without a word."""
    (raylet,) = node.all_processes["raylet"]
    workers = psutil.Process(raylet.process.pid).children(recursive=True)
    for process in workers:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    cluster.remove_node(node, allow_graceful=False)


def run_and_lose_a_node(
    cluster: Cluster, command: Sequence[str], root: Path, phase: str, log: Path, *, after: int = 1
) -> None:
    """Run a command on the cluster, which loses a node that works for it.

    after: commits that the corpus has by then.
    """
    env = os.environ | {"RAY_ADDRESS": cluster.address}
    with log.open("wb") as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *command], stdout=told, stderr=told, env=env
        )
    try:
        deadline = time.monotonic() + 300
        lost = None
        while lost is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the run hangs"
            time.sleep(0.05)
            if len(list(root.glob(f"_commits/{phase}/*.json"))) >= after:
                lost = next((node for node in cluster.worker_nodes if busy_workers(node)), None)
        switch_off(cluster, lost)
        before = len(list(root.glob(f"_commits/{phase}/*.json")))
        assert process.wait(300) == 0, log.read_text()
        assert before < len(list(root.glob(f"_commits/{phase}/*.json")))
    finally:
        process.kill()
        process.wait()
        while len(cluster.worker_nodes) < 2:
            cluster.add_node(num_cpus=CPUS)


def assert_same(table: Table, keys: Sequence[str], disturbed: Corpus, undisturbed: Corpus) -> None:
    one, other = (corpus.read(table).sort(*keys) for corpus in (disturbed, undisturbed))
    assert one.height
    assert_frame_equal(one, other, check_exact=True)


def test_a_node_lost_in_curate_leaves_the_rows_of_an_undisturbed_run(
    cluster: Cluster, corpus: Corpus, devset: Path, tmp_path: Path
) -> None:
    root = tmp_path / "corpus"
    manifest = tmp_path / "manifest.csv"
    few = pl.read_csv(devset / "manifest.csv").head(4)
    few.with_columns(uri=f"{devset}/" + pl.col("uri")).write_csv(manifest)
    # Two pools, so that audio on its way from one to the other is lost as well.
    profile = tmp_path / "profile.yaml"
    early = ("music", "separation", "vad", "segmentation")
    profile.write_text(
        "extends: embedded\n"
        "engine:\n"
        "  pools: {early: {num_cpus: 0.5, workers: 1}, cpu: {num_cpus: 0.5, workers: 2}}\n"
        f"  placement: {{{', '.join(f'{stage}: early' for stage in early)}}}\n"
    )
    command = ["curate", str(manifest), "--out", str(root), "--profile", str(profile)]
    run_and_lose_a_node(cluster, command, root, "curate", tmp_path / "log")
    disturbed = Corpus(str(root))
    ids = disturbed.read(RECORDINGS, ["recording_id"])
    assert ids.height == few.height
    for table, key in ((CLIPS, "clip_id"), (RECORDINGS, "recording_id")):
        rows = disturbed.read(table).sort(key)
        assert rows.height
        whole = corpus.read(table).join(ids, on="recording_id", how="semi").sort(key)
        assert_frame_equal(rows, whole, check_exact=True)
    assert disturbed.read_quarantine().is_empty()


def test_a_node_lost_in_annotate_leaves_the_rows_of_an_undisturbed_run(
    cluster: Cluster, corpus: Corpus, annotated: Corpus, tmp_path: Path
) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(corpus.path, root)
    # Two workers, of which one finds no place when the other node is gone.
    alone = ("engine.pools.cpu.workers=2", "engine.pools.cpu.num_cpus=1")
    command = ["annotate", str(root), "--set=annotate.unit_s=20", *(f"--set={s}" for s in alone)]
    run_and_lose_a_node(cluster, command, root, "annotate", tmp_path / "log")
    disturbed = Corpus(str(root))
    for table in (ATTRIBUTES, TRAITS, DESCRIPTIONS):
        assert_same(table, ["clip_id"], disturbed, annotated)
    assert_same(LEVELS, ["measure", "language", "gender"], disturbed, annotated)


def test_a_node_lost_in_clone_leaves_the_rows_of_an_undisturbed_run(
    cluster: Cluster, annotated: Corpus, tmp_path: Path
) -> None:
    roots = [tmp_path / name / "corpus" for name in ("disturbed", "undisturbed")]
    for root in roots:
        shutil.copytree(annotated.path, root)
    disturbed, undisturbed = roots
    command = [*clone_arguments(str(disturbed)), "--set=engine.pools.cpu.num_cpus=0.5"]
    # So few clones are all in workers' hands at once.
    run_and_lose_a_node(cluster, command, disturbed, "clone", tmp_path / "log", after=0)
    done = voxquarry(*clone_arguments(str(undisturbed)))
    assert done.returncode == 0, done.stderr
    one, other = Corpus(str(disturbed)), Corpus(str(undisturbed))
    assert_same(SYNTHETIC, ["clip_id"], one, other)
    ill = [corpus.read_quarantine().filter(phase="clone") for corpus in (one, other)]
    assert ill[0]["unit_id"].sort().to_list() == ill[1]["unit_id"].sort().to_list()
