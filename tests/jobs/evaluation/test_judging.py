"""The judges on real speech as if it were generated: what is known to be good scores so."""

from dataclasses import replace

import numpy as np
import pytest

from jobs.evaluation.judging import Heard, Panel
from jobs.evaluation.rows import JudgedRow
from jobs.evaluation.utterances import Utterance
from jobs.settings import Settings
from pipeline.profile import load_profile
from schemas.attributes import Level
from tests.jobs.evaluation.listed import Held, recorded, spoken_by


@pytest.fixture(scope="module")
def panel() -> Panel:
    return Panel(load_profile("embedded", [], Settings))


@pytest.fixture(scope="module")
def english() -> list[Utterance]:
    said = spoken_by("allison", "en", 5)
    return recorded(said, said[1:] + said[:1])


def judged(
    panel: Panel, utterances: list[Utterance], levels: list[Level] | None = None
) -> list[JudgedRow]:
    heard = [Heard(utterance=u, row_id=u.utterance_id, sound=u.truth) for u in utterances]  # type: ignore[arg-type]
    rows = panel.judged(heard, lambda _: levels or [])
    assert [row.row_id for row in rows] == [one.utterance_id for one in utterances]
    return rows


def rate(rows: list[JudgedRow]) -> float:
    return sum(row.errors or 0 for row in rows) / sum(row.units or 0 for row in rows)


def test_recorded_speech_has_few_errors_its_own_voice_and_good_quality(
    panel: Panel, english: list[Utterance]
) -> None:
    rows = judged(panel, english)
    assert rate(rows) <= 0.05
    assert all(row.similarity is not None and row.similarity > 0.8 for row in rows)
    assert all(row.dnsmos_ovrl is not None and 2.5 < row.dnsmos_ovrl < 5 for row in rows)
    assert all(row.audible and row.error is None and row.traits is None for row in rows)


def test_other_texts_are_all_errors_and_other_voices_less_alike(
    panel: Panel, english: list[Utterance]
) -> None:
    (french,) = spoken_by("june", "fr", 1)
    texts = [one.text for one in english]
    mixed = [
        replace(one, text=text, voice=Held(wave=french.wave))
        for one, text in zip(english[:3], texts[2:] + texts[:2], strict=False)
    ]
    rows = judged(panel, mixed)
    assert rate(rows) >= 0.8
    ours = judged(panel, english[:3])
    for other, own in zip(rows, ours, strict=True):
        assert other.similarity is not None
        assert own.similarity is not None
        assert other.similarity < own.similarity


def test_silence_says_nothing_and_bad_sound_costs_its_own_row(
    panel: Panel, english: list[Utterance]
) -> None:
    broken = np.full(16_000, np.nan, np.float32)
    silent, bad, good = judged(
        panel,
        [
            replace(english[0], truth=Held(wave=np.zeros(16_000, np.float32))),
            replace(english[1], truth=Held(wave=broken)),
            english[2],
        ],
    )
    assert (silent.audible, silent.text_heard) == (False, "")
    assert silent.errors == silent.units
    assert (silent.similarity, silent.dnsmos_ovrl) == (None, None)
    assert (bad.error, bad.message) == ("NonFiniteAudio", "a sound holds NaN or infinity")
    assert good.error is None


def test_a_language_that_the_recogniser_does_not_know_has_no_error_rate(panel: Panel) -> None:
    said = spoken_by("allison", "es", 1)
    (row,) = judged(panel, recorded(said, said))
    assert (row.text_heard, row.errors, row.units) == (None, None, None)
    assert row.similarity == pytest.approx(1.0, abs=1e-3)


def test_a_described_voice_is_measured_on_the_levels_of_its_corpus(
    panel: Panel, english: list[Utterance]
) -> None:
    def pitch(edges: tuple[float, ...]) -> list[Level]:
        return [Level(measure="pitch", gender="female", num_clips=50, edges=edges, median=edges[1])]

    (one,) = [replace(english[0], description="A woman with a high voice.")]
    (low,) = judged(panel, [one], pitch((95.0, 96.0, 97.0, 98.0)))
    (high,) = judged(panel, [one], pitch((50.0, 60.0, 61.0, 62.0)))
    assert low.traits is not None
    assert high.traits is not None
    assert (low.traits.gender, low.traits.pitch) == ("female", "very low")
    assert high.traits.pitch == "very high"
