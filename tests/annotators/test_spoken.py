"""Digits and money as a voice would say them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.spoken import has_currency, has_digits, spoken_form


@pytest.mark.parametrize(
    ("text", "language", "spoken"),
    [
        ("I have 5 apples.", "en", "I have five apples."),
        ("on the 21st floor", "en", "on the twenty-first floor"),
        ("$3.50, or $20.", "en", "three dollars, fifty cents, or twenty dollars."),
        ("1,000,000 people", "en", "one million people"),
        ("Call 0800", "en", "Call zero eight zero zero"),
        ("Tengo 20 € y 1.234", "es", "Tengo veinte euros y mil doscientos treinta y cuatro"),
        ("5 € y 7 niños", "es", "cinco euros y siete niños"),
        ("5 € 7", "es", "cinco euros siete"),
        ("J'ai 21 ans", "fr", "J'ai vingt et un ans"),
        ("le 1er mai, la 1re et la 2e", "fr", "le premier mai, la première et la deuxième"),
        ("la 21ª", "es", "la vigésima primera"),
        ("300 000", "fr", "trois cent mille"),
        ("1\u202f000", "fr", "mille"),
        ("in 2019 300 people", "en", "in two thousand and nineteen three hundred people"),
        ("$5.00 of $2.5 million", "en", "five dollars of two point five million dollars"),
        ("of 12,000 and 1,20,000", "en", "of twelve thousand and one hundred and twenty thousand"),
        ("an MP3 at 16kHz", "en", "an MP three at sixteen kHz"),
        ("the 1990s", "en", None),
        ("x²", "en", None),
        ("$AAPL", "en", None),
        ("₺5", "tr", None),
        ("no digits", "xx", "no digits"),
        ("5 things", "xx", None),
        ("5 things", None, None),
    ],
)
def test_numbers_are_spelled(text: str, language: str | None, spoken: str | None) -> None:
    assert spoken_form(text, language) == spoken


def test_digits_and_currency_are_marked() -> None:
    assert has_digits("room 4")
    assert not has_digits("room four")
    assert has_currency("5 €")
    assert has_currency("₺5")
    assert not has_currency("5 euros")


numerous = st.text(alphabet="0123456789.,$€ \u202fstndeºx-", max_size=30)


@given(
    text=st.text(max_size=60) | numerous,
    language=st.sampled_from(["en", "es", "fr", "de", "ru", "xx"]),
)
def test_any_text_has_a_spoken_form_without_digits_or_none(text: str, language: str) -> None:
    spoken = spoken_form(text, language)
    assert spoken is None or not (has_digits(spoken) or has_currency(spoken))
