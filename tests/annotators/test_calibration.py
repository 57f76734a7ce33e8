"""Thresholds of voices: the errors are counted as they are defined."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.calibration import Scores, scores_of
from annotators.registry import known_models


def scores(same: list[float], different: list[float]) -> Scores:
    return Scores(
        same=np.array(same),
        same_weight=np.full(len(same), 1 / len(same)),
        different=np.array(different),
        different_weight=np.full(len(different), 1 / len(different)),
    )


def test_errors_are_shares_of_pairs() -> None:
    found = scores([0.9, 0.8, 0.7, 0.6], [0.75, 0.5, 0.4, 0.3])
    assert found.false_accept(0.75) == 0.25
    assert found.false_accept(0.76) == 0.0
    assert found.false_reject(0.75) == 0.5
    assert found.cosine_at(0.0) == 0.76
    assert found.cosine_at(0.25) == pytest.approx(0.51)
    assert found.equal_error() == (0.25, 0.7)


def test_separated_voices_have_no_error() -> None:
    error, cosine = scores([0.9, 0.8], [0.5, 0.4]).equal_error()
    assert error == 0.0
    assert 0.5 < cosine <= 0.8


@given(st.lists(st.integers(0, 3), min_size=4, max_size=30), st.integers(0, 99))
def test_every_pair_of_voices_weighs_the_same(voices: list[int], seed: int) -> None:
    numbers = np.array([0, 0, 1, *voices])
    cosines = np.random.default_rng(seed).random((numbers.size, numbers.size)).astype(np.float32)
    found = scores_of(cosines, numbers)
    assert found.same_weight.sum() == pytest.approx(1)
    assert found.different_weight.sum() == pytest.approx(1)
    assert found.same.size + found.different.size == numbers.size * (numbers.size - 1) // 2
    one, two = np.triu_indices(numbers.size, 1)
    kinds = [frozenset(pair) for pair in zip(numbers[one], numbers[two], strict=True)]
    different = [kind for kind in kinds if len(kind) == 2]
    sums = {
        kind: sum(w for k, w in zip(different, found.different_weight, strict=True) if k == kind)
        for kind in set(different)
    }
    assert np.allclose(list(sums.values()), 1 / len(sums))


def test_what_the_registry_claims_is_possible() -> None:
    calibrated = [model.voices for model in known_models() if model.voices]
    assert calibrated
    for voices in calibrated:
        assert 0 < voices.min_cosine <= voices.min_voice_cosine < 1
        assert voices.data
