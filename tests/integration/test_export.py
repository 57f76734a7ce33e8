"""`voxquarry export` on an annotated corpus: the real command, read back by `datasets`."""

import io
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile as sf

from pipeline.storage import Corpus
from schemas.arrow import CLIPS, VERDICTS
from tests.integration.conftest import voxquarry

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_what_was_accepted_is_read_back_with_text_and_sound(
    annotated: Corpus, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = voxquarry("export", annotated.path, "--to", "huggingface", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    accepted = annotated.read(VERDICTS).filter("accepted")["clip_id"]
    clips = annotated.read(CLIPS, ["clip_id", "text", "audio", "session_id", "speaker"])
    stored = {row["clip_id"]: row for row in clips.to_dicts()}
    read = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    sides: dict[str, set[str]] = {}
    seen = []
    for split, rows in read.items():
        for row in rows.cast_column("audio", datasets.Audio(decode=False)):
            seen.append(row["clip_id"])
            clip = stored[row["clip_id"]]
            assert row["text"] == clip["text"]
            ours, _ = sf.read(io.BytesIO(clip["audio"]), dtype="int16")
            theirs, rate = sf.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
            np.testing.assert_array_equal(theirs, ours)
            assert rate == row["sample_rate"]
            assert row["licence"]
            for name in filter(None, (clip["session_id"], clip["speaker"])):
                sides.setdefault(name, set()).add(split)
    assert sorted(seen) == sorted(accepted)
    assert len(seen) > 20
    assert all(len(splits) == 1 for splits in sides.values())
    assert any(one["description"] for rows in read.values() for one in rows.remove_columns("audio"))


def test_what_cannot_be_exported_is_one_line(annotated: Corpus, tmp_path: Path) -> None:
    done = voxquarry("export", annotated.path, "--to", "qwen3-tts", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "no clip of" in done.stderr
    assert "voxquarry mine" in done.stderr
    assert "Traceback" not in done.stderr
