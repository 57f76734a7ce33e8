"""How many workers each pool of a phase gets, and whether Ray has room for them at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from schemas.errors import ConfigError

HELPERS = 2
"""CPUs that workers leave free where there are enough, for Ray's own tasks."""
# Fractions of a GPU add up to a little less or more than a whole one.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """Worker processes of one kind."""

    workers: int | None = None
    """How many at most; null means as many as there is room for beside the phase's other pools."""
    num_cpus: float = 1.0
    """Cores that Ray sets aside per worker."""
    num_gpus: float = 0.0
    """GPUs, or a fraction of one, per worker."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers must be at least 1, got {self.workers}")
        if self.num_cpus <= 0 or self.num_gpus < 0:
            raise ConfigError("num_cpus > 0 and num_gpus >= 0 are needed")


def worker_counts(pools: Sequence[PoolConfig], cpus: float, gpus: float) -> list[int]:
    """Workers of each pool of a phase, at least one each.

    Pools that share GPUs or CPUs grow in turns: else the first would take all, and the others never
    start. Those on GPUs come first.
    """
    counts = [1] * len(pools)
    free_cpus = cpus - HELPERS - sum(pool.num_cpus for pool in pools) + _ROUNDING
    free_gpus = gpus - sum(pool.num_gpus for pool in pools) + _ROUNDING
    for on_gpus in (True, False):
        grown = True
        while grown:
            grown = False
            for index, pool in enumerate(pools):
                if bool(pool.num_gpus) != on_gpus or counts[index] == pool.workers:
                    continue
                if pool.num_cpus <= free_cpus and pool.num_gpus <= free_gpus:
                    counts[index] += 1
                    free_cpus -= pool.num_cpus
                    free_gpus -= pool.num_gpus
                    grown = True
    return counts


def room_for(pools: Sequence[tuple[str, PoolConfig]], phase: str) -> tuple[float, float]:
    """CPUs and GPUs of the connected Ray, on which one worker of each pool finds room.

    pools: those of the phase, with their names. Raises `ConfigError` where one does not, since Ray
    would wait for ever. A cluster that scales itself is taken at its word.
    """
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if not ray._private.state.state.get_max_resources_from_cluster_config():
        for kind in ("CPU", "GPU"):
            _check(kind, found.get(kind, 0.0), pools, phase)
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        for name, pool in pools:
            if not any(_fits(pool, node["Resources"]) for node in nodes if node["Alive"]):
                raise ConfigError(
                    f"no node of the cluster has {pool.num_cpus:g} CPUs and {pool.num_gpus:g} GPUs, "
                    f"which a worker of engine.pools.{name} needs"
                )
    return found.get("CPU", 0.0), found.get("GPU", 0.0)


def _check(kind: str, there: float, pools: Sequence[tuple[str, PoolConfig]], phase: str) -> None:
    wanted = [(name, pool.num_gpus if kind == "GPU" else pool.num_cpus) for name, pool in pools]
    needed = sum(count for _, count in wanted)
    if needed > there + _ROUNDING:
        each = ", ".join(f"{name} {count:g}" for name, count in wanted if count)
        raise ConfigError(
            f"Ray has {there:g} {kind}s, and {phase} needs {needed:g} for one worker of each pool: "
            f"{each} (engine.pools)"
        )


def _fits(pool: PoolConfig, node: Mapping[str, float]) -> bool:
    return node.get("CPU", 0) >= pool.num_cpus and node.get("GPU", 0) >= pool.num_gpus
