"""Conversations through Ray Data's HTTP processor with a real server that misbehaves."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray import cloudpickle

from jobs.conversations import Ended, Heard, ToDescribe, ToJudge, describe_all, judge_all
from pipeline.chat.asking import Chat, processor_of
from pipeline.chat.config import ChatConfig
from pipeline.chat.responses import Responses
from pipeline.chat.session import ChatSessions
from pipeline.chat.spending import Purse
from pipeline.engine import EngineConfig, ray_session
from pipeline.storage import Corpus
from schemas.arrow import CLIPS
from schemas.descriptions import CLOSED, Claim
from schemas.errors import ConfigError
from tests.pipeline.chat_corpus import CLIP_S, TRANSCRIPT, chat_corpus
from tests.pipeline.chat_server import (
    INPUT_PRICE,
    OUTPUT_PRICE,
    ChatServer,
    Reply,
    Seen,
    good,
    schema_of,
)

pytestmark = pytest.mark.ray

KEY = "sk-quarry-fedcba9876543210"
KEY_ENV = "VOXQUARRY_TEST_KEY"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def local_ray() -> Iterator[Path]:
    """The folder of Ray's session, logs included."""
    # Before Ray starts, as its workers inherit it.
    os.environ[KEY_ENV] = KEY
    with ray_session(EngineConfig()):
        yield Path(ray._private.worker.global_worker.node.get_session_dir_path())
    del os.environ[KEY_ENV]


@pytest.fixture
def corpus(tmp_path: Path, devset: Path) -> Corpus:
    return chat_corpus(tmp_path / "corpus", devset)


def config_of(url: str, **changes: Any) -> ChatConfig:
    values: dict[str, Any] = {
        "url": url,
        "model": "ear-1",
        "terms": "for tests only",
        "key_env": KEY_ENV,
        "input_price": INPUT_PRICE,
        "output_price": OUTPUT_PRICE,
        "ceiling": 100.0,
        "max_output_tokens": 200,
        "requests_per_minute": 60_000,
        "max_in_flight": 4,
        "timeout_s": 10.0,
        "first_wait_s": 0.01,
        "longest_wait_s": 0.2,
    }
    return ChatConfig(**{**values, **changes})


def clips(corpus: Corpus) -> list[Heard]:
    part = corpus.parts("clips")[0]
    ids = corpus.read(CLIPS, ["clip_id"])["clip_id"].to_list()
    return [Heard(clip_id=clip_id, part=part, duration_s=CLIP_S) for clip_id in ids]


def to_describe(corpus: Corpus) -> list[ToDescribe]:
    return [
        ToDescribe(clip=clip, facts={"pitch": "low"}, transcript=TRANSCRIPT, language="en")
        for clip in clips(corpus)
    ]


def describe(corpus: Corpus, config: ChatConfig) -> list[Ended[Any]]:
    return list(describe_all(Chat(corpus, config, Purse(corpus)), to_describe(corpus)))


def outcomes(ended: list[Ended[Any]]) -> Counter[str]:
    return Counter(one.status for one in ended)


def holding(folder: Path, secret: str) -> list[str]:
    """Files below a folder that hold a secret."""
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and secret.encode() in path.read_bytes()
    ]


BAD_CONTENTS = (
    "no JSON at all",
    '{"gender": "female", "description": "cut sh',
    json.dumps({"gender": "robot"}),
    "I am sorry, I cannot listen to audio.",
    "",
)


def unruly(seen: Seen) -> Reply:
    """A seeded mixture: trouble on the way at first, then answers that are often unusable."""
    dice = random.Random(f"{seen.idempotency} {seen.times_before}")
    if seen.times_before == 0 and dice.random() < 0.7:
        return dice.choice(
            [
                Reply(status=429, headers={"Retry-After": "0.05"}),
                Reply(status=500, raw=f"<html>{seen.authorization}</html>"),
                Reply(status=503),
                Reply(after_s=1.0),
                Reply(drops=True),
            ]
        )
    if dice.random() < 0.5:
        return Reply(content=dice.choice(BAD_CONTENTS))
    answer = json.dumps(good(schema_of(seen.body)))
    # It contradicts what was measured; to see that is the verifier's work.
    return Reply(content=f"Certainly!\n```json\n{answer}\n```")


def test_nothing_is_lost_or_paid_twice_with_an_unruly_server_and_no_key_leaks(
    local_ray: Path, corpus: Corpus, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with ChatServer(unruly, key=KEY) as server:
        config = config_of(server.url, timeout_s=0.5)
        ended = describe(corpus, config)
        assert sorted(one.clip_id for one in ended) == sorted(c.clip_id for c in clips(corpus))
        found = outcomes(ended)
        assert set(found) == {"done", "malformed"}
        requests = len(server.ledger)
        again = describe(corpus, config)
        assert outcomes(again) == found
        assert len(server.ledger) == requests
    assert max(server.bills().values()) == 1
    assert Responses(corpus).total_cost() >= server.billed
    roles = Counter(entry.seen.role for entry in server.ledger if entry.seen.times_before == 0)
    assert roles["describe"] == 12
    # Each answer that cannot be read is sent back once, never twice.
    assert set(roles) == {"describe", "repair_of_describe"}
    assert roles["repair_of_describe"] >= found["malformed"]
    done = next(one for one in ended if one.status == "done")
    assert done.read.text == "A warm female voice speaks slowly and softly."
    assert done.response.terms == "for tests only"
    assert done.response.model_version == "ear-1-2026-01"
    assert not holding(tmp_path, KEY)
    assert list(local_ray.glob("logs/worker-*"))
    assert not holding(local_ray, KEY)
    assert KEY not in "".join(capfd.readouterr())


def test_the_ceiling_holds_and_the_rest_is_done_with_a_higher_one(
    local_ray: Path, corpus: Corpus
) -> None:
    with ChatServer() as server:
        config = config_of(server.url, ceiling=0.1)
        ended = describe(corpus, config)
        assert set(outcomes(ended)) == {"done", "ceiling"}
        assert server.billed <= 0.1
        sent = len(server.ledger)
        # What does not fit is not even tried, by no run.
        assert outcomes(describe(corpus, config)) == outcomes(ended)
        assert len(server.ledger) == sent
        purse = Purse(corpus)
        chat = Chat(corpus, config_of(server.url), purse)
        assert outcomes(list(describe_all(chat, to_describe(corpus)))) == {"done": 12}
        assert purse.spent == pytest.approx(server.billed)
    assert max(server.bills().values()) == 1


def test_a_wrong_key_ends_the_run_with_one_clear_line(local_ray: Path, corpus: Corpus) -> None:
    with ChatServer(key="another") as server:
        with pytest.raises(
            ConfigError, match=r"ear-1: 127\.0\.0\.1:.* refuses: HTTP 401"
        ) as caught:
            describe(corpus, config_of(server.url))
        assert KEY not in str(caught.value)
        assert len(server.ledger) <= 4
    assert not Responses(corpus).total_cost()


def test_a_second_model_judges_blind_before_it_is_told_the_claims(
    local_ray: Path, corpus: Corpus
) -> None:
    claims = (Claim(name="gender", value="male"), Claim(name="texture", value="gravelly"))

    def contrary(seen: Seen) -> Reply:
        if seen.role == "compare":
            return Reply(content='{"gender": "disagree", "texture": "unsure"}')
        return Reply(content="???" if seen.index == 2 and seen.role == "blind_view" else None)

    tasks = [ToJudge(clip=clip, claims=claims) for clip in clips(corpus)]
    with ChatServer(contrary) as server:
        config = config_of(server.url, model="judge-1")
        ended = list(judge_all(Chat(corpus, config, Purse(corpus)), tasks))
    assert outcomes(ended) == {"done": 12}
    judged = ended[0].read
    assert judged is not None
    assert len(judged.view) == len(CLOSED)
    assert {opinion.name: opinion.opinion for opinion in judged.opinions} == {
        "gender": "disagree",
        "texture": "unsure",
    }
    blind = [entry.seen for entry in server.ledger if entry.seen.role == "blind_view"]
    told = [entry.seen for entry in server.ledger if entry.seen.role == "compare"]
    assert len(told) == 12
    assert all("gravelly" not in seen.text for seen in blind)
    assert all("gravelly" in seen.text and seen.audio_s for seen in told)
    assert sum(entry.seen.role.startswith("repair") for entry in server.ledger) == 1


def test_nothing_that_ray_carries_holds_the_key(local_ray: Path) -> None:
    config = config_of("http://127.0.0.1:9/v1")
    processor = processor_of(config, ChatSessions(config, "/c", 0.0, ("k",)))
    for stage in processor.stages.values():
        assert KEY.encode() not in cloudpickle.dumps(stage.get_dataset_map_batches_kwargs(4, "d"))


def wait_for(met: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not met():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < deadline, "the run hangs"
        time.sleep(0.02)


RUN = """
import sys
from pipeline.engine import EngineConfig, ray_session
from pipeline.storage import Corpus
from tests.jobs.test_conversations import config_of, describe, outcomes
with ray_session(EngineConfig()):
    ended = describe(Corpus(sys.argv[1]), config_of(sys.argv[2]))
    print(dict(outcomes(ended)))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_pays_again_for_nothing_that_was_answered(
    corpus: Corpus, tmp_path: Path
) -> None:
    # The worse kind of endpoint: it knows no idempotency keys, and bills what it is sent.
    with ChatServer(lambda seen: Reply(after_s=0.3), key=KEY, replays=False) as server:
        command = [sys.executable, "-c", RUN, corpus.root, server.url]
        environment = {**os.environ, KEY_ENV: KEY, "PYTHONPATH": str(ROOT)}
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            kept = Path(corpus.root) / "_responses"
            wait_for(lambda: len(list(kept.glob("*/*.json"))) >= 4, process)
            workers = [
                child
                for child in psutil.Process(process.pid).children(recursive=True)
                if "MapWorker" in " ".join(child.cmdline())
            ]
            assert workers
            os.kill(process.pid, signal.SIGKILL)
            for worker in workers:
                worker.kill()
            process.wait()
            on_their_way = {
                path.stem
                for path in kept.glob("*/*.json")
                if json.loads(path.read_text())["status"] == "asked"
            }
            sent = len(server.ledger)
            assert sent < 12
            # The books cover what was billed for answers that nobody got.
            assert Responses(corpus).total_cost() >= server.billed
            done = subprocess.run(
                command, capture_output=True, env=environment, check=True, timeout=120
            )
            assert done.stdout.decode().strip() == "{'done': 12}"
    twice = {key.split("-")[0] for key, count in server.bills().items() if count > 1}
    assert twice <= on_their_way
    assert len(server.ledger) <= 12 + len(on_their_way)
    assert Responses(corpus).total_cost() >= server.billed
    assert not holding(tmp_path, KEY)


@pytest.mark.slow
def test_a_worker_that_dies_pays_again_for_nothing_that_was_answered(
    local_ray: Path, corpus: Corpus
) -> None:
    killed: list[int] = []

    def deadly(seen: Seen) -> Reply:
        if seen.index == 6 and not killed:
            for process in psutil.Process().children(recursive=True):
                if "MapWorker" in " ".join(process.cmdline()):
                    killed.append(process.pid)
                    process.kill()
        return Reply(after_s=0.1)

    with ChatServer(deadly, replays=False) as server:
        ended = describe(corpus, config_of(server.url))
    assert killed
    assert outcomes(ended) == {"done": 12}
    # What was on its way, of which nobody can know whether it was billed.
    assert sum(count > 1 for count in server.bills().values()) <= 4
    assert Responses(corpus).total_cost() >= server.billed
