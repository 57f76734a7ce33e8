"""Align a given transcript with what was heard, and decide which of the two is the text."""

import re
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from annotators.text import WITHOUT_SPACES, char_error_rate, plain_tokens
from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Utterance
from stages.transcript_match import place


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentConfig:
    """When the given text wins."""

    max_cer: float = 0.25
    """Up to this character error rate against the ASR, the given text is the clip's text."""
    whole_share: float = 0.8
    """Share of a timed utterance that a clip must hold to get it without a look at the words."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_cer <= 1:
            raise ConfigError(f"alignment.max_cer must be in [0, 1], got {self.max_cer}")
        if not 0.5 < self.whole_share <= 1:
            raise ConfigError(f"alignment.whole_share must be in (0.5, 1], got {self.whole_share}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """A transcript as tokens: what is compared, and what is written."""

    plain: list[str]
    written: list[tuple[int, int]]
    """Where in the text each token stands: its first character and one past its last."""
    text: str

    def part(self, first: int, stop: int) -> str:
        """The text of tokens first … stop, with the punctuation up to the next token."""
        begin = self.written[first][0]
        end = self.written[stop][0] if stop < len(self.written) else len(self.text)
        # An opening quote or bracket before the next token belongs to that one.
        return re.sub(r"\s+[(\[{«“‘¿¡\"']*$", "", self.text[begin:end])


def as_given(text: str, language: str | None) -> Given:
    """Split a text into tokens, keeping where each stands."""
    pattern = r"\S" if language in WITHOUT_SPACES else r"\S+"
    plain: list[str] = []
    written: list[tuple[int, int]] = []
    for match in re.finditer(pattern, text):
        tokens = plain_tokens(match.group(), language)
        # A token of punctuation alone stays with the text of the one before it.
        if tokens:
            plain.append(" ".join(tokens))
            written.append(match.span())
    return Given(plain=plain, written=written, text=text)


def by_words(text: str, chunk: Chunk, positions: Container[int] | None = None) -> dict[int, str]:
    """Clip position → its part of the text, by the words recognised in the chunk's clips.

    positions: the clips that may have a part; None for all.
    """
    language = _heard_language(chunk) or chunk.recording.language
    given = as_given(text, language)
    heard: list[str] = []
    clip_of: list[int] = []
    for position, clip in enumerate(chunk.clips):
        if positions is not None and position not in positions:
            continue
        for word in clip.words:
            for token in _heard_tokens(word.word, language):
                heard.append(token)
                clip_of.append(position)
    return {
        clip: given.part(first, stop)
        for clip, (first, stop) in place(given.plain, heard, clip_of).items()
    }


def _heard_tokens(word: str, language: str | None) -> list[str]:
    tokens = plain_tokens(word, language)
    return tokens if language in WITHOUT_SPACES or not tokens else [" ".join(tokens)]


def _heard_language(chunk: Chunk) -> str | None:
    """The language that most words are in: a short clip's may be a wrong guess."""
    words: Counter[str] = Counter()
    for clip in chunk.clips:
        if clip.language is not None:
            words[clip.language] += len(clip.words)
    return max(words, key=lambda language: words[language], default=None)


def by_times(
    utterances: Sequence[Utterance], chunk: Chunk, config: AlignmentConfig
) -> dict[int, str]:
    """Clip position → the utterances that it holds; one that is split needs recognised words."""
    homes: list[int | None] = []
    split: set[int] = set()
    for utterance in utterances:
        shares = {
            position: share
            for position, clip in enumerate(chunk.clips)
            if (share := _share(utterance, clip)) > 0.02
        }
        best = max(shares, key=lambda position: shares[position], default=None)
        if best is not None and shares[best] < config.whole_share:
            split |= set(shares)
            best = None
        homes.append(best)
    found: dict[int, list[str]] = {}
    loose = []
    for utterance, home in zip(utterances, homes, strict=True):
        if home is not None and home not in split:
            found.setdefault(home, []).append(utterance.text.strip())
        elif any(_share(utterance, chunk.clips[position]) > 0 for position in split):
            loose.append(utterance.text.strip())
    parts = {position: " ".join(texts) for position, texts in found.items()}
    # A clip that holds a piece of an utterance takes all its text by its words: half an utterance
    # in the text of a clip would be worse than none.
    return parts | by_words(" ".join(loose), chunk, split)


def _share(utterance: Utterance, clip: Clip) -> float:
    """Share of the utterance that lies in the clip."""
    length = max(utterance.end_s - utterance.start_s, 1e-6)
    return _overlap(utterance, clip) / length


def _overlap(utterance: Utterance, clip: Clip) -> float:
    return max(0.0, min(utterance.end_s, clip.end_s) - max(utterance.start_s, clip.start_s))


def given_texts(chunk: Chunk, config: AlignmentConfig) -> dict[int, str]:
    """Clip position → its part of the recording's transcript."""
    recording = chunk.recording
    if recording.utterances:
        return by_times(recording.utterances, chunk, config)
    if not recording.transcript:
        return {}
    if any(clip.words for clip in chunk.clips):
        return by_words(recording.transcript, chunk)
    heard = [position for position, clip in enumerate(chunk.clips) if clip.screened is None]
    if recording.num_chunks == 1 and len(heard) == 1:
        return {heard[0]: recording.transcript.strip()}
    return {}


def with_given(clip: Clip, given: str, config: AlignmentConfig) -> Clip:
    """The clip with its given text, its error rate, and the better of the two as its text."""
    if clip.text_asr is None:
        return replace(clip, text_given=given, text=given, text_source="given")
    cer = char_error_rate(given, clip.text_asr, clip.language)
    clip = replace(clip, text_given=given, cer_vs_transcript=cer)
    return replace(clip, text=given, text_source="given") if cer <= config.max_cer else clip


class Alignment:
    """Fills the given text and `cer_vs_transcript`; both texts are kept."""

    name = "alignment"

    def __init__(self, config: AlignmentConfig) -> None:
        self.config = config

    def setup(self) -> None:
        """Nothing to open."""

    def process(self, batch: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with their clips' part of the transcript."""
        return [self._aligned(chunk) for chunk in batch]

    def _aligned(self, chunk: Chunk) -> Chunk:
        texts = {p: text for p, text in given_texts(chunk, self.config).items() if text}
        clips = [
            with_given(clip, texts[position], self.config) if position in texts else clip
            for position, clip in enumerate(chunk.clips)
        ]
        return replace(chunk, clips=tuple(clips))
