"""What `compose` makes of what a corpus holds: every row valid, every length exact, nothing leaks."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from jobs.run_compose import run_compose
from jobs.settings import Settings
from model_core.sequences import training_sequence
from model_core.tokenizer import TextTokenizer, described
from pipeline.profile import load_profile
from schemas.arrow import LATENTS, SAMPLES
from schemas.errors import ConfigError, ModelLoadError
from schemas.samples import LAYOUTS, STAGES
from tests.jobs.composable_corpus import (
    V2,
    V15,
    Made,
    Said,
    frames_of,
    make,
    many,
    write_latents,
)

TOKENIZER = TextTokenizer(Path(V2) / "tokenizer.json")


def compose(made: Made, *settings: str, checkpoint: str = V2) -> tuple[pl.DataFrame, str]:
    """The samples, and what the command printed."""
    console = Console(record=True, width=160, file=io.StringIO())
    config = load_profile("embedded", settings, Settings)
    run_compose(made.root, checkpoint, config, policy=made.policy, console=console)
    return made.corpus.read(SAMPLES), console.export_text()


def by_id(samples: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["sample_id"]: row for row in samples.iter_rows(named=True)}


@pytest.fixture(scope="module")
def said() -> list[Said]:
    return many(120)


@pytest.fixture(scope="module")
def corpus(said: list[Said], tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("composed"), said)


@pytest.fixture(scope="module")
def samples(corpus: Made) -> pl.DataFrame:
    return compose(corpus)[0]


def patches(frames: int) -> torch.Tensor:
    return torch.zeros(frames // 4, 4, 16)


def test_every_layout_is_there_and_every_length_is_the_sequences(samples: pl.DataFrame) -> None:
    assert set(samples["layout"]) == set(LAYOUTS)
    for row in samples.iter_rows(named=True):
        ids = TOKENIZER.ids(described(row["text"], row["description"]))
        assert row["tokens"] == len(ids)
        longest = max((place["frames"] for place in row["references"]), default=0)
        prompt, cut = row["prompt"], row["target_start"]
        before = patches(prompt["frames"] if prompt else cut)
        sequence = training_sequence(
            ids,
            patches(row["target"]["frames"] - cut),
            reference=patches(longest) if longest else None,
            prompt=before if len(before) else None,
        )
        assert row["positions"] == len(sequence), row["sample_id"]


def test_every_row_is_valid(samples: pl.DataFrame, said: list[Said]) -> None:
    known = {one.name: one for one in said}
    for row in samples.iter_rows(named=True):
        target, layout = known[row["target"]["clip_id"]], row["layout"]
        assert row["sample_id"] == f"{target.name}.{layout}"
        assert row["target"]["frames"] == frames_of(target)
        assert (row["description"] is not None) == layout.startswith("described")
        assert bool(row["references"]) == layout.endswith("reference")
        assert row["session_id"] == target.session
        assert row["language"] == target.language
        assert row["source"] == target.source
        assert not row["synthetic"]
        assert len(row["weights"]) == len(STAGES)
        assert min(row["weights"]) >= 0
        assert max(row["weights"]) > 0
        if layout != "continuation":
            assert row["target_start"] == 0
            assert row["prompt"] is None
            assert row["text"] == target.text
            assert row["duration_s"] == target.duration_s
        for place in row["references"]:
            reference = known[place["clip_id"]]
            assert reference.name != target.name
            assert reference.session == target.session
            assert place["frames"] == frames_of(reference)
    assert samples["sample_id"].is_unique().all()


def test_references_keep_the_order_of_their_ranks(samples: pl.DataFrame, said: list[Said]) -> None:
    known = {one.name: one for one in said}
    held = set(samples.filter(split="validation")["target"].struct.field("clip_id"))
    for row in samples.filter(layout="reference").iter_rows(named=True):
        named = known[row["target"]["clip_id"]].references
        if row["split"] == "train":
            named = tuple(name for name in named if name not in held)
        assert tuple(place["clip_id"] for place in row["references"]) == named


def test_places_are_where_the_latents_lie(corpus: Made, samples: pl.DataFrame) -> None:
    lying = {
        (part, row): clip_id
        for part, table in corpus.corpus.scan(LATENTS, ["clip_id"])
        for row, clip_id in enumerate(table["clip_id"].to_pylist())
    }
    for row in samples.iter_rows(named=True):
        places = [row["target"], *row["references"], *([row["prompt"]] if row["prompt"] else [])]
        for place in places:
            assert lying[place["part"], place["row"]] == place["clip_id"]


def test_continuations_are_cut_and_joined(samples: pl.DataFrame, said: list[Said]) -> None:
    known = {one.name: (number, one) for number, one in enumerate(said)}
    continued = samples.filter(layout="continuation")
    cut = continued.filter(pl.col("target_start") > 0)
    joined = continued.filter(pl.col("prompt").is_not_null())
    assert cut.height > 5
    assert joined.height > 5
    assert cut.height + joined.height == continued.height
    for row in cut.iter_rows(named=True):
        number, target = known[row["target"]["clip_id"]]
        assert row["target_start"] % 4 == 0
        assert target.pause is not None
        assert target.pause[0] <= row["target_start"] * 0.04 <= target.pause[1]
        assert row["text"] == target.text
        assert row["prompt"] is None
    for row in joined.iter_rows(named=True):
        number, target = known[row["target"]["clip_id"]]
        before = said[number - 1]
        assert row["prompt"]["clip_id"] == before.name
        assert before.recording == target.recording
        assert target.start_s - before.start_s - before.duration_s <= 1.5
        assert row["text"] == f"{before.text} {target.text}"
        assert row["duration_s"] == pytest.approx(before.duration_s + target.duration_s)
    # Where both are possible both occur.
    pauses = {one.name for one in said if one.pause}
    assert pauses & set(joined["target"].struct.field("clip_id"))
    assert {name for name in pauses if known[name][1].start_s} & set(
        cut["target"].struct.field("clip_id")
    )


def test_weights_of_a_stage_sum_to_its_clips_and_its_shares_are_met(
    samples: pl.DataFrame,
) -> None:
    config = Settings().compose
    train = samples.filter(split="train")
    for number, stage in enumerate(config.stages):
        weighed = train.select(
            "layout",
            clip=pl.col("target").struct.field("clip_id"),
            weight=pl.col("weights").list.get(number).cast(pl.Float64),
        ).filter(pl.col("weight") > 0)
        assert weighed["weight"].sum() == pytest.approx(weighed["clip"].n_unique(), rel=1e-5)
        totals = dict(weighed.group_by("layout").agg(pl.col("weight").sum()).iter_rows())
        shares = {name: totals.get(name, 0.0) / sum(totals.values()) for name in LAYOUTS}
        wanted = dict(zip(LAYOUTS, stage.shares, strict=True))
        assert shares == pytest.approx(wanted, abs=2e-3)
        assert 0.3 <= shares["reference"] + shares["described_reference"] <= 0.5
        if stage.language_temperature == 1:
            assert weighed.group_by("clip").agg(pl.col("weight").sum())["weight"].to_list() == (
                pytest.approx([1.0] * weighed["clip"].n_unique(), rel=1e-5)
            )


def test_a_flatter_stage_sees_the_rare_language_more(corpus: Made, samples: pl.DataFrame) -> None:
    def share(number: int) -> float:
        weights = samples.filter(split="train").with_columns(
            pl.col("weights").list.get(number).alias("weight")
        )
        of = weights.filter(language="de")["weight"].sum()
        return float(of / weights["weight"].sum())

    assert share(2) > share(1) * 1.2


def test_validation_is_a_share_that_training_never_meets(samples: pl.DataFrame) -> None:
    held = samples.filter(split="validation")
    trained = samples.filter(split="train")
    targets = set(held["target"].struct.field("clip_id"))
    assert 1 <= len(targets) <= 3  # 2 % of 120, rounded up
    assert not targets & set(trained["target"].struct.field("clip_id"))
    heard = trained["references"].explode().drop_nulls().struct.field("clip_id")
    assert not targets & set(heard)
    prompts = trained["prompt"].drop_nulls().struct.field("clip_id")
    assert not targets & set(prompts)


def test_a_corpus_of_one_recording_holds_out_clips_that_nobody_hears(tmp_path: Path) -> None:
    said = [
        Said(name=f"c{number:02}", start_s=4.5 * number, references=(f"c{(number + 9) % 60:02}",))
        for number in range(60)
    ]
    samples = compose(make(tmp_path, said), "compose.validation_share=0.1")[0]
    held = {
        row["target"]["clip_id"] for row in samples.filter(split="validation").iter_rows(named=True)
    }
    assert len(held) == 6
    for row in samples.iter_rows(named=True):
        if row["prompt"]:
            assert (row["prompt"]["clip_id"] in held) == (row["split"] == "validation")
        if row["split"] == "train":
            assert not held & {place["clip_id"] for place in row["references"]}


def test_rows_of_a_target_and_of_a_session_stand_together(
    corpus: Made, samples: pl.DataFrame
) -> None:
    for column in (samples["target"].struct.field("clip_id"), samples["session_id"]):
        assert column.rle().struct.field("value").is_unique().all()
    (part,) = corpus.corpus.parts("samples")
    file = pq.ParquetFile(f"{corpus.root}/{part}")
    assert file.metadata.row_group(0).num_rows <= 4096


def test_who_has_no_sample_is_told_by_the_reason(tmp_path: Path) -> None:
    said = many(30, sessions=1)
    said[1] = replace(said[1], latent=False)
    said[2] = replace(said[2], text=None)
    said[3] = replace(said[3], text="  \n ")
    said[4] = replace(said[4], group=said[5].name, text="the same")
    said[5] = replace(said[5], group=said[5].name, text="the same")
    said[6] = replace(said[6], duration_s=700.0)
    said[7] = replace(said[7], accepted=False)
    made = make(tmp_path, said)
    samples, told = compose(made)
    without = {said[i].name for i in (1, 2, 3, 4, 6, 7)}
    targets = set(samples["target"].struct.field("clip_id"))
    assert targets == {one.name for one in said} - without
    run = made.corpus.runs()[-1]
    assert run["counts"]["left_out"] == {
        "no_latent": 1,
        "no_text": 2,
        "near_duplicate": 1,
        "fits_no_stage": 1,
    }
    assert "no_latent" in told
    gone = {said[i].name for i in (1, 7)}
    assert not gone & set(samples["references"].explode().drop_nulls().struct.field("clip_id"))
    prompts = samples["prompt"].drop_nulls().struct.field("clip_id")
    assert not without & set(prompts)


def test_of_near_duplicates_the_leader_is_the_target_if_it_can_be(tmp_path: Path) -> None:
    said = many(12, sessions=1)
    for number in (3, 4, 5):
        said[number] = replace(said[number], group=said[3].name)
    for number in (8, 9):
        said[number] = replace(said[number], group=said[8].name)
    said[8] = replace(said[8], latent=False)
    targets = set(compose(make(tmp_path, said))[0]["target"].struct.field("clip_id"))
    assert said[3].name in targets
    assert not {said[4].name, said[5].name} & targets
    assert said[9].name in targets


def test_neighbours_of_another_speaker_or_far_away_are_not_joined(tmp_path: Path) -> None:
    def pair(number: int, **second: Any) -> list[Said]:
        values: dict[str, Any] = {"recording": f"r{number}", "duration_s": 3.0}
        one = Said(name=f"{number}a", **values)
        return [one, Said(name=f"{number}b", **{**values, "start_s": 3.5, **second})]

    said = [
        *pair(0),
        *pair(1, speaker="ben"),
        *pair(2, start_s=6.0),
        *pair(3, recording="r3x"),
        *pair(4, speaker=None),
        *pair(5, duration_s=3.0, accepted=True),
    ]
    said[10] = replace(said[10], accepted=False)
    samples = compose(make(tmp_path, said))[0].filter(layout="continuation")
    assert samples["sample_id"].to_list() == ["0b.continuation"]


def test_too_long_references_are_none(tmp_path: Path) -> None:
    """256 positions are what the checkpoint reads."""
    long = Said(name="long", duration_s=30.0, recording="r1")
    short = Said(name="short", duration_s=2.0, recording="r2")
    target = Said(name="target", duration_s=10.0, references=("long", "short"))
    alone = Said(name="alone", duration_s=10.0, recording="r3", references=("long",))
    rows = by_id(compose(make(tmp_path, [long, short, target, alone]))[0])
    assert [p["clip_id"] for p in rows["target.reference"]["references"]] == ["short"]
    assert "alone.reference" not in rows
    assert "alone.text" in rows


def test_a_checkpoint_of_the_first_class_gets_what_it_can_read(
    tmp_path: Path, said: list[Said]
) -> None:
    samples, told = compose(make(tmp_path, said, checkpoint=V15), checkpoint=V15)
    assert set(samples["layout"]) == {"text", "continuation"}
    assert "reference audio on" not in told


def test_too_few_references_are_warned_about(tmp_path: Path) -> None:
    said = [replace(one, references=()) for one in many(30)]
    said[0] = replace(said[0], references=(said[1].name,))
    _, told = compose(make(tmp_path, said))
    assert "Stage 1 has reference audio on 3% of its samples" in told


def test_the_last_latent_counts_if_it_is_of_this_audio_vae(tmp_path: Path) -> None:
    said = many(24)
    made = make(tmp_path, said)
    write_latents(made.corpus, said[:3], V2, 2)
    write_latents(made.corpus, said[3:5], V15, 2)
    samples, _ = compose(made)
    lying = {
        (part, row): attempt
        for part, table in made.corpus.scan(LATENTS, ["attempt"])
        for row, attempt in enumerate(table["attempt"].to_pylist())
    }
    attempts = {
        row["target"]["clip_id"]: lying[row["target"]["part"], row["target"]["row"]]
        for row in samples.iter_rows(named=True)
    }
    assert {attempts[one.name] for one in said[:3]} == {2}
    assert {attempts[one.name] for one in said[5:]} == {1}
    assert not {one.name for one in said[3:5]} & set(attempts)
    assert made.corpus.runs()[-1]["counts"]["left_out"]["no_latent"] == 2


def test_a_second_run_does_nothing_and_a_change_composes_anew(tmp_path: Path) -> None:
    said = many(40)
    made = make(tmp_path, said)
    first, _ = compose(made)
    again, told = compose(made)
    assert "Nothing to do" in told
    assert made.corpus.runs()[-1]["status"] == "nothing to do"
    assert again.equals(first)
    less, told = compose(made, "compose.stage_1.max_s=5")
    assert "Nothing to do" not in told
    assert not less.equals(first)
    back, _ = compose(made)
    assert back.equals(first)
    assert len(list(Path(made.root, "samples").iterdir())) == 1
    next(Path(made.root, "samples").iterdir()).unlink()
    assert compose(made)[0].equals(first)
    # New latents are a change too, even of the same frames.
    write_latents(made.corpus, said[:3], V2, 2)
    moved, told = compose(made)
    assert "Nothing to do" not in told
    assert not moved.equals(first)


def test_samples_do_not_depend_on_how_the_run_went(tmp_path: Path) -> None:
    one, two = (make(tmp_path / name, many(40)) for name in "ab")
    assert compose(one)[0].equals(compose(two)[0])


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no corpus"):
        compose(Made(root=str(tmp_path / "no"), policy="default", corpus=None))  # type: ignore[arg-type]
    made = make(tmp_path / "a", [replace(one, latent=False) for one in many(5)])
    with pytest.raises(ConfigError, match="voxquarry encode"):
        compose(made)
    with pytest.raises(ConfigError, match="but of 1 other"):
        compose(make(tmp_path / "b", many(5), checkpoint=V15))
    with pytest.raises(ConfigError, match="no accepted clips"):
        compose(make(tmp_path / "c", [replace(one, accepted=False) for one in many(5)]))
    with pytest.raises(ConfigError, match=r"no clip of .* makes a sample: 5 fits_no_stage"):
        compose(make(tmp_path / "d", [replace(one, duration_s=900.0) for one in many(5)]))
    with pytest.raises(ModelLoadError):
        compose(made, checkpoint=str(tmp_path))
    with pytest.raises(ConfigError, match="did you mean"):
        compose(made, "compose.stage_1.max_sec=3")
    with pytest.raises(ConfigError, match="validation_share"):
        compose(made, "compose.validation_share=1.5")
    bad = V2.replace("v2", "v2b")
    with pytest.raises(ConfigError, match="patches of 3"):
        compose(made, checkpoint=bad)


def test_the_marker_says_whose_samples_they_are(corpus: Made, samples: pl.DataFrame) -> None:
    marker = json.loads(Path(corpus.root, "_commits/compose/current.json").read_text())
    assert marker["patch_size"] == 4
    assert marker["vae_hash"] == corpus.corpus.read(LATENTS, ["vae_hash"])["vae_hash"][0]
    assert marker["counts"]["samples"] == samples.height == marker["parts"]["samples"]["rows"]
