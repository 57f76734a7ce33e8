"""References of a session: no pair breaks a rule, voices are told apart, the choice is diverse."""

import pickle
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.arrow import CLIPS
from schemas.errors import ConfigError, MixedEmbeddings
from stages.mining import (
    COLUMNS,
    REASONS,
    Mined,
    Mining,
    MiningConfig,
    Session,
    are_clean,
    embeddings_of,
    mine,
)
from stages.reference_choice import choose, shared_words, word_sets
from stages.voice_pairs import Timeline, VoicePairs

KINDS: dict[str, pl.DataType] = dict(pl.from_arrow(CLIPS.schema.empty_table()).schema)  # type: ignore[union-attr]
KINDS = {name: KINDS[name] for name in COLUMNS}
CONFIG = MiningConfig(min_cosine=0.7, min_voice_cosine=0.8)
SIZE = 8


@dataclass(frozen=True)
class Made:
    """A made-up clip."""

    recording: int
    start_s: float
    length_s: float
    voice: int | None
    """None: its embedding is missing."""
    accepted: bool
    repeats: bool
    clean: bool
    text: str = "a"


clips = st.builds(
    Made,
    recording=st.integers(0, 2),
    start_s=st.integers(0, 40).map(lambda n: n * 1.5),
    length_s=st.integers(1, 8).map(lambda n: n * 0.75),
    voice=st.sampled_from([0, 0, 0, 1, 1, 2, None]),
    accepted=st.sampled_from([True, True, True, False]),
    repeats=st.sampled_from([False, False, False, True]),
    clean=st.sampled_from([True, True, False]),
    text=st.sampled_from(["a b c", "d e f", "a b x", "", "g"]),
)


def session_of(made: list[Made], seed: int = 0, spread: float = 0.25) -> Session:
    """In the session's order. `spread`: how far clips lie from their voice."""
    made = sorted(made, key=lambda clip: (clip.recording, clip.start_s, clip.length_s))
    rng = np.random.default_rng(seed)
    voices = np.eye(SIZE)[:3]
    embeddings = []
    for clip in made:
        noise = rng.standard_normal(SIZE) * spread / np.sqrt(SIZE)
        vector = None if clip.voice is None else voices[clip.voice] + noise
        embeddings.append(None if vector is None else (vector / np.linalg.norm(vector)).tolist())
    frame = pl.DataFrame(
        {
            "clip_id": [f"c{number}" for number in range(len(made))],
            "recording_id": [f"r{clip.recording}" for clip in made],
            "start_s": [clip.start_s for clip in made],
            "end_s": [clip.start_s + clip.length_s for clip in made],
            "duration_s": [5.0] * len(made),
            "text": [clip.text for clip in made],
            "language": ["en"] * len(made),
            "speaker_embedding": pl.Series(embeddings, dtype=pl.List(pl.Float32)),
            "speaker_purity": pl.Series([0.9] * len(made), dtype=pl.Float64),
            "snr_db": [40.0 if clip.clean else 10.0 for clip in made],
            "dnsmos_bak": [4.0] * len(made),
            "clipping": [0.0] * len(made),
            "edge_start_db": [0.0] * len(made),
            "edge_end_db": [0.0] * len(made),
            "trail_silence_s": [0.3] * len(made),
            "word_cut_start": [False] * len(made),
            "word_cut_end": [False] * len(made),
            "breath_cut": [False] * len(made),
        }
    )
    return Session(
        session_id="s",
        clips=frame.select(COLUMNS).cast(KINDS),
        accepted=np.array([clip.accepted for clip in made], np.bool_),
        repeats=np.array([clip.repeats for clip in made], np.bool_),
    )


def rows_of(mined: Mined) -> list[tuple[int, int, int]]:
    return list(
        zip(mined.targets.tolist(), mined.references.tolist(), mined.ranks.tolist(), strict=True)
    )


@settings(max_examples=300, deadline=None)
@given(made=st.lists(clips, max_size=40), k=st.integers(1, 5), seed=st.integers(0, 99))
def test_no_pair_breaks_a_rule(made: list[Made], k: int, seed: int) -> None:
    session = session_of(made, seed)
    config = replace(CONFIG, references_per_target=k, block=7)
    mined = mine(session, config)
    frame = session.clips
    embeddings, measured = embeddings_of(frame)
    recordings = frame["recording_id"].to_list()
    start, end = frame["start_s"].to_list(), frame["end_s"].to_list()
    clean = are_clean(frame, config)
    accepted_before: dict[int, int] = {}
    last = -1
    for number in range(frame.height):
        accepted_before[number] = last
        last = number if session.accepted[number] else last
    seen: dict[int, list[int]] = {}
    for (target, reference, rank), cosine in zip(rows_of(mined), mined.cosines, strict=True):
        assert target != reference
        assert reference not in (target - 1, accepted_before[target])
        if recordings[target] == recordings[reference]:
            apart = end[reference] <= start[target] or end[target] <= start[reference]
            assert apart
        for clip in (target, reference):
            assert session.accepted[clip]
            assert not session.repeats[clip]
            assert measured[clip]
        assert clean[reference]
        assert cosine == pytest.approx(embeddings[target] @ embeddings[reference], abs=1e-5)
        assert cosine >= config.min_cosine - 1e-5
        assert rank == len(seen.setdefault(target, []))
        seen[target].append(reference)
    for references in seen.values():
        assert len(set(references)) == len(references) <= k
    # Every accepted clip has a reference or a reason.
    assert set(mined.unreferenced) <= set(REASONS)
    assert len(seen) + mined.unreferenced.total() == session.accepted.sum()


@settings(max_examples=60, deadline=None)
@given(made=st.lists(clips, max_size=40), seed=st.integers(0, 99), blocks=st.integers(1, 50))
def test_the_block_size_changes_no_pair(made: list[Made], seed: int, blocks: int) -> None:
    session = session_of(made, seed)
    one = mine(session, replace(CONFIG, block=blocks))
    other = mine(session, replace(CONFIG, block=1024))
    assert rows_of(one) == rows_of(other)
    assert one.unreferenced == other.unreferenced


@settings(max_examples=100, deadline=None)
@given(made=st.lists(clips, max_size=40), seed=st.integers(0, 99))
def test_what_may_be_paired_is_found(made: list[Made], seed: int) -> None:
    """Against a plain loop over all pairs: a target goes empty only if it must."""
    session = session_of(made, seed, spread=0.05)
    mined = mine(session, CONFIG)
    frame = session.clips
    embeddings, measured = embeddings_of(frame)
    part = session.accepted & ~session.repeats & measured
    clean = part & are_clean(frame, CONFIG)
    recordings = frame["recording_id"].to_list()
    start, end = frame["start_s"].to_list(), frame["end_s"].to_list()
    with_reference = set(mined.targets.tolist())
    for target in np.flatnonzero(part):
        earlier = np.flatnonzero(session.accepted[:target])
        possible = [
            reference
            for reference in np.flatnonzero(clean)
            if reference not in (target, target - 1, *earlier[-1:])
            and not (
                recordings[target] == recordings[reference]
                and start[reference] < end[target]
                and end[reference] > start[target]
            )
            and embeddings[target] @ embeddings[reference] >= 0.9
        ]
        # So close to their voices, the voices around clips of one voice are alike too.
        assert (target in with_reference) == bool(possible)


def voices(*sizes: int) -> list[Made]:
    """Voices that take turns in runs, one recording."""
    return [
        Made(0, 6.0 * number, 5.0, voice, True, False, True, text=f"w{number} v{number} u{number}")
        for number, voice in enumerate(
            voice for voice, size in enumerate(sizes) for _ in range(size)
        )
    ]


def test_the_session_s_other_voices_are_no_reference() -> None:
    mined = mine(session_of(voices(30, 20, 10)), CONFIG)
    of = np.repeat([0, 1, 2], [30, 20, 10])
    assert mined.targets.size == 60 * 4
    assert (of[mined.targets] == of[mined.references]).all()


def test_clips_that_come_close_are_told_apart_by_the_voices_around_them() -> None:
    """Two voices at a cosine of 0.8, with noise that carries clips of both beyond the limit."""
    rng = np.random.default_rng(0)
    one = np.eye(64)[0]
    two = 0.8 * one + 0.6 * np.eye(64)[1]
    of = rng.integers(0, 2, 120)
    noisy = np.stack([one, two])[of] + rng.standard_normal((120, 64)) * 0.45 / 8
    embeddings = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
    everyone = np.arange(120)
    timeline = Timeline(
        recording=np.zeros(120, np.int64),
        start_s=everyone * 6.0,
        end_s=everyone * 6.0 + 5,
        accepted=np.ones(120, np.bool_),
    )
    pairs = VoicePairs(embeddings, timeline, everyone, everyone, 32)
    cosines = pairs.cosines(everyone)
    same, allowed = of[:, None] == of, cosines > -1.5
    bare = allowed & (cosines >= 0.72)
    around = pairs.voices(pairs.survey(16), 0.72)
    gated = bare & (around @ around.T >= 0.84)
    assert same[bare].mean() < 0.97
    assert same[gated].mean() > 0.995
    assert gated[same & allowed].mean() > 0.8


def test_a_voice_of_one_stretch_still_gets_all_its_references() -> None:
    """Stretches that each offer one clip would find two of this voice; it has five."""
    made = [*voices(300)]
    for number in range(100, 106):
        made[number] = replace(made[number], voice=1)
    mined = mine(session_of(made, spread=0.1), CONFIG)
    counts = np.bincount(mined.targets, minlength=300)
    assert (counts[100:106] == 4).all()


def test_references_lie_apart_in_time() -> None:
    mined = mine(session_of(voices(400), spread=0.0), CONFIG)
    middles = np.arange(400) * 6.0
    for target in (0, 117, 399):
        times = middles[mined.references[mined.targets == target]]
        gaps = np.diff(np.sort([middles[target], *times]))
        # Five points on 2394 s; the nearest four would lie within half a minute.
        assert gaps.min() > 200


def test_a_repeated_text_is_avoided() -> None:
    made = [replace(clip, text="the very same words") for clip in voices(200)]
    for number in range(0, 200, 2):
        made[number] = replace(made[number], text=f"other{number} words{number} here{number}")
    mined = mine(session_of(made, spread=0.05), CONFIG)
    same = np.array([clip.text == "the very same words" for clip in made])
    for target in (1, 101, 133):
        assert not same[mined.references[mined.targets == target]].any()


def test_references_do_not_repeat_each_other() -> None:
    made = [replace(clip, text="the very same words") for clip in voices(200)]
    for number in range(0, 200, 2):
        made[number] = replace(made[number], text=f"other{number} words{number} here{number}")
    mined = mine(session_of(made, spread=0.05), CONFIG)
    same = np.array([clip.text == "the very same words" for clip in made])
    for target in (0, 50, 100, 150):
        assert same[mined.references[mined.targets == target]].sum() <= 1


def test_a_long_clip_shares_the_time_of_all_that_lie_in_it() -> None:
    timeline = Timeline(
        recording=np.zeros(6, np.int64),
        start_s=np.array([0.0, 5.0, 20.0, 40.0, 100.0, 110.0]),
        end_s=np.array([100.0, 7.0, 22.0, 42.0, 103.0, 112.0]),
        accepted=np.ones(6, np.bool_),
    )
    rows, others = timeline.overlapping(np.arange(6))
    pairs = {(row, other) for row, other in zip(rows.tolist(), others.tolist(), strict=True)}
    expected = {(0, other) for other in (1, 2, 3)} | {(row, 0) for row in (1, 2, 3)}
    assert pairs - {(row, row) for row in range(6)} == expected


def test_a_louder_wish_for_the_nearest_is_a_setting() -> None:
    plain = replace(CONFIG, time_weight=0.0, text_weight=0.0)
    session = session_of(voices(100))
    near, apart = mine(session, plain), mine(session, CONFIG)
    assert near.cosines.mean() > apart.cosines.mean()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("duration_s", 1.9),
        ("duration_s", 31.0),
        ("snr_db", 19.0),
        ("snr_db", None),
        ("snr_db", float("nan")),
        ("dnsmos_bak", 3.4),
        ("clipping", 0.001),
        ("edge_start_db", 7.0),
        ("edge_end_db", 7.0),
        ("trail_silence_s", 0.05),
        ("word_cut_start", True),
        ("word_cut_end", True),
        ("word_cut_end", None),
        ("breath_cut", True),
        ("speaker_purity", 0.6),
    ],
)
def test_a_reference_is_clean(column: str, value: object) -> None:
    session = session_of(voices(1))
    assert are_clean(session.clips, CONFIG).all()
    kind = session.clips.schema[column]
    bad = session.clips.with_columns(pl.lit(value, kind).alias(column))
    assert not are_clean(bad, CONFIG).any()


def test_purity_that_could_not_be_measured_is_no_flaw() -> None:
    session = session_of(voices(1))
    unknown = session.clips.with_columns(speaker_purity=pl.lit(None, pl.Float64))
    assert are_clean(unknown, CONFIG).all()


def reasons(made: list[Made], config: MiningConfig = CONFIG) -> dict[str, int]:
    return dict(mine(session_of(made, spread=0.0), config).unreferenced)


def test_every_clip_without_a_reference_has_its_reason() -> None:
    one, two, three = voices(3)
    assert reasons([one]) == {"alone": 1}
    # The second may not have the first, the first may have the second.
    assert reasons([one, two]) == {"only_barred": 1}
    assert reasons([one, replace(two, clean=False)]) == {"no_clean_reference": 1, "only_barred": 1}
    assert reasons([one, two, replace(three, voice=1)]) == {"below_cosine": 2}
    assert reasons([one, two, replace(three, repeats=True)])["near_duplicate"] == 1
    assert reasons([one, two, replace(three, voice=None)])["no_embedding"] == 1
    strict = replace(CONFIG, min_cosine=-1.0)
    mixed = [one, two, replace(three, voice=1)]
    assert "other_voice" in reasons(mixed, replace(strict, min_voice_cosine=1.0))


def test_embeddings_of_two_sizes_are_refused_and_odd_ones_take_no_part() -> None:
    session = session_of(voices(4))
    odd = session.clips.with_columns(
        speaker_embedding=pl.Series(
            [[1.0] * SIZE, [float("nan")] * SIZE, [0.0] * SIZE, None], dtype=pl.List(pl.Float32)
        )
    )
    embeddings, usable = embeddings_of(odd)
    assert usable.tolist() == [True, False, False, False]
    assert np.isfinite(embeddings).all()
    mixed = session.clips.with_columns(
        speaker_embedding=pl.Series([[1.0] * 4, *[[1.0] * 8] * 3], dtype=pl.List(pl.Float32))
    )
    with pytest.raises(MixedEmbeddings, match="4 and 8"):
        embeddings_of(mixed)


def test_the_stage_pickles_keeps_its_order_and_accepts_nothing() -> None:
    stage = pickle.loads(pickle.dumps(Mining(CONFIG)))
    stage.setup()
    assert stage.process([]) == []
    batch = [session_of(voices(5)), session_of([]), session_of(voices(3, 3))]
    done = stage.process(batch)
    assert [session.mined.num_clean for session in done] == [5, 0, 6]
    assert all(session.mined is None for session in batch)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_cosine": 1.5},
        {"min_voice_cosine": -2.0},
        {"references_per_target": 0},
        {"block": 0},
        {"text_weight": -0.1},
        {"min_s": 40.0},
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        MiningConfig(**wrong)  # type: ignore[arg-type]


@given(
    first=st.lists(st.text("abcdé", min_size=1, max_size=3), max_size=9),
    second=st.lists(st.text("abcdé", min_size=1, max_size=3), max_size=9),
)
def test_shared_words_are_a_share(first: list[str], second: list[str]) -> None:
    one, two = word_sets([first, second])
    shared = float(shared_words(one, two))
    assert 0 <= shared <= 1
    assert shared == float(shared_words(two, one))
    if first:
        assert float(shared_words(one, one)) == 1.0


def test_nothing_is_chosen_where_nothing_is_possible() -> None:
    cosines = np.full((2, 3), 0.9, np.float32)
    possible = np.array([[False] * 3, [True, False, False]])
    words = np.zeros((2, 3, 4), np.uint64)
    chosen = choose(
        cosines,
        possible,
        np.zeros((2, 3)),
        words,
        target_s=np.zeros(2),
        target_words=np.zeros((2, 4), np.uint64),
        horizon_s=1.0,
        num=2,
        time_weight=0.1,
        text_weight=0.1,
    )
    assert chosen.tolist() == [[-1, -1], [0, -1]]
