"""Held-out samples of a corpus as utterances, with their voices, descriptions and recordings."""

from pathlib import Path

import pytest
from rich.console import Console

from jobs.evaluation.config import EvaluateConfig
from jobs.evaluation.held_out import chosen_of, read_samples
from jobs.evaluation.judging import Panel
from jobs.evaluation.rows import UtteranceRow
from jobs.evaluation.system_run import SystemRun
from jobs.evaluation.systems import System
from jobs.run_evaluate import figures_of
from jobs.settings import Settings
from pipeline.profile import load_profile
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, LEVELS, SAMPLES
from schemas.attributes import Level
from schemas.errors import ConfigError
from schemas.samples import Place, Sample
from tests.jobs.described_corpus import make_cloneable

WOMAN, MAN = "A woman speaks at a moderate pace.", "A man speaks at a moderate pace."
CONFIG = EvaluateConfig()


def place(clip_id: str) -> Place:
    return Place(clip_id=clip_id, part="latents/current.parquet", row=0, frames=4)


def sample(target: str, layout: str, split: str = "validation", **more: object) -> Sample:
    values: dict[str, object] = {
        "sample_id": f"{target}-{layout}",
        "layout": layout,
        "target": place(target),
        "target_start": 0,
        "references": (),
        "text": f"text of {target}",
        "language": "en",
        "session_id": "s0",
        "synthetic": False,
        "split": split,
        "duration_s": 3.0,
        "tokens": 5,
        "positions": 20,
        "weights": (1.0, 1.0, 1.0),
    }
    return Sample(**{**values, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two clips of an English and two of a French voice; all but one sample are held out."""
    made = make_cloneable(tmp_path_factory.mktemp("held-out"))
    texts = dict(made.corpus.read(CLIPS, ["clip_id", "text"]).iter_rows())
    voice = (place("clip01"), place("clip02"))
    rows = [
        sample("clip00", "text", text=texts["clip00"]),
        sample("clip00", "reference", text=texts["clip00"], references=voice),
        sample("clip00", "described", text=texts["clip00"], description=WOMAN),
        sample("clip01", "described", text=texts["clip01"], description=MAN),
        sample("clip00", "continuation", text=texts["clip00"], target_start=8),
        sample("clip01", "text", split="train", text=texts["clip01"]),
    ]
    made.corpus.write_version("compose", SAMPLES, "made", [SAMPLES.to_arrow(rows)])
    levels = [
        Level(measure="rate", num_clips=50, edges=(0.1, 0.2, 9.0, 9.5), median=2.5),
        Level(measure="pitch", gender="female", num_clips=50, edges=(1, 2, 900, 901), median=90.0),
    ]
    made.corpus.write_current("levels", LEVELS, LEVELS.to_arrow(levels))
    return made.corpus


def test_what_was_held_out_is_asked_in_its_layout(corpus: Corpus) -> None:
    found = read_samples(corpus.root, CONFIG)
    texts = dict(corpus.read(CLIPS, ["clip_id", "text"]).iter_rows())
    by_id = {one.utterance_id: one for one in found.utterances}
    assert set(by_id) == {"clip00-text", "clip00-reference", "clip00-described", "clip01-described"}
    plain, cloned = by_id["clip00-text"], by_id["clip00-reference"]
    assert (plain.origin, plain.text) == ("corpus, text", texts["clip00"])
    assert plain.voice is None
    assert cloned.voice is not None
    assert (cloned.voice.sound_id, cloned.voice_text) == ("clip01", texts["clip01"])
    assert by_id["clip01-described"].description == MAN
    assert plain.truth is not None
    recording = plain.truth.read()
    stored = corpus.read(CLIPS, ["clip_id", "duration_s"]).filter(clip_id="clip00")
    assert recording.wave.shape[-1] / recording.sample_rate == pytest.approx(
        stored["duration_s"][0], abs=0.01
    )
    assert len(found.levels["corpus, described"]) == 2


def test_a_limit_takes_the_same_samples_of_each_layout_whatever_their_order(
    corpus: Corpus,
) -> None:
    samples = corpus.read(SAMPLES)
    chosen = chosen_of(samples, 1)
    assert sorted(chosen["layout"]) == ["continuation", "described", "reference", "text"]
    again = chosen_of(samples.reverse(), 1)
    assert again["sample_id"].to_list() == chosen["sample_id"].to_list()


def test_a_corpus_without_held_out_samples_or_their_clips_is_an_error(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))
    with pytest.raises(ConfigError, match="has no held-out samples"):
        read_samples(corpus.root, CONFIG)
    rows = [sample("gone", "text")]
    corpus.write_version("compose", SAMPLES, "made", [SAMPLES.to_arrow(rows)])
    with pytest.raises(ConfigError, match="clips that are gone, such as gone"):
        read_samples(corpus.root, CONFIG)


def test_recorded_clips_follow_the_descriptions_that_are_true(
    corpus: Corpus, tmp_path: Path
) -> None:
    """Both voices are women's; one is described as a man's."""
    config = load_profile("embedded", ["transcription.beam_size=1"], Settings)
    asked = read_samples(corpus.root, config.evaluate)
    system = System(label="recorded")
    run = SystemRun(system, asked, tmp_path, Panel(config), Console(quiet=True))
    rows, described = run.utterances("judges")
    assert run.recordings() == []
    figures = figures_of(system, rows, described, [], [], config)
    found = figures.following["corpus, described"]
    assert (found["gender"].followed.value, found["gender"].judged) == (0.5, 2)
    assert found["gender"].by_chance == 0.5
    assert found["rate"].followed.value == 1.0
    verdicts = {
        (one.utterance_id, verdict.name): verdict.verdict
        for one in rows
        for verdict in one.followed
    }
    assert verdicts["clip00-described", "gender"] == "confirmed"
    assert verdicts["clip01-described", "gender"] == "contradicted"
    likeness = {row.origin: row.similarity for row in rows}
    assert likeness["corpus, text"] is None
    assert likeness["corpus, reference"] > 0.8  # type: ignore[operator]
    assert all(isinstance(row, UtteranceRow) and row.error is None for row in rows)
