"""The order of a training run: every sample as often as its weight says, packed without waste."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.training.order import (
    Fragment,
    OrderConfig,
    blocks_of,
    fragments_of,
    in_share,
    packs_of,
    times_seen,
)

GROUPS = [("samples/a.parquet", 0), ("samples/a.parquet", 1), ("samples/b.parquet", 0)]


@settings(deadline=None)
@given(
    groups=st.integers(1, 40),
    workers=st.integers(1, 9),
    block=st.integers(1, 5),
    epoch=st.integers(0, 3),
)
def test_an_epoch_deals_every_fragment_to_one_worker(groups, workers, block, epoch):
    config = OrderConfig(block_fragments=block)
    fragments = fragments_of([("p", number) for number in range(groups)], workers)
    dealt = [
        fragment
        for rank in range(workers)
        for fragments_together in blocks_of(fragments, config, epoch, rank, workers)
        for fragment in fragments_together
    ]
    assert sorted(dealt, key=str) == sorted(fragments, key=str)
    assert all(blocks_of(fragments, config, epoch, rank, workers) for rank in range(workers))


def test_epochs_and_seeds_differ_and_repeat():
    fragments = fragments_of([("p", number) for number in range(30)], 1)

    def order(seed, epoch):
        return blocks_of(fragments, OrderConfig(seed=seed, block_fragments=1), epoch, 0, 1)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


@settings(deadline=None)
@given(rows=st.lists(st.integers(1, 4), min_size=1, max_size=30), shares=st.integers(1, 5))
def test_the_shares_of_a_row_group_split_its_targets(rows, shares):
    targets = [f"t{number}" for number, count in enumerate(rows) for _ in range(count)]
    owners = np.array([in_share(targets, Fragment("p", 0, i, shares)) for i in range(shares)])
    assert (owners.sum(axis=0) == 1).all()
    for share in owners:
        mine = {target for target, here in zip(targets, share, strict=True) if here}
        others = {target for target, here in zip(targets, share, strict=True) if not here}
        assert not mine & others


@settings(deadline=None)
@given(
    weights=st.lists(st.lists(st.floats(0, 2.5), min_size=1, max_size=5), min_size=1, max_size=20),
    epoch=st.integers(0, 5),
)
def test_a_target_is_taken_as_often_as_its_weights_sum_to(weights, epoch):
    targets = [f"t{number}" for number, rows in enumerate(weights) for _ in rows]
    flat = np.array([weight for rows in weights for weight in rows])
    times = times_seen(targets, flat, OrderConfig(), epoch)
    assert (times >= 0).all()
    assert (times[flat == 0] == 0).all()
    assert (np.abs(times - flat) < 1 + 1e-9).all()
    at = 0
    for rows in weights:
        taken = times[at : at + len(rows)].sum()
        assert abs(taken - sum(rows)) < 1 + 1e-9
        at += len(rows)


def test_layouts_come_in_the_shares_that_their_weights_say():
    targets = np.repeat([f"t{number}" for number in range(200)], 3).tolist()
    weights = np.tile([0.5, 0.3, 0.2], 200)
    epochs = [times_seen(targets, weights, OrderConfig(), epoch) for epoch in range(25)]
    times = np.array(epochs).reshape(25, 200, 3)
    assert (times.sum(axis=2) == 1).all()
    np.testing.assert_allclose(times.mean(axis=(0, 1)), [0.5, 0.3, 0.2], atol=0.02)
    # A target does not keep one layout through the epochs.
    assert (times.max(axis=0) - times.min(axis=0)).any(axis=1).mean() > 0.95


@settings(deadline=None)
@given(positions=st.lists(st.integers(1, 700), max_size=200), block=st.integers(0, 3))
def test_packing_keeps_every_sample_once_and_the_budget(positions, block):
    config = OrderConfig(pack_positions=512)
    packs = packs_of(np.array(positions, dtype=np.int64), config, 0, 0, block)
    assert sorted(i for pack in packs for i in pack) == list(range(len(positions)))
    for pack in packs:
        assert len(pack) == 1 or sum(positions[i] for i in pack) <= 512
    again = packs_of(np.array(positions, dtype=np.int64), config, 0, 0, block)
    assert packs == again


def test_packs_of_real_lengths_are_full():
    """Log-normal clips of 6 s in the mean, text of half their patches: above 99 % of the budget."""
    lengths = np.random.default_rng(0).lognormal(np.log(40), 0.6, size=5000)
    positions = np.minimum(1000, 1.5 * lengths + 3).astype(np.int64)
    config = OrderConfig(pack_positions=4096)
    packs = packs_of(positions, config, 0)
    assert positions.sum() / (len(packs) * 4096) > 0.99
    assert packs != packs_of(positions, config, 1)
