"""Which clips of a session may lend their voice to which.

A target is an accepted clip that repeats no other one; a reference is a target that is clean. Never
paired are a clip with itself, with one that shares its time, with the clip directly before it (and
the accepted clip before it), and clips of different voices. Of what is left, a few are chosen that
lie apart in time and words.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from annotators.text import plain_tokens
from schemas.errors import ConfigError, MixedEmbeddings
from stages.reference_choice import choose, word_sets
from stages.voice_pairs import Timeline, VoicePairs

F32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

COLUMNS = (
    *("clip_id", "recording_id", "start_s", "end_s", "duration_s", "text", "language"),
    *("speaker_embedding", "speaker_purity", "snr_db", "dnsmos_bak", "clipping"),
    *("edge_start_db", "edge_end_db", "trail_silence_s"),
    *("word_cut_start", "word_cut_end", "breath_cut"),
)
"""What mining reads of a clip."""

REASONS = {
    "near_duplicate": "says and sounds what another clip does",
    "no_embedding": "has no voice that was measured",
    "alone": "the only clip of its session that takes part",
    "no_clean_reference": "no other clip of its session is clean",
    "only_barred": "the clean ones are the clip before it, or share its time",
    "below_cosine": "no clean clip reaches min_cosine",
    "other_voice": "clips reach min_cosine, but the voices around them differ",
}
"""Why an accepted clip has no reference; the first that holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MiningConfig:
    """What a pair of target and reference must hold to, and how references are chosen."""

    min_cosine: float | None = None
    """Between both clips' embeddings. Null takes the calibrated value: the corpus' own where
    `voxquarry doctor --calibrate` made one, else the encoder's."""
    min_voice_cosine: float | None = None
    """Between the voices around both clips: each with its most similar clips. Null as above."""
    references_per_target: int = 4
    """At most so many references a target."""
    time_weight: float = 0.1
    """Cosine that lying beside the target or another reference costs."""
    text_weight: float = 0.2
    """Cosine that saying the same as the target or another reference costs."""

    # What a reference must be; a measurement that is null there disqualifies, save purity.
    min_s: float = 2.0
    """Seconds; in shorter clips the encoder is unsure of the voice."""
    max_s: float = 30.0
    """Seconds; a longer one costs a model more context than it gives voice."""
    min_snr_db: float = 20.0
    """What LibriTTS (Zen et al. 2019) asks of its clean part. Development set: clean 25 dB and
    more, noise and music at 15 dB below 18."""
    min_dnsmos_bak: float = 3.5
    """Hears the background under speech, which SNR misses. Development set: clean wideband 3.7."""
    max_clipping: float = 0.0003
    """Share of samples; as the default filter policy has it."""
    max_edge_db: float = 6.0
    """Level of the first and last 20 ms over the noise floor. Development set: clean at most 1.2."""
    min_trail_silence_s: float = 0.1
    """A reference ends in silence: what a model hears last before it speaks."""
    min_purity: float = 0.7
    """Of the clip's voice; null, in clips too short to compare, passes."""

    block: int = 256
    """Targets compared at once; memory of a session is this times its clips."""

    def __post_init__(self) -> None:
        for name in ("min_cosine", "min_voice_cosine"):
            value = getattr(self, name)
            if value is not None and not -1 <= value <= 1:
                raise ConfigError(f"mine.{name} must be in [-1, 1], got {value}")
        for name in ("references_per_target", "block"):
            if getattr(self, name) < 1:
                raise ConfigError(f"mine.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("time_weight", "text_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"mine.{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.min_s <= self.max_s:
            raise ConfigError(f"mine needs 0 <= min_s <= max_s, got {self.min_s}, {self.max_s}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mined:
    """The pairs of a session, as row numbers of its clips."""

    targets: Ints
    references: Ints
    cosines: F32
    ranks: Ints
    num_clean: int
    unreferenced: Counter[str]
    """Reason → accepted clips without a reference."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """The clips of a session, in order: recording by recording, each by its start."""

    session_id: str
    clips: pl.DataFrame = field(repr=False)
    """`COLUMNS`."""
    accepted: Bools
    """(N,) by the filter policy."""
    repeats: Bools
    """(N,) near-duplicate of another clip."""
    mined: Mined | None = None


def embeddings_of(clips: pl.DataFrame) -> tuple[F32, Bools]:
    """(N, D) of unit length, and which clips have one; a null or non-finite one is none.

    Raises `MixedEmbeddings` where two encoders of different sizes measured the session.
    """
    column = clips["speaker_embedding"]
    sizes = column.list.len().fill_null(0).to_numpy()
    known = sorted({int(size) for size in sizes} - {0})
    if len(known) > 1:
        raise MixedEmbeddings(f"speaker embeddings of {' and '.join(map(str, known))} numbers")
    found = np.zeros((clips.height, known[0] if known else 1), np.float32)
    has = sizes > 0
    if known:
        flat = column.filter(pl.Series(has)).explode(empty_as_null=False, keep_nulls=True)
        found[has] = flat.to_numpy().reshape(-1, known[0])
    norms = np.linalg.norm(found, axis=1)
    usable: Bools = has & np.isfinite(norms) & (norms > 0)
    found[~usable] = 0.0
    found[usable] /= norms[usable, None]
    return found, usable


def are_clean(clips: pl.DataFrame, config: MiningConfig) -> Bools:
    """(N,) whether each clip is good enough to lend its voice."""
    conditions = (
        pl.col("duration_s").is_between(config.min_s, config.max_s),
        pl.col("snr_db") >= config.min_snr_db,
        pl.col("dnsmos_bak") >= config.min_dnsmos_bak,
        pl.col("clipping") <= config.max_clipping,
        pl.col("edge_start_db") <= config.max_edge_db,
        pl.col("edge_end_db") <= config.max_edge_db,
        pl.col("trail_silence_s") >= config.min_trail_silence_s,
        ~pl.col("word_cut_start"),
        ~pl.col("word_cut_end"),
        ~pl.col("breath_cut"),
        pl.col("speaker_purity").fill_null(1.0) >= config.min_purity,
    )
    clean = clips.select(pl.all_horizontal(conditions).fill_null(False))
    # NaN is above every number to polars, and no measurement.
    finite = clips.select(
        pl.all_horizontal(pl.col("snr_db", "dnsmos_bak", "trail_silence_s").is_finite())
    )
    found: Bools = clean.to_series().to_numpy() & finite.to_series().fill_null(False).to_numpy()
    return found


def timeline_of(session: Session) -> Timeline:
    """Where and when each clip was said."""
    recordings = session.clips["recording_id"]
    return Timeline(
        recording=recordings.rle_id().to_numpy().astype(np.int64),
        start_s=session.clips["start_s"].to_numpy(),
        end_s=session.clips["end_s"].to_numpy(),
        accepted=session.accepted,
    )


def mine(session: Session, config: MiningConfig) -> Mined:
    """The session's pairs. The config's cosines are set. Raises `MixedEmbeddings`."""
    assert config.min_cosine is not None
    assert config.min_voice_cosine is not None
    embeddings, measured = embeddings_of(session.clips)
    takes_part = session.accepted & ~session.repeats & measured
    clean = takes_part & are_clean(session.clips, config)
    targets, references = np.flatnonzero(takes_part), np.flatnonzero(clean)
    timeline = timeline_of(session)
    pairs = VoicePairs(embeddings, timeline, targets, references, config.block)
    wanted = config.references_per_target
    # Four times as many stretches as references: voices take turns, and some stretches lack one.
    found = pairs.shortlist(4 * wanted, wanted, config.min_cosine, config.min_voice_cosine)
    near = found.cosines >= config.min_cosine
    possible = near & (found.voice_cosines >= config.min_voice_cosine)

    middles_s = timeline.middles_s()
    tokens = [
        plain_tokens(text or "", language)
        for text, language in session.clips.select("text", "language").rows()
    ]
    words = word_sets(tokens)
    span_s = float(middles_s[-1] - middles_s[0]) if middles_s.size else 0.0
    chosen = np.full((targets.size, wanted), -1, np.int64)
    for numbers in pairs.blocks():
        places = references[found.places[numbers]] if references.size else found.places[numbers]
        chosen[numbers] = choose(
            # Both count, since a pair that barely passes either is the likeliest to be wrong.
            found.cosines[numbers] + found.voice_cosines[numbers],
            possible[numbers],
            middles_s[places],
            words[places],
            target_s=middles_s[targets[numbers]],
            target_words=words[targets[numbers]],
            horizon_s=span_s / (wanted + 1),
            num=wanted,
            time_weight=config.time_weight,
            text_weight=config.text_weight,
        )
    rows, ranks = np.nonzero(chosen >= 0)
    columns = chosen[rows, ranks]
    return Mined(
        targets=targets[rows],
        references=references[found.places[rows, columns]],
        cosines=found.cosines[rows, columns],
        ranks=ranks,
        num_clean=references.size,
        unreferenced=_unreferenced(session, measured, pairs, near, chosen),
    )


def _unreferenced(
    session: Session, measured: Bools, pairs: VoicePairs, near: Bools, chosen: Ints
) -> Counter[str]:
    """Why accepted clips have no reference, each counted for the first of `REASONS` that holds."""
    repeats = session.accepted & session.repeats
    unmeasured = session.accepted & ~session.repeats & ~measured
    is_itself_clean = np.isin(pairs.targets, pairs.references)
    others = pairs.references.size - is_itself_clean
    reasons = np.select(
        [
            np.full(pairs.targets.size, pairs.targets.size == 1),
            others == 0,
            pairs.allowed() == 0,
            ~near.any(axis=1),
        ],
        ["alone", "no_clean_reference", "only_barred", "below_cosine"],
        default="other_voice",
    )
    counts = Counter(reasons[(chosen < 0).all(axis=1)].tolist())
    counts.update(near_duplicate=int(repeats.sum()), no_embedding=int(unmeasured.sum()))
    return Counter({reason: count for reason, count in counts.items() if count})


class Mining:
    """Fills `mined` of every session."""

    name = "mine"

    def __init__(self, config: MiningConfig) -> None:
        self.config = config

    def setup(self) -> None:
        """Nothing to load."""

    def process(self, batch: Sequence[Session]) -> list[Session]:
        """Return the sessions with their pairs."""
        return [replace(session, mined=mine(session, self.config)) for session in batch]
