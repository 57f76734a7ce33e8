"""The row types of the tables, and what the curate phase carries between its stages.

A table's Arrow schema is derived from its dataclass (`schemas.arrow`), so a column is named,
typed and explained in one place. `None` always means "not measured", never "zero".
Times of words and speech are seconds from the start of their clip.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float32]
"""(samples,) mono, in [-1, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """One recognised word."""

    word: str
    start_s: float
    end_s: float
    prob: float
    """ASR probability in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A stretch of time, in seconds."""

    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """A given transcript with its place in the recording, in seconds from its start."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A source file as ingested: one row of `recordings`."""

    recording_id: str
    """blake2b-128 of the file's bytes, hexadecimal."""
    uri: str
    session_id: str
    speaker: str | None = None
    language: str | None = None
    """ISO 639-1 code as declared by the source, lower case."""
    licence: str | None = None
    consent: str | None = None
    source: str | None = None
    transcript: str | None = None
    """Given text of the whole recording."""
    utterances: tuple[Utterance, ...] = ()
    """Given text with times; takes the place of `transcript`."""
    duration_s: float
    """Decoded length; shorter than `declared_duration_s` where the file is cut."""
    declared_duration_s: float | None = None
    sample_rate: int
    channels: int
    codec: str
    size_bytes: int
    num_chunks: int
    flags: tuple[str, ...] = ()
    """What was noticed: truncated, damaged, silent_channel, resampled_to_48k, no_speech."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One speech segment with every measured score: one row of `clips`."""

    # Identity and place
    clip_id: str = ""
    """blake2b-128 of recording id and sample bounds; set when the clip's edges are final."""
    recording_id: str
    session_id: str
    chunk_index: int
    index_in_recording: int = -1
    """Ascends with time within the recording; gaps are allowed."""
    speaker: str | None = None
    """As declared by the source."""
    start_sample: int
    """First sample, at the clip's `sample_rate`, counted from the start of the recording."""
    end_sample: int
    """One past the last sample."""
    sample_rate: int
    """Hz of the stored audio: the recording's own, at most 48,000."""
    start_s: float
    end_s: float
    duration_s: float
    audio: bytes | None = None
    """FLAC, mono, 16 bit, at `sample_rate`."""
    speech: tuple[Span, ...] = ()
    """Voice activity inside the clip."""
    screened: str | None = None
    """Why the dear measurements were skipped (a cheap one was already hopeless); null if done."""

    # Text
    language: str | None = None
    language_prob: float | None = None
    """Of `language`, as the recogniser hears it; null where it knows but one."""
    dialect: str | None = None
    """What the source declares beyond the language: `sichuan` of `zh-sichuan`."""
    text: str | None = None
    """The text to train on: the given one where it agrees with the ASR, else the ASR's."""
    text_source: str | None = None
    """`given` or `asr`."""
    text_asr: str | None = None
    text_given: str | None = None
    """This clip's part of the recording's transcript."""
    cer_vs_transcript: float | None = None
    """Character error rate between ASR and given text, normalised; may exceed 1."""
    alignment_prob: float | None = None
    """Mean probability that a CTC model gives the words it found of the given text; null where none
    was asked."""
    text_spoken: str | None = None
    """`text` with digits and currency spelled out; null where not all of it can be spelled."""
    has_digits: bool | None = None
    has_currency: bool | None = None
    script_share: float | None = None
    """Share of the text's letters that are of a script of its language; null without letters, or
    for a language that `annotators/languages.yaml` has no row of."""
    words: tuple[Word, ...] = ()
    asr_avg_logprob: float | None = None
    asr_no_speech_prob: float | None = None
    asr_compression_ratio: float | None = None
    asr_word_prob_mean: float | None = None
    asr_word_prob_min: float | None = None
    asr2_text: str | None = None
    asr2_disagreement: float | None = None
    """Error rate of the second ASR against the first (CER without word spaces, else WER)."""
    chars_per_s: float | None = None
    """Characters of text per second of speech."""
    unique_word_ratio: float | None = None
    unique_trigram_ratio: float | None = None
    impossible_word_ratio: float | None = None
    """Share of words longer or shorter in time than speech allows."""
    silent_word_ratio: float | None = None
    """Share of words that lie where the VAD hears no speech."""
    stock_phrase: str | None = None
    """The known hallucination that the text consists of, if any."""

    # Signal
    snr_db: float | None = None
    clipping: float | None = None
    """Share of samples in clipped runs, in [0, 1]."""
    bandwidth_hz: float | None = None
    """Highest frequency that speech energy reaches."""
    upsampled: bool | None = None
    """The band ends well below half the sample rate."""
    speech_ratio: float | None = None
    level_dbfs: float | None = None
    """RMS level of the speech."""
    music: float | None = None
    """Mean probability of music in the recording, before any separation; null where not measured."""
    stnr_db: float | None = None
    """How far the loud stood above the quiet there, in dB: noise at 10 dB measures 13 to 17, clean speech
    33 and more; null where not measured."""
    separated_by: str | None = None
    """Name and hash of the model that took the background out; null where none did."""
    music_left: float | None = None
    """`music` of what the separation left; null where there was none."""
    speech_kept: float | None = None
    """Share of the recording's voice activity, within the clip and half a second around it, that is
    still there after separation; null where there was none."""
    dnsmos_sig: float | None = None
    dnsmos_bak: float | None = None
    dnsmos_ovrl: float | None = None
    dnsmos_p808: float | None = None

    # Edges
    lead_silence_s: float | None = None
    """Silence before the first speech."""
    trail_silence_s: float | None = None
    edge_start_db: float | None = None
    """Level of the first 20 ms over the clip's noise floor."""
    edge_end_db: float | None = None
    word_cut_start: bool | None = None
    """A word or voiced speech runs across the first sample."""
    word_cut_end: bool | None = None
    click_db: float | None = None
    """Loudest click in either edge's silence, over the noise floor."""
    breath_cut: bool | None = None
    """A breath is cut in half by either edge."""

    # Speaker
    speaker_embedding: tuple[float, ...] | npt.NDArray[np.float32] | None = None
    speaker_purity: float | None = None
    """Lowest cosine between a stretch of the clip and the rest of it; low when voices mix, null
    where the clip is too short to compare."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Separated:
    """What was done to a chunk before anything else was measured."""

    spans: tuple[Span, ...]
    """Where the background was taken out; seconds from the start of the chunk."""
    by: str
    """Name and hash of the model."""
    speech: tuple[Span, ...]
    """Voice activity of the recording in these spans, before the separation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """At most ten minutes of one recording, with its clips nested until the write.

    `wave` and `wave_16k` start at the same instant: `start_sample` of the recording.
    """

    recording: Recording
    index: int
    start_sample: int
    """First sample of the chunk, at `sample_rate`, counted from the start of the recording."""
    sample_rate: int
    """Hz of `wave`: the recording's own, at most 48,000."""
    wave: Wave = field(repr=False)
    wave_16k: Wave = field(repr=False)
    """What the models hear."""
    stereo: Wave | None = field(default=None, repr=False)
    """(samples, 2): both channels of a stereo recording, until separation, where that wants them."""
    music: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """Probability of music in the recording, one value for every `annotators.music.FRAME_S`."""
    stnr_db: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """Distance of the loud from the quiet in the recording, at the same times."""
    separated: Separated | None = None
    speech: tuple[Span, ...] = ()
    """Voice activity, seconds from the start of the chunk."""
    clips: tuple[Clip, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length of the audio in seconds."""
        return float(self.wave.shape[0] / self.sample_rate)

    def clip_wave(self, clip: Clip) -> Wave:
        """The clip's samples at `sample_rate`: (end_sample - start_sample,)."""
        offset = self.start_sample
        return self.wave[clip.start_sample - offset : clip.end_sample - offset]

    def clip_wave_16k(self, clip: Clip) -> Wave:
        """The clip's samples at 16 kHz."""
        start = round((clip.start_sample - self.start_sample) / self.sample_rate * 16_000)
        end = round((clip.end_sample - self.start_sample) / self.sample_rate * 16_000)
        return self.wave_16k[start:end]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Accept or reject, for one filter policy: one row of `verdicts`."""

    clip_id: str
    accepted: bool
    tier: str
    """fullband, wideband or telephone: by the band that the speech really fills."""
    reasons: tuple[str, ...]
    """Empty when accepted."""
    policy_hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantined:
    """A unit of work that could not be judged: one row of `quarantine`."""

    unit_id: str
    """The recording's id and chunk, or a hash of the uri where no id could be made."""
    phase: str
    stage: str
    error_type: str
    message: str
    traceback: str
    uri: str
    attempt: int
    duration_s: float | None = None
    """Length of the audio that waits here, where it is known."""
