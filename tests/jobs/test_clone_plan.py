"""Who says what: nobody who refuses, never the same session, and nothing that is not planned."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from jobs.clone_plan import (
    REASONS,
    CloneConfig,
    ClonePlan,
    Plan,
    clones_to_make,
    record_plan,
    still_allowed,
)
from jobs.run_annotate import accepted_clips
from pipeline.derived import due
from pipeline.storage import Corpus
from schemas.arrow import SENTENCES, SYNTHETIC
from schemas.errors import ConfigError, ModelLoadError
from schemas.synthetic import Synthetic
from stages.unrelated import UnrelatedConfig
from tests.jobs.clonable_corpus import (
    Voiced,
    commit_clones,
    declare,
    describe,
    judge,
    make,
    voiced,
)

WORDS = CloneConfig(embedder=None, transcripts=UnrelatedConfig(max_overlap=0.2))
"""Without an embedder, which takes seconds to open."""


def plan_of(corpus: Corpus, config: CloneConfig = WORDS, generation: str = "g") -> Plan:
    return clones_to_make(corpus, accepted_clips(corpus), config, generation)


def plans(plan: Plan) -> list[ClonePlan]:
    return [item.plan for item in plan.items]


def clone_of(plan: ClonePlan) -> Synthetic:
    """A row as the clone phase would write it, of silence."""
    return Synthetic(
        clip_id=plan.clip_id,
        described_id=plan.described.clip_id,
        session_id=plan.session_id,
        transcript_id=plan.transcript_id,
        transcript_session_id=plan.transcript_session_id,
        reference_ids=tuple(place.clip_id for place in plan.references),
        description=plan.description,
        model="m",
        model_hash="h",
        seed=plan.seed,
        candidates=1,
        language=plan.language,
        text=plan.text,
        text_cosine=plan.text_cosine,
        lexical_overlap=plan.lexical_overlap,
        sample_rate=16_000,
        duration_s=1.0,
        audio=b"",
        watermark="w",
        watermark_score=1.0,
        stopped=True,
        text_asr="",
        cer=0.0,
        length_ratio=1.0,
        attempt=1,
    )


def allowed(corpus: Corpus, config: CloneConfig | None = None) -> set[str]:
    """The described clips whose clones may be used."""
    return set(still_allowed(corpus, corpus.read(SYNTHETIC), config)["described_id"])


def made(corpus: Corpus, config: CloneConfig = WORDS) -> Plan:
    """Plan, and commit a row for every clone."""
    plan = plan_of(corpus, config)
    record_plan(corpus, plan, config)
    commit_clones(corpus, [clone_of(one) for one in plans(plan)])
    return plan


# -------------------------------------------------------------------- the plan


def test_every_described_clip_says_what_another_session_says(tmp_path: Path) -> None:
    said = voiced()
    texts = {one.name: one for one in said}
    plan = plan_of(make(tmp_path, said), replace(WORDS, per_clip=2))
    assert plan.described == len(said)
    assert len(plan.items) > 1.5 * len(said)
    for item in plan.items:
        one = item.plan
        assert item.item_id == one.clip_id
        assert one.session_id == texts[one.described.clip_id].session
        assert one.transcript_session_id == texts[one.transcript_id].session != one.session_id
        assert one.text == texts[one.transcript_id].text
        assert one.lexical_overlap <= 0.2
        letters = sum(char.isalnum() for char in one.text)
        assert one.expected_s == pytest.approx(letters / 12.0) == item.duration_s
        assert 0 <= one.seed < 2**32
        assert one.references[0] == one.described
    assert len({item.item_id for item in plan.items}) == len(plan.items)
    # Quarantine tells items of one clip apart by it.
    assert len({item.uri for item in plan.items}) == len(plan.items)
    uses = Counter(one.transcript_id for one in plans(plan))
    assert max(uses.values()) <= math.ceil(3.0 * 2 * len(said) / len(said))


def test_the_same_corpus_gives_the_same_plan(tmp_path: Path) -> None:
    said = voiced()
    one = plan_of(make(tmp_path / "a", said))
    other = plan_of(make(tmp_path / "b", said[::-1]))
    facts = [{item.item_id: item.fingerprint for item in plan.items} for plan in (one, other)]
    assert facts[0] == facts[1]
    assert list(due(one.items, {}, retry=False))


def test_what_a_clone_is_made_from_is_in_its_fingerprint(tmp_path: Path) -> None:
    said = voiced()
    before = {item.item_id: item.fingerprint for item in plan_of(make(tmp_path / "a", said)).items}

    def changed(name: str, clips: list[Voiced], **how: object) -> set[str]:
        plan = plan_of(make(tmp_path / name, clips), **how)  # type: ignore[arg-type]
        return {i.item_id for i in plan.items if before.get(i.item_id) != i.fingerprint}

    assert not changed("b", said)
    assert changed("c", said, generation="another") == set(before)
    assert changed("d", said, config=replace(WORDS, reference_max_s=9.0)) == set(before)
    redescribed = [replace(said[0], description="An old voice."), *said[1:]]
    assert len(changed("e", redescribed)) == 1


def test_a_short_clip_is_followed_by_its_best_references(tmp_path: Path) -> None:
    said = voiced(sessions=2)
    said[0] = replace(said[0], duration_s=2.0, references=("s0c1", "s0c2", "s0c3"))
    said[1] = replace(said[1], duration_s=14.0)
    said[4] = replace(said[4], references=("s0c5",))
    of = {one.described.clip_id: one for one in plans(plan_of(make(tmp_path, said)))}
    # The best does not fit beside it; the next is enough.
    assert [place.clip_id for place in of["s0c0"].references] == ["s0c0", "s0c2"]
    assert [place.clip_id for place in of["s0c4"].references] == ["s0c4"]
    part = of["s0c0"].described.part
    assert part.startswith("clips/")
    assert all(place.part == part for place in of["s0c0"].references)


def test_whoever_is_left_out_is_counted_with_the_reason(tmp_path: Path) -> None:
    said = voiced()
    said[0] = replace(said[0], chars_per_s=None)
    said[1] = replace(said[1], language=None)
    said[2] = replace(said[2], language="fi")
    said[3] = replace(said[3], group="s0c4")
    said[4] = replace(said[4], group="s0c4")
    said[5] = replace(said[5], text="Ah.", chars_per_s=0.5)
    said[6] = replace(said[6], description=None)
    said[7] = replace(said[7], description_accepted=False)
    said[8] = replace(said[8], accepted=False)
    plan = plan_of(make(tmp_path, said, {"r2": "none", "r3": "only with care"}))
    assert plan.left_out == {
        "no_text": 2,
        "no_other_session": 1,
        "near_duplicate": 1,
        "no_unrelated_transcript": 1,
        "consent_refused": 6,
        "consent_not_understood": 6,
    }
    assert set(plan.left_out) <= set(REASONS)
    assert plan.described == len(said) - 3 == len(plan.items) + plan.left_out.total()
    assert plan.consents == {"only with care": 1}


def test_a_corpus_of_one_session_says_why_nothing_is_cloned(tmp_path: Path) -> None:
    plan = plan_of(make(tmp_path, voiced(sessions=1)))
    assert not plan.items
    assert plan.left_out == {"no_other_session": 6}


def test_what_cannot_be_said_is_said_by_nobody(tmp_path: Path) -> None:
    said = [replace(one, sayable=one.session != "s1") for one in voiced(sessions=3)]
    plan = plan_of(make(tmp_path, said))
    assert {one.transcript_session_id for one in plans(plan)} == {"s0", "s2"}
    assert {one.session_id for one in plans(plan)} == {"s0", "s1", "s2"}


def test_a_corpus_without_descriptions_plans_nothing(tmp_path: Path) -> None:
    plan = plan_of(make(tmp_path, voiced(description=None)), CloneConfig())
    assert (len(plan.items), plan.described, plan.left_out) == (0, 0, Counter())


def test_with_an_embedder_pairs_are_less_alike_than_random_ones(tmp_path: Path) -> None:
    lines = (
        *("The boats left the harbour at dawn.", "Waves broke over the quay all night."),
        *("Her violin concerto was applauded.", "The orchestra tuned before the symphony."),
        *("Taxes on income rise next year.", "The bank lowered its interest rates."),
        *("Boil the potatoes with some salt.", "Bake the bread until it is brown."),
    )
    said = [
        Voiced(name=f"s{n % 4}c{n}", text=line, recording=f"r{n % 4}", session=f"s{n % 4}")
        for n, line in enumerate(lines)
    ]
    said += [
        Voiced(name=f"s{n}cf{n}", text=line, recording=f"r{n}", session=f"s{n}", language="fr")
        for n, line in enumerate(("La mer est calme ce matin.", "Un violon joue dans la rue."))
    ]
    corpus = make(tmp_path, said)
    config = CloneConfig()
    plan = plan_of(corpus, config)
    english, french = plan.facts["languages"]
    assert english["cosine"] < english["random_cosine"]
    assert len([one for one in plans(plan) if one.language == "en"]) == 8
    for one in plans(plan):
        if one.language == "fr":
            assert one.text_cosine is None
        else:
            assert one.text_cosine is not None
            assert one.text_cosine < english["random_cosine"]
    assert french["cosine"] is None
    # Embedded once: the next run reads what was kept, and plans the same.
    assert corpus.read(SENTENCES).height == 8
    told: list[int] = []
    again = clones_to_make(
        corpus, accepted_clips(corpus), config, "g", progress=lambda done, _: told.append(done)
    )
    assert not told
    assert list(again.items) == list(plan.items)


# -------------------------------------------------------------------- consent


def test_a_voice_that_refuses_is_neither_described_nor_a_reference(tmp_path: Path) -> None:
    """A session may hold recordings of both kinds."""
    said = voiced(sessions=2)
    said[1] = replace(said[1], recording="r9")
    said[0] = replace(said[0], duration_s=2.0, references=("s0c1", "s0c2"))
    of = {
        one.described.clip_id: one
        for one in plans(plan_of(make(tmp_path, said, {"r9": "no cloning"})))
    }
    assert "s0c1" not in of
    assert [place.clip_id for place in of["s0c0"].references] == ["s0c0", "s0c2"]
    used = {place.clip_id for one in of.values() for place in one.references}
    assert "s0c1" not in used


def test_a_refused_clip_does_not_stand_for_its_copies(tmp_path: Path) -> None:
    said = voiced(sessions=2)
    said[0] = replace(said[0], group="s0c0", recording="r9")
    said[1] = replace(said[1], group="s0c0")
    plan = plan_of(make(tmp_path, said, {"r9": "none"}))
    assert "s0c1" in {one.described.clip_id for one in plans(plan)}
    assert plan.left_out == {"consent_refused": 1}


def test_where_consent_is_required_silence_is_none(tmp_path: Path) -> None:
    corpus = make(tmp_path, voiced(), {"r0": "tts", "r1": "research"})
    plan = plan_of(corpus, replace(WORDS, consent="required"))
    assert {one.session_id for one in plans(plan)} == {"s0"}
    assert plan.left_out == {"consent_refused": 6, "consent_not_declared": 12}


def test_consent_that_is_withdrawn_takes_back_what_was_made(tmp_path: Path) -> None:
    said = voiced(sessions=3)
    said[0] = replace(said[0], duration_s=2.0, references=("s0c1",))
    said[1] = replace(said[1], recording="r9")
    corpus = make(tmp_path, said)
    plan = made(corpus)
    everybody = {one.described.clip_id for one in plans(plan)}
    assert allowed(corpus) == everybody
    recordings = ["r0", "r1", "r2", "r9"]
    declare(corpus, recordings, {"r1": "withdrawn"})
    assert allowed(corpus) == {name for name in everybody if not name.startswith("s1")}
    # The clip itself, and the one whose reference it was.
    declare(corpus, recordings, {"r9": "no tts"})
    assert allowed(corpus) == everybody - {"s0c0", "s0c1"}
    declare(corpus, recordings, {})
    assert allowed(corpus) == everybody
    assert not allowed(corpus, replace(WORDS, consent="required"))


def test_the_last_plans_rule_holds_for_whoever_asks_later(tmp_path: Path) -> None:
    corpus = make(tmp_path, voiced(sessions=2), {"r0": "any", "r1": "any"})
    made(corpus, replace(WORDS, consent="required"))
    assert len(allowed(corpus)) == 12
    declare(corpus, ["r0", "r1"], {"r0": "any"})
    assert {name[:2] for name in allowed(corpus)} == {"s0"}


def test_the_described_voice_counts_even_where_it_is_no_reference(tmp_path: Path) -> None:
    said = voiced(sessions=2)
    said[1] = replace(said[1], recording="r9")
    corpus = make(tmp_path, said)
    plan = next(one for one in plans(plan_of(corpus)) if one.described.clip_id == "s0c1")
    clone = replace(clone_of(plan), reference_ids=("s0c0",))
    commit_clones(corpus, [clone])
    assert allowed(corpus) == {"s0c1"}
    declare(corpus, ["r0", "r1", "r9"], {"r9": "none"})
    assert not allowed(corpus)


def test_a_recording_that_is_gone_has_nobodys_consent(tmp_path: Path) -> None:
    said = voiced(sessions=3)
    corpus = make(tmp_path, said)
    made(corpus)
    declare(corpus, ["r0", "r2"], {})
    assert not {name for name in allowed(corpus) if name.startswith("s1")}
    assert plan_of(corpus).left_out["consent_refused"] == 6


# -------------------------------------------------------------------- afterwards


def test_a_clip_that_is_rejected_or_described_anew_takes_its_clones_along(tmp_path: Path) -> None:
    said = voiced()
    corpus = make(tmp_path, said)
    everybody = {one.described.clip_id for one in plans(made(corpus))}
    judge(corpus, [replace(said[0], accepted=False), *said[1:]])
    assert allowed(corpus) == everybody - {"s0c0"}
    judge(corpus, said)
    describe(corpus, [replace(said[1], description="An old voice."), said[0], *said[2:]], 2)
    assert allowed(corpus) == everybody - {"s0c1"}
    describe(corpus, [replace(said[2], description_accepted=False), *said[:2], *said[3:]], 3)
    assert allowed(corpus) == everybody - {"s0c2"}


def test_what_is_planned_no_more_does_not_stand_until_it_is_again(tmp_path: Path) -> None:
    corpus = make(tmp_path, voiced())
    twice = replace(WORDS, per_clip=2)
    two = made(corpus, twice)
    clones = corpus.read(SYNTHETIC)
    one = plan_of(corpus)
    record_plan(corpus, one, WORDS)
    assert set(still_allowed(corpus, clones)["clip_id"]) == {item.item_id for item in one.items}
    record_plan(corpus, two, twice)
    assert still_allowed(corpus, clones).equals(clones)


def test_no_clones_are_no_clones(tmp_path: Path) -> None:
    corpus = make(tmp_path, voiced())
    assert still_allowed(corpus, corpus.read(SYNTHETIC)).is_empty()


@pytest.mark.parametrize(
    "changes",
    [
        *({"per_clip": 0}, {"consent": "maybe"}, {"unit_s": 0.0}, {"reference_max_s": 1.0}),
        {"reference_min_s": -1.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        CloneConfig(**changes)  # type: ignore[arg-type]


def test_an_embedder_that_is_nowhere_stops_the_plan(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no-such-embedder"):
        plan_of(make(tmp_path, voiced()), replace(WORDS, embedder="no-such-embedder"))


def test_columns_of_the_clones_are_kept(tmp_path: Path) -> None:
    corpus = make(tmp_path, voiced())
    made(corpus)
    light = corpus.read(SYNTHETIC, ["clip_id", "described_id", "reference_ids", "description"])
    kept = still_allowed(corpus, light.with_columns(part=pl.lit("p")))
    assert kept.columns == [*light.columns, "part"]
