"""Whether speech is as its description says, by the verifier of descriptions.

A claim that the experts confirm was followed, one that they contradict was not, and what they cannot
judge does not count. Much is followed by accident (half of all voices are a woman's), so the same
descriptions are also held against what was said for others.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from annotators.claims import claims_in
from annotators.languages import script_share
from annotators.verifier import CONFIRMED, CONTRADICTED, VerifierConfig, verify
from jobs.evaluation.config import EvaluateConfig
from jobs.evaluation.intervals import Figure, ratio
from schemas.attributes import Traits
from schemas.descriptions import AttributeVerdict

ALL = "all"
_OTHERS = 20
"""Utterances that a description is held against to learn what chance does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Following:
    """How one attribute was followed."""

    followed: Figure
    """Share of the claims that could be judged."""
    by_chance: float | None
    """The same where descriptions are held against the speech of others."""
    claims: int
    """All that were made."""
    judged: int


def verdicts_on(
    description: str, traits: Traits, config: VerifierConfig
) -> tuple[AttributeVerdict, ...]:
    """What the experts say of each claim."""
    chinese = (script_share(description, "zh") or 0.0) > 0.5
    return verify(claims_in(description, "zh" if chinese else "en"), traits, config)


def following(
    said: Sequence[tuple[str, Traits]], verifier: VerifierConfig, config: EvaluateConfig
) -> dict[str, Following]:
    """Attribute → how it was followed; `ALL` over all claims. said: descriptions and what came."""
    verdicts = [verdicts_on(description, traits, verifier) for description, traits in said]
    others = range(1, min(_OTHERS, len(said) - 1) + 1)
    crossed = Counter[tuple[str, str]]()
    for number, (description, _) in enumerate(said):
        for step in others:
            _, traits = said[(number + step) % len(said)]
            crossed += _counted(verdicts_on(description, traits, verifier))
    found = {}
    names = dict.fromkeys(one.name for some in verdicts for one in some)
    for name in (*names, ALL):
        counts = [_counted(some) for some in verdicts]
        judged = [c for c in counts if c[name, CONFIRMED] + c[name, CONTRADICTED]]
        yes = [c[name, CONFIRMED] for c in judged]
        both = [c[name, CONFIRMED] + c[name, CONTRADICTED] for c in judged]
        figure = ratio(yes, both, config)
        if figure is None:
            continue
        found[name] = Following(
            followed=figure,
            by_chance=_share(crossed, name),
            claims=sum(c[name, verdict] for c in counts for n, verdict in c if n == name),
            judged=sum(both),
        )
    return found


def _counted(verdicts: Sequence[AttributeVerdict]) -> Counter[tuple[str, str]]:
    """Attribute and verdict → claims; every claim counts for `ALL` too."""
    return Counter((name, one.verdict) for one in verdicts for name in (one.name, ALL))


def _share(counts: Mapping[tuple[str, str], int], name: str) -> float | None:
    both = counts[name, CONFIRMED] + counts[name, CONTRADICTED]
    return counts[name, CONFIRMED] / both if both else None
