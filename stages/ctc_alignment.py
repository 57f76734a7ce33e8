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
from schemas.rows import Chunk, Clip, Span, Word

NEAR_S = 0.4
"""Further away there may be a word that has no letter which the model knows, such as a number."""


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
    return replace(clip, words=at_voice(words, clip.speech), alignment_prob=prob)


def at_voice(words: Sequence[Word], speech: Sequence[Span]) -> tuple[Word, ...]:
    """Words whose edges at a pause are where the voice begins and ends, if those are near.

    A CTC model says a letter once, somewhere within its sound, and each model has a delay of its own.
    words and speech: in order, in seconds of the clip.
    """
    found = list(words)
    homes = [max(speech, key=lambda span: _shared(word, span), default=None) for word in words]
    for span in speech:
        inside = [i for i, home in enumerate(homes) if home is span and _shared(found[i], span) > 0]
        if not inside:
            continue
        first, last = inside[0], inside[-1]
        begin = max([span.start_s, *(word.end_s for word in found[:first])])
        end = min([span.end_s, *(word.start_s for word in found[last + 1 :])])
        if abs(found[first].start_s - begin) <= NEAR_S:
            found[first] = replace(found[first], start_s=begin)
        if abs(found[last].end_s - end) <= NEAR_S:
            found[last] = replace(found[last], end_s=end)
    return tuple(found)


def _shared(word: Word, span: Span) -> float:
    """Seconds of the word in the stretch; below 0 by how far they are apart."""
    return min(word.end_s, span.end_s) - max(word.start_s, span.start_s)


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
