"""A language in one command: from recordings and their transcripts to samples."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from annotators.text import char_error_rate
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, SAMPLES, VERDICTS

pytestmark = [pytest.mark.ray, pytest.mark.slow]

VOXQUARRY = Path(sys.executable).parent / "voxquarry"


def test_spanish_in_one_command(devset: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "corpus")
    done = subprocess.run(
        [VOXQUARRY, "ingest", devset / "manifest.csv", "--language", "es", "--out", root],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sources declare en, fr and are left out" in " ".join(done.stdout.split())
    assert "tiny.en does not know Spanish" in done.stdout
    assert "Spanish, gate by gate" in done.stdout
    corpus = Corpus(root)
    kept = corpus.read(VERDICTS, ["clip_id", "accepted"]).filter("accepted")
    clips = corpus.read(CLIPS, ["clip_id", "language", "text", "text_source", "start_s", "end_s"])
    clips = clips.join(kept, on="clip_id", how="semi")
    assert clips.height >= 5
    assert set(clips["language"]) == {"es"}
    assert set(clips["text_source"]) == {"given"}
    truth = pl.read_parquet(devset / "ground_truth.parquet").filter(recording_id="es_allison_s1")
    for clip in clips.to_dicts():
        middle = (pl.col("start") + pl.col("end")) / 2
        said = truth.filter(middle.is_between(clip["start_s"], clip["end_s"])).sort("start")
        assert char_error_rate(" ".join(said["text"]), clip["text"], "es") <= 0.02
    assert corpus.read(SAMPLES, ["sample_id"]).height >= clips.height


def test_a_language_without_a_row_is_one_line(devset: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [VOXQUARRY, "ingest", devset, "--language", "tlh", "--out", str(tmp_path / "corpus")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "ConfigError: no row for the language 'tlh'" in done.stderr
    assert not (tmp_path / "corpus").exists()
