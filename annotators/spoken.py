"""Numbers as they are spoken, through num2words where it knows the language."""

import re
import unicodedata
from functools import partial

from num2words import CONVERTER_CLASSES, num2words

_CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₽": "RUB", "₩": "KRW"}
_SIGNS = "".join(map(re.escape, _CURRENCIES))
# Groups of three, India's groups of two, a decimal, digits.
_NUMBER = (
    r"(?<!\d)\d{1,3}(?:[.,GAPS]\d{3})+(?:[.,]\d+)?(?!\d)"
    r"|(?<!\d)\d{1,2}(?:,\d{2})+,\d{3}(?!\d)|\d+[.,]\d+|\d+"
)
_GAPS = "\u00a0\u202f"
# Only these write a plain space in 10 000; elsewhere it parts two numbers.
_SPACED = frozenset({"bg", "cs", "fi", "fr", "hu", "lt", "lv", "no", "pl", "ru", "sk", "sv", "uk"})
_ORDINALS = {
    "en": "st|nd|rd|th",
    "es": "º|ª",
    "fr": "ers?|res?|è?mes?|ièmes?|es?",
    "it": "º|ª",
    "nl": "ste|de|e",
    "pt": "º|ª",
}
_SCALES = {"en": "thousand|million|billion|trillion"}
# These write 1,234.5; the others of num2words write 1.234,5.
_POINT_IS_DECIMAL = frozenset({"en", "ja", "ko", "th", "he", "zh", "hi"})
_LONGEST = 15  # digits; longer ones are names, not amounts


def has_digits(text: str) -> bool:
    """Whether a reader must turn digits into words."""
    return any(char.isdigit() for char in text)


def has_currency(text: str) -> bool:
    """Whether a currency sign stands in the text."""
    return any(unicodedata.category(char) == "Sc" for char in text)


def spoken_form(text: str, language: str | None) -> str | None:
    """The text with digits and amounts of money in words.

    None where not all can be spelled: an unknown language, a sign without an amount. Whether
    "1999" is a year or a count is not known, so cardinals are used.
    """
    if not has_digits(text) and not has_currency(text):
        return text
    if language is None or language not in CONVERTER_CLASSES:
        return None
    try:
        spoken = _pattern(language).sub(partial(_spoken, language=language), text)
    except (NotImplementedError, OverflowError, ValueError, TypeError, IndexError, KeyError):
        # num2words covers a language in part: ordinals or currencies may be missing.
        return None
    return None if has_digits(spoken) or has_currency(spoken) else spoken


def _pattern(language: str) -> re.Pattern[str]:
    # `(?!)` never matches: languages without an entry have no such endings.
    ordinal = _ORDINALS.get(language, "(?!)")
    scale = _SCALES.get(language, "(?!)")
    written = _NUMBER.replace("GAPS", _gaps(language))
    return re.compile(
        rf"(?:(?P<before>[{_SIGNS}])\s?)?(?P<number>{written})"
        rf"(?:(?P<ordinal>{ordinal})(?!\w))?"
        rf"(?(before)(?:\s(?P<scale>{scale})\b)?|(?:\s?(?P<after>[{_SIGNS}])(?!\d))?)"
    )


def _gaps(language: str) -> str:
    return _GAPS + " " if language in _SPACED else _GAPS


def _spoken(match: re.Match[str], language: str) -> str:
    number = _value(match["number"], language)
    sign = match["before"] or match["after"]
    text, start, end = match.string, match.start(), match.end()
    if language == "en" and re.match(r"['’]?s\b", text[end:]):
        raise ValueError("a decade has no cardinal: 1990s")
    if isinstance(number, str):
        words = " ".join(num2words(int(digit), lang=language) for digit in number)
        words += f" {sign}" if sign else ""
    elif match["scale"]:
        # "$2.5 million" is two point five million dollars: the sum's name comes last.
        unit = _amount(0, sign, language).split(" ", 1)[1]
        words = f"{num2words(number, lang=language)} {match['scale']} {unit}"
    elif sign:
        words = _amount(number, sign, language)
    elif match["ordinal"] and isinstance(number, int):
        words = _ordinal(number, match["ordinal"], language)
    else:
        words = num2words(number, lang=language) + (match["ordinal"] or "")
    # "MP3" and "16kHz" are said as two words.
    before = " " if start and text[start - 1].isalnum() and text[start - 1].isascii() else ""
    after = " " if end < len(text) and text[end].isalnum() and text[end].isascii() else ""
    return before + words + after


def _amount(number: float, sign: str, language: str) -> str:
    """A sum of money; a round one has no "zero cents"."""
    currency = "CNY" if sign == "¥" and language == "zh" else _CURRENCIES[sign]
    if float(number).is_integer():
        number = int(number)
    amount = num2words(
        float(number), lang=language, to="currency", currency=currency, separator="|"
    )
    major, _, minor = amount.partition("|")
    return major if isinstance(number, int) else f"{major}, {minor.strip()}"


def _ordinal(number: int, ending: str, language: str) -> str:
    words: str = num2words(number, lang=language, to="ordinal")
    if ending == "ª":
        return re.sub(r"o\b", "a", words)
    return "première" if language == "fr" and words == "premier" and ending[0] == "r" else words


def _value(written: str, language: str) -> int | float | str:
    """An int, a float, or the digits one by one where they are too many or start with 0."""
    point, mark = (".", ",") if language in _POINT_IS_DECIMAL else (",", ".")
    if written.count(point) > 1:
        # A decimal point stands once: these are the other convention's groups.
        point, mark = mark, point
    indian = re.fullmatch(r"\d{1,2}(?:,\d{2})+,\d{3}", written)
    group = r"," if indian else rf"[{mark}{_gaps(language)}](?=\d{{3}}(?:\D|$))"
    plain = re.sub(group, "", written).replace(point, ".").replace(mark, ".")
    digits = plain.replace(".", "")
    if len(digits) > _LONGEST or (len(plain) > 1 and plain[0] == "0" and "." not in plain):
        return digits
    return float(plain) if "." in plain else int(plain)
