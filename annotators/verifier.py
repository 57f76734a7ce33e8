"""Holds what a description claims against what was measured and what the experts heard.

A measurement or an expert that says otherwise, and is sure of it, contradicts a claim; what nobody
can check stands. A judge (a second audio model that listened blind) counts where there is no
measurement. Emotions are compared by where they lie on the circumplex of arousal and valence
(Russell, "A circumplex model of affect", J. Personality and Social Psychology 39, 1980).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.attributes import Traits
from schemas.descriptions import CLOSED, AttributeVerdict, Claim
from schemas.errors import ConfigError

CONFIRMED, CONTRADICTED, UNCHECKED = "confirmed", "contradicted", "unchecked"

MEASURED = ("pitch", "pitch_range", "rate", "energy", "pauses", "emphasis")
"""Attributes that are facts in numbers."""

# Years; the groups' order is that of growing up.
_AGES = {
    "child": (0, 12),
    "teenager": (13, 17),
    "young adult": (18, 34),
    "middle-aged": (35, 59),
    "senior": (60, 120),
    "adult": (18, 120),
}
# Ages that are fewer years apart than listeners err by (7 to 11: Burkhardt et al., "Speech-based age
# and gender prediction with transformers", 2023) are no contradiction.
_AGE_ERROR_YEARS = 5

CIRCUMPLEX = {
    "neutral": (0.0, 0.0),
    "calm": (-0.5, 0.3),
    "tender": (-0.4, 0.6),
    "sad": (-0.6, -0.7),
    "tired": (-0.8, -0.1),
    "serious": (0.0, -0.2),
    "happy": (0.4, 0.8),
    "excited": (0.8, 0.5),
    "surprised": (0.8, 0.1),
    "angry": (0.7, -0.7),
    "fearful": (0.6, -0.7),
    "disgusted": (0.3, -0.7),
}
"""Emotion → (arousal, valence), each from -1 to 1."""

_OPPOSITES = (
    ({"bright"}, {"dark"}),
    ({"clear"}, {"hoarse", "rough", "breathy"}),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifierConfig:
    """How sure evidence must be, and how much of a description must be left."""

    min_confidence: float = 0.8
    """Of an expert or a judge that contradicts."""
    min_arousal_confidence: float = 0.5
    """The same of an arousal, whose confidence is the agreement of its cues."""
    max_levels_off: int = 1
    """Steps between a claimed and a measured level that are still no contradiction."""
    max_affect_off: float = 0.45
    """The same of the distance in arousal, and half of it of that in valence."""
    min_claims: int = 2
    """Claims that a description keeps, at least."""
    min_kept: float = 0.5
    """Share of its claims that a description keeps, at least."""

    def __post_init__(self) -> None:
        for name in ("min_confidence", "min_arousal_confidence", "min_kept"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"verifier.{name} must be in [0, 1], got {getattr(self, name)}")
        if self.max_levels_off < 0 or self.min_claims < 1 or self.max_affect_off <= 0:
            raise ConfigError(
                "verifier: max_levels_off >= 0, min_claims >= 1 and max_affect_off > 0 are needed"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Hearing:
    """What a second model made of one claim."""

    agrees: bool | None
    """None: it is unsure."""
    view: str | None = None
    """What it heard by itself, before it knew the claim."""
    confidence: float | None = None
    model: str


def verify(
    claims: Sequence[Claim],
    traits: Traits,
    config: VerifierConfig,
    judge: Mapping[str, Hearing] | None = None,
) -> tuple[AttributeVerdict, ...]:
    """A verdict for every claim. judge: attribute → what the second model said of it."""
    return tuple(_verdict(claim, traits, config, (judge or {}).get(claim.name)) for claim in claims)


def keeps_its_core(verdicts: Sequence[AttributeVerdict], config: VerifierConfig) -> bool:
    """Whether enough is left once the contradicted claims are gone."""
    kept = sum(verdict.verdict != CONTRADICTED for verdict in verdicts)
    return kept >= config.min_claims and kept >= config.min_kept * len(verdicts)


def _verdict(
    claim: Claim, traits: Traits, config: VerifierConfig, hearing: Hearing | None
) -> AttributeVerdict:
    evidence = _evidence(claim, traits, config)
    if evidence.verdict != UNCHECKED or hearing is None or hearing.agrees is None:
        return evidence
    sure = hearing.confidence is None or hearing.confidence >= config.min_confidence
    if not hearing.agrees and not sure:
        return evidence
    return AttributeVerdict(
        name=claim.name,
        claimed=claim.value,
        found=hearing.view,
        by=hearing.model,
        confidence=hearing.confidence,
        verdict=CONFIRMED if hearing.agrees else CONTRADICTED,
    )


def _evidence(claim: Claim, traits: Traits, config: VerifierConfig) -> AttributeVerdict:
    """The verdict of measurements and experts alone."""
    if claim.name in MEASURED:
        found = getattr(traits, claim.name)
        verdict = _of_levels(claim, found, config)
        return _told(claim, found, "measurement", None, verdict)
    if claim.name == "gender":
        verdict = _of_gender(claim, traits, config)
        return _told(claim, traits.gender, "expert", traits.gender_confidence, verdict)
    if claim.name == "age":
        verdict = _of_age(claim, traits, config)
        return _told(claim, traits.age, "expert", traits.age_confidence, verdict)
    if claim.name == "emotion":
        return _of_emotion(claim, traits, config)
    if claim.name == "texture":
        verdict = _of_texture(claim, traits)
        return _told(claim, traits.texture, "measurement", None, verdict)
    return AttributeVerdict(name=claim.name, claimed=claim.value, verdict=UNCHECKED)


def _told(
    claim: Claim, found: str | None, by: str, confidence: float | None, verdict: str
) -> AttributeVerdict:
    return AttributeVerdict(
        name=claim.name,
        claimed=claim.value,
        found=found,
        by=by if found is not None else None,
        confidence=confidence if found is not None else None,
        verdict=verdict,
    )


def _of_levels(claim: Claim, found: str | None, config: VerifierConfig) -> str:
    levels = CLOSED[claim.name]
    if found is None or claim.value not in levels:
        return UNCHECKED
    apart = abs(levels.index(claim.value) - levels.index(found))
    return CONFIRMED if apart <= config.max_levels_off else CONTRADICTED


def _of_gender(claim: Claim, traits: Traits, config: VerifierConfig) -> str:
    if traits.gender is None or (traits.gender_confidence or 0.0) < config.min_confidence:
        return UNCHECKED
    return CONFIRMED if claim.value == traits.gender else CONTRADICTED


def _of_age(claim: Claim, traits: Traits, config: VerifierConfig) -> str:
    sure = (traits.age_confidence or 0.0) >= config.min_confidence
    if traits.age is None or claim.value not in _AGES or not sure:
        return UNCHECKED
    if claim.value == traits.age:
        return CONFIRMED
    claimed, found = _AGES[claim.value], _AGES[traits.age]
    gap = max(claimed[0] - found[1], found[0] - claimed[1])
    return CONTRADICTED if gap > _AGE_ERROR_YEARS else UNCHECKED


def _of_emotion(claim: Claim, traits: Traits, config: VerifierConfig) -> AttributeVerdict:
    confidence = traits.arousal_confidence
    if claim.value not in CIRCUMPLEX or traits.emotion is None:
        return _told(claim, traits.emotion, "expert", traits.emotion_confidence, UNCHECKED)
    if claim.value == traits.emotion:
        return _told(claim, traits.emotion, "expert", traits.emotion_confidence, CONFIRMED)
    arousal, valence = CIRCUMPLEX[claim.value]
    off = 0.0
    if traits.arousal is not None and (confidence or 0.0) >= config.min_arousal_confidence:
        off = abs(arousal - traits.arousal)
    if traits.valence is not None and (confidence or 0.0) >= config.min_arousal_confidence:
        off = max(off, abs(valence - traits.valence) / 2)
    if traits.arousal is None and (traits.emotion_confidence or 0.0) >= config.min_confidence:
        # A class and nothing else: as far off as its place on the circumplex.
        confidence = traits.emotion_confidence
        heard = CIRCUMPLEX[traits.emotion]
        off = max(abs(arousal - heard[0]), abs(valence - heard[1]) / 2)
    verdict = CONTRADICTED if off > config.max_affect_off else UNCHECKED
    return _told(claim, traits.emotion, "expert", confidence, verdict)


def _of_texture(claim: Claim, traits: Traits) -> str:
    if traits.texture is None:
        return UNCHECKED
    found = set(traits.texture.split(", "))
    claimed = {word.strip() for word in claim.value.lower().replace(" and ", ",").split(",")}
    for one, other in _OPPOSITES:
        if (claimed & one and found & other) or (claimed & other and found & one):
            return CONTRADICTED
    return CONFIRMED if claimed & found else UNCHECKED
