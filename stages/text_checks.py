"""Does the text look like something that was said? Signs of hallucination, and what is spelled.

A recogniser that hears nothing invents: it repeats itself, packs words closer than a mouth can
speak, writes where nobody speaks, or thanks for watching. Each sign is a number of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from annotators.languages import script_share
from annotators.spoken import has_currency, has_digits, spoken_form
from annotators.text import plain_tokens
from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Span, Word

_PHRASES = Path(__file__).parent / "stock_phrases.yaml"


@dataclass(frozen=True, kw_only=True, slots=True)
class TextChecksConfig:
    """What a mouth can do."""

    min_char_s: float = 0.02
    """Seconds per character of a word; 0.02 is 50 characters a second, twice the fastest talkers."""
    max_word_s: float = 1.5
    """Seconds that a word of one syllable may last, with hesitation."""
    max_char_s: float = 0.25
    """Seconds that each further character may add."""

    def __post_init__(self) -> None:
        if not 0 < self.min_char_s < self.max_char_s or self.max_word_s <= 0:
            raise ConfigError(
                "text_checks needs 0 < min_char_s < max_char_s and max_word_s > 0, got "
                f"{self.min_char_s}, {self.max_char_s}, {self.max_word_s}"
            )


def unique_ratio(tokens: Sequence[Any]) -> float:
    """Different tokens over all tokens, in (0, 1]; 1 for none."""
    return len(set(tokens)) / len(tokens) if tokens else 1.0


def trigrams(tokens: Sequence[str]) -> list[tuple[str, ...]]:
    """Every three neighbouring tokens."""
    return [tuple(tokens[i : i + 3]) for i in range(len(tokens) - 2)]


def is_impossible(word: Word, config: TextChecksConfig) -> bool:
    """Whether a word takes less or more time than speech allows."""
    length = max(1, sum(char.isalnum() for char in word.word))
    lasts = word.end_s - word.start_s
    longest = config.max_word_s + config.max_char_s * (length - 1)
    return not config.min_char_s * length <= lasts + 0.02 <= longest


def is_silent(word: Word, speech: Sequence[Span]) -> bool:
    """Whether less than a tenth of a word lies where the VAD hears speech."""
    shared = sum(max(0.0, min(word.end_s, s.end_s) - max(word.start_s, s.start_s)) for s in speech)
    return shared < 0.1 * max(word.end_s - word.start_s, 1e-3)


def stock_phrase(text: str, phrases: Sequence[str]) -> str | None:
    """The phrase that the text consists of, once, repeated or with others of its kind.

    One that ends in * may have anything after it.
    """
    plain = " ".join(plain_tokens(text, None))
    first = None
    longest_first = sorted(phrases, key=len, reverse=True)
    while plain:
        for phrase in longest_first:
            begin = phrase.removesuffix("*")
            if plain == begin or plain.startswith(begin + " "):
                break
            if begin != phrase and plain.startswith(begin):
                break
        else:
            return None
        first = first or phrase
        plain = "" if begin != phrase else plain[len(begin) :].lstrip()
    return first


def checked(clip: Clip, config: TextChecksConfig, phrases: Mapping[str, Sequence[str]]) -> Clip:
    """The clip with its text measured; unchanged where there is no text."""
    if clip.text is None:
        return clip
    tokens = plain_tokens(clip.text, clip.language)
    letters = sum(char.isalnum() for char in clip.text)
    speech_s = sum(span.end_s - span.start_s for span in clip.speech)
    known = phrases.get(clip.language or "", ())
    words = clip.words
    return replace(
        clip,
        chars_per_s=letters / speech_s if speech_s > 0 else None,
        unique_word_ratio=unique_ratio(tokens),
        unique_trigram_ratio=unique_ratio(trigrams(tokens)),
        impossible_word_ratio=_share(is_impossible(word, config) for word in words),
        silent_word_ratio=_share(is_silent(word, clip.speech) for word in words),
        # What was heard counts: a given "thank you for watching" is a text like any other.
        stock_phrase=stock_phrase(clip.text_asr, known) if clip.text_asr else None,
        script_share=script_share(clip.text, clip.language),
        has_digits=has_digits(clip.text),
        has_currency=has_currency(clip.text),
        text_spoken=spoken_form(clip.text, clip.language),
    )


def _share(flags: Any) -> float | None:
    values = list(flags)
    return sum(values) / len(values) if values else None


class TextChecks:
    """Fills the signs of hallucination, and the spoken form of digits and currency."""

    name = "text_checks"

    def __init__(self, config: TextChecksConfig) -> None:
        self.config = config
        self._phrases: Mapping[str, Sequence[str]] = {}

    def setup(self) -> None:
        """Read the stock phrases that this package ships."""
        self._phrases = load_phrases()

    def process(self, batch: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with their clips' texts measured."""
        return [
            replace(
                chunk,
                clips=tuple(checked(clip, self.config, self._phrases) for clip in chunk.clips),
            )
            for chunk in batch
        ]


def load_phrases() -> dict[str, list[str]]:
    """Language → phrases in plain form."""
    listed = yaml.safe_load(_PHRASES.read_text(encoding="utf-8"))
    return {
        language: [
            " ".join(plain_tokens(phrase, None)) + ("*" if phrase.endswith("*") else "")
            for phrase in phrases
        ]
        for language, phrases in listed.items()
    }
