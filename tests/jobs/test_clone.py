"""The clone phase over real clips: every plan becomes a row or a reason, once, and says whose it is."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile as sf
from rich.console import Console

from annotators.registry import checkpoint_folder, checkpoint_hash
from annotators.watermark import THRESHOLD
from jobs.clone import (
    Maker,
    clone_phase,
    generation_of,
    has_same_encoder,
    joined,
    maker_of,
    read_clone,
    recognised,
)
from jobs.clone_plan import PHASE, Plan, record_plan
from jobs.clone_table import show
from jobs.judge import judge_corpus
from jobs.judge_synthetic import (
    WITHDRAWN,
    accepted_synthetic,
    judge_synthetic,
    refilter,
    standing_synthetic,
)
from jobs.run_annotate import accepted_clips
from jobs.run_clone import books, planned
from jobs.settings import Settings
from pipeline.derived import due, units_of
from pipeline.policy import SHIPPED
from pipeline.profile import load_profile
from pipeline.storage import Corpus
from pipeline.work import Unit, WorkItem
from pipeline.worker import PoolWorker, as_block
from schemas.arrow import CLIPS, RECORDINGS, SYNTHETIC, SYNTHETIC_VERDICTS
from schemas.errors import ConfigError, ModelLoadError
from tests.jobs.composable_corpus import V2, V15, Made
from tests.jobs.described_corpus import DESCRIPTION, make_cloneable

SETTINGS = (
    *("speaking.candidates=1", "speaking.num_steps=2", "speaking.longest=1.0"),
    *("clone.embedder=null", "clone.unit_s=6", "clone.transcripts.max_overlap=0.5"),
)
ALL = "rules: {anything: {column: cer, max: 1000.0}}"


def settings(*more: str) -> Settings:
    return load_profile("embedded", [*SETTINGS, *more], Settings)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a corpus without clones; copied by whoever writes to it."""
    folder = tmp_path_factory.mktemp("fresh")
    make_cloneable(folder)
    return folder


def copy_of(folder: Path, place: Path) -> Made:
    shutil.copytree(folder, place, dirs_exist_ok=True)
    root = str(place / "corpus")
    return Made(root=root, policy=str(place / "policy.yaml"), corpus=Corpus(root))


@pytest.fixture
def made(fresh: Path, tmp_path: Path) -> Made:
    return copy_of(fresh, tmp_path)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=160)


def plan_of(made: Made, config: Settings) -> tuple[Plan, Maker]:
    console = quiet()
    judge_corpus(made.root, made.policy, console, quiet=True)
    maker = maker_of(V2)
    clips = accepted_clips(made.corpus)
    return planned(made.corpus, clips, config, generation_of(maker, config), console), maker


def units_in(made: Made, config: Settings, *, retry: bool = False) -> tuple[list[Unit], Maker]:
    plan, maker = plan_of(made, config)
    todo = due(plan.items, made.corpus.latest_items(PHASE), retry=retry)
    return list(units_of(todo, int(config.clone.unit_s))), maker


WORKERS: dict[str, PoolWorker] = {}


def work(made: Made, units: list[Unit], config: Settings, maker: Maker) -> None:
    """What a worker of Ray's does, in this process; its models are opened once for all tests."""
    how = str(config.speaking)
    if how not in WORKERS:
        phase = clone_phase(config, maker, same_encoder=True)
        WORKERS[how] = PoolWorker(phase, phase.stages, first=True, last=True, corpus=made.root)
    WORKERS[how].corpus = made.corpus
    for unit in units:
        WORKERS[how](as_block([unit]))


def make_clones(made: Made, *more: str, most: int | None = None) -> int:
    """Do what is to do, at most so many units of it; how many it was."""
    config = settings(*more)
    units, maker = units_in(made, config)
    work(made, units[:most], config, maker)
    return len(units)


def standing(corpus: Corpus) -> pl.DataFrame:
    return corpus.read_standing(SYNTHETIC, PHASE, "clip_id").sort("clip_id")


@pytest.fixture(scope="module")
def cloned(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Cloned whole, for tests that only look."""
    made = copy_of(fresh, tmp_path_factory.mktemp("cloned"))
    assert make_clones(made) > 1
    return made


@pytest.fixture
def recloned(cloned: Made, tmp_path: Path) -> Made:
    """A copy of it."""
    return copy_of(Path(cloned.root).parent, tmp_path / "recloned")


def test_every_described_clip_says_what_another_session_said(cloned: Made) -> None:
    rows = standing(cloned.corpus)
    clips = cloned.corpus.read(CLIPS, ["clip_id", "session_id", "text"])
    assert set(rows["described_id"]) == set(clips["clip_id"])
    assert rows.height == cloned.corpus.read(SYNTHETIC, ["clip_id"]).height
    known = {row["clip_id"]: row for row in clips.to_dicts()}
    for row in rows.to_dicts():
        described, transcript = known[row["described_id"]], known[row["transcript_id"]]
        assert row["clip_id"] not in known
        assert row["session_id"] == described["session_id"] != transcript["session_id"]
        assert row["transcript_session_id"] == transcript["session_id"]
        assert row["text"] == transcript["text"]
        assert row["reference_ids"][0] == row["described_id"]
        assert row["description"] == DESCRIPTION
        assert (row["model"], row["model_hash"]) == (V2, checkpoint_hash(Path(V2)))
        assert row["candidates"] == 1
        assert row["attempt"] == 1


def test_a_row_tells_what_its_own_audio_is(cloned: Made) -> None:
    for row in standing(cloned.corpus).to_dicts():
        wave, rate = sf.read(io.BytesIO(row["audio"]), dtype="float32")
        assert rate == row["sample_rate"]
        assert len(wave) / rate == pytest.approx(row["duration_s"])
        assert np.abs(wave).max() > 0
        assert len(row["speaker_embedding"]) == 256
        assert -1 <= row["cosine"] <= 1
        assert row["cer"] > 0.3  # its weights are random
        assert row["watermark_score"] >= THRESHOLD
        assert 1 <= row["dnsmos_ovrl"] <= 5
        assert row["length_ratio"] == pytest.approx(1, abs=1.0)


def test_the_same_run_again_does_nothing(cloned: Made) -> None:
    assert make_clones(cloned) == 0


def test_a_run_that_ended_early_goes_on_and_ends_as_an_undisturbed_one(
    made: Made, cloned: Made
) -> None:
    most = make_clones(made, most=1)
    assert 0 < standing(made.corpus).height < standing(cloned.corpus).height
    assert make_clones(made) == most - 1
    rows, others = standing(made.corpus), standing(cloned.corpus)
    for column in ("clip_id", "described_id", "text", "seed", "audio", "cer", "attempt"):
        assert rows[column].to_list() == others[column].to_list(), column


def spoiled(item: WorkItem, **changes: object) -> WorkItem:
    return replace(item, plan=replace(item.plan, **changes))


def test_a_text_that_cannot_be_spoken_costs_its_own_item_alone(made: Made) -> None:
    config = settings("clone.unit_s=1000")
    [unit], maker = units_in(made, config)
    first, second, *others = unit.items
    unsaid = spoiled(first, text=" ")
    endless = spoiled(second, text=" ".join(["and on"] * 4000))
    broken = replace(unit, items=(unsaid, endless, *others))
    work(made, [broken], config, maker)
    ill = made.corpus.read_quarantine().sort("unit_id")
    assert set(ill["unit_id"]) == {first.item_id, second.item_id}
    assert set(ill["phase"]) == {PHASE}
    assert set(ill["stage"]) == {"voices"}
    assert set(ill["error_type"]) == {"UnspeakableText"}
    assert ill.filter(unit_id=first.item_id)["message"].item() == "the text is empty"
    assert set(standing(made.corpus)["clip_id"]) == {item.item_id for item in others}
    again, _ = units_in(made, config, retry=True)
    assert [item.item_id for unit in again for item in unit.items] == [
        first.item_id,
        second.item_id,
    ]
    assert units_in(made, config)[0] == []


def test_a_voice_that_is_silent_or_gone_costs_its_own_item_alone(made: Made) -> None:
    (part,) = made.corpus.parts(CLIPS.name)
    clips = made.corpus.read(CLIPS)
    silence = io.BytesIO()
    sf.write(silence, np.zeros(32_000), 16_000, format="FLAC")
    sounds = [silence.getvalue(), None, b"no sound", *clips["audio"][3:]]
    spoilt = clips.with_columns(audio=pl.Series(sounds, dtype=pl.Binary))
    table = spoilt.select(CLIPS.schema.names).to_arrow().cast(CLIPS.schema)
    made.corpus.write_table(part, CLIPS, table)
    make_clones(made)
    ill = made.corpus.read_quarantine().sort("error_type")
    assert ill["error_type"].to_list() == ["MissingSource", "SilentAudio", "UndecodableAudio"]
    assert ill["stage"].to_list() == ["read", "voices", "read"]
    assert standing(made.corpus).height == clips.height - 3


def test_a_clone_that_is_planned_anew_is_a_further_attempt_that_alone_stands(
    recloned: Made,
) -> None:
    before = standing(recloned.corpus)
    make_clones(recloned, "clone.seed=1")
    after = standing(recloned.corpus)
    assert after["clip_id"].to_list() == before["clip_id"].to_list()
    assert set(after["attempt"]) == {2}
    assert recloned.corpus.read(SYNTHETIC, ["clip_id"]).height == 2 * after.height
    assert not set(after["seed"]) & set(before["seed"])
    assert set(standing_synthetic(recloned.corpus)["attempt"]) == {2}
    verdicts = judge_synthetic(recloned.corpus, "synthetic")
    assert sorted(verdicts["clip_id"]) == after["clip_id"].to_list()


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        ("speaking.candidates=3", True),
        ("speaking.dtype=bfloat16", True),
        ("judging.near_cer=0.1", True),
        ("transcription.beam_size=1", True),
        ("speaking.threads=2", False),
        ("speaking.batch_size=3", False),
        ("clone.unit_s=7", False),
    ],
)
def test_what_decides_about_a_clone_is_in_its_generation(setting: str, changes: bool) -> None:
    maker = maker_of(V2)
    same = generation_of(maker, settings()) == generation_of(maker, settings(setting))
    assert same != changes


def test_another_checkpoint_is_another_generation_and_v1_cannot_clone(tmp_path: Path) -> None:
    maker = maker_of(V2)
    other = replace(maker, model_hash="other")
    assert generation_of(other, settings()) != generation_of(maker, settings())
    with pytest.raises(ModelLoadError, match="V1 class"):
        maker_of(V15)
    with pytest.raises(ModelLoadError):
        checkpoint_folder(str(tmp_path / "none"))


def test_a_language_that_the_recogniser_cannot_check_is_left_out(made: Made) -> None:
    plan, _ = plan_of(made, settings())
    first, *others = plan.items
    foreign = replace(first, plan=replace(first.plan, language="fr"))
    left = recognised(replace(plan, items=[foreign, *others]), settings().transcription)
    assert list(left.items) == others
    assert left.left_out["unheard"] == 1
    show({"counts": books(made.corpus, left)}, quiet())


def test_the_stored_voice_is_compared_with_only_where_the_same_encoder_measured_it(
    made: Made,
) -> None:
    plan, _ = plan_of(made, settings())
    one = next(iter(plan.items)).plan
    stored = read_clone(one, same_encoder=True)
    heard = read_clone(one, same_encoder=False)
    assert stored.speaker_embedding is not None
    assert not stored.described
    assert heard.speaker_embedding is None
    assert heard.described
    assert not has_same_encoder(made.corpus, settings().speaker)  # no run record says who measured


def test_references_follow_each_other_up_to_the_longest() -> None:
    one, other = np.full(16_000, 0.1, np.float32), np.full(8_000, 0.2, np.float32)
    wave, rate = joined([(one, 16_000), (other, 8_000)], 10.0)
    assert (rate, wave.size) == (16_000, 32_000)
    assert np.allclose(wave[20_000:30_000], 0.2, atol=0.01)
    wave, _ = joined([(one, 16_000), (other, 8_000)], 1.5)
    assert wave.size == 24_000
    wave, _ = joined(iter([(one, 16_000), (other, 8_000)]), 0.5)
    assert wave.size == 8_000


def test_verdicts_follow_the_policy_and_accepted_rows_say_where_they_lie(
    recloned: Made, tmp_path: Path
) -> None:
    strict = judge_synthetic(recloned.corpus, "synthetic")
    assert not strict["accepted"].any()
    assert all("words_wrong" in reasons for reasons in strict["reasons"].to_list())
    assert accepted_synthetic(recloned.corpus).is_empty()
    lax = tmp_path / "lax.yaml"
    lax.write_text(ALL)
    console = Console(file=io.StringIO(), width=160)
    refilter(recloned.root, str(lax), console)
    assert recloned.corpus.read(SYNTHETIC_VERDICTS)["accepted"].all()
    accepted = accepted_synthetic(recloned.corpus)
    assert accepted.height == strict.height
    assert "audio" not in accepted.columns
    for row in accepted.to_dicts():
        found = recloned.corpus.read(SYNTHETIC, ["clip_id"], [("clip_id", "=", row["clip_id"])])
        assert found.height == 1
        assert row["part"] in recloned.corpus.parts(SYNTHETIC.name)


def test_a_clone_whose_voice_was_withdrawn_is_rejected(recloned: Made, tmp_path: Path) -> None:
    lax = tmp_path / "lax.yaml"
    lax.write_text(ALL)
    (part,) = recloned.corpus.parts(RECORDINGS.name)
    recordings = recloned.corpus.read(RECORDINGS)
    denied = recordings.with_columns(
        consent=pl.when(pl.col("session_id") == "s1").then(pl.lit("no cloning"))
    )
    table = denied.select(RECORDINGS.schema.names).to_arrow().cast(RECORDINGS.schema)
    recloned.corpus.write_table(part, RECORDINGS, table)
    verdicts = judge_synthetic(recloned.corpus, str(lax)).join(
        standing(recloned.corpus), on="clip_id"
    )
    assert verdicts["accepted"].to_list() == (verdicts["session_id"] == "s0").to_list()
    assert all(
        reasons == ([] if session == "s0" else [WITHDRAWN])
        for reasons, session in verdicts.select("reasons", "session_id").iter_rows()
    )
    assert set(accepted_synthetic(recloned.corpus)["session_id"]) == {"s0"}


def test_a_corpus_without_clones_has_no_verdicts_to_make(made: Made) -> None:
    console = Console(file=io.StringIO(), width=160, record=True)
    refilter(made.root, "synthetic", console)
    assert console.export_text() == ""
    assert accepted_synthetic(made.corpus).is_empty()
    with pytest.raises(ConfigError, match="no policy"):
        refilter(made.root, "nonsense", console)


def test_the_books_close(cloned: Made) -> None:
    plan, _ = plan_of(cloned, settings())
    record_plan(cloned.corpus, plan, settings().clone)
    judge_synthetic(cloned.corpus, "synthetic")
    counts = books(cloned.corpus, plan)
    assert counts["described"] == sum(counts["left_out"].values()) + counts["planned"]
    assert counts["made"] + counts["quarantined"] == counts["planned"]
    console = Console(file=io.StringIO(), width=160, record=True)
    facts = {
        "counts": counts,
        "audio_s": 60.0,
        "clone_s": 3.0,
        "stage_seconds": {"clone.speaking": 2.0},
    }
    show(facts, console)
    told = " ".join(console.export_text().split())
    assert "rejected: words_wrong" in told
    assert "speaking" in told
    assert (SHIPPED / "synthetic.yaml").is_file()
