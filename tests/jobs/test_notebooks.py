"""The notebooks run, and the figures in their last cells are those of the tables."""

import json
import shutil
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbclient import NotebookClient
from rich.console import Console

from jobs.contamination import WORDS, nearest_voice, ngrams, text_overlap
from jobs.judge import judge_corpus
from jobs.what_if import WhatIf
from pipeline.policy import judge, load_policy
from pipeline.reviews import mark_bad, read_reviews
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, REFERENCES, SYNTHETIC, VERDICTS
from tests.benchmarks.synthetic_corpus import make_corpus as make_voices
from tests.jobs.composable_corpus import Cloned, Said, make, write_clones
from tests.pipeline.browse_corpus import make_corpus

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
POLICY = load_policy("default")


def executed(name: str, monkeypatch: pytest.MonkeyPatch, **corpora: Corpus) -> dict[str, Any]:
    """Run a notebook; what its last cell tells."""
    for variable, corpus in corpora.items():
        monkeypatch.setenv(f"VOXQUARRY_{variable.upper()}", corpus.path)
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    NotebookClient(
        notebook,
        timeout=200,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in shown if output["output_type"] == "error"]
    assert [output for output in shown if "image/png" in output.get("data", {})]
    told: dict[str, Any] = notebook.cells[-1]["outputs"][-1]["data"]["application/json"]
    return told


@pytest.fixture(scope="module")
def heard(devset: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Real utterances with sound."""
    return make_corpus(devset, tmp_path_factory.mktemp("heard") / "corpus", each=6)


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Described clips with references, and clones of them."""
    said = [
        Said(
            name=f"clip{i}",
            session=f"s{i % 2}",
            duration_s=3.0 + i,
            references=tuple(f"clip{j}" for j in range(i) if j % 2 == i % 2),
            description="A calm voice." if i < 4 else None,
            accepted=i != 5,
        )
        for i in range(6)
    ]
    made = make(tmp_path_factory.mktemp("cloned") / "made", said)
    clones = [
        Cloned(name=f"clone{i}", of=f"clip{i}", says="clip4", text="so", accepted=i < 2)
        for i in range(3)
    ]
    write_clones(made.corpus, clones)
    judge_corpus(made.root, made.policy, Console(quiet=True))
    return made.corpus


def accepted_in(corpus: Corpus) -> pl.DataFrame:
    kept = corpus.read(VERDICTS, ["clip_id", "accepted"]).filter("accepted")
    return corpus.read(CLIPS).join(kept, on="clip_id", how="semi")


def test_balance(heard: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    told = executed("balance", monkeypatch, corpus=heard)
    kept = accepted_in(heard)
    hours = dict(kept.group_by("language").agg(pl.col("duration_s").sum() / 3600).iter_rows())
    assert set(hours) == {"en", "fr"}
    assert told["languages"] == pytest.approx(hours)
    assert told["hours"] == pytest.approx(kept["duration_s"].sum() / 3600)
    assert told["sessions"] == kept["session_id"].n_unique()
    flat = {code: value**0.2 for code, value in hours.items()}
    shares = {code: value / sum(flat.values()) for code, value in flat.items()}
    assert told["flattest"] == pytest.approx(shares)


def test_quality(heard: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    told = executed("quality", monkeypatch, corpus=heard)
    kept = accepted_in(heard)
    assert told["clips"] == kept.height
    assert told["hours"] == pytest.approx(kept["duration_s"].sum() / 3600)
    # What was never measured passes.
    lost = kept.filter(pl.col("snr_db") < 45)
    assert 0 < lost.height < kept.height
    assert told["lost_at_45_db"] == sorted(lost["clip_id"])
    left = kept["duration_s"].sum() - lost["duration_s"].sum()
    assert told["hours_at_45_db"] == pytest.approx(left / 3600)


def test_references(cloned: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    told = executed("references", monkeypatch, corpus=cloned)
    # clip0 and clip1 have none, clip2 and clip3 one, clip4 two; clip5 is rejected.
    assert told["per_clip"] == {"0": 2, "1": 2, "2": 1}
    assert told["mean_cosine"] == pytest.approx(cloned.read(REFERENCES)["cosine"].mean())
    assert told["described"] == 4


def test_synthetic(cloned: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    told = executed("synthetic", monkeypatch, corpus=cloned)
    real = accepted_in(cloned)["duration_s"]
    made = cloned.read(SYNTHETIC).filter(pl.col("clip_id") != "clone2")["duration_s"]
    assert (told["clones"], told["accepted"]) == (3, 2)
    share = made.sum() / (made.sum() + real.sum())
    assert told["synthetic_share"] == pytest.approx(share)
    medians = {"recorded": real.median(), "synthetic": made.median()}
    assert told["median_s"] == pytest.approx(medians)


def test_contamination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_voices(str(tmp_path / "training"), [120, 80], seed=1)
    verdicts = judge(training.read(CLIPS), POLICY)
    training.write_current("filter", VERDICTS, verdicts.to_arrow())
    evaluation = make_voices(str(tmp_path / "evaluation"), [50], seed=2)
    told = executed("contamination", monkeypatch, corpus=training, evaluation=evaluation)
    assert (told["clips"], told["texts_seen"]) == (50, 0)
    known, own = (
        np.array(frame["speaker_embedding"].to_list())
        for frame in (accepted_in(training), evaluation.read(CLIPS))
    )
    cosines = (own @ known.T).max(axis=1)
    assert told["highest_cosine"] == pytest.approx(cosines.max(), abs=1e-4)
    assert told["voices_seen"] == (cosines > 0.85).sum()
    told = executed("contamination", monkeypatch, corpus=training, evaluation=training)
    kept = int(verdicts["accepted"].sum())
    assert told["texts_seen"] == kept < told["clips"] == 200
    assert told["highest_cosine"] == pytest.approx(1.0, abs=1e-4)


def test_a_changed_threshold_gives_the_verdicts_of_a_changed_policy(
    heard: Corpus, tmp_path: Path
) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(heard.path, root)
    corpus = Corpus(str(root))
    clips = corpus.read(CLIPS)
    mark_bad(corpus, clips["clip_id"][3], "noise")
    reviews = read_reviews(corpus)
    tried = WhatIf(clips, POLICY, reviews)
    assert tried.kept({}).equals(judge(clips, POLICY, reviews)["accepted"])
    text = (NOTEBOOKS.parent / "pipeline/policies/default.yaml").read_text()
    changed = tmp_path / "changed.yaml"
    changed.write_text(
        text.replace("{column: snr_db, min: 12.0}", "{column: snr_db, min: 5.0}").replace(
            "{column: duration_s, min: 2.0}", "{column: duration_s, min: 3.0}"
        )
    )
    other = judge(clips, load_policy(str(changed)), reviews)["accepted"]
    assert not other.equals(tried.kept({}))
    assert tried.kept({"low_snr": {"min": 5.0}, "too_short": {"min": 3.0}}).equals(other)


@given(st.lists(st.sampled_from(["one", "two", "three"]), max_size=30))
def test_a_text_shares_all_ngrams_with_itself_and_none_with_another(words: list[str]) -> None:
    text = " ".join(words)
    frame = pl.DataFrame({"text": [text], "language": ["fr"]})
    other = pl.DataFrame({"text": [f"zebra {'zebra ' * len(words)}"], "language": ["fr"]})
    assert text_overlap(frame, frame).item() == (1.0 if words else 0.0)
    assert text_overlap(other, frame).item() == 0.0
    assert all(len(one) <= WORDS for one in ngrams(text, "fr"))


def test_case_and_signs_hide_no_overlap_and_chinese_is_compared_by_characters() -> None:
    training = pl.DataFrame(
        {
            "text": ["Please hold the line.", "今天天气很好我们一起去公园散步吧你说好不好"],
            "language": ["en", "zh"],
        }
    )
    evaluation = pl.DataFrame(
        {
            "text": ["please, hold the LINE", "天气很好我们一起去公园散步吧你说，好吗", None],
            "language": ["en", "zh", "en"],
        }
    )
    english, chinese, nothing = text_overlap(training, evaluation)
    assert english == 1.0
    assert 0 < chinese < 1
    assert nothing == 0.0


def test_a_clip_without_an_embedding_has_no_nearest_voice() -> None:
    schema = {"speaker_embedding": pl.List(pl.Float32)}
    training = pl.DataFrame({"speaker_embedding": [[3.0, 0.0], None]}, schema=schema)
    evaluation = pl.DataFrame({"speaker_embedding": [[0.0, 2.0], None, [5.0, 0.0]]}, schema=schema)
    assert nearest_voice(training, evaluation).to_list() == pytest.approx([0.0, None, 1.0])
    assert nearest_voice(training.tail(1), evaluation).to_list() == [None, None, None]


def test_notebooks_are_kept_without_output() -> None:
    names = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    assert names == ["balance", "contamination", "quality", "references", "synthetic"]
    for name in names:
        cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
        assert not any(cell.get("outputs") for cell in cells)
