"""Error rates count what was said, not how it was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.text import ErrorCount, char_error_rate, error_count, error_rate, plain_tokens


@pytest.mark.parametrize(
    ("first", "second", "language", "rate"),
    [
        ("You have 2 messages.", "you have two messages", "en", 0.0),
        ("please leave a message", "please leave a", "en", 0.25),
        ("The last caller was...", "the last caller was", "en", 0.0),
        ("Press one … or 3.5", "press one or 3.5.", "en", 0.0),
        ("", "", "en", 0.0),
        ("", "hello", "en", 1.0),
        ("今天天气好", "今天天汽好", "zh", 0.2),
        ("हिन्दी भाषा", "हिन्दी भाषा", "hi", 0.0),
        ("हिन्दी भाषा", "हिन्दी भाषी", "hi", 0.5),
        ("مُحَمَّد هنا", "محمد هنا", "ar", 0.0),
    ],
)
def test_error_rates_count_words_or_characters(
    first: str, second: str, language: str, rate: float
) -> None:
    assert error_rate(first, second, language) == pytest.approx(rate)


def test_characters_are_compared_without_spaces() -> None:
    assert char_error_rate("voice mail", "voicemail", "en") == 0.0
    assert char_error_rate("abcd", "abxd", "es") == pytest.approx(0.25)


def test_chinese_is_compared_in_simplified_characters() -> None:
    assert char_error_rate("请问后面的发型", "請問後面的髮型", "zh") == 0
    assert char_error_rate("请问后面的发型", "請問後面的鬍子", "zh") == pytest.approx(2 / 7)
    # Cantonese and Japanese write the others.
    assert char_error_rate("發型", "发型", "yue") > 0
    assert char_error_rate("後", "后", "ja") > 0


@given(text=st.text(max_size=40), language=st.sampled_from(["en", "fr", "zh", None]))
def test_a_text_agrees_with_itself(text: str, language: str | None) -> None:
    assert error_rate(text, text, language) == 0.0


def test_tokens_are_words_or_characters() -> None:
    assert plain_tokens("Don't stop, Müller!", "en") == ["don't", "stop", "müller"]
    assert plain_tokens("今天,好", "zh") == ["今", "天", "好"]


def test_vowel_signs_are_part_of_the_word() -> None:
    assert plain_tokens("हिन्दी, भाषा।", "hi") == ["हिन्दी", "भाषा"]
    assert char_error_rate("कि", "का", "hi") == pytest.approx(0.5)
    assert plain_tokens("مُحَمَّد", "ar") == ["محمد"]
    assert plain_tokens("e\u0301te\u0301", "fr") == ["été"]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "language", "errors", "units"),
    [
        ("please leave a message", "please leave the message now", "en", 2, 4),
        ("You have 2 messages.", "", "en", 4, 4),
        ("!?", "thank you", "en", 2, 0),
        ("今天 天气好。", "今天天汽", "zh", 2, 5),
    ],
)
def test_errors_are_counted_so_that_utterances_add_up(
    reference: str, hypothesis: str, language: str, errors: int, units: int
) -> None:
    assert error_count(reference, hypothesis, language) == ErrorCount(errors, units)


@given(
    first=st.text(max_size=40), second=st.text(max_size=40), language=st.sampled_from(["en", "zh"])
)
def test_a_count_is_what_its_rate_is_the_ratio_of(first: str, second: str, language: str) -> None:
    count = error_count(first, second, language)
    if count.units and count.errors:
        rate = error_rate(first, second, language)
        assert rate == pytest.approx(count.errors / count.units)
