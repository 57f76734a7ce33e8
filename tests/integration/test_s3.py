"""A corpus in object storage, over a real S3 API that checks signatures and rights."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pytest
import soundfile
from moto.server import ThreadedMotoServer
from polars.testing import assert_frame_equal
from ray import cloudpickle

from pipeline import packing
from pipeline.engine import EngineConfig, PoolConfig, ray_session, run_units
from pipeline.ledger import UnitRecord
from pipeline.storage import Corpus
from pipeline.work import Unit
from schemas.arrow import CLIPS, QUARANTINE, RECORDINGS, SAMPLES, TABLES, VERDICTS
from schemas.errors import ConfigError, StorageError
from tests.integration.conftest import voxquarry
from tests.pipeline import toy

# Workers do not have the tests on their path.
cloudpickle.register_pickle_by_value(toy)

ROOT = Path(__file__).parents[2]
BUCKET = "voices"
USER = "curator"
EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
# A unit for each recording, one after the other.
SETTINGS = ("--set", "ingest.unit_s=1", "--set", "engine.pools={cpu: {workers: 1}}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """An S3 server on loopback, and a user of it."""

    address: str
    secret: str
    s3: Any
    iam: Any

    def allow(self, allowed: bool = True) -> None:
        """Give the user every right, or take them all."""
        statement = EVERYTHING if allowed else {**EVERYTHING, "Effect": "Deny"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.check(False)
        self.iam.put_user_policy(UserName=USER, PolicyName="rights", PolicyDocument=policy)
        self.check(True)

    def check(self, checked: bool) -> None:
        """Whether the server asks who is asking."""
        asked = urllib.request.Request(
            f"{self.address}/moto-api/reset-auth",
            data=b"0" if checked else b"inf",
            headers={"Content-Type": "text/plain"},
        )
        with urllib.request.urlopen(asked):
            pass

    def keys(self, prefix: str) -> list[str]:
        """Objects below a prefix."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # Until rights are checked, anybody may make a user.
        iam = boto3.Session("nobody", "nothing").client("iam")
        iam.create_user(UserName=USER)
        made = iam.create_access_key(UserName=USER)["AccessKey"]
        key, secret = made["AccessKeyId"], made["SecretAccessKey"]
        patch.setenv("AWS_ACCESS_KEY_ID", key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        s3 = boto3.Session(key, secret).client("s3")
        store = Store(address=address, secret=secret, s3=s3, iam=iam)
        store.allow()
        store.s3.create_bucket(Bucket=BUCKET)
        yield store
        # The server's settings are the process's, and other tests start servers of their own.
        store.check(False)
    server.stop()


def uri(path: str) -> str:
    return f"s3://{BUCKET}/{path}"


# -------------------------------------------------------------------- the whole chain


@pytest.fixture(scope="module")
def recordings(devset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few sentences of two recordings of a session, and a file that is no audio."""
    folder = tmp_path_factory.mktemp("s3") / "recordings"
    (folder / "day 1").mkdir(parents=True)
    for name, seconds in (("en_allison_s1", 12), ("en_allison_s2", 14)):
        wave, rate = soundfile.read(devset / "audio" / f"{name}.flac", dtype="int16")
        soundfile.write(folder / "day 1" / f"{name}.flac", wave[: seconds * rate], rate)
    (folder / "no_audio.wav").write_bytes((devset / "bad" / "text_renamed.wav").read_bytes())
    return folder


def ingest(source: str, root: str, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Every phase from recordings to samples, started in a folder of its own."""
    folder.mkdir()
    command = [sys.executable, "-m", "jobs.cli", "ingest", source, "--out", root]
    command += ["--language", "en", *SETTINGS]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with log.open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, env=env)


def wait_until(process: subprocess.Popen[bytes], happened: Any, log: Path) -> None:
    deadline = time.monotonic() + 600
    while not happened():
        assert process.poll() is None, f"the run ended too early: {log.read_text()}"
        assert time.monotonic() < deadline, "the run hangs"
        time.sleep(0.1)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """The driver and every process that it started, at once."""
    if process.poll() is not None:
        return
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    psutil.wait_procs(family, timeout=30)


def table(corpus: Corpus, name: str) -> pl.DataFrame:
    """A table's rows in an order of their own, without what names the place of a file."""
    frame = corpus.read(TABLES[name])
    if name == QUARANTINE.name:
        frame = frame.select("stage", "error_type", pl.col("uri").str.split("/").list.last())
    frame = frame.drop("uri", strict=False) if name == RECORDINGS.name else frame
    return frame.sort(*(one for one, kind in frame.schema.items() if kind == pl.String))


@pytest.mark.ray
@pytest.mark.slow
def test_a_corpus_in_s3_is_the_local_one_though_a_recording_vanished_and_the_run_was_killed(
    store: Store, recordings: Path, tmp_path: Path
) -> None:
    for file in recordings.rglob("*.*"):
        key = f"recordings/{file.relative_to(recordings)}"
        store.s3.upload_file(str(file), BUCKET, key)
    # The longest one, so the first to be read.
    gone = "recordings/day 1/gone.wav"
    noise = np.random.default_rng(7).integers(-99, 99, 16_000 * 60, np.int16)
    soundfile.write(tmp_path / "gone.wav", noise, 16_000)
    store.s3.upload_file(str(tmp_path / "gone.wav"), BUCKET, gone)

    corpus = Corpus(uri("corpus"))
    log = tmp_path / "log"
    process = ingest(uri("recordings"), uri("corpus"), tmp_path / "first", log)
    try:
        wait_until(process, lambda: any(run.get("units") for run in corpus.runs()), log)
        store.s3.delete_object(Bucket=BUCKET, Key=gone)
        wait_until(process, lambda: len(store.keys("corpus/_commits/curate/")) >= 2, log)
    finally:
        kill_all(process)
    assert len(store.keys("corpus/_commits/curate/")) < 4, "there must be something left to do"
    # In another folder: what it knows of the first run, it knows by S3 alone.
    assert ingest(uri("recordings"), uri("corpus"), tmp_path / "second", log).wait(1800) == 0, (
        log.read_text()
    )
    assert not [*(tmp_path / "first").iterdir(), *(tmp_path / "second").iterdir()]
    local = Corpus(str(tmp_path / "corpus"))
    assert ingest(str(recordings), local.root, tmp_path / "third", log).wait(1800) == 0, (
        log.read_text()
    )

    quarantine = corpus.read_quarantine()
    [lost] = quarantine.filter(pl.col("uri").str.ends_with("gone.wav")).to_dicts()
    assert (lost["stage"], lost["error_type"]) == ("read", "MissingSource")
    assert "gone.wav" in lost["message"]
    for name in TABLES:
        found = table(corpus, name)
        if name == QUARANTINE.name:
            found = found.filter(pl.col("uri") != "gone.wav")
        assert_frame_equal(found, table(local, name), check_exact=True)
    assert corpus.read(VERDICTS).filter("accepted").height >= 2
    assert corpus.read(SAMPLES).height >= 2
    assert set(corpus.read(RECORDINGS)["uri"].str.slice(0, 5)) == {"s3://"}
    assert corpus.read(CLIPS, ["clip_id"])["clip_id"].is_unique().all()

    told = voxquarry("report", uri("corpus"))
    assert told.returncode == 0, told.stderr
    assert uri("corpus/report.html") in " ".join(told.stdout.split())
    assert store.keys("corpus/report.html")
    everything = [
        store.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in store.keys("")
    ]
    assert not any(store.secret.encode() in one for one in everything)


# -------------------------------------------------------------------- what goes wrong


def fails_in_one_line(*arguments: str) -> str:
    """Run a command that must fail, without a traceback and without telling the secret."""
    done = voxquarry(*arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
    return done.stderr


def test_wrong_credentials_are_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret-at-all")
    before = store.keys("")
    told = fails_in_one_line("curate", uri("recordings"), "--out", uri("refused"))
    assert "cannot list s3://voices/recordings" in told
    assert "ACCESS_DENIED" in told
    assert "signature" in fails_in_one_line("report", uri("refused"))
    assert store.keys("") == before


def test_an_endpoint_that_nobody_answers_at_is_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "Could not connect" in fails_in_one_line("report", uri("corpus"))


def test_a_password_in_a_uri_is_refused_before_it_is_kept_anywhere(tmp_path: Path) -> None:
    held = "s3://AKIA:pass/word@voices/recordings"
    (tmp_path / "m.csv").write_text(f"uri\n{held}/a.wav\n")
    for arguments in (
        ("curate", held, "--out", str(tmp_path / "corpus")),
        ("curate", str(tmp_path / "m.csv"), "--out", str(tmp_path / "corpus")),
        ("report", held),
    ):
        done = voxquarry(*arguments)
        assert done.returncode == 1
        assert "holds a password" in done.stderr
        assert "pass/word" not in done.stdout + done.stderr
    assert not (tmp_path / "corpus").exists()
    with pytest.raises(ConfigError, match="holds a password"):
        Corpus(held)


HOLD = """
import sys
from rich.console import Console
from pipeline.lease import lease
from pipeline.ledger import UnitRecord
from pipeline.storage import Corpus
from schemas.errors import CorpusInUse
try:
    with lease(Corpus(sys.argv[1]), sys.argv[2], Console()):
        print("held", flush=True)
        sys.stdin.read()
except CorpusInUse as error:
    print(error, flush=True)
"""


def test_of_two_processes_on_one_corpus_one_works_and_the_other_is_told(store: Store) -> None:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runs = [
        subprocess.Popen([sys.executable, "-c", HOLD, uri("one"), f"run-{i}"], cwd=ROOT, **pipes)
        for i in range(2)
    ]
    # Both are told before the one that works may end.
    told = [run.stdout.readline().strip() for run in runs if run.stdout]
    for run in runs:
        run.communicate(timeout=60)
    assert told.count("held") == 1
    [refused] = [line for line in told if line != "held"]
    assert f"run run-{told.index('held')} (process " in refused
    # Arrow leaves a mark for the folder.
    assert store.keys("one/") in ([], ["one/"])


def test_what_fails_half_way_leaves_no_object(store: Store) -> None:
    corpus = Corpus(uri("halves"))
    row = toy.write(1, 2)["recordings"]

    def pieces(good: int) -> Iterator[pa.Table]:
        for _ in range(good):
            yield RECORDINGS.to_arrow(row)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        corpus.write_version("made", RECORDINGS, "one", pieces(good=3))
    assert not [key for key in store.keys("halves/") if key.endswith(".parquet")]
    corpus.commit("toy", [], {"recordings": row})
    [part] = corpus.parts(RECORDINGS.name)
    with pytest.raises(AttributeError):
        corpus.write_table(part, RECORDINGS, [*row, "no recording"])
    assert corpus.read(RECORDINGS).height == 1


def test_what_is_written_anew_while_it_is_read_is_read_whole(store: Store) -> None:
    writer, reader = Corpus(uri("torn")), Corpus(uri("torn"))
    writer.write_json("growing.json", [])
    ended = threading.Event()

    def grow() -> None:
        while not ended.is_set():
            for length in range(0, 60, 3):
                writer.write_json("growing.json", ["x" * 50] * length)

    with ThreadPoolExecutor(1) as pool:
        growing = pool.submit(grow)
        try:
            lengths = {len(reader.read_json("growing.json")) for _ in range(200)}
        finally:
            ended.set()
        growing.result()
    assert len(lengths) > 2


def test_a_column_index_spares_most_requests(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(packing, "WORTH", 1)
    # The server's own list of requests.
    caplog.set_level(logging.INFO, "werkzeug")
    corpus = Corpus(uri("many"))
    for number in range(30):
        unit = UnitRecord(unit_id=str(number), attempt=1, items=(), rows={}, seconds={})
        corpus.commit("toy", [unit], toy.write(number, number))

    def read() -> tuple[pl.DataFrame, int]:
        caplog.clear()
        rows = corpus.read(RECORDINGS, ["recording_id", "duration_s"])
        return rows, len(caplog.records)

    directly, many = read()
    packing.bring_up_to_date(corpus)
    by_index, few = read()
    assert directly.height == 30
    assert_frame_equal(by_index, directly)
    assert many > 90
    assert few < 20


@pytest.mark.ray
@pytest.mark.slow
def test_rights_that_are_taken_away_stop_the_run_and_given_back_it_ends_as_ever(
    store: Store, tmp_path: Path
) -> None:
    corpus = Corpus(uri("revoked"))
    config = EngineConfig(pools={"cpu": PoolConfig(workers=1)})
    phase = toy.phase(tmp_path, wait_s=0.3)
    with ray_session(EngineConfig()):
        records = run_units(phase, toy.units(), corpus, config)
        next(records)
        store.allow(False)
        with pytest.raises(StorageError, match="ACCESS_DENIED") as told:
            list(records)
        assert "\n" not in str(told.value)
        store.allow()
        done = {unit.unit_id for unit in corpus.committed("toy")}
        left = [unit for unit in toy.units() if unit.unit_id not in done]
        assert 0 < len(left) < len(toy.units())
        list(run_units(phase, left, corpus, config))
    assert_all_units(corpus)


def assert_all_units(corpus: Corpus) -> None:
    """Every unit of the toy phase is there, once."""
    records: list[str] = sorted(unit.unit_id for unit in corpus.committed("toy"))
    expected: list[Unit] = toy.units()
    assert records == sorted(unit.unit_id for unit in expected)
    ids = corpus.read(RECORDINGS, ["recording_id"])["recording_id"]
    assert sorted(ids) == sorted(f"r{8 * i}" for i in range(toy.NUM_UNITS) if i not in (3, 5))
    assert sorted(corpus.read_quarantine()["unit_id"]) == ["i03", "i05"]
