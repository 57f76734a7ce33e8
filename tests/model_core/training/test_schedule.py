"""Learning rates over a run, arithmetic of a pack, and the log."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from model_core.training.config import ScheduleConfig
from model_core.training.flops import peak_flops, training_flops
from model_core.training.log import RunLog
from model_core.training.schedule import scheduler, share_at
from model_core.training.step import PackLoss, draws_for, row_of
from schemas.errors import ConfigError
from tests.model_core.fixtures import fixture
from tests.model_core.training.toy import opened, pack_of

CPU = torch.device("cpu")
shapes = st.sampled_from(["cosine", "wsd"])


@settings(deadline=None)
@given(shape=shapes, steps=st.integers(1, 300), warmup=st.integers(0, 40), low=st.floats(0, 1))
def test_a_rate_rises_and_then_never_rises_again(
    shape: str, steps: int, warmup: int, low: float
) -> None:
    config = ScheduleConfig(shape=shape, warmup_steps=warmup, final_ratio=low)  # type: ignore[arg-type]
    shares = [share_at(step, steps, config) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares)
    warm = shares[: min(warmup, steps)]
    assert warm == sorted(warm)
    rest = shares[len(warm) :]
    assert rest == sorted(rest, reverse=True)
    if rest:
        assert rest[0] == pytest.approx(1, abs=1e-9) or shape == "wsd"
        assert min(rest) >= low - 1e-9


def test_the_end_of_both_shapes() -> None:
    cosine = ScheduleConfig(warmup_steps=10, final_ratio=0.1)
    assert share_at(10, 110, cosine) == pytest.approx(1)
    assert share_at(60, 110, cosine) == pytest.approx(0.55)
    assert share_at(110, 110, cosine) == pytest.approx(0.1)
    wsd = ScheduleConfig(shape="wsd", warmup_steps=10, decay_share=0.2)
    assert {share_at(step, 100, wsd) for step in range(10, 81)} == {1.0}
    assert share_at(90, 100, wsd) == pytest.approx(0.5)
    assert share_at(99, 100, wsd) == pytest.approx(0.05)


def test_a_schedule_that_begins_late_goes_on_as_if_it_had_begun_early() -> None:
    config = ScheduleConfig(warmup_steps=3)

    def rates(step: int) -> list[float]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        schedule = scheduler(optimizer, config, steps=10, step=step)
        found = []
        for _ in range(step, 10):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found

    assert rates(4) == rates(0)[4:]
    assert rates(0) == pytest.approx([0.5 * share_at(step, 10, config) for step in range(10)])


@pytest.mark.parametrize(
    "fields", [{"shape": "linear"}, {"warmup_steps": -1}, {"decay_share": 2}, {"final_ratio": -1}]
)
def test_an_impossible_schedule_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        ScheduleConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_the_arithmetic_is_what_pytorch_counts(name: str) -> None:
    model = fixture(name).model().train()
    pack = pack_of(2, size=4)
    patches = pack.patches[:, : model.config.patch_size]
    row = row_of(type(pack)(**{**_fields(pack), "patches": patches}), CPU, torch.float32)
    loss = PackLoss(model, autocast=None)
    with FlopCounterMode(display=False) as counter:
        flow, stop = loss(row, draws_for(row, model, (0,), 0.0))
        (flow.sum() + stop.sum()).backward()
    # Ours leaves out the small layers that see a patch, and half of a causal square.
    assert training_flops(model.config, row.pack) == pytest.approx(
        counter.get_total_flops(), rel=0.2
    )


def _fields(pack: object) -> dict[str, object]:
    return {name: getattr(pack, name) for name in type(pack).__dataclass_fields__}  # type: ignore[attr-defined]


def test_a_cpu_can_do_something() -> None:
    peak = peak_flops(CPU, torch.float32)
    assert peak is not None
    assert 1e9 < peak < 1e14
    assert peak_flops(torch.device("meta"), torch.float32) is None
    assert training_flops(opened()[0].config, pack_of(1), frozen=True) == pytest.approx(
        training_flops(opened()[0].config, pack_of(1)) * 2 / 3
    )


def test_a_log_drops_what_came_after_the_checkpoint_and_a_torn_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path, step=0)
    for step in range(1, 5):
        log.write("step", step, loss=float("nan") if step == 2 else step / 3)
    log.close()
    path = tmp_path / "log.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "step", "st')
    log = RunLog(tmp_path, step=3)
    log.write("step", 4, loss=7.0)
    log.close()
    told = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in told] == [1, 2, 3, 4]
    assert [line["loss"] for line in told] == [pytest.approx(1 / 3), "nan", 1.0, 7.0]


def test_only_the_first_worker_writes(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "other", step=0, silent=True)
    log.write("step", 1, loss=1.0)
    log.audio(1, "x", torch.zeros(3), 16_000)
    log.close()
    assert not (tmp_path / "other").exists()
