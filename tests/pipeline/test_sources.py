"""Every kind of source is listed in whole, and nothing leaves its root."""

import csv
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import boto3
import polars as pl
import pytest
from moto.server import ThreadedMotoServer

from pipeline.decoders import open_decoder
from pipeline.sources import list_sources
from schemas.errors import ConfigError, MissingSource

SECOND = "bad/grabación_ñandú é.wav"


@pytest.fixture
def folder(tmp_path: Path, devset: Path) -> Path:
    """Two sessions that share a file name, a broken file, and a file that is no audio."""
    sound = (devset / SECOND).read_bytes()
    for session in ("anna/day 1", "ben/day 1"):
        place = tmp_path / "in" / session
        place.mkdir(parents=True)
        (place / "take.wav").write_bytes(sound)
    (tmp_path / "in" / "ben" / "day 1" / "empty.flac").touch()
    (tmp_path / "in" / "notes.txt").write_text("not audio")
    return tmp_path / "in"


def test_a_folder_keeps_equal_stems_in_equal_folder_names_apart(folder: Path) -> None:
    sources = list(list_sources(str(folder)))
    assert [(s.session_id, Path(s.uri).name) for s in sources] == [
        ("anna/day 1", "take.wav"),
        ("ben/day 1", "empty.flac"),
        ("ben/day 1", "take.wav"),
    ]
    assert sources[1].size_bytes == 0


def test_a_glob_finds_what_it_says(folder: Path) -> None:
    assert len(list_sources(f"{folder}/**/*.wav")) == 2
    assert len(list_sources(f"{folder}/anna/*/*")) == 1


def test_the_bundled_manifest_lists_everything(devset: Path) -> None:
    sources = {Path(s.uri).name: s for s in list_sources(str(devset / "manifest.csv"))}
    assert len(sources) == 19
    assert sources["es_allison_s1.flac"].language == "es"
    assert sources["es_allison_s1.flac"].utterances[0].text
    assert sources["en_allison_s2.flac"].transcript
    assert sources["fr_armelle_s1.flac"].licence == "LicenseRef-armelle-permissive"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_manifests_of_every_kind_say_the_same(folder: Path, suffix: str) -> None:
    rows = [
        {"uri": "anna/day 1/take.wav", "session_id": "s1", "speaker": "anna", "language": "ES"},
        {"uri": "gone.wav", "session_id": "s2", "speaker": None, "language": None},
    ]
    manifest = folder / f"manifest.{suffix}"
    if suffix == "csv":
        with manifest.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == "jsonl":
        manifest.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        pl.DataFrame(rows).write_parquet(manifest)
    present, missing = list_sources(str(manifest))
    assert (present.session_id, present.speaker, present.language) == ("s1", "anna", "es")
    assert present.size_bytes == (folder / "anna/day 1/take.wav").stat().st_size
    assert (missing.session_id, missing.size_bytes) == ("s2", None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"uri": "../outside.wav"}], "leaves the manifest's folder"),
        ([{"uri": "link/secret.wav"}], "leaves the manifest's folder"),
        ([{"uri": "a.wav", "langauge": "en"}], "did you mean language"),
        ([{"path": "a.wav"}], "unknown column path"),
        ([{"uri": "a.wav"}, {"uri": "b.wav", "Speakr": "x"}], "did you mean speaker"),
        ([{"uri": "a.wav", "speaker": ["x"]}], "row 1: speaker is neither text nor a number"),
        ([{"uri": "a.wav"}, {"uri": "./a.wav"}], "stands there twice"),
        ([["a.wav"]], "line 1 of the manifest is no JSON object"),
        ([{"uri": ""}], "row 1: uri is empty"),
        ([], "has no rows"),
        ([{"speaker": "x"}], "has no column uri"),
        ([{"uri": "a.wav"}, {"uri": "a.wav"}], "stands there twice"),
        ([{"uri": "a.wav", "language": "english!"}], "ISO 639"),
        ([{"uri": "a.wav", "transcript": [{"start": 1}]}], "start_s, end_s, text"),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_row(
    tmp_path: Path, rows: list[object], message: str
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.wav").touch()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    manifest = tmp_path / "root" / "m.jsonl"
    manifest.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(ConfigError, match=message):
        list_sources(str(manifest))


@pytest.mark.parametrize("spec", ["nowhere", "nowhere/*.wav", "nowhere.csv"])
def test_nothing_found_is_an_error_that_says_where(tmp_path: Path, spec: str) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        list_sources(str(tmp_path / spec))


def test_manifest_sessions_keep_equal_folder_names_apart(folder: Path, tmp_path: Path) -> None:
    manifest = folder / "m.jsonl"
    away = tmp_path / "away" / "day 1" / "x.wav"
    names = ["anna/day 1/take.wav", "ben/day 1/take.wav", str(away)]
    manifest.write_text("\n".join(json.dumps({"uri": name}) for name in names))
    sessions = {source.session_id for source in list_sources(str(manifest))}
    assert sessions == {"anna/day 1", "ben/day 1", str(away.parent)}


def test_a_folder_named_like_its_root_is_a_session_of_its_own(devset: Path, tmp_path: Path) -> None:
    for place in (tmp_path / "x", tmp_path / "x" / "x"):
        place.mkdir()
        (place / "a.wav").touch()
    assert [s.session_id for s in list_sources(str(tmp_path / "x"))] == ["x", "x/x"]


def test_glob_sessions_do_not_depend_on_what_else_matches(folder: Path) -> None:
    pattern = f"{folder}/*/day 1/take.wav"
    before = {s.uri: s.session_id for s in list_sources(pattern)}
    (folder / "ben" / "day 1" / "take.wav").unlink()
    [left] = list_sources(pattern)
    assert left.session_id == before[left.uri] == "anna/day 1"


def test_links_to_nowhere_are_listed_and_links_to_folders_are_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "gone.wav").symlink_to(tmp_path / "nothing.wav")
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        [gone] = [s for s in list_sources(str(folder)) if s.uri.endswith("gone.wav")]
    assert gone.size_bytes is None
    assert "linked is a link to a folder" in caplog.text


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_long_and_odd_transcripts_survive(tmp_path: Path, suffix: str) -> None:
    """Longer than the csv module's own limit, with separators that str.splitlines breaks at."""
    text = "one\u2028two\x85three\nfour, " * 20_000
    timed = [{"start_s": 0.5, "end_s": 1.5, "text": text}]
    manifest = tmp_path / f"m.{suffix}"
    if suffix == "csv":
        with manifest.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["uri", "transcript"])
            writer.writeheader()
            writer.writerow({"uri": "a.wav", "transcript": json.dumps(timed, ensure_ascii=False)})
    else:
        row = {"uri": "a.wav", "transcript": timed}
        manifest.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    [source] = list_sources(str(manifest))
    assert source.utterances[0].text == text
    assert csv.field_size_limit() == 131_072


def test_parquet_transcripts_may_be_lists_of_structs(tmp_path: Path) -> None:
    timed = [
        {"start_s": 2.0, "end_s": 3.0, "text": "b"},
        {"start_s": 0.0, "end_s": 1.0, "text": "a"},
    ]
    pl.DataFrame({"uri": ["a.wav"], "transcript": [timed]}).write_parquet(tmp_path / "m.parquet")
    [source] = list_sources(str(tmp_path / "m.parquet"))
    assert [u.text for u in source.utterances] == ["a", "b"]


def test_a_csv_row_with_a_stray_comma_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,transcript\na.wav,one, two\n")
    with pytest.raises(ConfigError, match="row 1 has more fields"):
        list_sources(str(tmp_path / "m.csv"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real S3 server on loopback; yields the uri of a bucket on it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "word")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="sounds")
    yield f"s3://sounds/in?endpoint_override=http://{host}:{port}&region=us-east-1"
    server.stop()


def put(bucket: str, objects: dict[str, bytes]) -> str:
    """Fill the bucket; returns its server's address."""
    endpoint = bucket.partition("endpoint_override=")[2].partition("&")[0]
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    for key, body in objects.items():
        client.put_object(Bucket="sounds", Key=key, Body=body)
    return endpoint


def num_frames(uri: str) -> int:
    with open_decoder(uri) as decoder:
        return sum(len(block) for block in decoder.blocks(0, None))


def test_an_s3_prefix_is_listed_and_read_whatever_the_names(bucket: str, devset: Path) -> None:
    sound = (devset / SECOND).read_bytes()
    names = ["a b.wav", "grabación é.wav", "50%25.wav", "#1.wav", "what?.wav"]
    put(bucket, {f"in/s1/{name}": sound for name in names} | {"in/s1/readme.md": b"no"})
    sources = list_sources(bucket)
    assert [(s.session_id, s.size_bytes) for s in sources] == [("s1", len(sound))] * 5
    assert [num_frames(s.uri) for s in sources] == [64_000] * 5
    scheme, _, query = bucket.partition("?")
    [spaced] = list_sources(f"{scheme}/s1/a*.wav?{query}")
    assert num_frames(spaced.uri) == 64_000
    [single] = list_sources(f"{scheme}/s1/a b.wav?{query}")
    assert (single.session_id, num_frames(single.uri)) == ("s1", 64_000)


def test_an_s3_prefix_is_listed_at_every_depth(bucket: str, devset: Path) -> None:
    sound = (devset / SECOND).read_bytes()
    below = ["top.wav", "s1/a.wav", "s1/day/b.wav", "s2/day/night/c.wav"]
    put(bucket, {f"deep/{name}": sound for name in below})
    scheme, _, query = bucket.replace("/in?", "/deep?").partition("?")
    sources = list_sources(f"{scheme}?{query}")
    assert [s.uri.partition("?")[0].removeprefix("s3://sounds/deep/") for s in sources] == below
    assert [s.session_id for s in sources] == ["deep", "s1", "s1/day", "s2/day/night"]
    assert len(list_sources(f"{scheme}/*/day/*?{query}")) == 2


def test_a_manifest_on_s3_names_files_beside_it_and_the_endpoint_comes_from_the_environment(
    bucket: str, devset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = (devset / SECOND).read_bytes()
    rows = b"uri,speaker\ns 1/a.wav,anna\ngone.wav,ben\n"
    endpoint = put(bucket, {"in/m.csv": rows, "in/s 1/a.wav": sound})
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    missing, present = list_sources("s3://sounds/in/m.csv")
    assert (present.session_id, present.speaker, present.size_bytes) == ("s 1", "anna", len(sound))
    assert num_frames(present.uri) == 64_000
    assert (missing.session_id, missing.size_bytes) == ("in", None)
    with pytest.raises(MissingSource, match="gone"):
        num_frames(missing.uri)


def test_a_bucket_that_is_not_there_is_a_config_error(bucket: str) -> None:
    with pytest.raises(ConfigError, match="nobucket"):
        list_sources(bucket.replace("s3://sounds", "s3://nobucket"))
