"""`voxquarry annotate` on a curated corpus: real recordings, the real command, a real server."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from annotators.claims import claims_in
from jobs.annotate import PHASE
from jobs.descriptions import descriptions_in
from pipeline.storage import Corpus
from schemas.arrow import ATTRIBUTES, CLIPS, DESCRIPTIONS, LEVELS, RECORDINGS, TRAITS, VERDICTS
from tests.integration.conftest import voxquarry
from tests.pipeline.chat_server import ChatServer, Reply, Seen, good, schema_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]

KEY = "sk-quarry-0123456789abcdef"
KEY_ENV = "VOXQUARRY_TEST_KEY"


@pytest.fixture
def copy(annotated: Corpus, tmp_path: Path) -> Corpus:
    shutil.copytree(annotated.path, tmp_path / "corpus")
    return Corpus(str(tmp_path / "corpus"))


def accepted(corpus: Corpus) -> set[str]:
    return set(corpus.read(VERDICTS).filter("accepted")["clip_id"])


def test_every_accepted_clip_is_measured_and_a_share_is_described(annotated: Corpus) -> None:
    attributes = annotated.read_standing(ATTRIBUTES, PHASE, "clip_id")
    traits = annotated.read(TRAITS)
    assert set(attributes["clip_id"]) == set(traits["clip_id"]) == accepted(annotated)
    assert attributes["clip_id"].n_unique() == attributes.height
    assert attributes["f0_median_hz"].null_count() == 0
    assert annotated.read(LEVELS).height > 10
    assert traits["chosen"].mean() == pytest.approx(0.3, abs=0.07)
    descriptions = descriptions_in(annotated)
    assert set(descriptions["clip_id"]) == set(traits.filter("chosen")["clip_id"])
    assert descriptions["accepted"].all()
    assert set(descriptions["writer"]) == {"grammar"}
    assert descriptions["terms"].null_count() == descriptions.height


def test_every_speaker_has_the_right_gender(annotated: Corpus) -> None:
    """All declared speakers of the bundled recordings are women; the meeting's are men."""
    names = annotated.read(RECORDINGS, ["recording_id", "uri"]).with_columns(
        name=pl.col("uri").str.split("/").list.last()
    )
    clips = annotated.read(CLIPS, ["clip_id", "recording_id"]).join(names, on="recording_id")
    heard = annotated.read(TRAITS, ["clip_id", "gender"]).join(clips, on="clip_id")
    men = heard.filter(pl.col("name").str.starts_with("en_ami"))
    women = heard.filter(~pl.col("name").str.starts_with("en_ami"))
    assert men.height
    assert women.height > 30
    assert set(men["gender"]) == {"male"}
    assert (women["gender"] == "female").mean() >= 0.95  # type: ignore[operator]


def test_a_second_run_finds_nothing_to_do(copy: Corpus) -> None:
    before = copy.read(DESCRIPTIONS).sort("clip_id")
    done = voxquarry("annotate", copy.path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing to do" in done.stdout
    assert copy.read(DESCRIPTIONS).sort("clip_id").equals(before)


def test_a_larger_share_describes_more_and_measures_nothing_again(copy: Corpus) -> None:
    attributes = copy.read(ATTRIBUTES)
    before = descriptions_in(copy)
    done = voxquarry("annotate", copy.path, "--set", "annotate.share=1.0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert copy.read(ATTRIBUTES).height == attributes.height
    after = descriptions_in(copy)
    assert set(after["clip_id"]) == accepted(copy)
    kept = after.join(before.select("clip_id", "text"), on=["clip_id", "text"], how="semi")
    assert kept.height == before.height
    chinese = voxquarry("annotate", copy.path, "--set", "annotate.language=zh")
    assert chinese.returncode == 0, chinese.stdout + chinese.stderr
    again = descriptions_in(copy)
    assert set(again["language"]) == {"zh"}
    assert again["text"].str.contains("[\u4e00-\u9fff]").all()
    assert set(again["attempt"]) == {2}


def test_levels_hold_until_they_are_found_anew(copy: Corpus) -> None:
    levels = copy.read(LEVELS)
    # As if they had been made of a third of the clips, among louder ones.
    old = levels.with_columns(
        pl.col("num_clips") // 3,
        pl.when(pl.col("measure") == "energy")
        .then(pl.col("edges").list.eval(pl.element() + 20))
        .otherwise("edges"),
    )
    copy.write_current("levels", LEVELS, old.to_arrow())
    done = voxquarry("annotate", copy.path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--relevel finds it anew" in " ".join(done.stdout.split())
    assert set(copy.read(TRAITS)["energy"]) == {"very soft"}
    again = voxquarry("annotate", copy.path, "--relevel")
    assert again.returncode == 0, again.stdout + again.stderr
    assert copy.read(LEVELS).equals(levels)
    assert len(set(copy.read(TRAITS)["energy"])) > 2


def test_the_report_shows_descriptions_beside_their_sound(copy: Corpus) -> None:
    done = voxquarry("report", copy.path)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (Path(copy.path) / "report.html").read_text(encoding="utf-8")
    texts = descriptions_in(copy)["text"].to_list()
    shown = [text for text in texts if text in page]
    assert len(shown) >= 4
    first = page.index('<article class="card clip described">')
    card = page[first : page.index("</article>", first)]
    assert "data:audio/flac;base64," in card
    assert any(text in card for text in texts)
    for chart in ("Pitch (median F0)", "Gender", "Loudness", "Emotion"):
        assert chart in page
    assert "voxquarry mine" in page


@pytest.fixture
def key() -> Iterator[None]:
    os.environ[KEY_ENV] = KEY
    yield
    del os.environ[KEY_ENV]


CLAIMS = {"gender": "male", "age": "child", "emotion": "angry", "pitch": "low", "rate": "fast"}


class Misbehaving:
    """Fails the first request of each question in turn, and lies in every third description."""

    def __init__(self) -> None:
        self.lied: list[str] = []

    def __call__(self, seen: Seen) -> Reply:
        number = seen.index
        if not seen.times_before and number % 4 == 1:
            return Reply(status=429, headers={"Retry-After": "0"})
        if not seen.times_before and number % 4 == 2:
            return Reply(status=500, raw="<html>oh no</html>")
        if "cannot be used" not in seen.text and number % 5 == 3:
            return Reply(content='{"gender": "female", "descr')
        answer = good(schema_of(seen.body))
        unsure = {name: "unsure" for name in answer if name != "description"}
        answer |= unsure | {"texture": "warm", "accent": "American", "scenario": "a call centre"}
        answer["description"] = "A warm American voice, as in a call centre."
        if number % 3 == 0:
            answer |= CLAIMS
            answer["description"] = "A little boy shouts in anger, with an American accent."
            self.lied.append(seen.idempotency)
        return Reply(content=json.dumps(answer))


def chat_settings(server: ChatServer, **changes: object) -> list[str]:
    values = {
        "url": server.url,
        "model": "ear-1",
        "terms": "own server, all uses",
        "key_env": KEY_ENV,
        "input_price": 10,
        "output_price": 100,
        "ceiling": 50,
        "max_output_tokens": 400,
        "requests_per_minute": 60_000,
        "first_wait_s": 0.01,
        **changes,
    }
    return [x for name, value in values.items() for x in ("--set", f"chat.{name}={value}")]


def test_a_model_behind_an_endpoint_writes_and_is_held_to_what_was_measured(
    copy: Corpus, key: None
) -> None:
    behave = Misbehaving()
    with ChatServer(behave, key=KEY) as server:
        settings = chat_settings(server)
        done = voxquarry("annotate", copy.path, *settings)
        assert done.returncode == 0, done.stdout + done.stderr
        first = len(server.ledger)
        again = voxquarry("annotate", copy.path, *settings)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "Nothing to do" in again.stdout
        assert len(server.ledger) == first, "a second run asked again"
        assert max(server.bills().values()) == 1, "something was paid twice"
        assert behave.lied
    chosen = set(copy.read(TRAITS).filter("chosen")["clip_id"])
    found = descriptions_in(copy)
    ill = copy.read_quarantine().filter(pl.col("phase") == "describe")
    assert set(found["clip_id"]) | set(ill["unit_id"]) == chosen, "a clip was lost"
    assert set(found["writer"]) == {"chat"}
    assert set(found["model"]) == {"ear-1"}
    assert set(found["terms"]) == {"own server, all uses"}
    assert set(found["provider"]) == {f"127.0.0.1:{server.port}"}
    assert found["model_version"].null_count() == found["prompt_hash"].null_count() == 0
    lies = found.filter(pl.col("text_written").str.contains("little boy"))
    assert lies.height
    for row in lies.to_dicts():
        wrong = {v["name"] for v in row["verified"] if v["verdict"] == "contradicted"}
        assert {"age", "emotion"} <= wrong
        if row["accepted"]:
            said = {(claim.name, claim.value) for claim in claims_in(row["text"], "en")}
            assert not said & {("age", "child"), ("emotion", "angry")}
            assert "American" in row["text"]
    output = done.stdout + done.stderr + again.stdout + again.stderr
    assert KEY not in output
    files = [path for path in Path(copy.path).rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def second_opinion(seen: Seen) -> Reply:
    """Writes of a Scottish accent; asked as the judge, is sure that there is none."""
    schema = schema_of(seen.body)
    answer = good(schema)
    if "description" in answer:
        answer = {name: "unsure" for name in answer} | {
            "texture": "warm",
            "accent": "Scottish",
            "scenario": "a call centre",
            "description": "A warm Scottish voice, as in a call centre.",
        }
    elif "accent" in answer:
        answer = {name: "disagree" if name == "accent" else "agree" for name in answer}
    return Reply(content=json.dumps(answer))


def test_a_judge_that_listens_blind_takes_out_what_it_does_not_hear(
    copy: Corpus, key: None
) -> None:
    with ChatServer(second_opinion, key=KEY) as server:
        writer = chat_settings(server)
        judge = [item.replace("chat.", "judge.") for item in chat_settings(server, model="ear-2")]
        english = ["--set", "annotate.language=en"]
        done = voxquarry("annotate", copy.path, *writer, *judge, *english)
        assert done.returncode == 0, done.stdout + done.stderr
        assert max(server.bills().values()) == 1
        asked = Counter(entry.seen.body["model"] for entry in server.ledger)
    found = descriptions_in(copy)
    # One question to the writer; two to the judge: what it hears, and what it makes of the claims.
    assert asked == {"ear-1": found.height, "ear-2": 2 * found.height}
    assert found["accepted"].all()
    for row in found.to_dicts():
        verdicts = {v["name"]: v for v in row["verified"]}
        assert verdicts["accent"]["verdict"] == "contradicted"
        assert verdicts["accent"]["by"] == "ear-2"
        assert verdicts["scenario"]["verdict"] == "confirmed"
        assert "Scottish" in row["text_written"]
        assert "Scottish" not in row["text"]
        assert "call centre" in row["text"]


def test_the_ceiling_holds_and_what_it_left_out_is_done_later(copy: Corpus, key: None) -> None:
    with ChatServer(key=KEY) as server:
        poor = voxquarry("annotate", copy.path, *chat_settings(server, ceiling=0.09))
        assert poor.returncode == 0, poor.stdout + poor.stderr
        assert server.billed <= 0.09
        assert "waiting for a higher spend ceiling" in poor.stdout
        few = Counter(descriptions_in(copy)["writer"])["chat"]
        rich = voxquarry("annotate", copy.path, *chat_settings(server))
        assert rich.returncode == 0, rich.stdout + rich.stderr
        assert max(server.bills().values()) == 1
    found = descriptions_in(copy)
    assert set(found["writer"]) == {"chat"}
    assert 0 < few < found.height


def test_a_wrong_key_ends_the_run_in_one_line(copy: Corpus, key: None) -> None:
    with ChatServer(key="another") as server:
        done = voxquarry("annotate", copy.path, *chat_settings(server))
    assert done.returncode == 1
    assert "401" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


DECLARED = [
    *("--set", "chat.url=http://127.0.0.1:1/v1", "--set", "chat.model=m", "--set", "chat.terms=t"),
    *("--set", "chat.input_price=0", "--set", "chat.output_price=0"),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "annotate.share=0"], "share"),
        (["--set", "experts.voice=nowhere"], "nowhere"),
        (["--set", "chat.url=http://localhost:1/v1"], "model"),
        (["--set", "chat.url=ftp://x", "--set", "chat.model=m"], "http"),
        (["--set", "annotate.shared=1"], "did you mean share"),
        ([*DECLARED, "--set", "chat.key_env=NO_SUCH_KEY"], "NO_SUCH_KEY holds no key"),
        ([item.replace("chat", "judge") for item in DECLARED], "only a model's words are judged"),
    ],
)
def test_bad_settings_are_one_line(copy: Corpus, arguments: list[str], message: str) -> None:
    done = voxquarry("annotate", copy.path, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_no_corpus_is_one_line(tmp_path: Path) -> None:
    done = voxquarry("annotate", str(tmp_path / "nothing"))
    assert done.returncode == 1
    assert "holds no corpus" in done.stderr
    assert not (tmp_path / "nothing").exists()


def test_audio_that_does_not_decode_costs_its_clip_alone(copy: Corpus) -> None:
    import pyarrow.parquet as pq

    part = copy.parts(CLIPS.name)[0]
    path = Path(copy.path) / part
    table = pq.read_table(path)
    kept = accepted(copy)
    victim = next(i for i in table["clip_id"].to_pylist() if i in kept)
    rows = table.to_pylist()
    for row in rows:
        if row["clip_id"] == victim:
            row["audio"] = b"fLaC but not really"
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)
    for folder in ("attributes", "traits", "levels", "descriptions"):
        shutil.rmtree(Path(copy.path) / folder)
    for folder in (PHASE, "traits", "levels", "describe"):
        shutil.rmtree(Path(copy.path) / "_commits" / folder)
    done = voxquarry("annotate", copy.path)
    assert done.returncode == 0, done.stdout + done.stderr
    ill = copy.read_quarantine().filter(pl.col("phase") == PHASE).to_dicts()
    assert [row["unit_id"] for row in ill] == [victim]
    assert ill[0]["error_type"] == "UndecodableAudio"
    assert "#t=" in ill[0]["uri"]
    assert set(copy.read(TRAITS)["clip_id"]) == kept - {victim}
