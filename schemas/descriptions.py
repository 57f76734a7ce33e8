"""Rows of the annotate phase: what was measured of a voice, and what is said of it in words.

Measured attributes are facts in their units. Traits are facts in words: where a clip stands in its
corpus. A description claims traits, and what no measurement knows, in a natural sentence.
"""

from dataclasses import dataclass

GENDERS = ("female", "male")
AGES = ("child", "teenager", "young adult", "middle-aged", "senior")
PITCHES = ("very low", "low", "moderate", "high", "very high")
RANGES = ("monotone", "flat", "moderate", "lively", "very lively")
RATES = ("very slow", "slow", "moderate", "fast", "very fast")
ENERGIES = ("very soft", "soft", "moderate", "loud", "very loud")
PAUSES = ("hardly any", "few", "some", "many", "very many")
EMPHASES = ("none", "light", "moderate", "strong", "very strong")
EMOTIONS = (
    *("neutral", "calm", "tender", "sad", "tired", "serious", "happy", "excited", "surprised"),
    *("angry", "fearful", "disgusted"),
)

CLOSED: dict[str, tuple[str, ...]] = {
    "gender": GENDERS,
    "age": AGES,
    "pitch": PITCHES,
    "pitch_range": RANGES,
    "rate": RATES,
    "energy": ENERGIES,
    "pauses": PAUSES,
    "emphasis": EMPHASES,
    "emotion": EMOTIONS,
}
"""Attributes whose values come from a list."""

FREE = ("texture", "accent", "scenario")
"""Attributes told in words of their own."""

DESIGN = ("gender", "age", "accent", "texture", "scenario")
"""What a voice is. The other attributes are style: what it does here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One thing that a description says of its clip."""

    name: str
    """A key of `CLOSED`, or one of `FREE`."""
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributeVerdict:
    """What the verifier found out about one claim."""

    name: str
    claimed: str
    found: str | None = None
    """What the evidence says instead, or as well; null where there is none."""
    by: str | None = None
    """Whose evidence: a measurement, an expert's or a model's name."""
    confidence: float | None = None
    """Of the evidence, in [0, 1]."""
    verdict: str
    """`confirmed`, `contradicted` or `unchecked`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """A description of a clip's voice and manner: one row of `descriptions`."""

    clip_id: str
    language: str
    """ISO 639-1 code of the description itself."""
    text: str
    """What remains after verification; the words to train on if `accepted`."""
    text_written: str
    """As the writer had it."""
    attributes: tuple[Claim, ...]
    """What `text` claims."""
    scenario: str | None = None
    writer: str
    """`grammar`, or `chat` for a model behind an endpoint."""
    model: str
    """Model id, or the grammar's version."""
    model_version: str | None = None
    """As the provider answered."""
    provider: str | None = None
    """Host of the endpoint."""
    prompt_hash: str | None = None
    terms: str | None = None
    """The provider's terms as the user declared them; null for the grammar."""
    verified: tuple[AttributeVerdict, ...]
    accepted: bool
    reasons: tuple[str, ...]
    """Empty when accepted."""
    attempt: int
    """The writing of the clip's description; only the last one stands."""
