"""What is known for sure is not contradicted by a description; what nobody knows stands."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.verifier import (
    CIRCUMPLEX,
    CONFIRMED,
    CONTRADICTED,
    MEASURED,
    UNCHECKED,
    Hearing,
    VerifierConfig,
    keeps_its_core,
    verify,
)
from schemas.attributes import Traits
from schemas.descriptions import AGES, CLOSED, EMOTIONS, FREE, AttributeVerdict, Claim
from schemas.errors import ConfigError

WOMAN = Traits(
    clip_id="c",
    gender="female",
    gender_confidence=0.97,
    age="adult",
    age_confidence=0.98,
    pitch="high",
    pitch_range="moderate",
    rate="fast",
    energy="moderate",
    pauses="few",
    emphasis="moderate",
    texture="bright, clear",
    emotion="neutral",
    emotion_confidence=0.9,
    arousal=0.05,
    arousal_confidence=0.9,
    chosen=True,
)
CONFIG = VerifierConfig()


def verdict(name: str, value: str, traits: Traits = WOMAN, **judge: Hearing) -> AttributeVerdict:
    (found,) = verify([Claim(name=name, value=value)], traits, CONFIG, judge)
    return found


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("gender", "female", CONFIRMED),
        ("gender", "male", CONTRADICTED),
        ("age", "child", CONTRADICTED),
        ("age", "young adult", UNCHECKED),
        ("age", "senior", UNCHECKED),
        ("age", "teenager", UNCHECKED),
        ("pitch", "high", CONFIRMED),
        ("pitch", "very high", CONFIRMED),
        ("pitch", "low", CONTRADICTED),
        ("rate", "slow", CONTRADICTED),
        ("energy", "very soft", CONTRADICTED),
        ("emotion", "neutral", CONFIRMED),
        ("emotion", "serious", UNCHECKED),
        ("emotion", "angry", CONTRADICTED),
        ("emotion", "tired", CONTRADICTED),
        ("texture", "bright and warm", CONFIRMED),
        ("texture", "dark", CONTRADICTED),
        ("texture", "hoarse", CONTRADICTED),
        ("texture", "nasal", UNCHECKED),
        ("accent", "Scottish", UNCHECKED),
        ("scenario", "an audiobook", UNCHECKED),
    ],
)
def test_evidence_decides(name: str, value: str, expected: str) -> None:
    found = verdict(name, value)
    assert found.verdict == expected
    assert (found.name, found.claimed) == (name, value)
    if expected != UNCHECKED:
        assert found.by in ("measurement", "expert")
        assert found.found is not None


def test_an_expert_that_is_not_sure_contradicts_nothing() -> None:
    unsure = dataclasses.replace(
        WOMAN, gender_confidence=0.6, age_confidence=0.6, arousal_confidence=0.3
    )
    for name, value in (("gender", "male"), ("age", "child"), ("emotion", "angry")):
        assert verdict(name, value, unsure).verdict == UNCHECKED


def test_an_age_in_years_contradicts_what_lies_far_from_it() -> None:
    young = dataclasses.replace(WOMAN, age="young adult", age_confidence=0.9)
    assert verdict("age", "young adult", young).verdict == CONFIRMED
    assert verdict("age", "senior", young).verdict == CONTRADICTED
    assert verdict("age", "child", young).verdict == CONTRADICTED
    # The border between neighbours is within anybody's error.
    assert verdict("age", "middle-aged", young).verdict == UNCHECKED


def test_an_emotion_class_of_a_sure_expert_counts_without_arousal() -> None:
    sad = dataclasses.replace(
        WOMAN, emotion="sad", emotion_confidence=0.95, arousal=None, arousal_confidence=None
    )
    assert verdict("emotion", "sad", sad).verdict == CONFIRMED
    assert verdict("emotion", "happy", sad).verdict == CONTRADICTED
    assert verdict("emotion", "tired", sad).verdict == UNCHECKED


def test_valence_tells_anger_from_joy() -> None:
    joyful = dataclasses.replace(WOMAN, emotion="excited", arousal=0.7, valence=0.8)
    assert verdict("emotion", "angry", joyful).verdict == CONTRADICTED
    assert verdict("emotion", "happy", joyful).verdict == UNCHECKED


def test_a_judge_counts_where_nothing_was_measured_and_only_there() -> None:
    against = Hearing(agrees=False, view="Irish", confidence=0.9, model="judge-1")
    for_it = Hearing(agrees=True, view="high", confidence=0.9, model="judge-1")
    found = verdict("accent", "Scottish", accent=against)
    assert (found.verdict, found.by, found.found) == (CONTRADICTED, "judge-1", "Irish")
    # The number says low; no opinion changes that.
    assert verdict("pitch", "low", pitch=for_it).verdict == CONTRADICTED
    assert verdict("pitch", "high", pitch=against).verdict == CONFIRMED
    unsure = Hearing(agrees=False, view="Irish", confidence=0.3, model="judge-1")
    assert verdict("accent", "Scottish", accent=unsure).verdict == UNCHECKED
    silent = Hearing(agrees=None, model="judge-1")
    assert verdict("accent", "Scottish", accent=silent).verdict == UNCHECKED


def test_a_description_that_is_mostly_wrong_has_lost_its_core() -> None:
    claims = [Claim(name="gender", value="male"), Claim(name="pitch", value="low")]
    claims += [Claim(name="rate", value="slow"), Claim(name="energy", value="moderate")]
    verdicts = verify(claims, WOMAN, CONFIG)
    assert not keeps_its_core(verdicts, CONFIG)
    assert keeps_its_core(verify(claims[2:] + claims[3:], WOMAN, CONFIG), CONFIG)


values = st.sampled_from(
    [Claim(name=name, value=value) for name, found in CLOSED.items() for value in found]
    + [Claim(name=name, value="something") for name in FREE]
)


@given(claims=st.lists(values, max_size=8))
def test_nothing_is_contradicted_without_evidence(claims: list[Claim]) -> None:
    verdicts = verify(claims, Traits(clip_id="c", chosen=True), CONFIG)
    assert [v.verdict for v in verdicts] == [UNCHECKED] * len(claims)


@given(claims=st.lists(values, max_size=8), levels=st.data())
def test_a_measured_value_confirms_itself_and_every_claim_has_one_verdict(
    claims: list[Claim], levels: st.DataObject
) -> None:
    traits = dataclasses.replace(
        WOMAN, **{name: levels.draw(st.sampled_from(CLOSED[name])) for name in MEASURED}
    )
    own = [Claim(name=name, value=getattr(traits, name)) for name in MEASURED]
    verdicts = verify([*claims, *own], traits, CONFIG)
    assert [(v.name, v.claimed) for v in verdicts] == [(c.name, c.value) for c in [*claims, *own]]
    assert {v.verdict for v in verdicts[len(claims) :]} == {CONFIRMED}


def test_every_emotion_and_age_can_be_compared() -> None:
    assert set(CIRCUMPLEX) == set(EMOTIONS)
    for age in AGES:
        traits = dataclasses.replace(WOMAN, age=age, age_confidence=0.95)
        assert verdict("age", age, traits).verdict == CONFIRMED


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="min_confidence"):
        VerifierConfig(min_confidence=1.2)
    with pytest.raises(ConfigError, match="min_claims"):
        VerifierConfig(min_claims=0)
