"""Generated clips among the samples: marked, rationed, never heard as anybody's voice, no leak."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from jobs.block_reading import Reading
from jobs.compose_synthetic import leaking
from jobs.run_compose import run_compose
from jobs.sample_stream import SampleStream
from jobs.settings import Settings
from model_core.sequences import training_sequence
from model_core.tokenizer import TextTokenizer, described
from model_core.training.augment import AugmentConfig
from model_core.training.order import OrderConfig
from model_core.training.packs import START
from pipeline.profile import load_profile
from schemas.arrow import LATENTS, SAMPLES
from tests.jobs.composable_corpus import (
    CHANNELS,
    V2,
    V15,
    Cloned,
    Made,
    Said,
    clones_of,
    frames_of,
    judge_clones,
    latent_of,
    make,
    many,
    write_clones,
)

TOKENIZER = Path(V2) / "tokenizer.json"


def compose(made: Made, *values: str, checkpoint: str = V2) -> tuple[pl.DataFrame, str]:
    """The samples, and what the command printed."""
    console = Console(record=True, width=160, file=io.StringIO())
    config = load_profile("embedded", values, Settings)
    run_compose(made.root, checkpoint, config, policy=made.policy, console=console)
    return made.corpus.read(SAMPLES), console.export_text()


def targets_of(samples: pl.DataFrame) -> set[str]:
    return set(samples["target"].struct.field("clip_id"))


def counts_of(made: Made) -> dict[str, Any]:
    found: dict[str, Any] = made.corpus.runs()[-1]["counts"]
    return found


@pytest.fixture(scope="module")
def said() -> list[Said]:
    return many(120)


@pytest.fixture(scope="module")
def cloned(said: list[Said]) -> list[Cloned]:
    return clones_of(said, each=3)


@pytest.fixture(scope="module")
def before(said: list[Said], tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """Samples of the same corpus without anything generated."""
    return compose(make(tmp_path_factory.mktemp("recorded"), said))[0]


@pytest.fixture(scope="module")
def mixed(
    said: list[Said], cloned: list[Cloned], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Made, pl.DataFrame, str]:
    made = make(tmp_path_factory.mktemp("mixed"), said)
    write_clones(made.corpus, cloned)
    return made, *compose(made)


@pytest.fixture(scope="module")
def samples(mixed: tuple[Made, pl.DataFrame, str]) -> pl.DataFrame:
    return mixed[1]


def patches(frames: int) -> torch.Tensor:
    return torch.zeros(frames // 4, 4, CHANNELS)


def test_a_generated_clip_is_told_by_its_description_alone_or_with_a_recorded_voice(
    samples: pl.DataFrame, said: list[Said], cloned: list[Cloned]
) -> None:
    known, clones = ({one.name: one for one in some} for some in (said, cloned))
    held = targets_of(samples.filter(split="validation"))
    rows = samples.filter("synthetic")
    assert set(rows["layout"]) == {"described", "described_reference"}
    assert len(targets_of(rows)) > 0.8 * len(cloned)
    tokenizer = TextTokenizer(TOKENIZER)
    for row in rows.iter_rows(named=True):
        clone = clones[row["target"]["clip_id"]]
        voice = known[clone.of]
        assert row["sample_id"] == f"{clone.name}.{row['layout']}"
        assert (row["text"], row["description"]) == (clone.text, clone.description)
        assert row["target"]["frames"] == frames_of(clone)
        assert (row["session_id"], row["source"]) == (voice.session, voice.source)
        assert row["language"] == clone.language
        assert row["duration_s"] == clone.duration_s
        assert row["target_start"] == 0
        assert row["prompt"] is None
        lent = [place["clip_id"] for place in row["references"]]
        # Its own voice first, then what was mined for it, best first.
        wanted = [name for name in (voice.name, *voice.references) if name not in held]
        assert lent == (wanted if row["layout"] == "described_reference" else [])
        ids = tokenizer.ids(described(row["text"], row["description"]))
        longest = max((place["frames"] for place in row["references"]), default=0)
        sequence = training_sequence(
            ids, patches(frames_of(clone)), reference=patches(longest) if longest else None
        )
        assert (row["tokens"], row["positions"]) == (len(ids), len(sequence))


def test_what_is_generated_lends_no_voice_prompts_nothing_and_validates_nothing(
    samples: pl.DataFrame, cloned: list[Cloned]
) -> None:
    names = {clone.name for clone in cloned}
    heard = samples["references"].explode().drop_nulls().struct.field("clip_id")
    assert len(heard) > 100
    assert not names & set(heard)
    assert not names & set(samples["prompt"].drop_nulls().struct.field("clip_id"))
    assert not samples.filter(split="validation")["synthetic"].any()
    assert targets_of(samples.filter("synthetic")) <= names
    assert not names & targets_of(samples.filter(~pl.col("synthetic")))


def test_recorded_clips_are_composed_as_if_nothing_had_been_generated(
    samples: pl.DataFrame, before: pl.DataFrame
) -> None:
    alike = [name for name in before.columns if name not in ("target", "references", "prompt")]
    recorded = samples.filter(~pl.col("synthetic"))
    assert recorded.select(alike).equals(before.select(alike))
    for frame in (recorded, before):
        assert not frame["synthetic"].any()
    names = [frame["references"].list.eval(pl.element().struct[0]) for frame in (recorded, before)]
    assert names[0].equals(names[1])


def test_places_and_neighbours_are_kept(
    mixed: tuple[Made, pl.DataFrame, str], samples: pl.DataFrame
) -> None:
    lying = {
        (part, row): clip_id
        for part, table in mixed[0].corpus.scan(LATENTS, ["clip_id"])
        for row, clip_id in enumerate(table["clip_id"].to_pylist())
    }
    for row in samples.iter_rows(named=True):
        for place in (row["target"], *row["references"]):
            assert lying[place["part"], place["row"]] == place["clip_id"]
    for column in (samples["target"].struct.field("clip_id"), samples["session_id"]):
        assert column.rle().struct.field("value").is_unique().all()


def share_of(samples: pl.DataFrame, stage: int, **where: Any) -> float:
    train = samples.filter(split="train", **where).select(
        "synthetic", weight=pl.col("weights").list.get(stage).cast(pl.Float64)
    )
    generated = train.filter("synthetic")["weight"].sum()
    return float(generated / max(train["weight"].sum(), 1e-12))


def test_each_stage_keeps_its_share_exactly_and_tells_it(
    mixed: tuple[Made, pl.DataFrame, str], samples: pl.DataFrame
) -> None:
    made, _, told = mixed
    config = Settings().compose
    shares = [share_of(samples, number) for number in range(3)]
    assert shares[0] == 0
    for number, stage in enumerate(config.stages):
        assert shares[number] <= stage.synthetic
        assert shares[number] == pytest.approx(stage.synthetic, rel=1e-4)
        for language in ("en", "de"):
            assert share_of(samples, number, language=language) <= stage.synthetic
        assert counts_of(made)["stages"][number]["synthetic"] == pytest.approx(shares[number])
    line = next(line for line in told.splitlines() if " synthetic " in line and "%" in line)
    assert [word for word in line.split() if "%" in word] == ["0.0%", "30.0%", "10.0%"]
    assert "of them synthetic)" in told


def test_the_share_is_a_setting_and_0_leaves_them_out(
    said: list[Said], cloned: list[Cloned], before: pl.DataFrame, tmp_path: Path
) -> None:
    made = make(tmp_path, said)
    write_clones(made.corpus, cloned)
    none = [f"compose.stage_{number}.synthetic=0" for number in (2, 3)]
    assert (
        compose(made, *none)[0]
        .drop("target", "references", "prompt")
        .equals(before.drop("target", "references", "prompt"))
    )
    more, _ = compose(made, "compose.stage_2.synthetic=0.05", none[1])
    assert 0.049 < share_of(more, 1) <= 0.05
    assert share_of(more, 2) == 0
    # Without a share of its layouts a stage has no use for a generated clip.
    bare = [
        f"compose.stage_{n}.{name}=0"
        for n in (2, 3)
        for name in ("described", "described_reference")
    ]
    bare_samples, told = compose(made, *bare)
    assert not bare_samples["synthetic"].any()
    assert counts_of(made)["synthetic"]["left_out"]["fits_no_stage"] > 0
    assert "Accepted synthetic clips without a sample" in told


@pytest.mark.parametrize("sessions", [10, 1])
def test_nothing_that_is_kept_for_validation_reaches_training_through_a_clone(
    sessions: int, tmp_path: Path
) -> None:
    """Ten sessions: whole ones are kept. One: single clips are, since no recording is small."""
    said = many(60, sessions=10)
    if sessions == 1:
        said = [
            replace(one, session="s", recording="r", start_s=20.0 * i) for i, one in enumerate(said)
        ]
        lends = [*said[30:], *said[:30]]
        cloned = [
            Cloned(
                name=f"clone-{a.name}",
                of=a.name,
                says=b.name,
                text=str(b.text),
                heard=(a.name, *a.references[-1:]),
            )
            for a, b in zip(said, lends, strict=True)
            if a.description
        ]
    else:
        cloned = clones_of(said, each=4)
    made = make(tmp_path, said)
    write_clones(made.corpus, cloned)
    samples, told = compose(made, "compose.validation_share=0.2")
    held = targets_of(samples.filter(split="validation"))
    assert held
    assert held <= {one.name for one in said}
    known = {one.name: one for one in said}
    held_sessions = {known[name].session for name in held} if sessions > 1 else set()

    def leaks(clone: Cloned) -> bool:
        behind = {clone.of, clone.says, *clone.heard}
        return bool(behind & held) or known[clone.of].session in held_sessions

    trained = targets_of(samples.filter("synthetic"))
    bad = {clone.name for clone in cloned if leaks(clone)}
    assert len(bad) > 3
    assert not trained & bad
    assert trained == {clone.name for clone in cloned} - bad
    assert counts_of(made)["synthetic"]["left_out"]["held_out"] == len(bad)
    assert "held_out" in told
    heard = samples.filter(split="train")["references"].explode().drop_nulls()
    assert not held & set(heard.struct.field("clip_id"))


def test_a_clip_of_a_held_session_that_is_no_target_lends_its_voice_to_nobody(
    tmp_path: Path,
) -> None:
    """A repeat of another clip is no target, so it is not itself kept; its session is."""
    said = many(60, sessions=10)
    samples, _ = compose(make(tmp_path / "a", said), "compose.validation_share=0.2")
    held = targets_of(samples.filter(split="validation"))
    of_held = [i for i, one in enumerate(said) if one.name in held]
    first, last = of_held[0], of_held[-1]
    free = next(one for one in said if one.name not in held and one.description)
    said.append(
        replace(
            said[last],
            name="repeat",
            start_s=said[last].start_s + 60,
            group=said[last].name,
            description="A calm voice.",
        )
    )
    said[last] = replace(said[last], group=said[last].name)
    wide = replace(said[first], name="fine")
    cloned = [
        Cloned(name="voice", of="repeat", says=free.name, text="quite other words"),
        Cloned(name="words", of=free.name, says="repeat", text="quite other words"),
        Cloned(name="ear", of=free.name, says=free.name, text="and others", heard=("repeat",)),
        Cloned(name="written", of=free.name, says="gone", text=f" {wide.text}! ".upper()),
        Cloned(name="good", of=free.name, says=free.name, text="all is well"),
    ]
    made = make(tmp_path / "b", said)
    write_clones(made.corpus, cloned)
    again, _ = compose(made, "compose.validation_share=0.2")
    assert targets_of(again.filter(split="validation")) == held
    assert "repeat" not in targets_of(again)
    assert targets_of(again.filter("synthetic")) == {"good"}
    assert counts_of(made)["synthetic"]["left_out"] == {"held_out": 4}


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_clip_leaks_exactly_if_it_comes_from_what_is_kept(data: st.DataObject) -> None:
    num, made = data.draw(st.integers(1, 8)), data.draw(st.integers(0, 5))
    draw = data.draw
    recordings = draw(st.lists(st.integers(0, 4), min_size=num, max_size=num))
    target = np.array([*draw(st.lists(st.booleans(), min_size=num, max_size=num)), *[False] * made])
    held = np.array([*draw(st.lists(st.booleans(), min_size=num, max_size=num)), *[False] * made])
    held &= target
    text = draw(
        st.lists(st.sampled_from(["a", "A!", "b c", "bc", None]), min_size=num, max_size=num)
    ) + draw(st.lists(st.sampled_from(["a", "b", "B, c."]), min_size=made, max_size=made))
    pairs = [
        (num + child, draw(st.integers(0, num - 1))) for child in range(made) for _ in range(2)
    ]
    session = [number // 2 for number in recordings]
    voices = {child: pair for child, pair in reversed(pairs)}
    clips = pl.DataFrame(
        {
            "session_id": [f"s{session[i if i < num else voices[i]]}" for i in range(num + made)],
            "recording_id": [
                f"r{recordings[i if i < num else voices[i]]}" for i in range(num + made)
            ],
            "synthetic": [i >= num for i in range(num + made)],
        }
    )
    child, parent = (np.array([pair[i] for pair in pairs], np.int64) for i in range(2))
    found = leaking(clips, (child, parent), pl.Series(text, dtype=pl.String), target, held)

    def kept(i: int) -> bool:
        if held[i]:
            return True
        for group in (session, recordings):
            peers = [j for j in range(num) if group[j] == group[i] and target[j]]
            if peers and all(held[j] for j in peers):
                return True
        return False

    def words(one: str | None) -> str | None:
        return None if one is None else "".join(filter(str.isalnum, one.lower()))

    said_by_kept = {words(text[i]) for i in range(num) if held[i]} - {None}
    for i in range(num + made):
        wanted = i >= num and (
            any(kept(origin) for one, origin in pairs if one == i) or words(text[i]) in said_by_kept
        )
        assert found[i] == wanted


def test_who_makes_no_sample_is_told_by_the_reason(tmp_path: Path) -> None:
    said = many(30, sessions=2)
    calm = {"description": "A calm voice."}
    said[0] = replace(said[0], accepted=False, **calm)
    said[1] = replace(said[1], latent=False, **calm)
    said[2] = replace(said[2], **calm)
    said[3] = replace(said[3], recording="own", consent="no cloning", **calm)
    other: dict[str, Any] = {"says": said[20].name, "text": "other words"}
    cloned = [
        Cloned(name="good", of=said[2].name, **other),
        Cloned(name="rejected", of=said[2].name, accepted=False, **other),
        Cloned(name="unencoded", of=said[2].name, latent=False, **other),
        Cloned(name="of a rejected clip", of=said[0].name, **other),
        Cloned(name="of an unencoded clip", of=said[1].name, **other),
        Cloned(name="of nobody", of="gone", **other),
        Cloned(name="refused since", of=said[3].name, **other),
        Cloned(name="in a refused voice", of=said[2].name, heard=(said[3].name,), **other),
        Cloned(name="told otherwise", of=said[2].name, description="A harsh voice.", **other),
        Cloned(name="silent", of=said[2].name, says=said[20].name, text="  "),
        Cloned(name="long", of=said[2].name, duration_s=600.0, **other),
    ]
    made = make(tmp_path, said)
    write_clones(made.corpus, cloned)
    samples, told = compose(made, "compose.validation_share=0")
    assert targets_of(samples.filter("synthetic")) == {"good"}
    assert counts_of(made)["synthetic"]["left_out"] == {
        "withdrawn": 5,
        "no_voice": 1,
        "no_latent": 1,
        "no_text": 1,
        "fits_no_stage": 1,
    }
    assert "withdrawn (its voice may not be cloned any more" in told
    # A checkpoint that reads no descriptions has no use for any of them.
    made = make(tmp_path / "old", said, checkpoint=V15)
    write_clones(made.corpus, cloned[:1], checkpoint=V15)
    samples, told = compose(made, checkpoint=V15)
    assert not samples["synthetic"].any()
    assert "no_control" in told


def test_new_clones_and_new_verdicts_are_composed_anew(tmp_path: Path) -> None:
    said = many(30)
    made = make(tmp_path, said)
    first, told = compose(made)
    assert "synthetic" not in told
    cloned = clones_of(said, each=1)
    write_clones(made.corpus, cloned)
    second, told = compose(made)
    assert "Nothing to do" not in told
    assert second["synthetic"].any()
    assert "Nothing to do" in compose(made)[1]
    strict = [replace(clone, accepted=number % 2 == 0) for number, clone in enumerate(cloned)]
    judge_clones(made.corpus, strict)
    third, told = compose(made)
    assert "Nothing to do" not in told
    gone = {clone.name for clone in strict if not clone.accepted}
    assert not gone & targets_of(third)
    assert gone & targets_of(second)
    judge_clones(made.corpus, [replace(clone, accepted=False) for clone in cloned])
    assert compose(made)[0].equals(first)


def test_the_trainer_reads_a_generated_clip_with_the_voice_that_it_borrows(
    mixed: tuple[Made, pl.DataFrame, str],
    samples: pl.DataFrame,
    said: list[Said],
    cloned: list[Cloned],
) -> None:
    reading = Reading(
        corpus=mixed[0].root,
        tokenizer=str(TOKENIZER),
        patch_size=4,
        channels=CHANNELS,
        stage=2,
        max_positions=256,
        order=OrderConfig(seed=1, pack_positions=512),
        augment=AugmentConfig(phoneme_samples=0.0),
    )
    content = {one.name: latent_of(one) for one in (*said, *cloned)}
    rows = {row["sample_id"]: row for row in samples.iter_rows(named=True)}
    seen = []
    for pack in SampleStream(reading, background=False).packs(START):
        if pack.after.epoch:
            break
        assert not pack.skipped
        seen += pack.sample_ids
        for sample_id, tokens, audio, target in _taken(pack):
            row = rows[sample_id]
            if not row["synthetic"]:
                continue
            ids = TextTokenizer(TOKENIZER).ids(described(row["text"], row["description"]))
            assert str(ids.tolist())[1:-1] in str(tokens.tolist())
            spoken = torch.from_numpy(content[row["target"]["clip_id"]].copy())
            assert torch.equal(audio[target], spoken.reshape(-1, 4, CHANNELS))
            voice = audio[~target].reshape(-1, CHANNELS).numpy()
            lent = [content[place["clip_id"]] for place in row["references"]]
            assert any(np.array_equal(voice, one) for one in lent) or not (len(voice) or lent)
    generated = [name for name in seen if rows[name]["synthetic"]]
    # An epoch draws it: 30 % on average.
    assert 0.2 < len(generated) / len(seen) < 0.4
    assert {rows[name]["layout"] for name in generated} == {"described", "described_reference"}


def _taken(pack: Any) -> Sequence[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Each sample of a pack: its id, tokens, patches, and which of them carry loss."""
    starts = np.concatenate(([0], np.cumsum(pack.lengths)))
    found = []
    for sample_id, start, end in zip(pack.sample_ids, starts, starts[1:], strict=False):
        low, high = int(pack.is_audio[:start].sum()), int(pack.is_audio[:end].sum())
        is_audio = pack.is_audio[start:end]
        found.append(
            (
                sample_id,
                pack.tokens[start:end],
                pack.patches[low:high],
                pack.is_target[start:end][is_audio],
            )
        )
    return found
