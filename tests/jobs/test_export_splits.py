"""No voice and no room is heard on two sides."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.exporting.options import ExportConfig
from jobs.exporting.splits import LINKS, SPLITS, TEST, TRAIN, VALIDATION, split_of
from schemas.errors import ConfigError

SHARES = {TEST: 0.1, VALIDATION: 0.1}

clip_rows = st.fixed_dictionaries(
    {
        "session_id": st.sampled_from([f"s{n}" for n in range(9)]),
        "speaker": st.none() | st.sampled_from([f"v{n}" for n in range(9)]),
        "recording_id": st.sampled_from([f"r{n}" for n in range(30)]),
        "duration_s": st.floats(0.5, 30.0),
    }
)
SCHEMA = {name: pl.String for name in LINKS} | {"duration_s": pl.Float64}


@settings(max_examples=50)
@given(st.lists(clip_rows, min_size=1, max_size=40), st.integers(0, 3))
def test_no_speaker_session_or_recording_is_on_two_sides(
    rows: list[dict[str, object]], seed: int
) -> None:
    clips = pl.DataFrame(rows, schema=SCHEMA)
    found = clips.with_columns(split=split_of(clips, SHARES, seed))
    for name in LINKS:
        sides = found.drop_nulls(name).group_by(name).agg(pl.col("split").n_unique())
        assert sides["split"].max() in (1, None)
    assert TRAIN in set(found["split"])
    assert set(found["split"]) <= set(SPLITS)


@settings(max_examples=50)
@given(st.lists(clip_rows, min_size=1, max_size=40), st.randoms())
def test_the_side_hangs_on_the_seed_and_not_on_the_order(
    rows: list[dict[str, object]], random: object
) -> None:
    clips = pl.DataFrame(rows, schema=SCHEMA).with_row_index("number")
    sides = clips.with_columns(split=split_of(clips, SHARES, 1))
    mixed = clips.sample(fraction=1.0, shuffle=True, seed=random.randint(0, 99))  # type: ignore[attr-defined]
    again = mixed.with_columns(split=split_of(mixed, SHARES, 1)).sort("number")
    assert again["split"].to_list() == sides["split"].to_list()


def sessions(number: int) -> pl.DataFrame:
    names = [f"s{n:04}" for n in range(number)]
    return pl.DataFrame(
        {"session_id": names, "speaker": names, "recording_id": names, "duration_s": 10.0}
    )


def test_sides_have_their_shares_where_groups_are_small() -> None:
    clips = sessions(1000)
    counts = split_of(clips, SHARES, 0).value_counts()
    assert dict(counts.iter_rows()) == {TEST: 100, VALIDATION: 100, TRAIN: 800}
    assert split_of(clips, SHARES, 1).to_list() != split_of(clips, SHARES, 0).to_list()


@pytest.mark.parametrize(("groups", "sides"), [(1, {TRAIN}), (2, {TRAIN, TEST}), (3, set(SPLITS))])
def test_a_side_is_empty_only_where_there_is_no_group_for_it(groups: int, sides: set[str]) -> None:
    assert set(split_of(sessions(groups), SHARES, 0)) == sides


def test_a_side_that_nobody_wants_is_empty() -> None:
    assert set(split_of(sessions(9), {TEST: 0.0, VALIDATION: 0.2}, 0)) == {TRAIN, VALIDATION}


@pytest.mark.parametrize(
    "wrong",
    [{"validation": -0.1}, {"test": 1.0}, {"consent": "some"}, {"sample_rate": 5}, {"shard_s": 0}],
)
def test_what_makes_no_export_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ExportConfig(**wrong)  # type: ignore[arg-type]
