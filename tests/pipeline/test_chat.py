"""One worker's desk against a real server that misbehaves; Ray's part is in tests/jobs."""

import asyncio
import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.chat.api_key import ApiKey, key_from_environment
from pipeline.chat.config import ChatConfig
from pipeline.chat.failures import retry_after_s
from pipeline.chat.request import Question, request_of
from pipeline.chat.responses import Response, Responses
from pipeline.chat.session import ChatSessions, payload_of
from pipeline.storage import Corpus
from schemas.arrow import CLIPS
from schemas.chat import Message, Prompt
from schemas.errors import ConfigError
from tests.pipeline.chat_corpus import CLIP_S, chat_corpus
from tests.pipeline.chat_server import INPUT_PRICE, OUTPUT_PRICE, ChatServer, Reply, Seen

KEY = "sk-quarry-0123456789abcdef"
KEY_ENV = "VOXQUARRY_TEST_KEY"
PROMPT = Prompt(
    name="describe",
    messages=(
        Message(role="system", text="You listen."),
        Message(role="user", text="What do you hear?", hears=True),
    ),
    schema={"type": "object", "properties": {"description": {"type": "string"}}},
    prompt_hash="p",
)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)


@pytest.fixture
def corpus(tmp_path: Path, devset: Path) -> Corpus:
    return chat_corpus(tmp_path / "corpus", devset)


def config_of(server: ChatServer | None, **changes: Any) -> ChatConfig:
    values: dict[str, Any] = {
        "url": server.url if server else "http://127.0.0.1:9/v1",
        "model": "ear-1",
        "terms": "test",
        "key_env": KEY_ENV,
        "input_price": INPUT_PRICE,
        "output_price": OUTPUT_PRICE,
        "ceiling": 100.0,
        "max_output_tokens": 200,
        "requests_per_minute": 60_000,
        "max_in_flight": 4,
        "timeout_s": 5,
        "first_wait_s": 0.01,
        "longest_wait_s": 0.2,
    }
    return ChatConfig(**{**values, **changes})


def questions(corpus: Corpus, count: int = 12) -> list[Question]:
    part = corpus.parts("clips")[0]
    ids = corpus.read(CLIPS, ["clip_id"])["clip_id"].to_list()[:count]
    return [Question(clip_id=i, part=part, duration_s=CLIP_S, prompt=PROMPT) for i in ids]


def ask(config: ChatConfig, corpus: Corpus, asked: Sequence[Question]) -> list[dict[str, Any]]:
    """As Ray's processor does it: post all, then await one by one. One batch of a new worker."""
    requests = [request_of(config, question) for question in asked]
    keys = tuple(request.key for request in requests)
    others = Responses(corpus).total_cost() - sum(
        known.total_cost for known in Responses(corpus).read_many(keys).values()
    )
    sessions = pickle.loads(pickle.dumps(ChatSessions(config, corpus.root, others, keys)))

    async def batch() -> list[dict[str, Any]]:
        found = []
        async with sessions() as session:
            posted = [
                session.post("", headers={}, data=json.dumps(payload_of(request)))
                for request in requests
            ]
            for waiting in posted:
                async with await waiting as response:
                    found.append(await response.json())
        return found

    return asyncio.run(batch())


def statuses(envelopes: Sequence[dict[str, Any]]) -> set[str]:
    return {envelope["status"] for envelope in envelopes}


def responses(corpus: Corpus) -> list[Response]:
    keys = [path.stem for path in Path(corpus.root).glob("_responses/*/*.json")]
    return list(Responses(corpus).read_many(keys).values())


def test_the_model_hears_the_clip_and_its_answer_is_kept(corpus: Corpus) -> None:
    with ChatServer(lambda seen: Reply(after_s=0.1), key=KEY) as server:
        envelopes = ask(config_of(server), corpus, questions(corpus))
    assert statuses(envelopes) == {"answered"}
    assert all(entry.seen.sample_rate == 16_000 for entry in server.ledger)
    assert all(entry.seen.audio_s == pytest.approx(CLIP_S) for entry in server.ledger)
    assert len({entry.seen.level for entry in server.ledger}) == 12
    assert server.most_at_once == 4
    kept = responses(corpus)
    assert len(kept) == 12
    assert {response.model_version for response in kept} == {"ear-1-2026-01"}
    assert {response.terms for response in kept} == {"test"}
    assert sum(response.total_cost for response in kept) == pytest.approx(server.billed)


def test_stored_flac_can_be_sent_as_it_is(corpus: Corpus) -> None:
    with ChatServer() as server:
        envelopes = ask(config_of(server, audio_format="flac"), corpus, questions(corpus, 2))
    assert statuses(envelopes) == {"answered"}


def test_a_server_without_schemas_finds_it_in_the_prompt(corpus: Corpus) -> None:
    with ChatServer() as server:
        ask(config_of(server, json_schema=False, temperature=None), corpus, questions(corpus, 1))
    body = server.ledger[0].seen.body
    assert "response_format" not in body
    assert "temperature" not in body
    assert "The JSON schema" in body["messages"][-1]["content"][0]["text"]


TROUBLES = [
    Reply(status=429, headers={"Retry-After": "0.05"}),
    Reply(status=500, raw="<html>Internal Server Error</html>"),
    Reply(status=503),
    Reply(after_s=0.6),
    Reply(drops=True),
    Reply(raw="<html>not a completion</html>"),
]


def stumbling(seen: Seen) -> Reply:
    """Every question fails twice, each in its own way, before it is answered."""
    if seen.times_before < 2:
        return TROUBLES[(int(seen.idempotency[:4], 16) + seen.times_before) % len(TROUBLES)]
    return Reply()


@pytest.mark.parametrize("replays", [True, False])
def test_what_fails_for_now_is_tried_again_and_the_books_never_say_too_little(
    corpus: Corpus, replays: bool
) -> None:
    with ChatServer(stumbling, replays=replays) as server:
        config = config_of(server, timeout_s=0.3)
        envelopes = ask(config, corpus, questions(corpus))
    assert statuses(envelopes) == {"answered"}
    assert {0, 1, 2} <= {entry.seen.times_before for entry in server.ledger}
    assert not replays or max(server.bills().values()) == 1
    assert Responses(corpus).total_cost() >= server.billed


def test_what_failed_for_nothing_costs_nothing(corpus: Corpus) -> None:
    with ChatServer(lambda seen: Reply(status=500) if seen.times_before < 2 else Reply()) as server:
        envelopes = ask(config_of(server), corpus, questions(corpus))
    assert statuses(envelopes) == {"answered"}
    assert len(server.ledger) == 36
    assert Responses(corpus).total_cost() == pytest.approx(server.billed)
    assert {response.attempts for response in responses(corpus)} <= {1, 3}


def test_a_question_is_given_up_after_its_retries_and_asked_again_by_the_next_run(
    corpus: Corpus,
) -> None:
    asked = questions(corpus, 3)
    with ChatServer(lambda seen: Reply(status=500)) as server:
        config = config_of(server, max_retries=2)
        envelopes = ask(config, corpus, asked)
        assert statuses(envelopes) == {"failed"}
        assert envelopes[0]["reason"].startswith("HTTP 500: <html>oops")
        assert len(server.ledger) == 9
        assert Responses(corpus).total_cost() == 0
        server.behave = lambda seen: Reply()
        assert statuses(ask(config, corpus, asked)) == {"answered"}


def test_a_second_run_sends_nothing(corpus: Corpus) -> None:
    with ChatServer() as server:
        first = ask(config_of(server), corpus, questions(corpus))
        second = ask(config_of(server), corpus, questions(corpus))
        assert first == second
        assert len(server.ledger) == 12
        again = [replace(question, again=1) for question in questions(corpus)]
        ask(config_of(server), corpus, again)
        assert len(server.ledger) == 24


def test_an_answer_that_was_cut_short_is_bought_anew_once_more_is_allowed(corpus: Corpus) -> None:
    asked = questions(corpus, 1)
    with ChatServer(lambda seen: Reply(finish="length")) as server:
        ask(config_of(server), corpus, asked)
        ask(config_of(server), corpus, asked)
        assert len(server.ledger) == 1
        server.behave = lambda seen: Reply()
        ask(config_of(server, max_output_tokens=300), corpus, asked)
    assert len(server.ledger) == 2
    assert Responses(corpus).total_cost() == pytest.approx(server.billed)


@pytest.mark.parametrize("usage", [True, False])
def test_the_ceiling_holds_and_a_higher_one_lets_the_rest_through(
    corpus: Corpus, usage: bool
) -> None:
    def thinking(seen: Seen) -> Reply:
        return Reply(thinks=100, usage=usage, after_s=0.02)

    with ChatServer(thinking) as server:
        worst = request_of(config_of(server), questions(corpus, 1)[0]).worst_cost
        config = config_of(server, ceiling=3.5 * worst, max_in_flight=8)
        envelopes = ask(config, corpus, questions(corpus))
        assert statuses(envelopes) == {"answered", "ceiling"}
        assert server.billed <= config.ceiling
        done = sum(envelope["status"] == "answered" for envelope in envelopes)
        # What requests really cost frees what was set aside for them.
        assert done > 3 if usage else done == 3
        envelopes = ask(config_of(server), corpus, questions(corpus))
    assert statuses(envelopes) == {"answered"}
    assert max(server.bills().values()) == 1


def test_a_request_that_was_under_way_at_the_end_counts_at_its_worst(corpus: Corpus) -> None:
    asked = questions(corpus, 1)
    with ChatServer(lambda seen: Reply(after_s=0.5)) as server:
        config = config_of(server)
        request = request_of(config, asked[0])

        async def killed() -> None:
            sessions = ChatSessions(config, corpus.root, 0.0, (request.key,))
            async with sessions() as session:
                task = session.post("", headers={}, data=json.dumps(payload_of(request)))
                while not server.ledger:
                    await asyncio.sleep(0.01)
                task.cancel()

        asyncio.run(killed())
        assert Responses(corpus).total_cost() == pytest.approx(request.worst_cost)
        envelopes = ask(config, corpus, asked)
    assert statuses(envelopes) == {"answered"}
    assert max(server.bills().values()) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_stops_at_once(corpus: Corpus, status: int) -> None:
    told = f"no access with {KEY}, which ends in {KEY[-10:]}"
    with ChatServer(lambda seen: Reply(status=status, raw=told)) as server:
        envelopes = ask(config_of(server, max_in_flight=1), corpus, questions(corpus))
    assert len(server.ledger) == 1
    assert {(e["status"], e["kind"]) for e in envelopes[1:]} == {("stopped", "refused")}
    assert f"refuses: HTTP {status}" in envelopes[1]["reason"]
    assert KEY[-10:] not in json.dumps(envelopes)


def test_no_key_stops_before_anything_is_sent(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_ENV)
    with ChatServer() as server:
        envelopes = ask(config_of(server), corpus, questions(corpus, 2))
        assert {e["kind"] for e in envelopes} == {"refused"}
        assert KEY_ENV in envelopes[0]["reason"]
        assert not server.ledger
        assert statuses(ask(config_of(server, key_env=None), corpus, questions(corpus, 2))) == {
            "answered"
        }
    assert server.ledger[0].seen.authorization is None


def test_a_run_in_which_nothing_succeeds_stops(corpus: Corpus) -> None:
    with ChatServer(lambda seen: Reply(status=400, raw="audio is not supported")) as server:
        config = config_of(server, failures_in_a_row=5, max_in_flight=1)
        envelopes = ask(config, corpus, questions(corpus))
    assert len(server.ledger) == 5
    assert [e["status"] for e in envelopes] == ["failed"] * 5 + ["stopped"] * 7
    assert "audio is not supported" in envelopes[-1]["reason"]


def test_nobody_at_home_costs_nothing(corpus: Corpus) -> None:
    envelopes = ask(config_of(None, max_retries=1), corpus, questions(corpus, 2))
    assert statuses(envelopes) == {"failed"}
    assert "no connection to 127.0.0.1:9" in envelopes[0]["reason"]
    assert Responses(corpus).total_cost() == 0


def test_the_key_is_not_sent_elsewhere(corpus: Corpus) -> None:
    with ChatServer() as other, ChatServer() as server:
        server.behave = lambda seen: Reply(
            status=307, headers={"Location": f"{other.url}/chat/completions"}
        )
        envelopes = ask(config_of(server), corpus, questions(corpus, 1))
    assert statuses(envelopes) == {"failed"}
    assert not other.ledger


def test_a_server_that_repeats_the_key_does_not_spread_it(corpus: Corpus, tmp_path: Path) -> None:
    with ChatServer(lambda seen: Reply(content=f"my key is {KEY}")) as server:
        envelopes = ask(config_of(server), corpus, questions(corpus, 2))
    assert statuses(envelopes) == {"answered"}
    assert KEY not in json.dumps(envelopes)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*.json"))
    assert b"my key is [key]" in kept
    assert KEY.encode() not in kept


def test_requests_keep_their_pace_retries_included(corpus: Corpus) -> None:
    with ChatServer(lambda seen: Reply(status=503) if seen.index % 3 == 0 else Reply()) as server:
        ask(config_of(server, requests_per_minute=1200), corpus, questions(corpus))
    times = [entry.seen.time for entry in server.ledger]
    # 50 ms apart; a busy machine can only make it slower.
    assert len(times) > 12
    assert times[-1] - times[0] >= 0.8 * 0.05 * (len(times) - 1)


def test_a_crowded_server_is_left_alone_by_all(corpus: Corpus) -> None:
    def crowded(seen: Seen) -> Reply:
        return Reply(status=429, headers={"Retry-After": "0.4"}) if not seen.index else Reply()

    with ChatServer(crowded) as server:
        config = config_of(server, max_in_flight=2, longest_wait_s=1)
        assert statuses(ask(config, corpus, questions(corpus))) == {"answered"}
    times = [entry.seen.time for entry in server.ledger]
    # The one beside it was on its way already.
    assert sum(time - times[0] < 0.3 for time in times) <= 3


def test_a_clip_that_cannot_be_read_costs_itself(corpus: Corpus) -> None:
    asked = questions(corpus, 2)
    lost = replace(asked[0], clip_id="nowhere")
    with ChatServer() as server:
        envelopes = ask(config_of(server), corpus, [lost, asked[1]])
    assert [e["status"] for e in envelopes] == ["failed", "answered"]
    assert envelopes[0]["reason"].startswith("MissingSource: ")


def test_answers_that_could_not_be_kept_are_not_bought(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    asked = questions(corpus, 3)
    monkeypatch.setattr(Corpus, "write_json", full)
    with ChatServer() as server:
        envelopes = ask(config_of(server), corpus, asked)
    assert {(e["status"], e["kind"]) for e in envelopes} == {("stopped", "broken")}
    assert "No space left" in envelopes[0]["reason"]
    assert not server.ledger


def test_sessions_pickle_without_the_key() -> None:
    assert KEY.encode() not in pickle.dumps(ChatSessions(config_of(None), "/c", 0.0, ()))
    with pytest.raises(TypeError, match="does not travel"):
        pickle.dumps(ApiKey(KEY))
    assert KEY not in repr(ApiKey(KEY))


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("quarry0123456789", "a quarry0123456789, b", "a [key], b"),
        ("quarry0123456789", "it ends in 0123456789.", "it ends in [key]."),
        ("quarry0123456789", "quarry0123456789quarry01", "[key]"),
        ("quarry0123456789", "a quarry of 0123", "a quarry of 0123"),
        ("short", "a short key", "a [key] key"),
        (None, "sent Bearer abc, and sk-12345678", "sent [key], and [key]"),
    ],
)
def test_a_text_is_rid_of_the_key_and_parts_of_it(
    key: str | None, text: str, expected: str
) -> None:
    assert ApiKey(key).hide(text) == expected


def test_a_key_that_is_none_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, "secret\nvalue")
    with pytest.raises(ConfigError) as caught:
        key_from_environment(KEY_ENV)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terms": " "}, "terms"),
        ({"model": ""}, "model"),
        ({"key_env": "sk-abc-0123"}, "name of an environment variable"),
        ({"ceiling": None}, "ceiling"),
        ({"input_price": None}, "input_price"),
        ({"output_price": -1.0}, "negative"),
        ({"url": "http://user:pw@host/v1"}, "no user, password"),
        ({"url": "http://host/v1?key=abc"}, "no user, password"),
        ({"url": "host/v1"}, "http://"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"first_wait_s": 2, "longest_wait_s": 1}, "longest_wait_s"),
    ],
)
def test_a_config_that_would_spend_or_tell_too_much_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config_of(None, **changes)
    assert "pw" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_it_is_off_by_default() -> None:
    assert not ChatConfig().on
    free = config_of(None, input_price=0, output_price=0, ceiling=None)
    assert free.on
    assert free.provider_name == "127.0.0.1:9"


@pytest.mark.parametrize(
    ("value", "expected"), [("3", 3), ("-1", 0), ("soon", 0), ("", 0), ("1 Jan 2001", 0)]
)
def test_retry_after_is_read_as_far_as_it_can_be(value: str, expected: float) -> None:
    assert retry_after_s(value) == expected
