"""Numbers as they are spoken, through num2words where it knows the language."""

import re
from functools import partial

from num2words import CONVERTER_CLASSES, num2words

_CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₽": "RUB", "₩": "KRW"}
_SIGNS = "".join(map(re.escape, _CURRENCIES))
_NUMBER = r"\d+(?:[.,  ]\d{3})+(?:[.,]\d+)?|\d+[.,]\d+|\d+"
_PATTERN = re.compile(
    rf"(?P<before>[{_SIGNS}])?\s?(?P<number>{_NUMBER})(?P<ordinal>st|nd|rd|th)?\b"
    rf"(?:\s?(?P<after>[{_SIGNS}]))?"
)
# These write 1,234.5; the others of num2words write 1.234,5.
_POINT_IS_DECIMAL = frozenset({"en", "ja", "ko", "th", "he", "zh", "hi"})
_LONGEST = 15  # digits; longer ones are names, not amounts


def has_digits(text: str) -> bool:
    """Whether a reader must turn digits into words."""
    return any(char.isdigit() for char in text)


def has_currency(text: str) -> bool:
    """Whether a currency sign stands in the text."""
    return any(sign in text for sign in _CURRENCIES)


def spoken_form(text: str, language: str | None) -> str | None:
    """The text with digits and amounts of money in words; None where the language has no speller.

    Whether "1999" is a year or a count is not known, so cardinals are used.
    """
    if not has_digits(text) and not has_currency(text):
        return text
    if language is None or language not in CONVERTER_CLASSES:
        return None
    try:
        return _PATTERN.sub(partial(_spoken, language=language), text)
    except (NotImplementedError, OverflowError, ValueError, TypeError, IndexError, KeyError):
        # num2words covers a language in part: ordinals or currencies may be missing.
        return None


def _spoken(match: re.Match[str], language: str) -> str:
    number = _value(match["number"], language)
    sign = match["before"] or match["after"]
    lead = " " if match.group().startswith((" ", " ")) else ""
    if isinstance(number, str):
        words = " ".join(num2words(int(digit), lang=language) for digit in number)
    elif sign:
        amount = num2words(
            float(number), lang=language, to="currency", currency=_CURRENCIES[sign], separator="|"
        )
        major, _, minor = amount.partition("|")
        # A round sum has no "zero cents".
        words = major if isinstance(number, int) else f"{major}, {minor.strip()}"
    elif match["ordinal"] and language == "en" and isinstance(number, int):
        words = num2words(number, lang=language, to="ordinal")
    else:
        words = num2words(number, lang=language) + (match["ordinal"] or "")
    return lead + words


def _value(written: str, language: str) -> int | float | str:
    """An int, a float, or the digits one by one where they are too many or start with 0."""
    point, mark = (".", ",") if language in _POINT_IS_DECIMAL else (",", ".")
    plain = re.sub(rf"[{mark}  ](?=\d{{3}}(?:\D|$))", "", written).replace(point, ".")
    plain = plain.replace(mark, ".")
    digits = plain.replace(".", "")
    if len(digits) > _LONGEST or (len(plain) > 1 and plain[0] == "0" and "." not in plain):
        return digits
    return float(plain) if "." in plain else int(plain)
