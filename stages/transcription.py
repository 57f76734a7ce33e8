"""What is said in each clip, by one recogniser or two."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from annotators.languages import base_code, dialect_of
from annotators.registry import resolve
from annotators.text import error_rate
from annotators.whisper import Transcription as Heard
from annotators.whisper import Whisper
from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip


@dataclass(frozen=True, kw_only=True, slots=True)
class TranscriptionConfig:
    """Which recognisers, and how they decode."""

    model: str = "tiny.en"
    """Name, hub repository or path of a Whisper model in CTranslate2's format."""
    second_model: str | None = None
    """Another one, whose disagreement with the first is kept; None for no second opinion."""
    beam_size: int = 5
    """Hypotheses that the search keeps."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    compute_type: str = "auto"
    """CTranslate2's quantisation; `auto` is int8 on CPU and float16 on CUDA."""
    threads: int = 1
    """Threads on a CPU: two processes of one are twice as fast as one of two."""
    batch_size: int = 4
    """Windows of 30 s decoded at once."""
    gap_s: float = 0.3
    """Seconds of silence between clips that share a window."""

    def __post_init__(self) -> None:
        for name in ("beam_size", "threads", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"transcription.{name} must be at least 1, got {getattr(self, name)}"
                )
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"transcription.device must be cpu or cuda, got {self.device!r}")
        if not 0 <= self.gap_s <= 2:
            raise ConfigError(f"transcription.gap_s must be in [0, 2], got {self.gap_s}")


def hear(chunk: Chunk, clips: Sequence[Clip], model: Whisper) -> list[Heard | None]:
    """Transcribe clips of one chunk; None for all where the model does not know the language."""
    language = base_code(chunk.recording.language)
    if language is not None and not model.knows(language):
        return [None] * len(clips)
    return list(model.transcribe([chunk.clip_wave_16k(clip) for clip in clips], language))


def with_text(clip: Clip, heard: Heard) -> Clip:
    """The clip with what the recogniser says of it."""
    probs = [word.prob for word in heard.words]
    return replace(
        clip,
        language=heard.language,
        language_prob=heard.language_prob,
        text=heard.text,
        text_source="asr",
        text_asr=heard.text,
        words=heard.words,
        asr_avg_logprob=heard.avg_logprob,
        asr_no_speech_prob=heard.no_speech_prob,
        asr_compression_ratio=heard.compression_ratio,
        asr_word_prob_mean=sum(probs) / len(probs) if probs else None,
        asr_word_prob_min=min(probs, default=None),
    )


class Transcription:
    """Fills the text, the words and the recogniser's confidences; screened clips stay empty."""

    name = "transcription"

    def __init__(self, config: TranscriptionConfig) -> None:
        self.config = config
        self._first: Whisper | None = None
        self._second: Whisper | None = None

    def setup(self) -> None:
        """Open the models. Raises ModelLoadError."""
        self._first = self._open(self.config.model)
        if self.config.second_model is not None:
            self._second = self._open(self.config.second_model)

    def _open(self, name: str) -> Whisper:
        config = self.config
        return Whisper(
            resolve(name).path,
            device=config.device,
            compute_type=config.compute_type,
            threads=config.threads,
            beam_size=config.beam_size,
            batch_size=config.batch_size,
            gap_s=config.gap_s,
        )

    def process(self, batch: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with their clips transcribed."""
        return [self._transcribed(chunk) for chunk in batch]

    def _transcribed(self, chunk: Chunk) -> Chunk:
        assert self._first is not None, "setup() comes first"
        declared = base_code(chunk.recording.language)
        dialect = dialect_of(chunk.recording.language)
        wanted = [clip for clip in chunk.clips if clip.screened is None]
        first = hear(chunk, wanted, self._first)
        second = hear(chunk, wanted, self._second) if self._second else [None] * len(wanted)
        opinions = iter(zip(first, second, strict=True))
        clips = []
        for clip in chunk.clips:
            if declared is not None:
                clip = replace(clip, language=declared, dialect=dialect)
            if clip.screened is None:
                heard, other = next(opinions)
                if heard is not None:
                    clip = with_text(clip, heard)
                if other is not None:
                    clip = replace(clip, asr2_text=other.text)
                if heard is not None and other is not None:
                    rate = error_rate(heard.text, other.text, clip.language)
                    clip = replace(clip, asr2_disagreement=rate)
            clips.append(clip)
        return replace(chunk, clips=tuple(clips))
