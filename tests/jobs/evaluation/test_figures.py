"""Figures against hand-computed ones, and intervals that hold what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.verifier import VerifierConfig
from jobs.evaluation.config import EvaluateConfig
from jobs.evaluation.figures import differences_of, groups_of, real_time_factor
from jobs.evaluation.following import ALL, following
from jobs.evaluation.intervals import mean, ratio
from jobs.evaluation.rows import UtteranceRow
from schemas.attributes import Traits
from schemas.errors import ConfigError

CONFIG = EvaluateConfig()


def row(
    name: str, errors: int, units: int, similarity: float = 0.5, **more: object
) -> UtteranceRow:
    values: dict[str, object] = {
        "system": "one",
        "utterance_id": name,
        "origin": "en/meta.lst",
        "language": "en",
        "text": "text",
        "measure": "wer",
        "errors": errors,
        "units": units,
        "similarity": similarity,
        "audible": True,
    }
    return UtteranceRow(**{**values, **more})  # type: ignore[arg-type]


def test_an_error_rate_is_all_errors_over_all_words() -> None:
    found = ratio([1, 0, 5], [10, 10, 5], CONFIG)
    assert found is not None
    assert found.value == pytest.approx(6 / 25)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low < 6 / 25 < found.high <= 1


def test_one_unit_or_none_has_no_interval() -> None:
    one = ratio([1], [4], CONFIG)
    assert one is not None
    assert (one.value, one.low, one.high, one.units) == (0.25, None, None, 1)
    assert ratio([], [], CONFIG) is None
    assert mean([], CONFIG) is None


def test_the_same_rows_give_the_same_interval_and_more_rows_a_narrower_one() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    few, again, many = mean(values[:40], CONFIG), mean(values[:40], CONFIG), mean(values, CONFIG)
    assert few == again
    assert few is not None
    assert many is not None
    width = [one.high - one.low for one in (few, many)]  # type: ignore[operator]
    assert width[1] < width[0] / 2


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=500)
    found = mean(values, CONFIG)
    assert found is not None
    half = 1.96 * values.std() / np.sqrt(500)
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_intervals_hold_the_true_error_rate_as_often_as_they_say() -> None:
    """Utterances of 3 to 20 words, each with an error rate of its own: words alone would mislead."""
    rng = np.random.default_rng(2)
    config = EvaluateConfig(resamples=400, confidence=0.9)
    hits, trials = 0, 300
    for _ in range(trials):
        words = rng.integers(3, 21, size=80)
        errors = rng.binomial(words, rng.beta(1, 4, size=80))
        found = ratio(errors, words, config)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.2 <= found.high
    # Three standard deviations of a count with a share of 0.9.
    assert abs(hits / trials - 0.9) <= 3 * np.sqrt(0.9 * 0.1 / trials)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=2, max_size=20),
    st.integers(1, 5),
)
def test_intervals_lie_about_their_value_and_keep_the_unit(
    pairs: list[tuple[int, int]], scale: int
) -> None:
    above, below = zip(*pairs, strict=True)
    config = EvaluateConfig(resamples=200)
    found = ratio(above, below, config)
    scaled = ratio([scale * value for value in above], below, config)
    assert found is not None
    assert scaled is not None
    rates = [a / b for a, b in pairs]
    assert min(rates) - 1e-9 <= found.low <= found.high <= max(rates) + 1e-9  # type: ignore[operator]
    assert scaled.high == pytest.approx(scale * found.high)  # type: ignore[operator]


def test_sets_and_languages_have_figures_of_their_own() -> None:
    rows = [
        row("a", 1, 4),
        row("b", 3, 4, similarity=0.7),
        row("c", 1, 10, language="zh", measure="cer", audible=False, stopped=False),
        row("d", 0, 0, error="SilentAudio", message="the reference is silent"),
    ]
    english, chinese = groups_of(rows, CONFIG)
    assert (english.measure, english.utterances, english.refused) == ("wer", 2, 1)
    assert english.error_rate is not None
    assert english.error_rate.value == 0.5
    assert english.similarity is not None
    assert english.similarity.value == pytest.approx(0.6)
    assert (chinese.measure, chinese.silent, chinese.cut) == ("cer", 1, 1)
    assert chinese.error_rate is not None
    assert chinese.error_rate.value == 0.1
    assert chinese.dnsmos["dnsmos_ovrl"] is None


def test_systems_are_compared_on_what_both_have() -> None:
    first = [row("a", 1, 4), row("b", 2, 6), row("c", 9, 9, error="UnspeakableText")]
    second = [row("a", 0, 4, 0.6), row("b", 0, 6, 0.8), row("c", 0, 9, 0.9)]
    (change,) = differences_of(first, second, CONFIG)
    assert change.error_rate is not None
    assert change.error_rate.value == pytest.approx(-3 / 10)
    assert change.similarity is not None
    assert change.similarity.value == pytest.approx(0.2)


def test_the_real_time_factor_counts_each_unit_once() -> None:
    rows = [
        row("a", 0, 1, unit="u", unit_s=4.0, unit_audio_s=2.0),
        row("b", 0, 1, unit="u", unit_s=4.0, unit_audio_s=2.0),
        row("c", 0, 1, unit="v", unit_s=2.0, unit_audio_s=4.0),
    ]
    found = real_time_factor(rows, CONFIG)
    assert found is not None
    assert (found.value, found.units) == (1.0, 2)


def traits(gender: str, pitch: str) -> Traits:
    names = Traits.__dataclass_fields__
    known: dict[str, object] = {
        "clip_id": "c",
        "chosen": True,
        "gender": gender,
        "gender_confidence": 0.95,
        "pitch": pitch,
    }
    return Traits(**{name: known.get(name) for name in names})  # type: ignore[arg-type]


def test_a_description_is_followed_where_the_experts_agree_and_chance_is_told() -> None:
    woman, man = "A woman with a very high voice.", "A man with a very low voice."
    said = [
        (woman, traits("female", "very high")),
        (woman, traits("female", "very low")),
        (man, traits("male", "low")),
        (man, traits("female", "very low")),
    ]
    found = following(said, VerifierConfig(), CONFIG)
    assert found["gender"].followed.value == 3 / 4
    assert found["gender"].claims == found["gender"].judged == 4
    # Each is held against the three others: 2 + 2 + 0 + 1 of 12.
    assert found["gender"].by_chance == pytest.approx(5 / 12)
    assert found["pitch"].followed.value == 3 / 4
    assert found[ALL].followed.value == 6 / 8
    assert found[ALL].claims == 8


def test_what_the_experts_cannot_tell_does_not_count() -> None:
    nothing = Traits(
        **{n: None for n in Traits.__dataclass_fields__} | {"clip_id": "c", "chosen": True}
    )  # type: ignore[arg-type]
    assert following([("A sad woman speaks.", nothing)], VerifierConfig(), CONFIG) == {}


@pytest.mark.parametrize(
    "wrong",
    [{"voice": "mine"}, {"samples": 0}, {"seed": -1}, {"confidence": 1.0}, {"recordings": -1}],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="evaluate"):
        EvaluateConfig(**wrong)  # type: ignore[arg-type]
