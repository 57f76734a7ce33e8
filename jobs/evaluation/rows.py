"""What is kept of an evaluation: a row for each utterance spoken, judged, or passed through an AudioVAE.

Ids are of all that a row depends on, so that whatever has a row needs no other one.
"""

from dataclasses import dataclass

from schemas.arrow import Table
from schemas.attributes import Traits
from schemas.descriptions import AttributeVerdict


@dataclass(frozen=True, kw_only=True, slots=True)
class SpokenRow:
    """One utterance as a checkpoint said it, or why it did not."""

    row_id: str
    file: str | None = None
    """Below the system's folder; null where nothing was said."""
    duration_s: float | None = None
    seed: int
    num_attempts: int | None = None
    stopped: bool | None = None
    """The model ended it; else it was cut."""
    unit: str
    """What was spoken together."""
    unit_s: float
    """Seconds that the whole unit took."""
    unit_audio_s: float
    """Seconds of speech that came of it."""
    error: str | None = None
    message: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedRow:
    """What the judges make of one utterance."""

    row_id: str
    audible: bool | None = None
    """False: its loudest 20 ms are silence, and no model was asked."""
    text_heard: str | None = None
    """Null where the recogniser does not know the language."""
    errors: int | None = None
    """Between the text and `text_heard`, normalised."""
    units: int | None = None
    """Words of the text, or its characters where the language has no word spaces."""
    similarity: float | None = None
    """Cosine of its voice and the one that it was given."""
    dnsmos_sig: float | None = None
    dnsmos_bak: float | None = None
    dnsmos_ovrl: float | None = None
    dnsmos_p808: float | None = None
    traits: Traits | None = None
    """How it was said, in the words of its corpus; null without a description."""
    error: str | None = None
    message: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RebuiltRow:
    """A recording that went through an AudioVAE."""

    row_id: str
    mel_16k: float | None = None
    """Distance of log mel spectrograms at 16 kHz, as `model_core.vae_training.spectra` has it."""
    mel_48k: float | None = None
    """The same at 48 kHz; null for a recording of less than 44.1 kHz."""
    stoi: float | None = None
    pesq: float | None = None
    """Wide band."""
    error: str | None = None
    message: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UtteranceRow:
    """One utterance of one system with all that is known of it: what people read."""

    system: str
    utterance_id: str
    origin: str
    language: str | None = None
    text: str
    description: str | None = None
    file: str | None = None
    """Below the evaluation's folder; null for a recording."""
    duration_s: float | None = None
    seed: int | None = None
    num_attempts: int | None = None
    stopped: bool | None = None
    audible: bool | None = None
    text_heard: str | None = None
    measure: str
    """`wer` or `cer`."""
    errors: int | None = None
    units: int | None = None
    similarity: float | None = None
    dnsmos_sig: float | None = None
    dnsmos_bak: float | None = None
    dnsmos_ovrl: float | None = None
    dnsmos_p808: float | None = None
    followed: tuple[AttributeVerdict, ...] = ()
    """What the description claims, and what the experts found."""
    unit: str | None = None
    unit_s: float | None = None
    unit_audio_s: float | None = None
    error: str | None = None
    message: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingRow:
    """One recording and what an AudioVAE leaves of it."""

    system: str
    name: str
    mel_16k: float | None = None
    mel_48k: float | None = None
    stoi: float | None = None
    pesq: float | None = None
    error: str | None = None
    message: str | None = None


SPOKEN = Table(name="evaluation_spoken", version=1, row=SpokenRow)
JUDGED = Table(name="evaluation_judged", version=1, row=JudgedRow)
REBUILT = Table(name="evaluation_rebuilt", version=1, row=RebuiltRow)
UTTERANCES = Table(name="evaluation_utterances", version=1, row=UtteranceRow)
RECORDINGS = Table(name="evaluation_recordings", version=1, row=RecordingRow)
