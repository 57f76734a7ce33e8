"""How often a stage sees a sample: sums, shares and balance hold for any corpus."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigError
from schemas.samples import LAYOUTS
from stages.curriculum import (
    REFERENCE_AUDIO,
    Annealing,
    JointTraining,
    PreTraining,
    Rows,
    StageConfig,
    balanced,
    raked,
    reference_share,
    shares_of,
    weights_of,
)

NUM = len(LAYOUTS)
STAGES = (PreTraining(), JointTraining(), Annealing())


@st.composite
def corpora(draw: st.DrawFn) -> tuple[Rows, np.ndarray, np.ndarray]:
    """Rows of some clips, each with at least the layout `text`; language and source of the clips."""
    num = draw(st.integers(1, 25))
    clip, layout, duration_s, positions = [], [], [], []
    for number in range(num):
        seconds = draw(st.sampled_from([0.5, 3.0, 30.0, 100.0, 250.0, 400.0]))
        for which in sorted({0, *draw(st.sets(st.integers(0, NUM - 1)))}):
            clip.append(number)
            layout.append(which)
            duration_s.append(seconds)
            positions.append(draw(st.sampled_from([100, 4096, 5000, 8192, 9000])))
    language = draw(st.lists(st.integers(0, 3), min_size=num, max_size=num))
    source = draw(st.lists(st.integers(0, 2), min_size=num, max_size=num))
    rows = Rows(
        clip=np.array(clip),
        layout=np.array(layout),
        duration_s=np.array(duration_s),
        positions=np.array(positions),
    )
    return rows, np.array(language), np.array(source)


@settings(deadline=None)
@given(
    corpus=corpora(),
    which=st.integers(0, 2),
    limit=st.sampled_from([256, 4096, 8192]),
    temperature=st.sampled_from([1.0, 2.0, 5.0]),
)
def test_weights_sum_to_the_clips_that_a_stage_can_take(
    corpus: tuple[Rows, np.ndarray, np.ndarray], which: int, limit: int, temperature: float
) -> None:
    rows, language, source = corpus
    stage = type(STAGES[which])(language_temperature=temperature)
    nothing_made = np.zeros(language.size, np.bool_)
    weights = weights_of(rows, language, source, nothing_made, stage, limit)
    fits = (
        (rows.duration_s >= stage.min_s)
        & (rows.duration_s <= stage.max_s)
        & (rows.positions <= min(limit, stage.max_positions))
        & (np.array(stage.shares)[rows.layout] > 0)
    )
    taken = np.unique(rows.clip[fits])
    assert (weights >= 0).all()
    assert not weights[~fits].any()
    assert weights.sum() == pytest.approx(taken.size, rel=1e-9)
    per_clip = np.bincount(rows.clip, weights=weights, minlength=language.size)
    if temperature == stage.source_temperature == 1:
        assert per_clip[taken] == pytest.approx(1.0)
    # Clips of one language and source are seen alike, whatever layouts they have.
    for pair in {*zip(language[taken].tolist(), source[taken].tolist(), strict=True)}:
        alike = taken[(language[taken] == pair[0]) & (source[taken] == pair[1])]
        assert np.ptp(per_clip[alike]) < 1e-9


@given(
    totals=st.lists(st.floats(0.0, 100.0), min_size=1, max_size=8),
    masks=st.lists(st.integers(0, 2**NUM - 1), min_size=8, max_size=8),
    shares=st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5]), min_size=NUM, max_size=NUM),
)
@settings(deadline=None)
def test_raking_splits_every_row_wholly_among_what_it_can_have(
    totals: list[float], masks: list[int], shares: list[float]
) -> None:
    possible = np.array([[bool(m >> i & 1) for i in range(NUM)] for m in masks[: len(totals)]])
    wanted = np.array(shares)
    split = raked(np.array(totals), possible, wanted)
    assert np.isfinite(split).all()
    assert (split >= 0).all()
    assert not split[~possible].any()
    assert not split[:, wanted == 0].any()
    can = (possible & (wanted > 0)).any(axis=1)
    assert split[can].sum(axis=1) == pytest.approx(1.0)
    assert not split[~can].any()


@given(
    shares=st.lists(st.floats(0.05, 1.0), min_size=NUM, max_size=NUM),
    total=st.floats(1.0, 1000.0),
    without=st.integers(0, 2**NUM - 2),
)
@settings(deadline=None)
def test_shares_are_met_where_the_corpus_allows(
    shares: list[float], total: float, without: int
) -> None:
    """Enough clips can have everything; some lack a few layouts."""
    possible = np.array([[True] * NUM, [not without >> i & 1 for i in range(NUM)]])
    few = 0.02 * total * min(shares)
    split = raked(np.array([total, few]), possible, np.array(shares))
    columns = np.array([total, few]) @ split
    assert columns / columns.sum() == pytest.approx(np.array(shares) / sum(shares), rel=1e-3)


def test_where_a_share_cannot_be_met_the_rest_keep_their_proportions() -> None:
    """A tenth of the clips has a reference, half of all samples should."""
    possible = np.zeros((2, NUM), np.bool_)
    possible[0, [0, 4]] = True
    possible[1, [0, 2, 4]] = True
    totals = np.array([90.0, 10.0])
    columns = totals @ raked(totals, possible, np.array([0.3, 0.0, 0.5, 0.0, 0.2]))
    assert columns[2] == pytest.approx(10.0, rel=1e-3)
    assert columns[0] / columns[4] == pytest.approx(1.5, rel=1e-3)


@given(
    language=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    temperature=st.floats(1.0, 8.0),
)
def test_a_language_is_seen_by_the_root_of_its_size(
    language: list[int], temperature: float
) -> None:
    numbers = np.array(language)
    weights = balanced(numbers, np.zeros_like(numbers), temperature, 1.0)
    assert weights.sum() == pytest.approx(numbers.size)
    sizes = np.bincount(numbers).astype(float)
    seen = np.bincount(numbers, weights=weights)
    wanted = np.where(sizes > 0, sizes ** (1 / temperature), 0.0)
    assert seen == pytest.approx(wanted / wanted.sum() * numbers.size)


def test_sources_are_flattened_within_their_language() -> None:
    language = np.array([0] * 100 + [1] * 25)
    source = np.array([0] * 64 + [1] * 36 + [2] * 25)
    weights = balanced(language, source, 1.0, 2.0)
    seen = np.bincount(source, weights=weights)
    assert seen == pytest.approx([100 * 8 / 14, 100 * 6 / 14, 25])


@pytest.mark.parametrize("stage", STAGES)
def test_the_shipped_stages_have_reference_audio_on_their_share(stage: StageConfig) -> None:
    """On a corpus in which a third of the clips is described and a fifth has no reference."""
    rng = np.random.default_rng(0)
    num = 2000
    possible = np.ones((num, NUM), np.bool_)
    possible[:, [1, 3]] = rng.random((num, 1)) < 0.3
    possible[rng.random(num) < 0.2, 2:4] = False
    possible[:, 4] = rng.random(num) < 0.8
    clip, layout = np.nonzero(possible)
    rows = Rows(
        clip=clip,
        layout=layout,
        duration_s=np.full(clip.size, 5.0),
        positions=np.full(clip.size, 100),
    )
    nothing = np.zeros(num, np.int64)
    recorded = np.zeros(num, np.bool_)
    shares = shares_of(layout, weights_of(rows, nothing, nothing, recorded, stage, 8192))
    low, high = REFERENCE_AUDIO
    assert low < reference_share(shares) < high
    assert shares == pytest.approx(stage.shares, abs=1e-3)
    assert 0.1 <= shares[4] <= 0.15


@settings(deadline=None, max_examples=40)
@given(
    corpus=corpora(),
    which=st.integers(0, 2),
    share=st.sampled_from([0.0, 1e-6, 0.1, 0.3, 0.5, 0.99]),
    temperature=st.sampled_from([1.0, 3.0]),
    marks=st.lists(st.booleans(), min_size=25, max_size=25),
)
def test_generated_clips_stay_within_their_share_and_move_no_other(
    corpus: tuple[Rows, np.ndarray, np.ndarray],
    which: int,
    share: float,
    temperature: float,
    marks: list[bool],
) -> None:
    rows, language, source = corpus
    synthetic = np.array(marks[: language.size])
    stage = type(STAGES[which])(synthetic=share, language_temperature=temperature)
    weights = weights_of(rows, language, source, synthetic, stage, 8192)
    made = synthetic[rows.clip]
    # Exactly, and as they are stored.
    for stored in (weights, weights.astype(np.float32).astype(np.float64)):
        for spoken in (*(language[rows.clip] == number for number in range(4)), True):
            assert stored[made & spoken].sum() <= share * stored[spoken].sum()
    # What is recorded is seen as if nothing had been generated.
    alone = Rows(
        clip=rows.clip[~made],
        layout=rows.layout[~made],
        duration_s=rows.duration_s[~made],
        positions=rows.positions[~made],
    )
    before = weights_of(alone, language, source, np.zeros_like(synthetic), stage, 8192)
    assert (weights[~made] == before).all()
    # None is seen more than about once.
    for number in range(4):
        own = weights[made & (language[rows.clip] == number)].sum()
        assert own <= (synthetic & (language == number)).sum() + 1e-9


def test_a_share_that_can_be_filled_is_filled_in_the_layouts_that_they_have() -> None:
    """100 recorded clips in all layouts, 200 generated ones in the two with descriptions."""
    possible = np.ones((300, NUM), np.bool_)
    possible[100:, [0, 2, 4]] = False
    clip, layout = np.nonzero(possible)
    rows = Rows(
        clip=clip,
        layout=layout,
        duration_s=np.full(clip.size, 5.0),
        positions=np.full(clip.size, 100),
    )
    nothing, synthetic = np.zeros(300, np.int64), np.arange(300) >= 100
    stage = JointTraining()
    weights = weights_of(rows, nothing, nothing, synthetic, stage, 8192)
    made = synthetic[clip]
    assert weights[made].sum() / weights.sum() == pytest.approx(0.3, rel=1e-6)
    assert weights[~made].sum() == pytest.approx(100)
    shares = shares_of(layout[~made], weights[~made])
    assert shares == pytest.approx(stage.shares, abs=1e-3)
    told = shares_of(layout[made], weights[made])
    assert told[1] / told[3] == pytest.approx(stage.described / stage.described_reference, rel=1e-3)
    # Fewer than there is room for are seen once each.
    few = np.arange(300) >= 290
    weights = weights_of(rows, nothing, nothing, few, stage, 8192)
    assert np.bincount(clip, weights=weights)[290:] == pytest.approx(1.0)


def test_a_language_that_nobody_recorded_has_nothing_to_add_to() -> None:
    clip, layout = np.array([0, 1]), np.array([1, 1])
    rows = Rows(clip=clip, layout=layout, duration_s=np.full(2, 5.0), positions=np.full(2, 9))
    synthetic, nothing = np.array([False, True]), np.zeros(2, np.int64)
    weights = weights_of(rows, np.array([0, 1]), nothing, synthetic, JointTraining(), 8192)
    assert weights.tolist() == [1.0, 0.0]


def test_what_is_generated_comes_in_with_the_second_stage_and_less_in_the_third() -> None:
    shares = [stage.synthetic for stage in STAGES]
    assert shares[0] == 0
    assert shares[1] > shares[2] > 0


def test_descriptions_come_in_with_the_second_stage() -> None:
    described = [sum(stage.shares[i] for i in (1, 3)) for stage in STAGES]
    assert described[0] == 0
    assert min(described[1:]) > 0.1
    assert STAGES[2].language_temperature > STAGES[1].language_temperature == 1
    assert [stage.max_s for stage in STAGES] == [60, 180, 300]


@pytest.mark.parametrize(
    "values",
    [
        {"min_s": 70.0},
        {"max_positions": 0},
        {"text": -0.1},
        {"text": 0.0, "reference": 0.0, "continuation": 0.0},
        {"language_temperature": 0.5},
        {"synthetic": -0.1},
        {"synthetic": 1.0},
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        PreTraining(**values)  # type: ignore[arg-type]
