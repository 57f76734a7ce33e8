"""Pools of workers: which stages share a process, and how many processes each pool may have.

A phase's pools work at the same time, so they are sized together: a pool that took every CPU would
leave none for the pool that it feeds, and the run would wait for ever.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import ray

from pipeline.work import Phase
from schemas.errors import ConfigError
from stages.base import Stage

HELPERS = 2
"""CPUs that workers leave free: where Ray's own tasks find none, a run waits for ever."""

# Names of more stages than this are told by the first and the last.
MOST_NAMED = 3
ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """Worker processes of one kind."""

    workers: int | None = None
    """How many at most; null means as many as Ray's CPUs, or GPUs where a worker needs one, allow."""
    min_workers: int | None = None
    """How many at least: between both, the pool follows what waits for it. Null means always as
    many as `workers`."""
    num_cpus: float = 1.0
    """Cores that Ray sets aside per worker."""
    num_gpus: float = 0.0
    """GPUs, or a fraction of one, per worker."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers must be at least 1, got {self.workers}")
        if self.min_workers is not None and not 1 <= self.min_workers <= (
            self.workers or self.min_workers
        ):
            raise ConfigError(
                f"min_workers must be in [1, workers], got {self.min_workers} of {self.workers}"
            )
        if self.num_cpus <= 0 or self.num_gpus < 0:
            raise ConfigError("num_cpus > 0 and num_gpus >= 0 are needed")


def pools_of(phase: Phase) -> list[tuple[str, list[Stage[Any]]]]:
    """Neighbouring stages on the same pool, fused: [(pool name, stages)]."""
    placed = [(phase.placement.get(stage.name, "cpu"), stage) for stage in phase.stages]
    return [(pool, [s for _, s in group]) for pool, group in groupby(placed, key=lambda p: p[0])]


def pool_title(phase: str, pool: str, stages: Sequence[str]) -> str:
    """What Ray's dashboard and metrics call a pool: `curate gpu: transcription+ctc_alignment`."""
    named = "+".join(stages) if len(stages) <= MOST_NAMED else f"{stages[0]}..{stages[-1]}"
    return f"{phase} {pool}: {named}"


def pool_bounds(pools: Sequence[PoolConfig]) -> list[tuple[int, int]]:
    """Fewest and most workers of each of a phase's pools, on the resources that Ray sees.

    Pools of a fixed size share what there is evenly; elastic ones may each grow into all of it.
    Raises `ConfigError` where the fewest workers do not fit. A pool that names its `workers` is not
    held to that: it may wait for nodes that come.
    """
    cpus, gpus = _resource("CPU"), _resource("GPU")
    most = [pool.workers or (_on_gpus(pool, pools, gpus) if pool.num_gpus else 0) for pool in pools]
    on_cpus = [pool for pool, size in zip(pools, most, strict=True) if not size]
    fixed = [pool for pool in on_cpus if not pool.min_workers]
    beside = _taken(pools, _fewest(pools, most), "num_cpus")
    share = (cpus - HELPERS - beside) / (sum(pool.num_cpus for pool in fixed) or 1.0)
    most = [
        size or (_on_cpus(pool, cpus) if pool.min_workers else max(1, int(share + ROUNDING)))
        for pool, size in zip(pools, most, strict=True)
    ]
    fewest = _fewest(pools, most)
    _check_room(pools, fewest, cpus, gpus)
    return list(zip(fewest, most, strict=True))


def _on_cpus(pool: PoolConfig, cpus: float) -> int:
    return max(pool.min_workers or 1, int((cpus - HELPERS) / pool.num_cpus + ROUNDING))


def _on_gpus(pool: PoolConfig, pools: Sequence[PoolConfig], gpus: float) -> int:
    if not pool.min_workers:
        return max(1, int(gpus / sum(one.num_gpus for one in pools) + ROUNDING))
    if pool.num_gpus > 1:
        return max(pool.min_workers, int(gpus / pool.num_gpus + ROUNDING))
    # A worker lies on one GPU: two workers of 0.6 need two.
    return max(pool.min_workers, int(gpus) * math.floor(1 / pool.num_gpus + ROUNDING))


def _fewest(pools: Sequence[PoolConfig], most: Sequence[int]) -> list[int]:
    return [pool.min_workers or size for pool, size in zip(pools, most, strict=True)]


def _taken(pools: Sequence[PoolConfig], sizes: Sequence[int], what: str) -> float:
    return math.fsum(size * getattr(pool, what) for pool, size in zip(pools, sizes, strict=True))


def _check_room(
    pools: Sequence[PoolConfig], fewest: Sequence[int], cpus: float, gpus: float
) -> None:
    held = [size if pool.workers is None else 0 for pool, size in zip(pools, fewest, strict=True)]
    need_cpus, need_gpus = _taken(pools, held, "num_cpus"), _taken(pools, held, "num_gpus")
    if need_cpus > cpus + ROUNDING or need_gpus > gpus + ROUNDING:
        raise ConfigError(
            f"the pools of this phase need {need_cpus:g} CPUs and {need_gpus:g} GPUs at once, and "
            f"Ray has {cpus:g} and {gpus:g}: another profile, or less of engine.pools.NAME.num_cpus"
        )


def _resource(kind: str) -> float:
    return float(ray.cluster_resources().get(kind, 0.0))  # type: ignore[no-untyped-call]
