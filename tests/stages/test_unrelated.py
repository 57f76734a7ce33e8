"""What a described clip says: another session's words, unrelated, and nobody's too often."""

import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from schemas.errors import ConfigError
from stages.even_choice import chosen_evenly
from stages.text_pairs import SCALE, as_whole, cosines, keys_of, mean_cosine, overlaps
from stages.unrelated import REASONS, Choice, Described, Texts, UnrelatedConfig, choose

CONFIG = UnrelatedConfig(max_overlap=0.3)
SIZE, VOCABULARY = 6, 12


@dataclass(frozen=True)
class Clip:
    """A made-up clip: what is said, where, and whether it is described."""

    text: int
    session: int
    described: bool = True


clips = st.lists(
    st.builds(Clip, text=st.integers(0, 39), session=st.integers(0, 4), described=st.booleans()),
    max_size=60,
)


def texts_of(made: list[Clip], *, seed: int = 0, with_vectors: bool = True) -> Texts:
    """Texts whose words and meaning follow from their number alone."""
    numbers = sorted({clip.text for clip in made})
    rows = [np.random.default_rng((seed, number)) for number in numbers]
    vectors = np.stack([row.standard_normal(SIZE) + 0.4 for row in rows] or [np.ones(SIZE)])
    vectors = vectors[: len(numbers)].astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = np.zeros((len(numbers), VOCABULARY), np.int32)
    for line, row in zip(words, rows, strict=True):
        line[row.choice(VOCABULARY, 4, replace=False)] = 1
    index = {number: at for at, number in enumerate(numbers)}
    return Texts(
        keys=keys_of([f"text {number}" for number in numbers]),
        usable=np.array([number % 7 > 0 for number in numbers], np.bool_),
        letters=np.array([20 + 5 * (number % 8) for number in numbers], np.int64),
        words=csr_array(words),
        vectors=as_whole(vectors) if with_vectors else None,
        said=np.array([(index[c.text], c.session) for c in made], np.int64).reshape(-1, 2),
    )


def asked_of(made: list[Clip], names: list[int] | None = None) -> tuple[Described, list[int]]:
    """The described clips, and which of the made ones they are."""
    index = {number: at for at, number in enumerate(sorted({clip.text for clip in made}))}
    rows = [at for at, clip in enumerate(made) if clip.described]
    described = Described(
        keys=keys_of([f"clip {(names or range(len(made)))[at]}" for at in rows]),
        text=np.array([index[made[at].text] for at in rows], np.int64),
        session=np.array([made[at].session for at in rows], np.int64),
        letters_per_s=np.full(len(rows), 12.0),
    )
    return described, rows


def says(
    made: list[Clip],
    *,
    config: UnrelatedConfig = CONFIG,
    slots: int = 2,
    names: list[int] | None = None,
    with_vectors: bool = True,
) -> tuple[Choice, list[int], list[list[int]]]:
    """The choice, the described clips, and the numbers of the texts that each one says."""
    described, rows = asked_of(made, names)
    texts = texts_of(made, with_vectors=with_vectors)
    choice = choose(described, texts, config, slots=slots, seed=1)
    numbers = sorted({clip.text for clip in made})
    return choice, rows, [[numbers[t] for t in line if t >= 0] for line in choice.text]


@given(clips, st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_choice_keeps_every_rule(made: list[Clip], with_vectors: bool) -> None:
    choice, rows, said = says(made, with_vectors=with_vectors)
    texts, (described, _) = texts_of(made, with_vectors=with_vectors), asked_of(made)
    of_session = {(clip.text, clip.session) for clip in made}
    for row, numbers in zip(rows, said, strict=True):
        assert len(set(numbers)) == len(numbers)
        # Neither its own text nor one that its session says anywhere.
        assert all((number, made[row].session) not in of_session for number in numbers)
        assert all(number % 7 for number in numbers), "a text that may not be said"
    clip, slot = np.nonzero(choice.text >= 0)
    text = choice.text[clip, slot]
    own = described.text[clip]
    seconds = texts.letters[text] / described.letters_per_s[clip]
    assert np.all((seconds >= CONFIG.min_s) & (seconds <= CONFIG.max_s))
    np.testing.assert_allclose(choice.overlap[clip, slot], overlaps(texts.words, own, text))
    assert np.all(choice.overlap[clip, slot] <= CONFIG.max_overlap)
    if with_vectors:
        assert texts.vectors is not None
        assert choice.mean_cosine is not None
        np.testing.assert_array_equal(choice.cosine[clip, slot], cosines(texts.vectors, own, text))
        assert np.all(choice.cosine[clip, slot] < choice.mean_cosine)
    else:
        assert np.isnan(choice.cosine).all()


@given(clips, st.floats(1.0, 4.0), st.integers(1, 3))
@settings(deadline=None)
def test_no_text_is_said_far_more_often_than_others(
    made: list[Clip], spread: float, slots: int
) -> None:
    _, rows, said = says(made, config=replace(CONFIG, spread=spread), slots=slots)
    usable = texts_of(made).usable.sum()
    uses = np.bincount([number for numbers in said for number in numbers], minlength=1)
    assert uses.max() <= math.ceil(spread * len(rows) * slots / max(usable, 1))


@given(clips, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_corpus_does_not_matter(made: list[Clip], random: object) -> None:
    order = list(range(len(made)))
    random.shuffle(order)  # type: ignore[attr-defined]
    _, rows, said = says(made)
    _, rows_again, said_again = says([made[at] for at in order], names=order)
    before = dict(zip(rows, said, strict=True))
    assert before == {order[r]: s for r, s in zip(rows_again, said_again, strict=True)}


@given(clips)
@settings(deadline=None)
def test_a_clip_says_something_or_there_is_a_reason(made: list[Clip]) -> None:
    choice, _, said = says(made)
    for numbers, reason in zip(said, choice.reason.tolist(), strict=True):
        assert bool(numbers) == (not reason)
        assert reason in {"", *REASONS}


def crowded() -> list[Clip]:
    """Forty clips of one session, and five texts that they could say."""
    texts = [number for number in range(1, 60) if number % 7]
    return [Clip(text=number, session=int(at >= 40)) for at, number in enumerate(texts[:45])]


def test_where_few_texts_are_to_be_had_they_are_shared_out() -> None:
    choice, rows, said = says(crowded(), config=replace(CONFIG, spread=1.0, lowest=1.0))
    uses = Counter(number for numbers in said for number in numbers)
    scarce = {clip.text for clip in crowded()[40:]}
    assert max(uses[number] for number in scarce) == math.ceil(2 * len(rows) / 45)
    assert "used_up" in set(choice.reason)


def test_who_gets_them_does_not_depend_on_the_order() -> None:
    made = crowded()
    order = list(range(len(made)))[::-1]
    config = replace(CONFIG, lowest=1.0)
    _, rows, said = says(made, config=config)
    _, rows_again, said_again = says([made[at] for at in order], names=order, config=config)
    before = dict(zip(rows, said, strict=True))
    assert before == {order[r]: s for r, s in zip(rows_again, said_again, strict=True)}


def test_clips_do_not_all_ask_for_the_same_texts() -> None:
    """Even where nothing limits how often a text is said."""
    _, rows, said = says(big(120), config=replace(CONFIG, spread=100.0), slots=1)
    uses = Counter(number for numbers in said for number in numbers)
    assert len(uses) > 55
    assert max(uses.values()) < len(rows) / 10


def test_a_corpus_of_one_session_can_say_nothing() -> None:
    choice, _, said = says([Clip(text=number, session=0) for number in range(1, 30)])
    assert not any(said)
    assert set(choice.reason) == {"no_other_session"}


def big(num: int) -> list[Clip]:
    return [Clip(text=number, session=number // 20) for number in range(num)]


def test_another_session_changes_what_few_clips_say() -> None:
    """Texts are looked at by their place on a ring: most clips see what they saw."""
    few, more = big(2000), big(2040)
    config = replace(CONFIG, pool=32)
    before, after = says(few, config=config)[2], says(more, config=config)[2]
    same = np.mean([one == other for one, other in zip(before, after, strict=False)])
    assert same > 0.85


def test_another_seed_says_other_things() -> None:
    described, _ = asked_of(big(300))
    texts = texts_of(big(300))
    one, other = (choose(described, texts, CONFIG, slots=1, seed=seed).text for seed in (1, 2))
    assert np.mean(one == other) < 0.9


def test_in_a_big_corpus_all_sides_of_it_are_said() -> None:
    """Clips that look at a part only still use most texts, and nearly all of them say something."""
    made = big(2000)
    choice, _, said = says(made, config=replace(CONFIG, pool=64), slots=1)
    used = {number for numbers in said for number in numbers}
    assert np.mean(choice.reason == "") > 0.95
    assert len(used) > 700


def test_chosen_pairs_are_less_alike_than_random_ones_by_a_wide_margin() -> None:
    choice, _, _ = says(big(500))
    assert choice.mean_cosine is not None
    assert np.nanmean(choice.cosine) < choice.mean_cosine - 0.3


def test_the_mean_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((7, SIZE)).astype(np.float32) + 0.5
    vectors = as_whole(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    usable = np.array([True, False, True, True, True, False, True])
    own = np.array([0, 1, 1, 4])
    unit = vectors / SCALE
    pairs = [unit[a] @ unit[b] for a in own for b in np.flatnonzero(usable) if a != b]
    assert mean_cosine(vectors, own, usable) == pytest.approx(np.mean(pairs))
    assert mean_cosine(vectors[:1], np.array([0]), np.array([True])) == 0.0


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_whole_numbers_keep_the_cosine(seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((2, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = cosines(as_whole(vectors), np.array([0]), np.array([1]))
    assert found[0] == pytest.approx(vectors[0] @ vectors[1], abs=1e-3)
    assert cosines(as_whole(vectors), np.array([1]), np.array([0])) == found


@given(st.data())
@settings(deadline=None)
def test_an_even_choice_is_stable(data: st.DataObject) -> None:
    """Nobody would rather have what has room, or what keeps somebody it likes less."""
    num, things = data.draw(st.integers(0, 12)), data.draw(st.integers(1, 6))
    wishes = np.full((num, things), -1, np.int64)
    for row in wishes:
        liked = data.draw(st.permutations(range(things)))[: data.draw(st.integers(0, things))]
        row[: len(liked)] = liked
    room = np.array(data.draw(st.lists(st.integers(0, 3), min_size=things, max_size=things)))
    who, what = keys_of([f"w{n}" for n in range(num)]), keys_of([f"t{n}" for n in range(things)])
    columns = chosen_evenly(wishes, who, what, room)
    got = np.array([row[c] if c >= 0 else -1 for row, c in zip(wishes, columns, strict=True)], int)
    uses = np.bincount(got[got >= 0], minlength=things)
    assert np.all(uses <= room)
    for row, column in zip(wishes, columns, strict=True):
        better = row[: column if column >= 0 else None]
        assert all(uses[thing] == room[thing] for thing in better if thing >= 0)


@pytest.mark.parametrize(
    "changes",
    [
        *({"min_s": 0.0}, {"min_s": 9.0, "max_s": 3.0}, {"max_ratio": 0.5}, {"spread": 0.9}),
        *({"max_overlap": 1.0}, {"lowest": 0.0}, {"pool": 3}),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        replace(CONFIG, **changes)  # type: ignore[arg-type]
