"""Whether the `consent` of a recording lets its voice be cloned.

`consent` is free text of the manifest: one or several terms, parted by , ; / | + & or "and". A voice
may be cloned where one term permits it, none refuses it and every one is understood. Whatever is
not understood counts as a refusal: a guess would be made at a person's cost.

    permits        any, all, all uses, unrestricted, cloning, voice cloning, synthesis,
                   speech synthesis, voice synthesis, tts, text to speech, synthetic speech
    refuses        none, no, refused, denied, withdrawn, revoked, and "no" or "not" before a
                   permission: no cloning, not for tts
    other uses     training, research, evaluation, analysis, publication, asr, recognition,
                   speech recognition: alone they refuse, beside a permission they do not matter
    nothing        not declared: the rule decides

Giving a voice to others to train on (`use="training"`) is asked in the same words; "training" alone
permits it as well, and "no training" refuses it.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

PERMISSIONS = frozenset(
    {
        *("any", "any use", "all", "all uses", "unrestricted"),
        *("cloning", "voice cloning", "synthesis", "speech synthesis", "voice synthesis"),
        *("tts", "text to speech", "synthetic speech"),
    }
)
REFUSALS = frozenset({"none", "no", "refused", "denied", "withdrawn", "revoked"})
OTHER_USES = frozenset(
    {
        *("training", "research", "evaluation", "analysis", "publication"),
        *("asr", "recognition", "speech recognition"),
    }
)
RULES = ("not_refused", "required")
"""`not_refused`: a recording that declares nothing may be cloned; `required`: it may not."""
USES = {"cloning": PERMISSIONS, "training": PERMISSIONS | {"training"}}
"""Terms that permit each use."""

_PARTED = re.compile(r"[,;/|+&\n]|\band\b")
_DENIED = re.compile(r"(?:not for|no use for|not|no|without) (?P<use>.+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Consent:
    """What a wording comes to."""

    allows: bool
    reason: str
    """Empty where it allows; else a key of `REASONS`."""


REASONS = {
    "consent_refused": "its recording's consent refuses cloning, or is for other uses",
    "consent_not_understood": "its recording's consent is in words that are not known here",
    "consent_not_declared": "its recording declares no consent, and clone.consent is required",
}


def consent_of(wording: str | None, rule: str = "not_refused", use: str = "cloning") -> Consent:
    """Whether a recording with this consent may lend its voice. rule: of `RULES`; use: of `USES`."""
    assert rule in RULES, rule
    permissions = USES[use]
    terms = _terms(wording or "")
    if not terms:
        missing = rule == "required"
        return Consent(allows=not missing, reason="consent_not_declared" if missing else "")
    if any(_refuses(term, permissions) for term in terms):
        return Consent(allows=False, reason="consent_refused")
    if not all(term in permissions or term in OTHER_USES for term in terms):
        return Consent(allows=False, reason="consent_not_understood")
    permitted = any(term in permissions for term in terms)
    return Consent(allows=permitted, reason="" if permitted else "consent_refused")


def strictest(consents: Iterable[Consent]) -> Consent:
    """Of a recording that is declared several times: one refusal is enough."""
    return min(consents, key=lambda consent: (consent.allows, consent.reason))


def not_understood(wordings: Iterable[str | None], use: str = "cloning") -> Counter[str]:
    """The wordings that count as refusals because nobody knows what they mean."""
    return Counter(
        wording
        for wording in wordings
        if wording and consent_of(wording, use=use).reason == "consent_not_understood"
    )


def _terms(wording: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", wording).casefold()
    parts = (re.sub(r"[\s_-]+", " ", part).strip(" .!") for part in _PARTED.split(plain))
    return [part for part in parts if part]


def _refuses(term: str, permissions: frozenset[str]) -> bool:
    denied = _DENIED.fullmatch(term)
    return term in REFUSALS or (denied is not None and denied["use"] in permissions)
