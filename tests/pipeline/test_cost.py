"""What a run will cost, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capacity import PoolConfig
from pipeline.cost import CostConfig, estimate
from pipeline.engine import EngineConfig
from schemas.errors import ConfigError

ENGINE = EngineConfig(
    pools={"cpu": PoolConfig(num_cpus=1), "gpu": PoolConfig(num_cpus=2, num_gpus=0.5)},
    placement={"transcription": "gpu"},
)
RATES = {"vad": 0.01, "dnsmos": 0.03, "transcription": 0.02}


def test_hours_are_those_of_the_pool_that_a_stage_runs_in() -> None:
    cpu, gpu = estimate(1000.0, RATES, ENGINE, CostConfig(cpu_hour=0.05, gpu_hour=2.0))
    assert (cpu.pool, cpu.worker_hours, cpu.cpu_hours, cpu.gpu_hours) == (
        "cpu",
        pytest.approx(40.0),
        pytest.approx(40.0),
        0.0,
    )
    assert cpu.money == pytest.approx(2.0)
    assert (gpu.worker_hours, gpu.cpu_hours, gpu.gpu_hours) == (
        pytest.approx(20.0),
        pytest.approx(40.0),
        pytest.approx(10.0),
    )
    assert gpu.money == pytest.approx(40 * 0.05 + 10 * 2.0)


def test_without_a_price_there_is_no_sum() -> None:
    cpu, gpu = estimate(10.0, RATES, ENGINE, CostConfig(cpu_hour=0.05))
    assert cpu.money == pytest.approx(0.02)
    assert gpu.money is None
    assert all(one.money is None for one in estimate(10.0, RATES, ENGINE, CostConfig()))


@given(st.floats(0, 1e7), st.floats(0, 1e7))
def test_cost_goes_with_the_hours(first: float, second: float) -> None:
    def money(hours: float) -> float:
        prices = CostConfig(cpu_hour=0.05, gpu_hour=2.0)
        return sum(one.money or 0.0 for one in estimate(hours, RATES, ENGINE, prices))

    assert money(first) + money(second) == pytest.approx(money(first + second))


@pytest.mark.parametrize("price", [-1.0, float("inf"), float("nan")])
def test_prices_are_checked(price: float) -> None:
    with pytest.raises(ConfigError, match=r"cost\.gpu_hour"):
        CostConfig(gpu_hour=price)
