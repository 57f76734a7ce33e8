"""Every kind of source is listed in whole, and nothing leaves its root."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import polars as pl
import pytest
from moto.server import ThreadedMotoServer

from pipeline.decoders import open_decoder
from pipeline.sources import list_sources
from schemas.errors import ConfigError

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
    sources = list_sources(str(folder))
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
        ([{"uri": ""}], "row 1: uri is empty"),
        ([{"uri": "a.wav"}, {"uri": "a.wav"}], "stands there twice"),
        ([{"uri": "a.wav", "language": "english!"}], "ISO 639"),
        ([{"uri": "a.wav", "transcript": [{"start": 1}]}], "start_s, end_s, text"),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_row(
    tmp_path: Path, rows: list[dict[str, str]], message: str
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


def test_an_s3_prefix_is_listed_and_read(bucket: str, devset: Path) -> None:
    endpoint = bucket.partition("endpoint_override=")[2].partition("&")[0]
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    sound = (devset / SECOND).read_bytes()
    client.put_object(Bucket="sounds", Key="in/s1/a.wav", Body=sound)
    client.put_object(Bucket="sounds", Key="in/s1/readme.md", Body=b"no")
    [source] = list_sources(bucket)
    assert (source.session_id, source.size_bytes) == ("s1", len(sound))
    with open_decoder(source.uri) as decoder:
        frames = sum(len(block) for block in decoder.blocks(0, None))
    assert frames == 64_000
