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
        ("J'ai 21 ans", "fr", "J'ai vingt et un ans"),
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
    assert not has_currency("5 euros")


@given(text=st.text(max_size=60), language=st.sampled_from(["en", "es", "fr", "de", "ru", "xx"]))
def test_any_text_has_a_spoken_form_without_digits_or_none(text: str, language: str) -> None:
    spoken = spoken_form(text, language)
    if spoken is not None and text.isascii():
        assert not has_digits(spoken)
