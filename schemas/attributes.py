"""Rows of the annotate phase before any words: measures, their levels, and traits.

Measures are numbers in their units. Levels say where in a corpus a number stands. Traits are the
words for a clip that follow from both, and what the experts made of it.
"""

from dataclasses import dataclass, field

from schemas.rows import Span, Wave, Word


@dataclass(frozen=True, kw_only=True, slots=True)
class Acoustics:
    """Measures of one clip's sound. None: there was too little voice or sound to measure it."""

    f0_median_hz: float | None = None
    f0_low_hz: float | None = None
    """10th percentile of the voiced frames."""
    f0_high_hz: float | None = None
    """90th percentile."""
    f0_range_st: float | None = None
    """From the 10th to the 90th percentile, in semitones."""
    voiced_ratio: float = 0.0
    """Share of 10 ms frames that are voiced."""
    f3_hz: float | None = None
    """Median third formant of the voiced frames: the shorter the vocal tract, the higher."""
    jitter: float | None = None
    """Mean change from one period to the next, over the mean period."""
    shimmer: float | None = None
    """The same of the periods' amplitudes."""
    hnr_db: float | None = None
    """Harmonics to noise, mean of the voiced frames; low in a breathy or hoarse voice."""
    alpha_ratio_db: float | None = None
    """Energy of the voiced frames at 1–5 kHz over that at 50–1000 Hz: higher is brighter, and
    spoken with more effort."""
    loudness_lufs: float | None = None
    """Integrated loudness (ITU-R BS.1770-4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attributes(Acoustics):
    """What was measured of a clip's voice and manner: one row of `attributes`."""

    clip_id: str
    pause_ratio: float | None = None
    """Share of silence between the first and the last speech."""
    num_pauses: int | None = None
    longest_pause_s: float | None = None
    emphasis: float | None = None
    """How far the most prominent words stand out of the clip's others, in just-noticeable steps
    of pitch and level."""
    emphasised: tuple[str, ...] = ()
    """Words that stand out by a step or more."""
    gender: str | None = None
    """One of `schemas.descriptions.GENDERS`, as its expert hears it."""
    gender_confidence: float | None = None
    age: str | None = None
    """One of `schemas.descriptions.AGES`, or `adult` where it is not known which kind."""
    age_confidence: float | None = None
    emotion: str | None = None
    """One of `schemas.descriptions.EMOTIONS`; null where the expert compares clips (`traits`)."""
    emotion_confidence: float | None = None
    arousal: float | None = None
    """From -1, sleepy, to 1, agitated; null where the expert compares clips (`traits`)."""
    valence: float | None = None
    """From -1, unpleasant, to 1, pleasant."""
    attempt: int
    """The measuring of the clip; only the last one stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """Where a measure's levels begin in a group of clips: one row of `levels`."""

    measure: str
    language: str | None = None
    """Null: all languages."""
    gender: str | None = None
    """Null: all voices."""
    num_clips: int
    edges: tuple[float, ...]
    """Ascending: values below the first are on the lowest level."""
    median: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Traits:
    """A clip in words: one row of `traits`. None: not known."""

    clip_id: str
    gender: str | None = None
    gender_confidence: float | None = None
    age: str | None = None
    age_confidence: float | None = None
    pitch: str | None = None
    """This and the following: one of the values that `schemas.descriptions.CLOSED` lists."""
    pitch_range: str | None = None
    rate: str | None = None
    energy: str | None = None
    pauses: str | None = None
    emphasis: str | None = None
    texture: str | None = None
    """What is special about the voice's timbre, such as `breathy, dark`."""
    emotion: str | None = None
    emotion_confidence: float | None = None
    arousal: float | None = None
    """From -1, sleepy, to 1, agitated: the expert's, or beside the speaker's other clips."""
    arousal_confidence: float | None = None
    valence: float | None = None
    expressiveness: float | None = None
    """0 is plain; 1 is as far from it as the corpus' liveliest tenth."""
    chosen: bool
    """Expressive enough to be described."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeardClip:
    """An accepted clip on its way through the annotate phase's stages."""

    clip_id: str
    attempt: int
    wave: Wave = field(repr=False)
    """At `sample_rate`."""
    sample_rate: int
    wave_16k: Wave = field(repr=False)
    bandwidth_hz: float | None = None
    speech: tuple[Span, ...] = ()
    words: tuple[Word, ...] = ()
    attributes: Attributes | None = None

    @property
    def duration_s(self) -> float:
        """Length of the audio in seconds."""
        return float(self.wave.shape[0] / self.sample_rate)
