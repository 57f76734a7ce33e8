"""The pages of `voxquarry browse` over HTTP: what they find, what they keep, whom they refuse."""

import io
import re
import shutil
import socket
from pathlib import Path
from urllib.parse import quote

import polars as pl
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from starlette.datastructures import QueryParams
from starlette.testclient import TestClient

from jobs.forget import run_forget
from jobs.forget_plan import Request
from jobs.judge import judge_corpus
from jobs.run_browse import open_shop, run_browse
from pipeline.browse.catalog import PAGE_ROWS, Catalog
from pipeline.browse.query import Condition, Query, parse
from pipeline.browse.server import make_app
from pipeline.policy import judge_synthetic, load_synthetic_policy
from pipeline.reviews import mark_bad, read_reviews
from pipeline.storage import Corpus
from pipeline.tombstones import JOURNAL
from schemas.arrow import CLIPS, SYNTHETIC, VERDICTS
from schemas.errors import ConfigError
from tests.pipeline.browse_corpus import EVIL, make_corpus

FIRST = "en_allison_s1-000"


@pytest.fixture(scope="module")
def made(devset: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(devset, tmp_path_factory.mktemp("browse") / "corpus")


@pytest.fixture
def corpus(made: Corpus, tmp_path: Path) -> Corpus:
    """One to write to."""
    shutil.copytree(made.path, tmp_path / "corpus")
    return Corpus(str(tmp_path / "corpus"))


@pytest.fixture(scope="module")
def reading(made: Corpus) -> TestClient:
    """For tests that write nothing."""
    return client_of(made)


def client_of(corpus: Corpus) -> TestClient:
    return TestClient(make_app(open_shop(corpus.root)), base_url="http://127.0.0.1:8350")


@pytest.fixture
def client(corpus: Corpus) -> TestClient:
    return client_of(corpus)


def listed(client: TestClient, address: str) -> list[str]:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return re.findall(r'data-clip="([^"]+)"', answer.text)


def token(client: TestClient) -> dict[str, str]:
    page = client.get("/clips").text
    found = re.search(r'name="voxquarry-token" content="([^"]+)"', page)
    assert found is not None
    return {"x-voxquarry-token": found[1]}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("verdict=kept", pl.col("accepted")),
        ("verdict=rejected", ~pl.col("accepted")),
        ("reason=low_snr", pl.col("snr_db") < 12),
        ("language=fr", pl.col("language") == "fr"),
        ("search=PLEASE", pl.col("text").str.to_lowercase().str.contains("please")),
        ("column=snr_db&operator=at+least&value=41", pl.col("snr_db") >= 41),
        ("column=snr_db&operator=is+empty&value=", pl.col("snr_db").is_null()),
        ("column=dnsmos_ovrl&operator=at+most&value=3.1", pl.col("dnsmos_ovrl") < 3.15),
        ("column=dnsmos_ovrl&operator=is&value=3.1", (pl.col("dnsmos_ovrl") - 3.1).abs() < 1e-6),
        ("column=speaker&operator=is+not&value=june", pl.col("speaker") != "june"),
        ("column=uri&operator=contains&value=MUSIC5.", pl.col("recording_id").str.contains("mus")),
        ("column=accepted&operator=is+not&value=true", ~pl.col("accepted")),
        (
            # With the form's spare row.
            "column=snr_db&operator=at+most&value=20&column=text&operator=contains&value=a&"
            + "column=&operator=contains&value=",
            (pl.col("snr_db") <= 20) & pl.col("text").str.to_lowercase().str.contains("a"),
        ),
    ],
)
def test_a_page_holds_what_was_asked_for(
    made: Corpus, reading: TestClient, asked: str, expected: pl.Expr
) -> None:
    everything = made.read(CLIPS).join(made.read(VERDICTS), on="clip_id")
    wanted = everything.filter(expected)
    assert 0 < wanted.height < everything.height
    assert sorted(listed(reading, f"/clips?{asked}")) == sorted(wanted["clip_id"])
    hours = wanted["duration_s"].sum() / 3600
    assert f"{hours:.2f} hours" in reading.get(f"/clips?{asked}").text


@pytest.mark.parametrize("descending", [False, True])
def test_the_unmeasured_is_last_in_either_order(
    made: Corpus, reading: TestClient, descending: bool
) -> None:
    order = "&order=descending" if descending else ""
    found = listed(reading, f"/clips?sort=snr_db{order}")
    scores = dict(made.read(CLIPS, ["clip_id", "snr_db"]).iter_rows())
    values = [scores[name] for name in found]
    assert values[-4:] == [None] * 4
    assert values[:-4] == sorted(values[:-4], reverse=descending)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("column=nope&operator=is&value=1", "clips have no column nope"),
        ("column=snr_db&operator=contains&value=1", "snr_db holds numbers"),
        ("column=snr_db&operator=is&value=loud", "snr_db holds numbers, got 'loud'"),
        ("column=text&operator=at+least&value=a", "text holds text"),
        ("column=reasons&operator=is&value=a", "reasons holds lists"),
        ("column=accepted&operator=is&value=1", "accepted holds true or false"),
        ("column=snr_db&operator=like&value=1", "no operator 'like'"),
        ("column=snr_db&operator=is", "wants a column, an operator and a value"),
        ("sort=reasons", "lists, which have no order"),
        ("sort=audio", "clips have no column audio"),
        ("verdict=fine", "no verdict 'fine'"),
        ("page=0", "page must be a number from 1 on"),
        ("page=x", "page must be a number from 1 on"),
    ],
)
def test_what_cannot_be_asked_is_one_line(reading: TestClient, asked: str, told: str) -> None:
    answer = reading.get(f"/clips?{asked}")
    assert answer.status_code == 400
    assert told in answer.text
    assert "\n" not in answer.text


words = st.text(max_size=8)
conditions = st.builds(
    Condition,
    column=st.sampled_from(["snr_db", "text"]),
    operator=st.sampled_from(["is", "at least", "is empty"]),
    value=words.map(str.strip),
)


@given(
    query=st.builds(
        Query,
        search=words.map(str.strip),
        verdict=st.sampled_from(["", "kept", "marked bad"]),
        reason=words,
        language=words,
        where=st.lists(conditions, max_size=3).map(tuple),
        sort=words,
        descending=st.booleans(),
        page=st.integers(1, 10**8),
    )
)
def test_an_address_says_all_that_is_asked(query: Query) -> None:
    assert parse(QueryParams(query.address()[1:])) == query


@given(
    values=st.lists(st.none() | st.floats(-1e6, 1e6, width=32), max_size=150),
    descending=st.booleans(),
    least=st.floats(-1e6, 1e6, width=32),
)
def test_the_pages_together_hold_every_match_once(
    values: list[float | None], descending: bool, least: float
) -> None:
    frame = pl.DataFrame(
        {"score": values, "clip_id": [str(i) for i in range(len(values))]},
        schema={"score": pl.Float64, "clip_id": pl.String},
    ).with_columns(
        duration_s=pl.lit(36.0),
        text=pl.lit("a"),
        language=pl.lit("en"),
        reasons=pl.lit([], pl.List(pl.String)),
        part=pl.lit("p"),
    )
    catalog = Catalog("clips", frame, [])
    where = (Condition(column="score", operator="at least", value=repr(least)),)
    query = Query(where=where, sort="score", descending=descending)
    first = catalog.view(query)
    pages = [
        catalog.view(parse(QueryParams(query.address(page=page)[1:])))
        for page in range(1, first.pages + 1)
    ]
    found = [row["score"] for page in pages for row in page.rows]
    assert all(len(page.rows) <= PAGE_ROWS for page in pages)
    assert found == sorted((v for v in values if v is not None and v >= least), reverse=descending)
    assert first.total == len(found)
    assert first.hours == pytest.approx(0.01 * len(found))


def test_what_comes_from_outside_stays_text(corpus: Corpus) -> None:
    (part, *_) = corpus.parts(CLIPS.name)
    frame = corpus.read(CLIPS).head(2)
    hostile = frame.with_columns(
        pl.lit(EVIL).alias(name) for name in ("text", "speaker", "language")
    ).with_columns(words=pl.lit([{"word": EVIL, "start_s": 0.0, "end_s": 1.0, "prob": 0.5}]))
    corpus.write_table(part, CLIPS, hostile.to_arrow().cast(CLIPS.schema))
    name = frame["clip_id"][0]
    mark_bad(corpus, name, EVIL)
    client = client_of(corpus)
    for address in (f"/clips?search={quote(EVIL)}", f"/clips/{name}", f"/clips/{name}/panel"):
        page = client.get(address)
        assert page.status_code == 200
        assert "&lt;img src=x" in page.text
        assert "<img" not in page.text
        assert page.text.count("</script>") == ("panel" not in address)
    policy = client.get("/clips").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_a_clip_is_heard_as_it_is_stored(made: Corpus, reading: TestClient) -> None:
    stored = dict(made.read(CLIPS, ["clip_id", "audio"]).iter_rows())
    answer = reading.get(f"/clips/{FIRST}/audio")
    assert answer.content == stored[FIRST]
    assert answer.headers["content-type"] == "audio/flac"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    wave, rate = sf.read(io.BytesIO(stored[FIRST]))
    told = reading.get(f"/clips/{FIRST}/outline").json()
    assert told["duration_s"] == pytest.approx(len(wave) / rate)
    assert len(told["peaks"]) == pytest.approx(100 * told["duration_s"], abs=1)
    assert max(told["peaks"]) == pytest.approx(abs(wave).max(), abs=1e-3)
    panel = reading.get(f"/clips/{FIRST}/panel").text
    said = made.read(CLIPS).filter(clip_id=FIRST)["words"][0].to_list()
    assert re.findall(r'data-start="([\d.]+)"', panel) == [f"{w['start_s']:.3f}" for w in said]
    assert reading.get("/synthetic/clone-0/audio").content == stored["fr_june_s1-000"]


@pytest.mark.parametrize(
    "address",
    [
        "/clips/nobody/audio",
        "/clips/..%2f..%2f_runs/audio",
        "/clips/%2e%2e/audio",
        "/static/..%2fserver.py",
        "/static/%2e%2e/%2e%2e/policy.py",
        "/verdicts/x/audio",
        f"/synthetic/{FIRST}/audio",
        "/_runs",
    ],
)
def test_nothing_but_clips_is_served(reading: TestClient, address: str) -> None:
    assert reading.get(address).status_code == 404


def test_a_clip_without_sound_says_so(corpus: Corpus) -> None:
    for part in corpus.parts(CLIPS.name):
        table = corpus._read_part(CLIPS, part, CLIPS.schema.names, None)
        silent = pl.from_arrow(table.replace_schema_metadata())
        assert isinstance(silent, pl.DataFrame)
        silent = silent.with_columns(audio=pl.lit(None, pl.Binary))
        corpus.write_table(part, CLIPS, silent.to_arrow().cast(CLIPS.schema))
    client = client_of(corpus)
    assert "holds no audio" in client.get(f"/clips/{FIRST}/panel").text
    assert client.get(f"/clips/{FIRST}/audio").status_code == 404


def test_a_mark_is_kept_shown_and_taken_back(corpus: Corpus, client: TestClient) -> None:
    ours = token(client)
    address = f"/clips/{FIRST}/review"
    assert client.put(address, json={"reason": " noise "}, headers=ours).status_code == 200
    assert client.put(address, json={"reason": "cut word"}, headers=ours).status_code == 200
    assert client.put(
        "/synthetic/clone-0/review", json={"reason": "artefacts"}, headers=ours
    ).json() == {"clip_id": "clone-0", "review": "artefacts"}
    kept = dict(read_reviews(corpus).select("clip_id", "review").iter_rows())
    assert kept == {FIRST: "cut word", "clone-0": "artefacts"}
    assert listed(client, "/clips?verdict=marked+bad") == [FIRST]
    # Another server, later.
    assert listed(client_of(corpus), "/clips?verdict=marked+bad") == [FIRST]
    assert client.delete(address, headers=ours).json()["review"] is None
    assert set(read_reviews(corpus)["clip_id"]) == {"clone-0"}
    assert listed(client, "/clips?verdict=marked+bad") == []


def test_marked_clips_are_rejected_until_the_mark_is_taken_back(
    corpus: Corpus, client: TestClient
) -> None:
    quiet = Console(quiet=True)
    corpus.write_json("_runs/r.json", {"run": "r", "started": ""})
    before = judge_corpus(corpus.root, "default", quiet)
    client.put(f"/clips/{FIRST}/review", json={"reason": "noise"}, headers=token(client))
    marked = judge_corpus(corpus.root, "default", quiet)
    assert marked.clips_kept == before.clips_kept - 1
    (verdict,) = corpus.read(VERDICTS).filter(clip_id=FIRST).to_dicts()
    assert verdict["reasons"] == ["reviewed_bad"]
    assert not verdict["accepted"]
    client.delete(f"/clips/{FIRST}/review", headers=token(client))
    assert judge_corpus(corpus.root, "default", quiet).clips_kept == before.clips_kept


def test_marked_clones_are_rejected(corpus: Corpus) -> None:
    policy = load_synthetic_policy("synthetic")
    clones = corpus.read(SYNTHETIC)
    mark_bad(corpus, "clone-0", "robot")
    (verdict,) = judge_synthetic(clones, policy, read_reviews(corpus)).to_dicts()
    assert "reviewed_bad" in verdict["reasons"]
    (verdict,) = judge_synthetic(clones, policy).to_dicts()
    assert "reviewed_bad" not in verdict["reasons"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-voxquarry-token": "guess"},
        {"x-voxquarry-token": "gu\xe9ss"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
def test_other_pages_mark_nothing(
    corpus: Corpus, client: TestClient, headers: dict[str, str]
) -> None:
    sent = {**(token(client) if "origin" in headers else {}), **headers}
    raw = {name: value.encode("latin-1") for name, value in sent.items()}
    address = f"/clips/{FIRST}/review"
    assert client.put(address, json={"reason": "x"}, headers=raw).status_code == 403
    assert client.delete(address, headers=raw).status_code == 403
    assert client.post(address, data={"reason": "x"}).status_code == 405
    assert read_reviews(corpus).is_empty()


def test_our_own_pages_may(client: TestClient) -> None:
    ours = {**token(client), "origin": "http://127.0.0.1:8350"}
    answer = client.put(f"/clips/{FIRST}/review", json={"reason": "x"}, headers=ours)
    assert answer.status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8350", ""])
def test_a_name_that_was_bent_to_this_machine_is_refused(reading: TestClient, host: str) -> None:
    for address in ("/clips", f"/clips/{FIRST}/audio", "/static/browse.js"):
        assert reading.get(address, headers={"host": host}).status_code == 400


@pytest.mark.parametrize("body", [b"", b"[]", b'{"reason": 1}', b'{"reason": "  "}', b"{}"])
def test_a_mark_wants_a_reason(corpus: Corpus, client: TestClient, body: bytes) -> None:
    answer = client.put(f"/clips/{FIRST}/review", content=body, headers=token(client))
    assert answer.status_code == 400
    assert read_reviews(corpus).is_empty()


def test_an_endless_reason_is_refused(corpus: Corpus, client: TestClient) -> None:
    reason = {"reason": "x" * 501}
    answer = client.put(f"/clips/{FIRST}/review", json=reason, headers=token(client))
    assert answer.status_code == 400
    assert read_reviews(corpus).is_empty()


def test_no_corpus_and_a_taken_port_are_one_line(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no corpus"):
        run_browse(str(tmp_path / "nothing"), 0, Console(quiet=True))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="--port names another"):
            run_browse(corpus.root, other.getsockname()[1], Console(quiet=True))


def test_after_an_opt_out_nothing_is_marked_from_what_was_read_before(
    corpus: Corpus, client: TestClient
) -> None:
    ours = token(client)
    address = f"/clips/{FIRST}/review"
    corpus.write_json(JOURNAL, {})
    assert "interrupted" in client.put(address, json={"reason": "noise"}, headers=ours).text
    with pytest.raises(ConfigError, match="an opt-out was interrupted"):
        open_shop(corpus.root)
    corpus.delete(JOURNAL)
    quiet = Console(file=io.StringIO())
    request = Request(kind="recording", name="en_allison_s1", reason="asked to")
    assert run_forget(corpus.root, request, dry_run=False, agreed=lambda: True, console=quiet)
    answer = client.put(address, json={"reason": "noise"}, headers=ours)
    assert answer.status_code == 400
    assert "start browse anew" in answer.text
    assert read_reviews(corpus).is_empty()
    again = client_of(corpus)
    assert again.get(f"/clips/{FIRST}").status_code == 404
    other = listed(again, "/clips")[0]
    marked = again.put(f"/clips/{other}/review", json={"reason": "noise"}, headers=token(again))
    assert marked.json()["review"] == "noise"
