"""A language in one command: from recordings and their transcripts to samples."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from annotators.text import char_error_rate
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, SAMPLES, VERDICTS

pytestmark = [pytest.mark.ray, pytest.mark.slow]

VOXQUARRY = Path(sys.executable).parent / "voxquarry"


def test_spanish_in_one_command(devset: Path, tmp_path: Path) -> None:
    """Its transcript has no times: the given CTC model says where each clip's words are."""
    root = str(tmp_path / "corpus")
    truth = pl.read_parquet(devset / "ground_truth.parquet").filter(recording_id="es_allison_s1")
    manifest = pl.read_csv(devset / "manifest.csv").with_columns(uri=f"{devset}/" + pl.col("uri"))
    is_mine = pl.col("uri").str.ends_with("es_allison_s1.flac")
    manifest.filter(is_mine | (pl.col("language") != "es")).with_columns(
        transcript=pl.when(is_mine).then(pl.lit(" ".join(truth.sort("start")["text"])))
    ).write_csv(tmp_path / "manifest.csv")
    done = subprocess.run(
        [
            *(VOXQUARRY, "ingest", tmp_path / "manifest.csv", "--language", "es", "--out", root),
            f"--set=ctc_alignment.model={devset.parent / 'ctc-es'}",
        ],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sources declare en, fr and are left out" in done.stdout
    assert re.search("tiny.en does not know Spanish; .*ctc-es places what is given", done.stdout)
    assert "Spanish, gate by gate" in done.stdout
    corpus = Corpus(root)
    kept = corpus.read(VERDICTS, ["clip_id", "accepted"]).filter("accepted")
    clips = corpus.read(CLIPS).join(kept, on="clip_id", how="semi")
    assert clips.height >= 5
    assert set(clips["language"]) == {"es"}
    assert set(clips["text_source"]) == {"given"}
    off = []
    for clip in clips.to_dicts():
        middle = (pl.col("start") + pl.col("end")) / 2
        said = truth.filter(middle.is_between(clip["start_s"], clip["end_s"])).sort("start")
        assert char_error_rate(" ".join(said["text"]), clip["text"], "es") <= 0.02
        words = clip["words"]
        off += [clip["start_s"] + words[0]["start_s"] - said["start"][0]]
        off += [clip["start_s"] + words[-1]["end_s"] - said["end"][-1]]
    assert np.mean(np.abs(off) <= 0.25) >= 0.9
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
