"""Laws that hold whatever the weights: causality, caches, batches, seeds, gradients, losses."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_core.cache import KVCache
from model_core.checkpoint import load_checkpoint
from model_core.flow_matching import Draws, Solver, SolverConfig, draw
from model_core.generation.engine import Engine
from model_core.generation.requests import Generated, PatchRequest
from model_core.generation.rows import Rows
from model_core.losses import losses
from model_core.sequences import (
    Batch,
    Sequence,
    collate,
    generation_sequence,
    training_sequence,
    voice_prompt_sequence,
)
from model_core.transformer import causal
from model_core.voxcpm import Hidden, VoxCPM
from schemas.errors import ConfigError

CORE = Path(__file__).parents[1] / "data" / "core"
P, C = 4, 16  # of the v2 fixture


def fresh(name: str = "v2") -> VoxCPM:
    return load_checkpoint(CORE / name, dtype=torch.float32).model


@cache
def frozen(name: str = "v2") -> VoxCPM:
    """As loaded, without gradients."""
    return fresh(name).requires_grad_(False)


@cache
def fused() -> VoxCPM:
    return fresh().fuse()


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng(seed))


def text(seed: int, length: int) -> Tensor:
    return torch.randint(110, 400, (length,), generator=rng(seed))


def close(a: Tensor, b: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


# The future cannot change the past.


@settings(deadline=None, max_examples=25)
@given(name=st.sampled_from(["v1", "v2", "v2b"]), changed=st.integers(0, 9), seed=st.integers(0, 9))
def test_the_future_changes_the_past_of_neither_language_model(
    name: str, changed: int, seed: int
) -> None:
    model = frozen(name)
    positions = torch.arange(10)[None]
    dim = model.config.base.dim
    x, g, e = noise(seed, 3, 1, 10, dim)
    for run, inputs in ((model.semantic, (x,)), (model.acoustic, (g, e))):
        for which in range(len(inputs)):
            other = [value.clone() for value in inputs]
            other[which][:, changed] += noise(seed + 100, dim)
            before, after = run(*inputs, positions, causal), run(*other, positions, causal)
            close(after[:, :changed], before[:, :changed], atol=1e-6)
            moved = (after - before).abs().amax(dim=(0, 2))
            assert (moved[changed:] > 1e-6).all(), "and every later position hears of it"


@settings(deadline=None, max_examples=25)
@given(changed=st.integers(0, 5), seed=st.integers(0, 9))
def test_a_later_patch_changes_nothing_before_it(changed: int, seed: int) -> None:
    row = training_sequence(text(seed, 4), noise(seed, 4, P, C), reference=noise(seed + 1, 2, P, C))
    patches = row.patches.clone()
    patches[changed] += noise(seed + 2, P, C)
    where = int(row.is_audio.nonzero()[changed])
    before, after = (frozen().hidden(collate([r])) for r in (row, replace(row, patches=patches)))
    for old, new in zip(before, after, strict=True):
        close(new[:, :where], old[:, :where], atol=1e-6)
    assert not after.acoustic[:, where:].allclose(before.acoustic[:, where:])


@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.integers(1, 6), min_size=2, max_size=4), seed=st.integers(0, 9))
def test_neighbours_and_padding_change_no_row(lengths: list[int], seed: int) -> None:
    rows = [
        training_sequence(text(seed + i, length), noise(seed + i, 1 + length % 3, P, C))
        for i, length in enumerate(lengths)
    ]
    together = frozen().hidden(collate(rows))
    for i, row in enumerate(rows):
        alone = frozen().hidden(collate([row]))
        for many, one in zip(together, alone, strict=True):
            close(many[i, : len(row)], one[0])


# A cache gives what a whole forward gives.

STARTS = (3, 7, 1)
"""Words of three rows of different length."""


def ragged(seed: int, steps: int) -> tuple[list[Sequence], list[Tensor]]:
    """Where three rows start, and the patches that follow, (steps, P, C) each."""
    starts = [
        generation_sequence(
            text(seed + i, length),
            torch.zeros(0, P, C),
            prompt=noise(seed + 10 + i, i, P, C) if i else None,
        )
        for i, length in enumerate(STARTS)
    ]
    return starts, [noise(seed + 20 + i, steps, P, C) for i in range(3)]


def uncached(start: Sequence, patches: Tensor) -> Hidden:
    """States at every position of one row, in one go, without the end of audio."""
    count = len(patches)
    whole = Sequence(
        torch.cat((start.tokens, torch.zeros(count, dtype=torch.long))),
        torch.cat((start.is_audio, torch.ones(count, dtype=torch.bool))),
        torch.cat((start.patches, patches)),
        torch.zeros(len(start) + count, dtype=torch.bool),
    )
    return frozen().hidden(collate([whole]))


def caches(rows: int, positions: int = 32) -> tuple[KVCache, KVCache]:
    config = frozen().config
    base, residual = (
        KVCache(part, rows, positions, dtype=torch.float32, device=torch.device("cpu"))
        for part in (config.base, config.residual)
    )
    return base, residual


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 9))
def test_cached_steps_of_ragged_rows_equal_the_whole_forward(seed: int) -> None:
    model, (starts, patches) = frozen(), ragged(seed, steps=4)
    base, residual = caches(3, positions=9)
    batch, rows = collate(starts), torch.arange(3)
    model.hidden(batch, base.prefill(rows), residual.prefill(rows))
    wanted = [uncached(*row) for row in zip(starts, patches, strict=True)]
    for step in range(4):
        position = batch.lengths + step
        span = int(position.max()) + 1
        base.grow(span)
        residual.grow(span)
        now = torch.stack([own[step] for own in patches])
        hidden = model.step(now, position, base.step(position, span), residual.step(position, span))
        for i in range(3):
            for cached, whole in zip(hidden, wanted[i], strict=True):
                close(cached[i, 0], whole[0, position[i]])


def test_a_row_that_was_taken_over_hears_nothing_of_its_predecessor() -> None:
    model, (starts, patches) = frozen(), ragged(3, steps=2)
    base, residual = caches(2)
    long, short = torch.tensor([1]), 2
    model.hidden(collate([starts[1]]), base.prefill(long), residual.prefill(long))
    model.hidden(collate([starts[short]]), base.prefill(long), residual.prefill(long))
    for kept in (base, residual):
        kept.move(1, 0)
        kept.k[:, 1] = kept.v[:, 1] = float("nan")  # the row that was left
    wanted = uncached(starts[short], patches[short])
    for step in range(2):
        position = torch.tensor([len(starts[short]) + step])
        span = int(position) + 1
        hidden = model.step(
            patches[short][step : step + 1],
            position,
            base.step(position, span),
            residual.step(position, span),
        )
        for cached, whole in zip(hidden, wanted, strict=True):
            close(cached[0, 0], whole[0, position[0]])


# Many requests at once are answered like each alone.


def asked(i: int, **settings: int) -> PatchRequest:
    """Request number i; no two have the same length, and every mode occurs."""
    empty = torch.zeros(0, P, C)
    sequence = generation_sequence(
        text(i, 2 + 5 * i % 13),
        empty,
        reference=noise(i, 1 + i % 3, P, C) if i % 3 == 1 else None,
        prompt=noise(i + 50, 1 + i % 2, P, C) if i % 4 > 1 else None,
    )
    return PatchRequest(sequence=sequence, seed=i, **{"max_patches": 7, **settings})


def answers(requests: list[PatchRequest], batch_size: int) -> dict[int, Generated]:
    engine = Engine(fused(), SolverConfig(num_steps=4), batch_size=batch_size)
    given = list(engine.generate(iter(requests)))
    assert len(given) == len(requests)
    return dict(given)


def alone(request: PatchRequest) -> Generated:
    return answers([request], 1)[0]


@pytest.mark.parametrize("batch_size", [3, 16])
def test_a_batch_answers_each_request_as_if_it_were_alone(batch_size: int) -> None:
    requests = [asked(i, min_patches=i % 3) for i in range(9)]
    together = answers(requests, batch_size)
    assert len({len(answer.patches) for answer in together.values()}) > 2
    for i, request in enumerate(requests):
        one = alone(request)
        assert len(together[i].patches) == len(one.patches)
        assert together[i].stopped == one.stopped
        assert (together[i].seed, together[i].num_attempts) == (one.seed, one.num_attempts)
        close(together[i].patches, one.patches)


def test_unfused_and_fused_models_answer_alike() -> None:
    engine = Engine(frozen(), SolverConfig(num_steps=4), batch_size=2)
    requests = [asked(i) for i in range(3)]
    for i, answer in engine.generate(requests):
        close(answer.patches, alone(requests[i]).patches)


def test_rows_that_end_give_way_to_waiting_ones() -> None:
    model = fresh().fuse()
    stepped: list[int] = []

    def count(_: torch.nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        if inputs[0].shape[1] == 1:
            stepped.append(len(inputs[0]))

    model.base_lm.register_forward_hook(count)
    lengths = (9, 2, 1, 3, 2, 4)
    requests = [asked(i, min_patches=99, max_patches=n) for i, n in enumerate(lengths)]
    order = [
        i for i, _ in Engine(model, SolverConfig(num_steps=1), batch_size=2).generate(requests)
    ]
    assert order[0] == 1, "answers come as they end"
    assert sorted(order) == list(range(6))
    assert sum(stepped) == sum(n - 1 for n in lengths), "nobody steps after its end"
    # Two at a time, the long row beside all others in turn: eleven steps at most, not the
    # fourteen of three rounds that wait for their longest.
    assert len(stepped) <= 11
    assert max(stepped) == 2


def test_requests_are_taken_as_there_is_room_for_them() -> None:
    taken = 0

    def endless() -> "list[PatchRequest]":
        nonlocal taken
        while True:
            taken += 1
            yield asked(taken % 5, max_patches=2)  # type: ignore[misc]

    engine = Engine(fused(), SolverConfig(num_steps=1), batch_size=2)
    running = engine.generate(endless())
    assert [next(running)[0] for _ in range(6)] == list(range(6))
    assert taken <= 8


@pytest.mark.parametrize("i", range(4))
def test_a_stream_gives_patch_by_patch_what_generation_gives(i: int) -> None:
    request = asked(i)
    engine = Engine(fused(), SolverConfig(num_steps=4), batch_size=3)
    pieces = list(engine.stream(request))
    assert {piece.shape for piece in pieces} == {(P, C)}
    close(torch.stack(pieces), alone(request).patches, atol=1e-5)


def test_a_seed_decides_the_answer() -> None:
    first, same = alone(asked(1)), alone(asked(1))
    assert first.patches.equal(same.patches)
    other = alone(replace(asked(1), seed=77))
    assert (first.patches[0] - other.patches[0]).abs().max() > 0.1


def test_a_longer_limit_does_not_change_how_an_answer_begins() -> None:
    short, long = alone(asked(2, min_patches=99, max_patches=3)), alone(asked(2, min_patches=99))
    close(long.patches[:3], short.patches, atol=1e-5)
    assert (len(short.patches), len(long.patches)) == (3, 7)


@pytest.mark.parametrize("fields", [{"max_patches": 0}, {"min_patches": -1}, {"max_attempts": 0}])
def test_an_impossible_request_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        asked(0, **fields)


# Quantisation and losses.


def test_the_quantizer_passes_gradients_straight_through() -> None:
    fsq = fresh().fsq_layer
    h = noise(0, 5, 96).requires_grad_()
    quantized = fsq.quantize(h)
    levels = quantized.detach() * fsq.scale
    close(levels, levels.round(), atol=1e-5)
    assert (fsq.in_proj(h).tanh() - quantized).abs().max() <= 0.5 / fsq.scale + 1e-6
    weight = noise(1, *quantized.shape)
    (through,) = torch.autograd.grad((quantized * weight).sum(), h)
    (plain,) = torch.autograd.grad((fsq.in_proj(h).tanh() * weight).sum(), h)
    assert plain.abs().max() > 1e-3
    close(through, plain, atol=1e-6)


def drawn(batch: Batch, seed: int) -> Draws:
    """Random numbers for the targets of a batch; every condition is kept."""
    count = int(batch.loss_mask.sum())
    config = frozen().config.dit_config.cfm_config
    draws = draw(torch.zeros(count, P, C), config, generator=rng(seed))
    return replace(draws, keep=torch.ones(count, dtype=torch.bool))


def sliced(draws: Draws, rows: slice) -> Draws:
    fields = (draws.keep, draws.t, draws.r, draws.noise, draws.cond_noise)
    return Draws(*(field[rows] for field in fields))


@settings(deadline=None, max_examples=15)
@given(targets=st.lists(st.integers(1, 4), min_size=2, max_size=3), seed=st.integers(0, 9))
def test_losses_are_means_over_targets_that_padding_does_not_touch(
    targets: list[int], seed: int
) -> None:
    rows = [
        training_sequence(text(seed + i, 2 + 3 * i), noise(seed + i, count, P, C))
        for i, count in enumerate(targets)
    ]
    batch = collate(rows)
    draws = drawn(batch, seed)
    together = losses(frozen(), batch, draws=draws)
    flow, stop, start = torch.zeros(()), torch.zeros(()), 0
    for row, count in zip(rows, targets, strict=True):
        own = losses(frozen(), collate([row]), draws=sliced(draws, slice(start, start + count)))
        flow, stop, start = flow + count * own.flow, stop + count * own.stop, start + count
    close(together.flow, flow / start)
    close(together.stop, stop / start)


def test_what_is_only_heard_carries_no_loss() -> None:
    target = training_sequence(text(0, 4), noise(0, 3, P, C))
    prompt = voice_prompt_sequence(text(1, 6), noise(1, 5, P, C))
    draws = drawn(collate([target]), 0)
    with_it = losses(frozen(), collate([prompt, target]), draws=draws)
    without = losses(frozen(), collate([target]), draws=draws)
    close(with_it.flow, without.flow)
    close(with_it.stop, without.stop)


def test_a_batch_without_a_target_has_losses_of_zero() -> None:
    prompt = voice_prompt_sequence(text(1, 6), noise(1, 5, P, C))
    nothing = losses(frozen(), collate([prompt]))
    assert (float(nothing.flow), float(nothing.stop)) == (0.0, 0.0)


def test_the_same_generator_gives_the_same_losses() -> None:
    batch = collate([training_sequence(text(0, 4), noise(0, 3, P, C))])
    first, same, other = (losses(frozen(), batch, generator=rng(seed)) for seed in (1, 1, 2))
    assert first.flow.equal(same.flow)
    assert not first.flow.equal(other.flow)


def test_a_tiny_model_learns_one_batch_by_heart() -> None:
    model = fresh()
    batch = collate(
        [
            training_sequence(text(0, 4), noise(0, 3, P, C)),
            training_sequence(text(1, 6), noise(1, 2, P, C), reference=noise(2, 2, P, C)),
        ]
    )
    draws = drawn(batch, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    curve = []
    for _ in range(150):
        flow, stop = losses(model, batch, draws=draws)
        optimizer.zero_grad()
        (flow + stop).backward()
        optimizer.step()
        curve.append((flow.item(), stop.item()))
        if curve[-1][0] < curve[0][0] / 10 and curve[-1][1] < curve[0][1] / 10:
            break
    assert curve[-1][0] < curve[0][0] / 10
    assert curve[-1][1] < curve[0][1] / 10


@torch.inference_mode()
def test_a_cache_that_grows_on_the_way_keeps_what_it_holds() -> None:
    request = PatchRequest(
        sequence=generation_sequence(text(1, 250), torch.zeros(0, P, C)),
        seed=5,
        min_patches=40,
        max_patches=20,
    )
    solver = Solver(frozen().estimator, SolverConfig(num_steps=2))
    found = []
    # In steady shapes all room is made at the start; else it is made when it is needed.
    for steady in (False, True):
        rows = Rows(frozen(), solver, 2, steady=steady)
        rows.admit([(0, request), (1, replace(request, seed=6))])
        done: dict[int, Generated] = {}
        while rows.alive:
            rows.sample()
            done.update(rows.retire())
            rows.advance()
        found.append(done)
    for number in (0, 1):
        assert len(found[0][number].patches) == 20
        close(found[0][number].patches, found[1][number].patches)
