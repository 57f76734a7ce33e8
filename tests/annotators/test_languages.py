"""The rows of languages.yaml, and what a text's letters say of its language."""

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES
from hypothesis import given
from hypothesis import strategies as st

from annotators.languages import base_code, dialect_of, languages, script_share
from annotators.text import WITHOUT_SPACES

# fmt: off
OF_VOXCPM2 = [
    "ar", "my", "zh", "da", "nl", "en", "fi", "fr", "de", "el", "he", "hi", "id", "it", "ja",
    "km", "ko", "lo", "ms", "no", "pl", "pt", "ru", "es", "sw", "sv", "tl", "th", "tr", "vi",
]
# fmt: on


def test_every_language_of_voxcpm2_has_a_row() -> None:
    assert len(OF_VOXCPM2) == 30
    assert set(OF_VOXCPM2) <= set(languages())
    assert len(languages()["zh"].dialects) == 9


def test_rows_say_what_the_models_understand() -> None:
    for code, row in languages().items():
        assert row.whisper is None or row.whisper in _LANGUAGE_CODES, code
        assert len(row.iso3) == 3, code
        assert row.error in ("wer", "cer"), code
        # A script that Unicode does not know raises.
        assert script_share("a", code) in (0.0, 1.0), code


def test_languages_without_spaces_are_those_measured_in_characters() -> None:
    assert {"zh", "ja", "th", "km", "lo", "my", "yue"} <= WITHOUT_SPACES
    assert not WITHOUT_SPACES & {"en", "ko", "vi", "hi", "ar"}


@pytest.mark.parametrize(
    ("declared", "code", "dialect"),
    [
        ("pt-BR", "pt", "br"),
        ("EN_us", "en", "us"),
        ("zh-Sichuan", "zh", "sichuan"),
        ("fr", "fr", None),
        (None, None, None),
        ("", None, None),
    ],
)
def test_tags_have_a_language_and_perhaps_a_dialect(
    declared: str | None, code: str | None, dialect: str | None
) -> None:
    assert (base_code(declared), dialect_of(declared)) == (code, dialect)


@pytest.mark.parametrize(
    ("text", "code", "share"),
    [
        ("Привет, world!", "ru", 6 / 11),
        ("東京タワーへ行きます。", "ja", 1.0),
        ("¿Dónde está el baño?", "es", 1.0),
        ("नमस्ते", "hi", 1.0),
        ("Hello", "zh", 0.0),
        ("1,999 €", "en", None),
        ("Hello", "xx", None),
        ("Hello", None, None),
    ],
)
def test_letters_of_other_scripts_are_foreign(
    text: str, code: str | None, share: float | None
) -> None:
    assert script_share(text, code) == (None if share is None else pytest.approx(share))


@given(st.text(), st.sampled_from(OF_VOXCPM2))
def test_a_share_is_a_share(text: str, code: str) -> None:
    share = script_share(text, code)
    assert share is None or 0 <= share <= 1
