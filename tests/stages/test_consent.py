"""Nobody's voice is cloned by a misunderstanding."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.consent import (
    OTHER_USES,
    PERMISSIONS,
    REASONS,
    REFUSALS,
    RULES,
    consent_of,
    not_understood,
    strictest,
)

permissions = st.sampled_from(sorted(PERMISSIONS))
refusals = st.sampled_from(sorted(REFUSALS))
uses = st.sampled_from(sorted(OTHER_USES))
parts = st.sampled_from([", ", ";", " | ", "/", "+", " & ", " and ", "\n"])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "wording",
    ["any", "TTS", " Voice-Cloning ", "speech_synthesis", "training, tts", "research and cloning."],
)
def test_a_permission_permits_however_it_is_spelled(wording: str, rule: str) -> None:
    assert consent_of(wording, rule).allows


@pytest.mark.parametrize(
    "wording",
    [
        *("none", "no", "No cloning", "not for TTS", "any; no-cloning", "tts, withdrawn"),
        *("without voice cloning", "tts and no synthesis", "all uses / refused"),
    ],
)
def test_a_refusal_refuses_whatever_stands_beside_it(wording: str) -> None:
    consent = consent_of(wording)
    assert not consent.allows
    assert consent.reason == "consent_refused"


@pytest.mark.parametrize("wording", ["research", "asr, training", "Speech recognition"])
def test_consent_to_other_uses_is_no_consent_to_cloning(wording: str) -> None:
    assert consent_of(wording).reason == "consent_refused"


@pytest.mark.parametrize(
    "wording",
    ["ja", "yes", "tts only", "see contract 12", "any, but ask first", "cloning?", "n/a", "许可"],
)
def test_what_is_not_understood_counts_as_a_refusal_and_is_told(wording: str) -> None:
    assert consent_of(wording).reason == "consent_not_understood"
    assert not_understood([wording, "tts", None, wording]) == {wording: 2}


@pytest.mark.parametrize("wording", [None, "", " ", "-", ","])
def test_silence_is_allowed_unless_consent_is_required(wording: str | None) -> None:
    assert consent_of(wording).allows
    assert consent_of(wording, "required").reason == "consent_not_declared"


def test_a_recording_that_is_declared_twice_needs_both() -> None:
    yes, no = consent_of("tts"), consent_of("withdrawn")
    assert strictest([yes, no]) == strictest([no, yes]) == no
    assert strictest([yes, yes]) == yes


@given(permissions, refusals, st.lists(uses, max_size=2), parts, st.randoms())
@settings(deadline=None)
def test_one_refusal_outweighs_any_permission(
    permission: str, refusal: str, others: list[str], part: str, random: object
) -> None:
    terms = [permission, refusal, *others]
    random.shuffle(terms)  # type: ignore[attr-defined]
    assert not consent_of(part.join(terms)).allows


@given(permissions, st.sampled_from(["no ", "not ", "not for ", "No-", "WITHOUT "]))
@settings(deadline=None)
def test_the_denial_of_a_permission_is_a_refusal(permission: str, denial: str) -> None:
    assert consent_of(denial + permission).reason == "consent_refused"


@given(st.text(max_size=30))
@settings(deadline=None)
def test_only_known_words_permit(wording: str) -> None:
    consent = consent_of(wording, "required")
    assert consent.allows == (not consent.reason)
    assert consent.reason in {"", *REASONS}
    if consent.allows:
        assert any(permission.split()[0] in wording.casefold() for permission in PERMISSIONS)


@pytest.mark.parametrize(
    ("wording", "allows"),
    [
        ("training", True),
        ("training, research", True),
        ("tts", True),
        ("", True),
        ("research", False),
        ("no training", False),
        ("training, no cloning", False),
        ("withdrawn", False),
        ("as agreed", False),
    ],
)
def test_training_on_a_voice_is_asked_in_the_same_words(wording: str, allows: bool) -> None:
    assert consent_of(wording, use="training").allows == allows
    assert not allows or consent_of(wording, "required", "training").allows == bool(wording)
