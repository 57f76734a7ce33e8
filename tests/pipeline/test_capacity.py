"""Workers of a phase's pools: all of them find room at once."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.capacity import HELPERS, PoolConfig, worker_counts

fractions = st.sampled_from([0.25, 0.5, 1.0, 2.0])
pools = st.lists(
    st.builds(
        PoolConfig,
        workers=st.none() | st.integers(1, 3),
        num_cpus=fractions,
        num_gpus=st.just(0.0) | fractions,
    ),
    min_size=1,
    max_size=5,
)


def used(pools: list[PoolConfig], counts: list[int]) -> tuple[float, float]:
    pairs = list(zip(pools, counts, strict=True))
    return sum(n * p.num_cpus for p, n in pairs), sum(n * p.num_gpus for p, n in pairs)


@given(pools=pools, cpus=st.integers(1, 256), gpus=st.integers(0, 16))
def test_where_one_worker_of_each_pool_fits_all_counted_workers_fit(
    pools: list[PoolConfig], cpus: int, gpus: int
) -> None:
    least = used(pools, [1] * len(pools))
    assume(least[0] + HELPERS <= cpus and least[1] <= gpus)
    counts = worker_counts(pools, cpus, gpus)
    assert min(counts) >= 1
    taken = used(pools, counts)
    assert taken[0] + HELPERS <= cpus + 1e-6
    assert taken[1] <= gpus + 1e-6
    for pool, count in zip(pools, counts, strict=True):
        assert count <= (pool.workers or count)


@pytest.mark.parametrize(("num_cpus", "workers"), [(1.0, 30), (0.5, 60), (4.0, 7)])
def test_a_pool_alone_takes_all_but_the_helpers(num_cpus: float, workers: int) -> None:
    assert worker_counts([PoolConfig(num_cpus=num_cpus)], 32, 0) == [workers]


def test_gpus_are_served_before_cpus() -> None:
    gpu, cpu = PoolConfig(num_cpus=2, num_gpus=0.5), PoolConfig()
    assert worker_counts([cpu, gpu, cpu], 64, 8) == [15, 16, 15]


def test_a_cluster_that_lost_a_node_works_on_with_fewer_workers() -> None:
    assert worker_counts([PoolConfig(workers=8)], 12, 0) == [8]
    assert worker_counts([PoolConfig(workers=8)], 6, 0) == [4]
    assert worker_counts([PoolConfig(workers=8)], 2, 0) == [1]
