"""Error rates between two texts, on the normalisation that the field compares with.

English goes through the normaliser of the Whisper paper (Radford et al. 2022, appendix C), every
other language through its basic form.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

import jiwer

WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km", "bo"})
"""Languages that write no spaces between words: they are measured in characters."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@lru_cache(maxsize=2)
def normaliser(english: bool) -> Callable[[str], str]:
    """The normaliser for English, or for every other language. Building one takes a while."""
    # Imported here: the English one reads a table of a thousand spellings.
    if english:
        from whisper_normalizer.english import EnglishTextNormalizer

        normalise: Callable[[str], str] = EnglishTextNormalizer()
        return normalise
    from whisper_normalizer.basic import BasicTextNormalizer

    basic: Callable[[str], str] = BasicTextNormalizer()
    return basic


def normalised(text: str, language: str | None) -> str:
    """Text as error rates compare it."""
    return normaliser(language == "en")(text).strip()


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


def _rate(measure: Callable[[str, str], float], reference: str, hypothesis: str) -> float:
    """0 when both are empty, 1 when only one is; else the measure, which may exceed 1."""
    if not reference or not hypothesis:
        return float(bool(reference) != bool(hypothesis))
    return float(measure(reference, hypothesis))


def plain_tokens(text: str, language: str | None) -> list[str]:
    """Words (characters without word spaces) in lower case, without punctuation or accents' form."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = _WORD.findall(folded)
    return [char for word in words for char in word] if language in WITHOUT_SPACES else words
