"""A sentence about each chosen clip, held against what was measured, and what is left of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from annotators.claims import claims_in
from annotators.grammar import writing as grammar
from annotators.verifier import (
    CONTRADICTED,
    Hearing,
    VerifierConfig,
    keeps_its_core,
    verify,
)
from schemas.attributes import Traits
from schemas.descriptions import AttributeVerdict, Claim, Description
from schemas.errors import MalformedAnswer

LOST_CORE = "lost_core"
CONTRADICTION = "contradicted"
"""The text says what is not so, and no grammar of its language can say it anew."""

# An attribute that its expert is less sure of is not worth saying.
_SURE = 0.8
_SURE_OF_EMOTION = 0.6


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """Who wrote, as it is kept with every description."""

    kind: str = "grammar"
    model: str = f"grammar-{grammar.VERSION}"
    model_version: str | None = None
    provider: str | None = None
    prompt_hash: str | None = None
    terms: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A chosen clip before and after it is described."""

    clip_id: str
    attempt: int = 0
    duration_s: float = 0.0
    language: str
    """ISO 639-1 code of the description."""
    traits: Traits
    writer: Writer = field(default_factory=Writer)
    text: str | None = None
    """What a model wrote; null has the grammar write."""
    claims: tuple[Claim, ...] = ()
    """What the model says that its text claims."""
    failure: str = ""
    """Why there is no text, where a model was asked and there is none."""
    hearings: Mapping[str, Hearing] = field(default_factory=dict)
    """Attribute → what a second model made of the claim."""
    description: Description | None = None


def claims_of(traits: Traits) -> tuple[Claim, ...]:
    """What can be said of a clip from measurements and experts that are sure."""
    said = {
        "gender": traits.gender if (traits.gender_confidence or 0.0) >= _SURE else None,
        "age": traits.age if (traits.age_confidence or 0.0) >= _SURE else None,
        "texture": traits.texture,
        "pitch": traits.pitch,
        "pitch_range": traits.pitch_range,
        "rate": traits.rate,
        "energy": traits.energy,
        "pauses": traits.pauses,
        "emphasis": traits.emphasis,
        "emotion": traits.emotion
        if (traits.emotion_confidence or 0.0) >= _SURE_OF_EMOTION
        else None,
    }
    return tuple(Claim(name=name, value=value) for name, value in said.items() if value)


def facts_of(traits: Traits) -> dict[str, str]:
    """The measured attributes, which a writer has to take as they are."""
    names = ("pitch", "pitch_range", "rate", "energy", "pauses", "emphasis")
    return {name: value for name in names if (value := getattr(traits, name)) is not None}


def all_claims(draft: Draft, text: str) -> tuple[Claim, ...]:
    """What the writer says that it claims, and what its words claim beside that."""
    found = claims_in(text, draft.language)
    return tuple(dict.fromkeys((*draft.claims, *found)))


def described(draft: Draft, config: VerifierConfig) -> Description:
    """Write if nobody did, verify, and say anew what is left. Raises MalformedAnswer."""
    if draft.failure:
        raise MalformedAnswer(draft.failure)
    if draft.text is None:
        claims = claims_of(draft.traits)
        if not claims:
            return _description(draft, "", "", (), (), (LOST_CORE,))
        written = grammar.write(claims, draft.language, draft.clip_id)
        text, claims = written.text, written.claims
    else:
        text, claims = draft.text, all_claims(draft, draft.text)
    verdicts = verify(claims, draft.traits, config, draft.hearings)
    wrong = {verdict.name for verdict in verdicts if verdict.verdict == CONTRADICTED}
    kept = tuple(
        claim
        for claim, verdict in zip(claims, verdicts, strict=True)
        if verdict.verdict != CONTRADICTED
    )
    reasons = () if keeps_its_core(verdicts, config) else (LOST_CORE,)
    final = text
    if wrong and not reasons:
        if draft.language in grammar.LANGUAGES:
            written = grammar.write(_once(kept), draft.language, draft.clip_id)
            final, kept = written.text, written.claims
        else:
            reasons = (CONTRADICTION,)
    return _description(draft, final, text, kept, verdicts, reasons)


def _once(claims: Sequence[Claim]) -> tuple[Claim, ...]:
    """One claim per attribute: the first."""
    return tuple({claim.name: claim for claim in reversed(claims)}.values())[::-1]


def _description(
    draft: Draft,
    text: str,
    written: str,
    claims: Sequence[Claim],
    verdicts: Sequence[AttributeVerdict],
    reasons: tuple[str, ...],
) -> Description:
    said = {claim.name: claim.value for claim in claims}
    return Description(
        clip_id=draft.clip_id,
        language=draft.language,
        text=text,
        text_written=written,
        attributes=tuple(claims),
        scenario=said.get("scenario"),
        writer=draft.writer.kind,
        model=draft.writer.model,
        model_version=draft.writer.model_version,
        provider=draft.writer.provider,
        prompt_hash=draft.writer.prompt_hash,
        terms=draft.writer.terms,
        verified=tuple(verdicts),
        accepted=not reasons,
        reasons=reasons,
        attempt=draft.attempt,
    )


class Describing:
    """Fills `description`."""

    name = "description"

    def __init__(self, config: VerifierConfig) -> None:
        self.config = config

    def setup(self) -> None:
        """Nothing to open: what a model has to say was asked before."""

    def process(self, batch: Sequence[Draft]) -> list[Draft]:
        """Return the drafts with their descriptions. Raises MalformedAnswer."""
        return [replace(draft, description=described(draft, self.config)) for draft in batch]
