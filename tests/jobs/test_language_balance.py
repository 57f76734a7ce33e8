"""How languages are to be mixed, and which sources an ingest takes."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jobs.language_balance import FLATTEST, NEW_SHARE, replay_temperature
from jobs.run_ingest import known_language, of_language
from pipeline.sources import Source
from schemas.errors import ConfigError


def shares(hours: dict[str, float]) -> pl.DataFrame:
    return pl.DataFrame({"language": list(hours), "hours": list(hours.values())})


@pytest.mark.parametrize(
    ("hours", "temperature"),
    [
        ({"fr": 3.0}, 1.0),
        ({"en": 3.0, "fr": 1.0}, 1.0),
        # 9 : 1 is 3 : 1 at 2, which is a quarter.
        ({"en": 9.0, "fr": 1.0}, 2.0),
        ({"en": 1e9, "fr": 1.0}, FLATTEST),
        ({"en": 3.0}, 1.0),
    ],
)
def test_a_new_language_is_a_quarter_of_what_is_seen(
    hours: dict[str, float], temperature: float
) -> None:
    assert replay_temperature(shares(hours), "fr") == temperature


@given(
    st.dictionaries(
        st.sampled_from(["en", "fr", "es", "de", "it"]), st.floats(1e-3, 1e6), min_size=1
    )
)
def test_the_temperature_is_the_least_that_does(hours: dict[str, float]) -> None:
    frame = shares(hours | {"sw": 1.0})

    def share(temperature: float) -> float:
        flat = frame["hours"].to_numpy() ** (1 / temperature)
        return float(flat[-1] / flat.sum())

    found = replay_temperature(frame, "sw")
    wanted = min(NEW_SHARE, 1 / frame.height) - 1e-6
    assert found == FLATTEST or share(found) >= wanted
    assert found == 1.0 or share(found - 0.5) < wanted + 2e-6


def source(uri: str, language: str | None) -> Source:
    return Source(uri=uri, session_id="s", language=language)


def test_what_declares_no_language_is_of_the_one_that_is_ingested() -> None:
    console = Console(record=True, width=200)
    taken = of_language(
        [source("a", None), source("b", "zh-sichuan"), source("c", "en"), source("d", "fr")],
        "zh_TW",
        console,
    )
    assert [(one.uri, one.language) for one in taken] == [("a", "zh-tw"), ("b", "zh-sichuan")]
    assert "2 of 4 sources declare en, fr" in console.export_text()


def test_a_source_of_other_languages_alone_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no source is in es: all declare en"):
        of_language([source("a", "en")], "es", Console())


def test_a_language_without_a_row_is_named() -> None:
    assert known_language("PT-br").name == "Portuguese"
    with pytest.raises(ConfigError, match="no row for the language 'tlh'"):
        known_language("tlh")
