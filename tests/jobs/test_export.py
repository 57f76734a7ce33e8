"""What goes out and what stays, and that an export is whole however often it was killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest
import yaml
from moto.server import ThreadedMotoServer
from rich.console import Console

from jobs.exporting.folder import BOOKS
from jobs.exporting.options import ExportConfig, FormatName
from jobs.run_export import run_export
from pipeline.storage import Corpus
from schemas.arrow import CLIPS
from schemas.errors import ConfigError
from tests.jobs.composable_corpus import Cloned
from tests.jobs.exportable_corpus import (
    DESCRIPTION,
    LICENCES,
    Exportable,
    add_clones,
    declare,
    make_exportable,
)

SMALL = ExportConfig(validation=0.2, test=0.2, shard_s=10.0)
EVERYTHING = replace(SMALL, validation=0.0, test=0.0)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Exportable:
    return make_exportable(tmp_path_factory.mktemp("master"))


@pytest.fixture
def made(master: Exportable, tmp_path: Path) -> Exportable:
    """A copy that a test may change."""
    root = tmp_path / "corpus"
    shutil.copytree(master.root, root)
    return replace(
        master,
        root=str(root),
        corpus=Corpus(str(root)),
        sounds=dict(master.sounds),
        texts=dict(master.texts),
    )


def export(
    made: Exportable, out: Path | str, config: ExportConfig = SMALL, to: str = "webdataset"
) -> str:
    """What the command prints."""
    console = Console(record=True, width=200)
    policy = str(made.policy)
    run_export(made.root, FormatName(to), str(out), config, policy=policy, console=console)
    return console.export_text()


def files_of(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def exported(made: Exportable, out: Path, config: ExportConfig = EVERYTHING) -> set[str]:
    export(made, out, config, "huggingface")
    frame = pl.read_parquet(out / "data" / "*.parquet", columns=["clip_id"])
    return set(frame["clip_id"])


def of(made: Exportable, *sessions: str) -> set[str]:
    clips = made.corpus.read(CLIPS, ["clip_id", "session_id"])
    return set(clips.filter(pl.col("session_id").is_in(sessions))["clip_id"])


# -------------------------------------------------------------------- what goes out


def test_a_licence_is_asked_for_however_it_is_spelled(made: Exportable, tmp_path: Path) -> None:
    declare(made, LICENCES | {"june": "CC0-1.0"})
    asked = replace(EVERYTHING, licences=("cc-by-sa *",))
    assert exported(made, tmp_path / "one", asked) == of(made, "en_allison", "es_allison")
    both = replace(EVERYTHING, licences=("cc0*", "CC_BY_SA_3.0"))
    assert exported(made, tmp_path / "two", both) == set(made.sounds) - of(made, "fr_armelle")
    with pytest.raises(ConfigError, match="left to export: licence 16"):
        export(made, tmp_path / "none", replace(EVERYTHING, licences=("MIT",)))


def test_whose_consent_refuses_training_stays(made: Exportable, tmp_path: Path) -> None:
    consents = {
        "en_allison": "training",
        "es_allison": "no cloning",
        "fr_june": "ask my agent",
    }
    declare(made, LICENCES, **consents)
    out = tmp_path / "lax"
    assert exported(made, out) == of(made, "en_allison", "fr_armelle")
    strict = replace(EVERYTHING, consent="required")
    assert exported(made, tmp_path / "strict", strict) == of(made, "en_allison")
    told = export(made, out, EVERYTHING, "huggingface")
    assert "consent_refused (" in told
    assert "(1 recordings): ask my agent" in told


def test_rejected_and_textless_clips_stay(made: Exportable, tmp_path: Path) -> None:
    (part,) = made.corpus.parts(CLIPS.name)
    frame = made.corpus.read(CLIPS).with_columns(
        text=pl.when(pl.col("clip_id") == "01cl1p").then(pl.lit("  ")).otherwise("text"),
        snr_db=pl.when(pl.col("clip_id") == "02cl1p").then(0.0).otherwise("snr_db"),
    )
    made.corpus.write_table(part, CLIPS, frame.to_arrow().cast(CLIPS.schema))
    assert exported(made, tmp_path / "out") == set(made.sounds) - {"01cl1p", "02cl1p"}
    assert "no_text" in (tmp_path / "out" / "README.md").read_text()


def clone(name: str, of_clip: str, says: str, made: Exportable, **more: Any) -> Cloned:
    text = more.pop("text", made.texts[says])
    return Cloned(name=name, of=of_clip, says=says, text=text, description=DESCRIPTION, **more)


def test_a_clone_goes_out_only_with_all_that_it_is_made_from(
    made: Exportable, tmp_path: Path
) -> None:
    frame = _sides(made, tmp_path / "before")
    train, held = (
        frame.filter(pl.col("train") == side)["clip_id"].sort() for side in (True, False)
    )
    add_clones(
        made,
        [
            clone("g00d", train[0], train[1], made),
            clone("v0ice", held[0], train[1], made),
            clone("t3xt", train[0], held[0], made),
            clone("h3ard", train[0], train[1], made, heard=(train[0], held[0])),
            clone("sa1d", train[0], train[1], made, text=made.texts[held[1]].upper()),
            clone("bad", train[0], train[1], made, accepted=False),
        ],
    )
    out = tmp_path / "after"
    found = _sides(made, out)
    assert set(found["clip_id"]) - set(made.sounds) == set()
    made_ones = found.filter("synthetic")
    assert made_ones.select("clip_id", "train", "speaker").rows() == [("g00d", True, "allison")]
    assert "made_of_others" in (out / "README.md").read_text()
    assert "| train | 9 |" in (out / "README.md").read_text()
    without = _sides(made, tmp_path / "without", replace(SMALL, synthetic=False))
    assert not without["synthetic"].any()


def _sides(made: Exportable, out: Path, config: ExportConfig = SMALL) -> pl.DataFrame:
    export(made, out, config, "huggingface")
    columns = ["clip_id", "synthetic", "speaker", "split"]
    frame = pl.read_parquet(out / "data" / "*.parquet", include_file_paths="split")
    return frame.select(columns).with_columns(train=pl.col("split").str.contains("/train-"))


def test_unreadable_audio_costs_its_clip_alone(made: Exportable, tmp_path: Path) -> None:
    (part,) = made.corpus.parts(CLIPS.name)
    frame = made.corpus.read(CLIPS)
    sound = pl.Series([made.sounds[name] for name in frame["clip_id"]])
    sound[2] = b"fLaC" + bytes(50)
    made.corpus.write_table(
        part, CLIPS, frame.with_columns(audio=sound).to_arrow().cast(CLIPS.schema)
    )
    told = export(made, tmp_path / "out", EVERYTHING, "voxcpm")
    assert "unreadable: 02cl1p" in told
    rows = [
        json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()
    ]
    assert len(rows) == len(made.sounds) - 1
    referred = {Path(row["ref_audio"]) for row in rows if row["ref_audio"]}
    assert all(path.exists() for path in referred)
    assert "| unreadable |" in (tmp_path / "out" / "README.md").read_text()


# -------------------------------------------------------------------- the card


def test_the_readme_tells_what_the_summary_asks_for(made: Exportable, tmp_path: Path) -> None:
    declare(made, {"allison": "CC-BY-4.0", "june": "a | b", "armelle": None})
    add_clones(made, [clone("cl0ne", "00cl1p", "05cl1p", made)])
    export(made, tmp_path / "out", EVERYTHING, "huggingface")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    values = yaml.safe_load(head)
    assert values["language"] == ["en", "es", "fr"]
    assert values["license"] == ["cc-by-4.0", "other", "unknown"]
    assert [one["split"] for one in values["configs"][0]["data_files"]] == ["train"]
    hours = sum(made.pcm(name).size / made.rate(name) for name in made.sounds) / 3600
    for line in (
        f"| train | 17 | {hours:,.3f} | 1 | 3 | 4 |",
        f"less than 10,000 hours ({hours:,.2f} hours in 17 clips)",
        "| English (en) | 5 |",
        "| not measured | 17 |",
        "| a \\| b | 4 |",
        "| prompts-fr | 8 |",
        "1 of 17 clips, ",
        "Models: tiny.",
        "No recording names an internet domain.",
    ):
        assert line in body


def test_domains_and_kinds_of_places_are_told() -> None:
    from jobs.exporting.card_tables import domains_of, kinds_of

    clips = pl.DataFrame(
        {
            "uri": [
                "https://a.org/x.mp3",
                "s3://bucket/y.wav",
                "/home/z.wav",
                "https://A.org:80/w",
            ],
            "source": [None, "https://b.example/feed", "radio", "https://c.org"],
            "duration_s": [10.0, 30.0, 40.0, 20.0],
        }
    )
    assert [(row[0], row[3]) for row in domains_of(clips)] == [
        ("a.org", "50.0%"),
        ("b.example", "50.0%"),
    ]
    assert [row[:2] for row in kinds_of(clips)] == [
        ("files", "1"),
        ("object store", "1"),
        ("web", "2"),
    ]


# -------------------------------------------------------------------- whole or not at all

DIES = """
import os, signal, sys
from dataclasses import replace
from rich.console import Console
from jobs.exporting import registry
from jobs.exporting.options import ExportConfig, FormatName
from jobs.exporting.to_webdataset import WebDataset
from jobs.run_export import run_export

class Dying(WebDataset):
    def write(self, folder, shard, clips):
        def half():
            yield next(clips)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write(folder, shard, half() if shard.index == 2 else clips)

registry.FORMATS[FormatName.WEBDATASET] = Dying
root, out, policy = sys.argv[1:]
config = ExportConfig(validation=0.2, test=0.2, shard_s=10.0)
run_export(root, FormatName.WEBDATASET, out, config, policy=policy, console=Console())
"""


def test_a_killed_export_is_ended_by_the_next_and_is_that_of_one_run(
    made: Exportable, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    killed = subprocess.run(
        [sys.executable, "-c", DIES, made.root, str(out), str(made.policy)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = files_of(out)
    whole = {name for name in left if name.endswith(".tar") and ".aside" not in name}
    assert len(whole) == 2
    assert "README.md" not in left
    stamps = {name: (out / name).stat().st_mtime_ns for name in whole}

    export(made, out)
    export(made, tmp_path / "unbroken")
    ours, theirs = files_of(out), files_of(tmp_path / "unbroken")
    assert ours == theirs
    assert {name: (out / name).stat().st_mtime_ns for name in whole} == stamps
    assert "Nothing to do" in export(made, out)
    assert files_of(out) == ours


def test_a_shard_without_its_marker_is_written_again(made: Exportable, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(made, out, to="kaldi")
    before = files_of(out)
    marker = next((out / BOOKS).glob("train-00001-*.json"))
    names = json.loads(marker.read_text())["files"]
    marker.unlink()
    (out / names[0]).write_bytes(b"half")
    assert "Nothing to do" not in export(made, out, to="kaldi")
    assert files_of(out) == before


def test_a_voice_that_left_the_corpus_leaves_the_export(made: Exportable, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(made, out, to="voxcpm")
    gone = of(made, "fr_june")
    declare(made, LICENCES, fr_june="withdrawn")
    export(made, out, to="voxcpm")
    left = files_of(out)
    assert not [name for name in left if Path(name).stem in gone]
    assert not any(name.encode() in content for name in gone for content in left.values())
    export(made, tmp_path / "fresh", to="voxcpm")
    fresh = files_of(tmp_path / "fresh")
    assert {name for name in left if name.endswith(".flac")} == {
        name for name in fresh if name.endswith(".flac")
    }


def test_a_folder_of_something_else_is_not_touched(made: Exportable, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "diary.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty and no export"):
        export(made, out)
    assert files_of(out) == {"diary.txt": b"mine"}
    export(made, tmp_path / "kaldi", to="kaldi")
    with pytest.raises(ConfigError, match="holds an export to kaldi"):
        export(made, tmp_path / "kaldi")


# -------------------------------------------------------------------- object stores


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """A folder of a bucket → its uri."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="data")
    yield lambda folder: f"s3://data/{folder}?endpoint_override={endpoint}&region=us-east-1"
    server.stop()


def test_a_corpus_in_a_bucket_is_exported_into_a_bucket(
    made: Exportable, bucket: Callable[[str], str], tmp_path: Path
) -> None:
    there = Corpus(bucket("corpus"))
    for name, content in files_of(Path(made.root)).items():
        with there.fs.open_output_stream(f"{there.path}/{name}") as sink:
            sink.write(content)
    remote = replace(made, root=bucket("corpus"), corpus=there)
    whole = replace(EVERYTHING, shard_s=3600.0)
    export(remote, bucket("out"), whole)
    export(made, tmp_path / "out", whole)
    out = Corpus(bucket("out"))
    local = files_of(tmp_path / "out")
    for name, content in local.items():
        if name != f"{BOOKS}/export.json":
            with out.fs.open_input_stream(f"{out.path}/{name}") as source:
                assert source.read() == content, name
    assert "Nothing to do" in export(remote, bucket("out"), whole)
    with pytest.raises(ConfigError, match="must be a folder"):
        export(remote, bucket("other"), to="kaldi")
