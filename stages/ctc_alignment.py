"""Word times of given transcripts in languages that the recogniser does not know.

A CTC model looks for the given words in the clips of a chunk. What it finds stands where the
recogniser's words would, and the alignment takes it from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from annotators.ctc import CtcModel, speaks
from annotators.languages import base_code
from annotators.registry import resolve
from annotators.text import WITHOUT_SPACES
from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Word


@dataclass(frozen=True, kw_only=True, slots=True)
class CtcAlignmentConfig:
    """Which CTC model, and where it runs."""

    model: str | None = None
    """Path of a folder or hub repository in the format of transformers, such as
    facebook/mms-1b-all; None for none."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    threads: int = 1
    """Threads of the model, on the CPU."""

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"ctc_alignment.device must be cpu or cuda, got {self.device!r}")
        if self.threads < 1:
            raise ConfigError(f"ctc_alignment.threads must be at least 1, got {self.threads}")


def given_in(chunk: Chunk) -> str:
    """The text that is given for a chunk; empty where none is, or where it is not known which part.

    A plain transcript of a recording that was cut into several chunks is for none of them alone.
    """
    recording = chunk.recording
    if recording.utterances:
        begin = chunk.start_sample / chunk.sample_rate
        end = begin + chunk.duration_s
        return " ".join(
            one.text.strip()
            for one in recording.utterances
            if begin <= (one.start_s + one.end_s) / 2 < end
        )
    return (recording.transcript or "") if recording.num_chunks == 1 else ""


def tokens_of(text: str, language: str | None) -> list[str]:
    """What is looked for: words, or letters where no spaces part them."""
    if language in WITHOUT_SPACES:
        return [letter for letter in text if not letter.isspace()]
    return text.split()


def with_words(clip: Clip, words: Sequence[Word]) -> Clip:
    """The clip with its words, and how surely they were found."""
    prob = sum(word.prob for word in words) / len(words) if words else None
    return replace(clip, words=tuple(words), alignment_prob=prob)


class CtcAlignment:
    """Fills the words of clips that have a transcript, and that no recogniser heard."""

    name = "ctc_alignment"

    def __init__(self, config: CtcAlignmentConfig) -> None:
        self.config = config
        self._models: dict[str | None, CtcModel] = {}

    def setup(self) -> None:
        """Find the model; a language's is opened when the first recording of it comes."""
        if self.config.model is not None:
            resolve(self.config.model)

    def process(self, batch: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with what was found."""
        if self.config.model is None:
            return list(batch)
        return [self._with_words(chunk) for chunk in batch]

    def _with_words(self, chunk: Chunk) -> Chunk:
        recording = chunk.recording
        language = base_code(recording.language)
        at = [i for i, clip in enumerate(chunk.clips) if clip.screened is None]
        heard = any(clip.text_asr is not None for clip in chunk.clips)
        if heard or not at or not (recording.transcript or recording.utterances):
            return chunk
        model = self._model(language)
        if model is None:
            return chunk
        waves = [chunk.clip_wave_16k(chunk.clips[i]) for i in at]
        text = given_in(chunk)
        # Which part of a long text this chunk says is found by what is heard in it.
        found = (
            model.align(waves, tokens_of(text, language), language)
            if text
            else [model.hear(wave) for wave in waves]
        )
        clips = list(chunk.clips)
        for i, words in zip(at, found, strict=True):
            clips[i] = with_words(clips[i], words)
        return replace(chunk, clips=tuple(clips))

    def _model(self, language: str | None) -> CtcModel | None:
        assert self.config.model is not None
        path = resolve(self.config.model).path
        if not speaks(path, language):
            return None
        if language not in self._models:
            self._models[language] = CtcModel(
                path, language=language, device=self.config.device, threads=self.config.threads
            )
        return self._models[language]
