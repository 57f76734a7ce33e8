"""Error rates between two texts, on the normalisation that the field compares with.

English goes through the normaliser of the Whisper paper (Radford et al. 2022, appendix C), every
other language through its basic form, with one departure: that one blanks combining marks, which
in Hindi or Thai are vowels. Here they stay; those that Arabic and Hebrew may leave out are dropped.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import jiwer
from opencc import OpenCC

from annotators.languages import languages

WITHOUT_SPACES = frozenset(code for code, row in languages().items() if row.error == "cer")
"""Languages that write no spaces between words: they are measured in characters."""

# Points of Hebrew, vowels of Arabic: written or not, the word is the same.
_OPTIONAL_MARKS = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u0652\u0656-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed]"
)

# The English normaliser leaves the last of several full stops, as a word of its own.
_ELLIPSIS = re.compile(r"\.(?:\s*\.)+")


@lru_cache(maxsize=1)
def _word() -> re.Pattern[str]:
    """A word; `re` has no class for combining marks, and none of them counts as a letter to it."""
    points = range(0x300, 0xFE30)
    marks = "".join(chr(p) for p in points if unicodedata.category(chr(p)).startswith("M"))
    return re.compile(rf"[^\W_](?:[^\W_]|[{marks}])*(?:['’](?:[^\W_]|[{marks}])+)*")


@lru_cache(maxsize=2)
def normaliser(english: bool) -> Callable[[str], str]:
    """The normaliser for English, or for every other language. Building one takes a while."""
    # Imported here: the English one reads a table of a thousand spellings.
    if english:
        from whisper_normalizer.english import EnglishTextNormalizer

        normalise: Callable[[str], str] = EnglishTextNormalizer()
        return normalise
    from whisper_normalizer.basic import BasicTextNormalizer

    basic: Callable[[str], str] = BasicTextNormalizer(preserve_marks=True)
    return basic


def normalised(text: str, language: str | None) -> str:
    """Text as error rates compare it; Chinese in simplified characters, whoever wrote it."""
    plain = _ELLIPSIS.sub(" ", _without_optional_marks(text))
    if language == "zh":
        plain = _simplifier().convert(plain)
    return normaliser(language == "en")(plain).strip()


@lru_cache(maxsize=1)
def _simplifier() -> OpenCC:
    return OpenCC("t2s")


def _without_optional_marks(text: str) -> str:
    return _OPTIONAL_MARKS.sub("", unicodedata.normalize("NFKC", text))


def char_error_rate(reference: str, hypothesis: str, language: str | None) -> float:
    """CER after normalisation; without spaces, since where words part is not heard."""
    first = normalised(reference, language).replace(" ", "")
    return _rate(jiwer.cer, first, normalised(hypothesis, language).replace(" ", ""))


def word_error_rate(reference: str, hypothesis: str, language: str | None) -> float:
    """WER after normalisation."""
    return _rate(jiwer.wer, normalised(reference, language), normalised(hypothesis, language))


def error_rate(reference: str, hypothesis: str, language: str | None) -> float:
    """WER, or CER for a language without word spaces."""
    rate = char_error_rate if language in WITHOUT_SPACES else word_error_rate
    return rate(reference, hypothesis, language)


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """Insertions, deletions and substitutions, and what they are counted against."""

    errors: int
    units: int
    """Words of the reference, or its characters where no spaces part words."""


def error_count(reference: str, hypothesis: str, language: str | None) -> ErrorCount:
    """What `error_rate` is the ratio of, so that utterances add up."""
    first, second = (normalised(text, language) for text in (reference, hypothesis))
    if language in WITHOUT_SPACES:
        first, second = first.replace(" ", ""), second.replace(" ", "")
        units, heard = len(first), len(second)
        count = jiwer.process_characters
    else:
        units, heard = len(first.split()), len(second.split())
        count = jiwer.process_words
    if not first or not second:
        return ErrorCount(errors=max(units, heard), units=units)
    found = count(first, second)
    return ErrorCount(errors=found.insertions + found.deletions + found.substitutions, units=units)


def _rate(measure: Callable[[str, str], float], reference: str, hypothesis: str) -> float:
    """0 when both are empty, 1 when only one is; else the measure, which may exceed 1."""
    if not reference or not hypothesis:
        return float(bool(reference) != bool(hypothesis))
    return float(measure(reference, hypothesis))


def plain_tokens(text: str, language: str | None) -> list[str]:
    """Words (letters where no spaces part words) in lower case, without punctuation."""
    words = _word().findall(_without_optional_marks(text).casefold())
    if language in WITHOUT_SPACES:
        return [char for word in words for char in word if char.isalnum()]
    return list(words)
