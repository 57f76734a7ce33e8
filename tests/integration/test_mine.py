"""`voxquarry mine` from end to end, on the curated recordings with their real voices."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from pipeline.storage import Corpus
from schemas.arrow import CLIPS, DUPLICATES, RECORDINGS, REFERENCES, SESSIONS, VERDICTS
from tests.integration.conftest import voxquarry

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ALL_TIERS = "accept_tiers: [telephone, wideband, fullband]"


def rewritten(corpus: Corpus, root: Path, sessions: pl.Expr) -> Corpus:
    """A copy of a corpus whose clips are in other sessions. The expression sees uri and voice."""
    shutil.copytree(corpus.path, root)
    copy = Corpus(str(root))
    known = voices(corpus)
    for part in copy.parts("clips"):
        table = pq.read_table(root / part)
        ids = pl.DataFrame({"clip_id": table["clip_id"].to_pylist()})
        named = ids.join(known, on="clip_id", how="left", maintain_order="left").select(sessions)
        column = pa.array(named.to_series().to_list(), pa.string())
        index = table.schema.get_field_index("session_id")
        table = table.set_column(index, table.schema.field("session_id"), column)
        copy.write_table(part, CLIPS, table.cast(CLIPS.schema))
    return copy


def voices(corpus: Corpus) -> pl.DataFrame:
    """clip_id, uri, name of the file, voice: the speaker that the source declares, if only one."""
    recordings = corpus.read(RECORDINGS, ["recording_id", "uri", "speaker"]).with_columns(
        name=pl.col("uri").str.split("/").list.last(),
        # One woman, recorded in two languages.
        voice=pl.col("speaker").replace({"allison_es": "allison"}),
    )
    return corpus.read(CLIPS, ["clip_id", "recording_id", "session_id"]).join(
        recordings, on="recording_id"
    )


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default policy, for telephone speech too: most voices of the bundled set are."""
    path = tmp_path_factory.mktemp("policy") / "tiers.yaml"
    default = Path("pipeline/policies/default.yaml").read_text()
    path.write_text(default.replace("accept_tiers: [wideband, fullband]", ALL_TIERS))
    return path


@pytest.fixture(scope="module")
def merged(
    corpus: Corpus, policy: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Corpus, str]:
    """Clean recordings of several voices in one session, mined; the others in theirs."""
    clean = pl.col("name").is_in(
        ["en_allison_s1.flac", "en_allison_s2.flac", "es_allison_s1.flac", "fr_june_s1.flac"]
    )
    copy = rewritten(
        corpus,
        tmp_path_factory.mktemp("merged") / "corpus",
        pl.when(clean).then(pl.lit("all in one")).otherwise("session_id"),
    )
    done = voxquarry("mine", copy.root, "--policy", str(policy))
    assert done.returncode == 0, done.stdout + done.stderr
    return copy, done.stdout


def standing(corpus: Corpus) -> pl.DataFrame:
    return corpus.read_standing(REFERENCES, "mine", "session_id")


def test_pairs_are_of_one_voice_and_few_are_missed(merged: tuple[Corpus, str]) -> None:
    corpus, _ = merged
    known = voices(corpus).select("clip_id", "voice").drop_nulls()
    pairs = (
        standing(corpus)
        .join(known, left_on="target_id", right_on="clip_id")
        .join(known, left_on="reference_id", right_on="clip_id", suffix="_of_reference")
    )
    right = pairs.filter(pl.col("voice") == pl.col("voice_of_reference"))
    assert right.height / pairs.height >= 0.98
    # Recall: clips with another accepted clip of their voice in the session that got one.
    accepted = corpus.read(VERDICTS).filter("accepted").select("clip_id")
    repeats = corpus.read_standing(DUPLICATES, "duplicates", "text_id", ["clip_id"])
    clips = (
        corpus.read(CLIPS, ["clip_id", "session_id", "duration_s", "snr_db"])
        .filter(pl.col("duration_s") >= 2, pl.col("snr_db") >= 25)
        .join(accepted, on="clip_id")
        .join(repeats, on="clip_id", how="anti")
        .join(known, on="clip_id")
        .filter(pl.len().over("session_id", "voice") >= 3)
    )
    found = clips.filter(pl.col("clip_id").is_in(right["target_id"].implode()))
    assert clips.height >= 25
    assert found.height / clips.height >= 0.8


def test_no_pair_of_the_table_breaks_a_rule(merged: tuple[Corpus, str]) -> None:
    corpus, _ = merged
    pairs = standing(corpus)
    frame = (
        corpus.read(CLIPS, ["clip_id", "session_id", "recording_id", "start_s", "end_s"])
        .join(corpus.read(RECORDINGS, ["recording_id", "uri"]), on="recording_id")
        .join(corpus.read(VERDICTS, ["clip_id", "accepted"]), on="clip_id")
        .sort("session_id", "uri", "start_s")
        .with_columns(before=pl.col("clip_id").shift(1).over("session_id"))
    )
    whole = pairs.join(frame, left_on="target_id", right_on="clip_id").join(
        frame, left_on="reference_id", right_on="clip_id", suffix="_r"
    )
    assert whole.height == pairs.height > 60
    assert (whole["session_id_r"] == whole["session_id"]).all()
    assert (whole["reference_id"] != whole["target_id"]).all()
    assert (whole["reference_id"] != whole["before"].fill_null("")).all()
    assert whole["accepted"].all()
    assert whole["accepted_r"].all()
    apart = (pl.col("end_s") <= pl.col("start_s_r")) | (pl.col("end_s_r") <= pl.col("start_s"))
    assert (
        whole.filter(pl.col("recording_id") == pl.col("recording_id_r")).select(apart.all()).item()
    )
    per_target = whole.group_by("target_id").agg(pl.col("rank").sort())
    assert all(ranks.to_list() == list(range(len(ranks))) for ranks in per_target["rank"])
    assert per_target["rank"].list.len().max() == 4
    assert whole["cosine"].min() >= 0.76
    vectors = dict(corpus.read(CLIPS, ["clip_id", "speaker_embedding"]).drop_nulls().iter_rows())
    for target, reference, cosine in (
        whole.head(20).select("target_id", "reference_id", "cosine").iter_rows()
    ):
        product = np.dot(vectors[target], vectors[reference])
        assert cosine == pytest.approx(product, abs=1e-4)


def test_a_session_of_several_files_pairs_across_them(merged: tuple[Corpus, str]) -> None:
    corpus, _ = merged
    names = voices(corpus).select("clip_id", "name")
    pairs = standing(corpus).filter(session_id="all in one")
    both = pairs.join(names, left_on="target_id", right_on="clip_id").join(
        names, left_on="reference_id", right_on="clip_id", suffix="_r"
    )
    assert both.filter(pl.col("name") != pl.col("name_r")).height > 0


def test_the_books_of_the_sessions_balance(merged: tuple[Corpus, str]) -> None:
    corpus, told = merged
    sessions = corpus.read_standing(SESSIONS, "mine", "session_id")
    without = sum(entry["clips"] for entries in sessions["unreferenced"] for entry in entries)
    assert sessions["accepted"].sum() == sessions["targets"].sum() + without
    assert sessions["accepted"].sum() == corpus.read(VERDICTS)["accepted"].sum()
    assert sessions["clips"].sum() == corpus.read(CLIPS, ["clip_id"]).height
    assert sessions["pairs"].sum() == standing(corpus).height
    assert f"{standing(corpus).height:,} pairs" in told


def test_the_same_sound_twice_is_marked_and_kept_out_of_pairs(merged: tuple[Corpus, str]) -> None:
    """The bundled set has one recording twice: as it is, and upsampled in three bad channels."""
    corpus, _ = merged
    marks = corpus.read_standing(DUPLICATES, "duplicates", "text_id")
    pairs = standing(corpus)
    assert marks.height > 0
    assert marks.group_by("group_id").len()["len"].min() >= 2
    assert set(marks["group_id"]) <= set(marks["clip_id"])
    marked = set(marks["clip_id"])
    assert not marked & {*pairs["target_id"], *pairs["reference_id"]}


def test_a_second_run_does_nothing_and_another_policy_only_what_it_changes(
    merged: tuple[Corpus, str], policy: Path, tmp_path: Path
) -> None:
    shutil.copytree(merged[0].path, tmp_path / "corpus")
    corpus = Corpus(str(tmp_path / "corpus"))
    before = standing(corpus)
    done = voxquarry("mine", corpus.root, "--policy", str(policy))
    assert done.returncode == 0, done.stderr
    assert "Nothing to do" in done.stdout
    assert standing(corpus).equals(before)
    assert corpus.runs()[-1]["status"] == "nothing to do"

    # The default policy has no telephone speech: sessions of wideband voices stay as they were.
    attempts = dict(
        corpus.read_standing(SESSIONS, "mine", "session_id", ["session_id", "attempt"]).rows()
    )
    done = voxquarry("mine", corpus.root)
    assert done.returncode == 0, done.stderr
    now = dict(
        corpus.read_standing(SESSIONS, "mine", "session_id", ["session_id", "attempt"]).rows()
    )
    verdicts = corpus.read(VERDICTS).filter(~pl.col("accepted"))
    changed = {session for session in now if now[session] != attempts[session]}
    assert set(now) == set(attempts)
    assert 0 < len(changed) < len(now)
    rejected = set(verdicts["clip_id"])
    after = standing(corpus)
    assert not rejected & {*after["target_id"], *after["reference_id"]}
    assert (
        after.filter(~pl.col("session_id").is_in(list(changed)))
        .sort("target_id", "rank")
        .equals(before.filter(~pl.col("session_id").is_in(list(changed))).sort("target_id", "rank"))
    )


def test_killed_at_any_moment_the_next_run_leaves_the_same_pairs(
    merged: tuple[Corpus, str], policy: Path, tmp_path: Path
) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(merged[0].path, root)
    for gone in ("references", "sessions", "duplicates", "_commits/mine", "_commits/duplicates"):
        shutil.rmtree(root / gone)
    command = [sys.executable, "-m", "jobs.cli", "mine", str(root), "--policy", str(policy)]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        limit = time.monotonic() + 60
        while not (root / "_commits" / "duplicates").exists() and time.monotonic() < limit:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    done = voxquarry("mine", str(root), "--policy", str(policy))
    assert done.returncode == 0, done.stderr
    keys = ["target_id", "rank"]
    whole = standing(Corpus(str(root))).drop("attempt").sort(keys)
    assert whole.equals(standing(merged[0]).drop("attempt").sort(keys))


def test_doctor_calibrates_on_declared_speakers_and_mine_uses_it(
    merged: tuple[Corpus, str], policy: Path, tmp_path: Path
) -> None:
    root = str(tmp_path / "corpus")
    shutil.copytree(merged[0].path, root)
    done = voxquarry("doctor", "--calibrate", root)
    assert done.returncode == 0, done.stderr
    (file,) = Path(root, "_calibration").iterdir()
    found = json.loads(file.read_text())
    assert 0.6 < found["min_cosine"] <= found["min_voice_cosine"] < 0.95
    assert found["false_accept"] <= 0.001
    assert found["voices"] >= 3
    assert found["recall"] > 0.7
    file.write_text(json.dumps({**found, "min_cosine": 0.9}))
    done = voxquarry("mine", root, "--policy", str(policy))
    assert done.returncode == 0, done.stderr
    assert "cosine at least 0.90" in done.stdout
    assert standing(Corpus(root))["cosine"].min() >= 0.9


@pytest.fixture
def copied(corpus: Corpus, tmp_path: Path) -> Path:
    shutil.copytree(corpus.path, tmp_path / "copy")
    return tmp_path / "copy"


def failed(*arguments: str) -> str:
    done = voxquarry(*arguments)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def test_what_is_wrong_is_said_in_one_line(copied: Path, tmp_path: Path) -> None:
    assert "holds no corpus" in failed("mine", str(tmp_path / "nowhere"))
    assert "did you mean min_cosine" in failed("mine", str(copied), "--set", "mine.min_cosin=1")
    assert "no policy" in failed("mine", str(copied), "--policy", "none.yaml")
    run = next(run for run in Corpus(str(copied)).runs() if run.get("units"))
    other = {**run, "run": "other", "models": [{"name": "ge2e", "hash": "another"}]}
    (copied / "_runs" / "other.json").write_text(json.dumps(other))
    assert "do not compare" in failed("mine", str(copied))


def test_a_corpus_without_clips_has_nothing_to_mine(tmp_path: Path) -> None:
    sf.write(tmp_path / "silence.flac", np.zeros(16_000 * 5, np.float32), 16_000)
    root = str(tmp_path / "corpus")
    assert voxquarry("run", str(tmp_path / "silence.flac"), "--out", root).returncode == 0
    done = voxquarry("mine", root)
    assert done.returncode == 0, done.stderr
    assert "0 pairs, in 0 sessions of 0 clips" in done.stdout


def test_an_encoder_that_nobody_calibrated_asks_for_it(copied: Path) -> None:
    for file in (copied / "_runs").iterdir():
        run = json.loads(file.read_text())
        if run["phase"] == "curate":
            run["settings"]["speaker"]["model"] = "ecapa"
            run["models"] = [{"name": "ecapa", "hash": "e" * 32}]
            file.write_text(json.dumps(run))
    assert "doctor --calibrate" in failed("mine", str(copied))


def test_calibration_wants_two_declared_speakers(copied: Path) -> None:
    for file in (copied / "recordings").iterdir():
        table = pq.read_table(file)
        index = table.schema.get_field_index("speaker")
        nobody = pa.nulls(table.num_rows, pa.string())
        table = table.set_column(index, table.schema.field("speaker"), nobody)
        pq.write_table(table, file)
    assert "declares its speaker" in failed("doctor", "--calibrate", str(copied))


def test_clips_without_a_voice_take_no_part(copied: Path) -> None:
    corpus = Corpus(str(copied))
    for part in corpus.parts("clips"):
        table = pq.read_table(copied / part)
        index = table.schema.get_field_index("speaker_embedding")
        field = table.schema.field("speaker_embedding")
        table = table.set_column(index, field, pa.nulls(table.num_rows, field.type))
        corpus.write_table(part, CLIPS, table)
    done = voxquarry("mine", str(copied))
    assert done.returncode == 0, done.stderr
    assert "no_embedding" in done.stdout
    assert standing(corpus).height == 0
