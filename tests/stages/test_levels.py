"""Levels are bins of the corpus' own distribution, and a word is only said of what can be heard."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.arrow import ATTRIBUTES, LEVELS
from schemas.attributes import Attributes
from schemas.descriptions import CLOSED
from stages.levels import (
    FEWEST,
    MEASURES,
    as_levels,
    cut_of,
    edges_of,
    expressiveness_level,
    level_for,
    levels_of,
    measured,
)
from stages.traits import scored, traits_of


def corpus(
    number: int = 60, *, gender: str = "female", language: str = "en", seed: int = 0, **given: Any
) -> pl.DataFrame:
    """Clips of one gender and language whose measures vary as a speaker's do."""
    rng = np.random.default_rng(seed)
    middle = {"female": 200.0, "male": 115.0}[gender]
    rows = [
        Attributes(
            clip_id=f"{language}-{gender}-{seed}-{i:04d}",
            f0_median_hz=float(middle * 2 ** (rng.normal(0, 2) / 12)),
            f0_range_st=float(rng.uniform(4, 14)),
            voiced_ratio=0.6,
            jitter=float(np.exp(rng.normal(-3.9, 0.3))),
            shimmer=float(np.exp(rng.normal(-2.7, 0.3))),
            hnr_db=float(rng.normal(16, 2)),
            alpha_ratio_db=float(rng.normal(-16, 3)),
            loudness_lufs=float(rng.normal(-24, 4)),
            pause_ratio=float(rng.uniform(0, 0.3)),
            num_pauses=1,
            emphasis=float(rng.uniform(0, 1.5)),
            gender=gender,
            gender_confidence=0.99,
            age="adult",
            age_confidence=0.99,
            attempt=1,
        )
        for i in range(number)
    ]
    frame = pl.from_arrow(ATTRIBUTES.to_arrow(rows).replace_schema_metadata())
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(
        language=pl.lit(language),
        speaker=pl.lit(None, pl.String),
        session_id=pl.lit("s"),
        chars_per_s=pl.Series(np.exp(rng.normal(2.6, 0.3, number))),
        snr_db=pl.lit(40.0),
        **{name: pl.lit(value) for name, value in given.items()},
    )


@given(values=st.lists(st.floats(-100, 100), min_size=1, max_size=200), step=st.floats(0.01, 5))
def test_edges_ascend_and_keep_a_noticeable_step_from_the_median(
    values: list[float], step: float
) -> None:
    series = pl.Series(values)
    edges = edges_of(series, step)
    assert list(edges) == sorted(edges)
    median = float(series.median())  # type: ignore[arg-type]
    assert edges[1] <= median - step + 1e-9
    assert edges[2] >= median + step - 1e-9
    below = float((series < edges[0]).mean() or 0.0)
    above = float((series > edges[3]).mean() or 0.0)
    assert below <= 0.1 + 1 / len(values)
    assert above <= 0.1 + 1 / len(values)


def test_a_corpus_that_varies_fills_its_levels_by_tenths_and_fifths() -> None:
    frame = corpus(2000)
    traits = traits_of(frame, levels_of(measured(frame)), share=1.0)
    for name in ("pitch", "rate", "energy", "pitch_range"):
        shares = dict(traits[name].value_counts(normalize=True).iter_rows())
        lowest, low, middle, high, highest = (shares.get(word, 0.0) for word in CLOSED[name])
        assert lowest <= 0.11, name
        assert highest <= 0.11, name
        assert 0.35 <= middle <= 0.7, name
        assert low > 0.08, name
        assert high > 0.08, name


def test_voices_are_high_or_low_among_their_own_gender() -> None:
    frame = pl.concat([corpus(200, gender="female"), corpus(200, gender="male", seed=1)])
    traits = traits_of(frame, levels_of(measured(frame)), share=1.0)
    for gender in ("female", "male"):
        own = traits.filter(pl.col("gender") == gender)["pitch"]
        assert own.is_in(["high", "very high"]).any()
        assert own.is_in(["low", "very low"]).any()
        assert (own == "moderate").mean() > 0.3  # type: ignore[operator]


def test_a_few_men_among_many_women_are_not_all_low() -> None:
    frame = pl.concat([corpus(200), corpus(FEWEST - 1, gender="male", seed=1)])
    traits = traits_of(frame, levels_of(measured(frame)), share=1.0)
    men = traits.filter(pl.col("gender") == "male")
    assert men["pitch"].null_count() == men.height
    # What does not hang on the voice is known all the same.
    assert men["rate"].null_count() == 0


def test_a_small_language_takes_the_levels_of_its_gender() -> None:
    frame = pl.concat([corpus(200), corpus(3, language="is", seed=2)])
    levels = levels_of(measured(frame))
    assert not [level for level in levels if level.language == "is"]
    assert level_for(levels, "rate", ("is", "female")) == level_for(
        levels, "rate", (None, "female")
    )
    traits = traits_of(frame, levels, share=1.0)
    assert traits.filter(pl.col("clip_id").str.starts_with("is"))["pitch"].null_count() == 0


def test_stored_levels_give_the_same_words_again() -> None:
    frame = corpus(300)
    levels = levels_of(measured(frame))
    levels.append(expressiveness_level(scored(frame, levels)))
    stored = pl.from_arrow(LEVELS.to_arrow(levels).replace_schema_metadata())
    assert isinstance(stored, pl.DataFrame)
    again = as_levels(stored.to_dicts())
    words = ["chosen", *CLOSED, "texture"]
    fresh, kept = (traits_of(frame, them, 0.3).select(words) for them in (levels, again))
    assert fresh.equals(kept, null_equal=True)
    # Words keep their meaning when the corpus grows: an old clip's do not change.
    grown = pl.concat([frame, corpus(300, seed=9).with_columns(loudness_lufs=pl.lit(-10.0))])
    words = [*CLOSED, "texture"]
    before = traits_of(frame.with_columns(speaker=pl.lit("a")), again, 0.3).select(
        "clip_id", *words
    )
    after = traits_of(
        grown.with_columns(
            speaker=pl.when(pl.col("clip_id").is_in(frame["clip_id"])).then(pl.lit("a"))
        ),
        again,
        0.3,
    )
    assert after.head(frame.height).select("clip_id", *words).equals(before, null_equal=True)


@given(share=st.floats(0.02, 0.98))
def test_the_share_of_clips_that_are_described_is_a_setting(share: float) -> None:
    frame = corpus(400)
    levels = levels_of(measured(frame))
    levels.append(expressiveness_level(scored(frame, levels)))
    chosen = traits_of(frame, levels, share)["chosen"].mean()
    assert chosen == pytest.approx(share, abs=0.02)
    cut = cut_of(levels, share)
    assert cut is not None
    assert traits_of(frame, levels, 1.0)["chosen"].all()


def test_the_lively_are_chosen_before_the_plain() -> None:
    plain = corpus(100).with_columns(f0_range_st=pl.lit(8.0), emphasis=pl.lit(0.7))
    lively = corpus(10, seed=1).with_columns(f0_range_st=pl.lit(18.0), emphasis=pl.lit(2.0))
    frame = pl.concat([plain, lively]).with_columns(speaker=pl.lit("a"))
    levels = levels_of(measured(frame))
    levels.append(expressiveness_level(scored(frame, levels)))
    traits = traits_of(frame, levels, share=0.1)
    assert traits.tail(10)["chosen"].all()
    assert set(traits.tail(10)["pitch_range"]) == {"very lively"}


def test_arousal_is_heard_beside_the_speakers_other_clips() -> None:
    """A loud, high speaker is not aroused for being that; another one's raised clip is."""
    calm = corpus(40).with_columns(speaker=pl.lit("calm"))
    loud = corpus(40, seed=3).with_columns(
        pl.col("f0_median_hz") * 1.3, pl.col("loudness_lufs") + 8, speaker=pl.lit("loud")
    )
    raised = calm.head(1).with_columns(
        pl.col("f0_median_hz") * 1.5,
        pl.col("loudness_lufs") + 12,
        pl.col("alpha_ratio_db") + 8,
        clip_id=pl.lit("raised"),
    )
    frame = pl.concat([calm, loud, raised])
    traits = traits_of(frame, levels_of(measured(frame)), share=1.0)
    of_loud = traits.filter(pl.col("clip_id").is_in(loud["clip_id"]))["arousal"]
    assert abs(float(of_loud.median())) < 0.15  # type: ignore[arg-type]
    row = traits.filter(pl.col("clip_id") == "raised").row(0, named=True)
    assert row["arousal"] > 0.6
    assert row["emotion"] == "excited"
    assert row["arousal_confidence"] > 0.6


def test_an_experts_emotion_outranks_the_cues() -> None:
    frame = corpus(40).with_columns(
        emotion=pl.lit("sad"), emotion_confidence=pl.lit(0.9), arousal=pl.lit(-0.4)
    )
    traits = traits_of(frame, levels_of(measured(frame)), share=1.0)
    assert set(traits["emotion"]) == {"sad"}
    assert set(traits["arousal"]) == {-0.4}
    assert set(traits["emotion_confidence"]) == {0.9}


def test_an_arousal_without_a_confidence_is_not_taken_for_certain() -> None:
    frame = corpus(40).with_columns(arousal=pl.lit(0.7))
    traits = traits_of(frame, levels_of(measured(frame)), share=1.0)
    assert set(traits["emotion"]) == {"excited"}
    assert traits["arousal_confidence"].max() < 0.8  # type: ignore[operator]
    assert traits["arousal_confidence"].min() >= 0.5  # type: ignore[operator]


def test_noise_is_not_told_as_hoarseness() -> None:
    frame = corpus(200)
    levels = levels_of(measured(frame))
    assert traits_of(frame, levels, 1.0)["texture"].drop_nulls().len()
    noisy = frame.with_columns(snr_db=pl.lit(10.0))
    assert not traits_of(noisy, levels, 1.0)["texture"].drop_nulls().len()


def test_a_clip_without_pauses_has_hardly_any_in_whatever_corpus() -> None:
    frame = corpus(50).with_columns(pause_ratio=pl.lit(0.0), num_pauses=pl.lit(0, pl.Int64))
    traits = traits_of(frame, levels_of(measured(frame)), share=1.0)
    assert set(traits["pauses"]) == {"hardly any"}


def test_what_was_not_measured_has_no_word() -> None:
    frame = corpus(50)
    nothing = frame.head(1).with_columns(
        *(pl.lit(None, frame.schema[n]).alias(n) for n in ("f0_median_hz", "loudness_lufs")),
        chars_per_s=pl.lit(None, pl.Float64),
        gender=pl.lit(None, pl.String),
    )
    levels = levels_of(measured(frame))
    row = traits_of(pl.concat([frame, nothing]), levels, 1.0).row(-1, named=True)
    assert row["pitch"] is row["energy"] is row["rate"] is row["gender"] is None
    assert set(MEASURES) >= {"pitch", "energy", "rate"}


def test_an_empty_corpus_has_no_levels() -> None:
    frame = corpus(2).head(0)
    levels = levels_of(measured(frame))
    assert levels == []
    assert traits_of(frame, levels, 0.3).height == 0
