"""What a run will take of a cluster, and cost, from what an earlier run took."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.engine import EngineConfig
from schemas.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class CostConfig:
    """Prices, in any one currency; null where they are not known."""

    cpu_hour: float | None = None
    """Of one CPU for an hour."""
    gpu_hour: float | None = None
    """Of one GPU for an hour."""
    currency: str = "USD"

    def __post_init__(self) -> None:
        for name in ("cpu_hour", "gpu_hour"):
            price = getattr(self, name)
            if price is not None and not 0 <= price < float("inf"):
                raise ConfigError(f"cost.{name} must not be negative, got {price}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolCost:
    """What one pool's workers take."""

    pool: str
    worker_hours: float
    cpu_hours: float
    gpu_hours: float
    money: float | None
    """None where a price that counts is not given."""


def estimate(
    audio_hours: float,
    seconds_per_second: Mapping[str, float],
    engine: EngineConfig,
    prices: CostConfig,
) -> list[PoolCost]:
    """What each pool takes for so many hours of audio.

    seconds_per_second: of a worker of its stage's pool, for a second of audio. What workers wait
    for one another is not in it.
    """
    by_pool: dict[str, float] = {}
    for stage, rate in seconds_per_second.items():
        pool = engine.placement.get(stage, "cpu")
        by_pool[pool] = by_pool.get(pool, 0.0) + rate * audio_hours
    found = []
    for name, hours in by_pool.items():
        pool_config = engine.pools[name]
        cpu_hours, gpu_hours = hours * pool_config.num_cpus, hours * pool_config.num_gpus
        parts = [(cpu_hours, prices.cpu_hour), (gpu_hours, prices.gpu_hour)]
        money = None
        if all(price is not None for used, price in parts if used):
            money = sum(used * (price or 0.0) for used, price in parts)
        found.append(
            PoolCost(
                pool=name,
                worker_hours=hours,
                cpu_hours=cpu_hours,
                gpu_hours=gpu_hours,
                money=money,
            )
        )
    return found
