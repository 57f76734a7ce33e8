"""The engine on a real local Ray: what was promised about failures, pools and commits."""

import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import ray
from ray import cloudpickle

from pipeline.capacity import PoolConfig
from pipeline.engine import EngineConfig, ray_session, run_units
from pipeline.storage import Corpus
from schemas.arrow import RECORDINGS
from schemas.errors import ConfigError, ModelLoadError, TooManyFailures
from tests.pipeline import toy

pytestmark = pytest.mark.ray

# Workers do not have the tests on their path.
cloudpickle.register_pickle_by_value(toy)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # A test need not wait as long as a scraper does.
        patch.setenv("RAY_metrics_report_interval_ms", "500")
        with ray_session(EngineConfig()):
            yield


def committed_ids(corpus: Corpus) -> list[str]:
    return sorted(corpus.read(RECORDINGS, ["recording_id"])["recording_id"].to_list())


EXPECTED = sorted(f"r{8 * i}" for i in range(toy.NUM_UNITS) if i not in (3, 5))


@pytest.mark.parametrize("placement", [{}, {"two": "other"}], ids=["one pool", "three pools"])
@pytest.mark.parametrize("units_per_commit", [1, 4])
def test_every_unit_is_committed_once_and_bad_items_cost_themselves(
    local_ray: None, tmp_path: Path, placement: dict[str, str], units_per_commit: int
) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    pools = {"cpu": PoolConfig(workers=1, num_cpus=0.5), "other": PoolConfig(workers=1)}
    config = EngineConfig(pools=pools, placement=placement, units_per_commit=units_per_commit)
    records = list(run_units(toy.phase(tmp_path, placement), toy.units(), corpus, config))
    assert len(records) == len(toy.units())
    assert committed_ids(corpus) == EXPECTED
    reasons = {row["unit_id"]: row for row in corpus.read_quarantine().to_dicts()}
    assert {key: row["stage"] for key, row in reasons.items()} == {"i03": "one", "i05": "read"}
    assert reasons["i03"]["message"] == "three is not a sound"
    assert {"one", "two", "three", "read"} <= set(records[0].seconds)
    markers = list(corpus.markers("toy"))
    assert len(markers) == -(-len(toy.units()) // units_per_commit)


def test_a_pool_grows_with_the_work_that_waits(local_ray: None, tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    (tmp_path / "workers").mkdir()
    pool = PoolConfig(min_workers=1, workers=2, num_cpus=0.5)
    phase = toy.phase(tmp_path, wait_s=0.5)
    records = list(run_units(phase, toy.units(), corpus, EngineConfig(pools={"cpu": pool})))
    assert len(records) == len(toy.units())
    assert committed_ids(corpus) == EXPECTED
    assert len(list((tmp_path / "workers").iterdir())) == 2


def test_a_long_run_goes_from_dataset_to_dataset(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engine.BLOCKS_AT_ONCE", 4)
    monkeypatch.setattr("pipeline.engine.BLOCKS_PER_WORKER", 1)
    corpus = Corpus(str(tmp_path / "corpus"))
    config = EngineConfig(pools={"cpu": PoolConfig(workers=2)})
    records = list(run_units(toy.phase(tmp_path), toy.units(), corpus, config))
    assert len(records) == len(toy.units()) > 2 * 4
    assert committed_ids(corpus) == EXPECTED


def test_a_killed_worker_costs_nothing(local_ray: None, tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    (tmp_path / "kill").touch()
    records = list(run_units(toy.phase(tmp_path), toy.units(), corpus, EngineConfig()))
    assert not (tmp_path / "kill").exists()
    assert len(records) == len(toy.units())
    assert committed_ids(corpus) == EXPECTED


def test_a_model_that_cannot_load_stops_the_run_and_marks_nothing(
    local_ray: None, tmp_path: Path
) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    (tmp_path / "no-weights").touch()
    with pytest.raises(ModelLoadError, match=r"stage one cannot start: model\.bin is not here"):
        list(run_units(toy.phase(tmp_path), toy.units(), corpus, EngineConfig()))
    assert not list(corpus.committed("toy"))


def test_a_run_in_which_too_much_fails_stops(local_ray: None, tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    bad = [
        toy.Unit(items=(toy.WorkItem(item_id=f"b{i}", uri=f"/in/{i}", duration_s=1.0, plan=5),))
        for i in range(30)
    ]
    with pytest.raises(TooManyFailures, match="of the first 20 items went to quarantine"):
        list(run_units(toy.phase(tmp_path), bad, corpus, EngineConfig()))


def exported(wanted: str) -> str:
    """What Ray's exporter on this node says, once a line matches `wanted`, or after a minute."""
    port = ray.nodes()[0]["MetricsExportPort"]
    for _ in range(60):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
            text = str(response.read(), "utf-8")
        if re.search(wanted, text):
            break
        time.sleep(1)
    return text


def test_prometheus_sees_what_every_stage_took(local_ray: None, tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    phase = replace(toy.phase(tmp_path, {"two": "other"}, wait_s=0.3), name="measured")
    pools = {"cpu": PoolConfig(workers=1), "other": PoolConfig(workers=1)}
    config = EngineConfig(pools=pools, placement={"two": "other"})
    finished = run_units(phase, toy.units(), corpus, config)
    records = [next(finished)]
    # Ray takes a pool's figures away with its actors, so they are read while it works.
    titles = ("cpu: one", "other: two", "cpu: three")
    found = exported(r'audio_seconds_total\{(?=.*phase="measured")(?=.*stage="three")')
    records += finished
    assert all(f"measured {title}" in found for title in titles)
    samples = re.findall(
        r"^ray_voxquarry_stage_(\w+)_seconds_total\{(.*)\} (\S+)$", found, re.MULTILINE
    )
    told = {
        (what, stage[1]): float(value)
        for what, tags, value in samples
        if 'phase="measured"' in tags and (stage := re.search(r'stage="(\w+)"', tags))
    }
    assert set(told) == set(product(("busy", "audio"), ("read", "one", "two", "three")))
    assert told["busy", "two"] >= 0.3
    assert 1 <= told["audio", "three"] <= told["audio", "read"] <= toy.NUM_UNITS
    assert len(records) == len(toy.units())


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (
            PoolConfig(num_cpus=1000),
            "CPUs, and toy needs 1000 for one worker of each pool: cpu 1000",
        ),
        (
            PoolConfig(num_cpus=1, num_gpus=1000),
            "GPUs, and toy needs 1000 for one worker of each pool: cpu 1000",
        ),
    ],
)
def test_a_worker_that_fits_nowhere_ends_the_run_before_it_waits(
    local_ray: None, tmp_path: Path, pool: PoolConfig, message: str
) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    with pytest.raises(ConfigError, match=message):
        list(run_units(toy.phase(tmp_path), toy.units(), corpus, EngineConfig(pools={"cpu": pool})))


def test_pools_must_exist() -> None:
    with pytest.raises(ConfigError, match="pools that do not exist"):
        EngineConfig(placement={"vad": "gpu"})
