"""From claims to a description: what is worth saying, drafts of how, and the best of them."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from annotators.grammar import chinese, english, english_faults
from annotators.grammar.words import table
from annotators.written import Written
from schemas.descriptions import CLOSED, FREE, Claim

VERSION = "1"
"""Of words and rules; it changes whenever the same claims and seed would give another text."""

Draft = Callable[[Mapping[str, str], random.Random, Mapping[str, Any]], str | None]
Faults = Callable[[str], int]

_LANGUAGES: dict[str, tuple[Draft, Faults]] = {
    "en": (english.draft, english_faults.faults),
    "zh": (chinese.draft, chinese.faults),
}
LANGUAGES = tuple(_LANGUAGES)

ADULT = "adult"
"""An age that `CLOSED` does not list: grown up, nothing more is known."""
PLAIN = frozenset({"moderate", "neutral", "none", "some", "few"})
"""Closed values that go without saying."""

# A plain value is told now and then; oftener where there is little else to tell of the manner.
_TOLD, _TOLD_ALONE = 0.12, 0.5
_DRAFTS = 60


def write(claims: Sequence[Claim], language: str, seed: str) -> Written:
    """A description in `language`, one of `LANGUAGES`; the same for the same claims and seed.

    All claims are told, apart from `PLAIN` ones where there is more to say. The order of the
    claims does not matter. Raises ValueError for no claim, one attribute claimed twice, an unknown
    attribute, value or language.
    """
    if language not in _LANGUAGES:
        raise ValueError(f"no grammar for {language!r}; there are {', '.join(LANGUAGES)}")
    said = _checked(claims)
    told = ";".join(f"{name}={value}" for name, value in sorted(said.items()))
    # A seed that is text gives the same numbers in every process.
    chance = random.Random(f"{VERSION}\n{language}\n{seed}\n{told}")
    chosen = _worth_saying(said, chance)
    draft, faults = _LANGUAGES[language]
    words = table(language)
    best, fewest = "", 1_000
    for _ in range(_DRAFTS):
        text = draft(chosen, chance, words)
        if text is not None and (found := faults(text)) < fewest:
            best, fewest = text, found
        if not fewest:
            break
    assert best, f"no draft for {chosen}"
    kept = tuple(claim for claim in claims if claim.name in chosen)
    return Written(text=best, claims=kept)


def _checked(claims: Sequence[Claim]) -> dict[str, str]:
    said: dict[str, str] = {}
    for claim in claims:
        known = claim.name in FREE or claim.value in CLOSED.get(claim.name, ())
        if not known and (claim.name, claim.value) != ("age", ADULT):
            raise ValueError(f"no grammar for the claim {claim.name}: {claim.value!r}")
        if claim.name in said:
            raise ValueError(f"{claim.name} is claimed twice")
        value = _tidy(claim.value) if claim.name in FREE else claim.value
        if not value:
            raise ValueError(f"the claim {claim.name} is empty")
        said[claim.name] = value
    if not said:
        raise ValueError("nothing is claimed, so there is nothing to write")
    return said


def _tidy(value: str) -> str:
    """Words that can stand inside a sentence: one line, no brackets, no full stop."""
    value = re.sub(r"[\s()\[\]{}<>（）【】「」\"“”]+", " ", value).strip(" .,;:!?。，；：！？、")
    return re.sub(r"\s+([,;:.，；：。])", r"\1", value)


def _worth_saying(said: dict[str, str], chance: random.Random) -> dict[str, str]:
    plain = {name for name in said if name in CLOSED and said[name] in PLAIN}
    if len(plain) == len(said):
        return said
    style = any(name not in plain and name not in ("gender", "age") for name in said)
    told = _TOLD if style else _TOLD_ALONE
    # In a fixed order, so that chance does not hang on the order of the claims.
    kept = [name for name in sorted(said) if name not in plain or chance.random() < told]
    return {name: said[name] for name in kept}
