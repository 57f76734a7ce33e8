"""Sequences train in a pack as they train alone, and loss is taken where the target is."""

from dataclasses import fields, replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_core.flow_matching import Draws
from model_core.losses import Losses, target_losses
from model_core.sequences import Sequence, collate, training_sequence, voice_prompt_sequence
from model_core.training.attention import PackedCausal
from model_core.training.packs import Pack, packed_up
from model_core.training.step import PackLoss, Row, draws_for, heard_for, row_of
from model_core.transformer import causal
from model_core.voxcpm import VoxCPM
from tests.model_core.fixtures import Fixture, fixture
from tests.model_core.training.toy import CHANNELS, PATCH, opened, pack_of

CPU = torch.device("cpu")
cases = pytest.mark.parametrize(
    "case", [fixture(name) for name in ("v1", "v15", "v2", "v2b")], ids=lambda case: case.name
)


def rows_of(case: Fixture) -> list[Sequence]:
    """The rows of the official training batch, without their padding."""
    batch = case.batch()
    rows, taken = [], 0
    for i, length in enumerate(batch.lengths.tolist()):
        audio = batch.audio_mask[i, :length]
        count = int(audio.sum())
        tokens = torch.where(audio, 0, batch.tokens[i, :length])
        patches = batch.patches[taken : taken + count]
        rows.append(Sequence(tokens, audio, patches, batch.loss_mask[i, :length]))
        taken += count
    return rows


def packed(rows: list[Sequence]) -> Pack:
    return packed_up(rows, [str(i) for i in range(len(rows))], ["text"] * len(rows))


def sliced(draws: Draws, rows: slice) -> Draws:
    return Draws(*(getattr(draws, field.name)[rows] for field in fields(Draws)))


def whole(losses: Losses) -> Tensor:
    return losses.flow.sum() + losses.stop.sum()


def grads(loss: Tensor, model: VoxCPM) -> dict[str, Tensor]:
    found = torch.autograd.grad(
        loss, list(model.parameters()), retain_graph=True, allow_unused=True
    )
    names = [name for name, _ in model.named_parameters()]
    return {n: g for n, g in zip(names, found, strict=True) if g is not None}


@cases
def test_a_pack_trains_each_sample_as_it_trains_alone(case: Fixture) -> None:
    model, draws = case.model().train(), case.draws()
    rows = rows_of(case)
    row = row_of(packed(rows), CPU, torch.float32)
    together = PackLoss(model, autocast=None)(row, draws)
    assert row.num_targets == len(together.flow) == len(draws.t) > 0
    start = 0
    for number, sequence in enumerate(rows):
        own = row.owners == number
        count = int(sequence.is_target.sum())
        assert count == int(own.sum())
        if not count:
            continue
        alone = target_losses(
            model, collate([sequence]), draws=sliced(draws, slice(start, start + count))
        )
        start += count
        in_pack = Losses(together.flow[own], together.stop[own])
        torch.testing.assert_close(in_pack.flow, alone.flow, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(in_pack.stop, alone.stop, atol=1e-4, rtol=1e-4)
        ours, theirs = grads(whole(in_pack), model), grads(whole(alone), model)
        assert theirs.keys() <= ours.keys()
        for name, expected in theirs.items():
            torch.testing.assert_close(ours[name], expected, atol=1e-4, rtol=1e-4, msg=name)
    assert start == row.num_targets


@cases
def test_a_pack_has_the_official_losses_and_gradients(case: Fixture) -> None:
    model = case.model().train()
    row = row_of(packed(rows_of(case)), CPU, torch.float32)
    flow, stop = PackLoss(model, autocast=None)(row, case.draws())
    case.close("train/full/loss_diff", flow.mean())
    case.close("train/full/loss_stop", stop.mean())
    (flow.mean() + stop.mean()).backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    for name, norm in case.facts["grad_norms_full"].items():
        assert found[name].norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-5), name


# Random layouts.


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[Sequence], list[list[int]]]:
    """Sequences of all kinds, and by hand where their targets stand."""
    rows, places = [], []
    for number in range(draw(st.integers(1, 4))):
        generator = torch.Generator().manual_seed(draw(st.integers(0, 99)) + 100 * number)

        def patches(count: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(count, PATCH, CHANNELS, generator=generator)

        words = torch.randint(110, 600, (draw(st.integers(1, 8)),), generator=generator)
        target = draw(st.integers(1, 4))
        if number and draw(st.booleans()):
            rows.append(voice_prompt_sequence(words, patches(target)))
            places.append([])
            continue
        heard = draw(st.integers(0, 3))
        said_before = draw(st.integers(0, 2))
        rows.append(
            training_sequence(
                words,
                patches(target),
                reference=patches(heard) if heard else None,
                prompt=patches(said_before) if said_before else None,
            )
        )
        start = (heard + 2 if heard else 0) + len(words) + 1 + said_before
        places.append(list(range(start, start + target)))
    return rows, places


@settings(deadline=None, max_examples=60)
@given(layouts())
def test_loss_is_taken_at_the_targets_and_nowhere_else(
    drawn: tuple[list[Sequence], list[list[int]]],
) -> None:
    rows, places = drawn
    row = row_of(packed(rows), CPU, torch.float32)
    expected, last, owners, begin = [], [], [], 0
    for number, (sequence, own) in enumerate(zip(rows, places, strict=True)):
        assert not bool(sequence.is_target[0]), "so that a shift over a border is never read"
        expected += [begin + place for place in own]
        last += [begin + own[-1]] if own else []
        owners += [number] * len(own)
        begin += len(sequence)
    assert row.batch.target_index.tolist() == expected
    assert row.batch.stop_labels[0].nonzero()[:, 0].tolist() == last
    assert row.owners.tolist() == owners
    assert row.positions[0].tolist() == [p for s in rows for p in range(len(s))]
    targets = model().targets(row.batch, model().shifted(hidden(row)))
    torch.testing.assert_close(
        targets.patches, torch.cat([s.patches[s.is_target[s.is_audio]] for s in rows])
    )


@settings(deadline=None, max_examples=40)
@given(drawn=layouts(), data=st.data())
def test_no_sample_hears_of_another(
    drawn: tuple[list[Sequence], list[list[int]]], data: st.DataObject
) -> None:
    rows, _ = drawn
    changed = data.draw(st.integers(0, len(rows) - 1))
    other = rows[changed]
    other = replace(
        other,
        tokens=torch.where(other.is_audio, 0, (other.tokens + 7) % 672),
        patches=other.patches + 1,
    )
    before = row_of(packed(rows), CPU, torch.float32)
    after = row_of(packed([*rows[:changed], other, *rows[changed + 1 :]]), CPU, torch.float32)
    draws = draws_for(before, model(), (1,), 0.0)
    old, new = (PackLoss(model(), autocast=None)(row, draws) for row in (before, after))
    elsewhere = before.owners != changed
    assert old.flow[elsewhere].equal(new.flow[elsewhere])
    assert old.stop[elsewhere].equal(new.stop[elsewhere])
    assert not old.flow[~elsewhere].equal(new.flow[~elsewhere]) or bool(elsewhere.all())


@cache
def model() -> VoxCPM:
    return opened()[0].requires_grad_(False)


def hidden(row: Row):  # type: ignore[no-untyped-def]
    attend = PackedCausal().over(row.pack.lengths, CPU)
    return model().hidden(row.batch, attend, attend, row.positions)


@settings(deadline=None, max_examples=20)
@given(lengths=st.lists(st.sampled_from([1, 2, 7, 30, 256, 257, 300]), min_size=1, max_size=4))
def test_attention_stays_within_sequences_of_any_length(lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(len(lengths))
    total = sum(lengths)
    q = torch.randn(1, 4, total, 8, generator=generator)
    k, v = (torch.randn(1, 2, total, 8, generator=generator) for _ in range(2))
    found = PackedCausal().over(lengths, CPU)(0, q, k, v)
    parts = [x.split(lengths, dim=2) for x in (q, k, v)]
    alone = torch.cat([causal(0, *part) for part in zip(*parts, strict=True)], dim=2)
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


def test_random_numbers_belong_to_the_samples_and_the_step() -> None:
    row = row_of(pack_of(1), CPU, torch.float32)
    first, again = (draws_for(row, model(), (0, 5), 0.0) for _ in range(2))
    assert first.noise.equal(again.noise)
    assert first.t.equal(again.t)
    others = [
        draws_for(row, model(), (0, 6), 0.0),
        draws_for(row, model(), (1, 5), 0.0),
        draws_for(row_of(pack_of(1, name="other"), CPU, torch.float32), model(), (0, 5), 0.0),
    ]
    assert not any(first.noise.equal(other.noise) for other in others)


@pytest.mark.parametrize("autocast", [True, False])
def test_positions_restart_and_time_is_as_coarse_as_at_inference(autocast: bool) -> None:
    model = opened()[0]
    if not autocast:
        model.bfloat16()
    asked: list[Tensor] = []
    rotation = model.rope.rotation
    model.rope.rotation = lambda positions: (asked.append(positions), rotation(positions))[1]  # type: ignore[method-assign]
    inputs: list[tuple[Tensor, ...]] = []
    model.estimator.register_forward_pre_hook(lambda _, given: inputs.append(given))
    row = row_of(pack_of(1), CPU, torch.bfloat16)
    loss = PackLoss(model, autocast=torch.bfloat16 if autocast else None)
    losses = loss(row, draws_for(row, model, (0,), 0.0))
    assert losses.flow.dtype == torch.float32
    # Within patches positions are counted without a batch.
    of_sequences = [positions for positions in asked if positions.dim() == 2]
    assert of_sequences
    assert all(positions.equal(row.pack.positions[None]) for positions in of_sequences)
    ((x, mu, t, cond, dt),) = inputs
    assert {value.dtype for value in (x, mu, t, cond, dt)} == {torch.bfloat16}


def test_a_tenth_of_the_conditions_is_dropped() -> None:
    row = row_of(pack_of(1, size=1), CPU, torch.float32)
    kept = torch.cat([draws_for(row, model(), (step,), 0.0).keep for step in range(2000)])
    assert kept.float().mean().item() == pytest.approx(0.9, abs=0.02)


@pytest.mark.gpu
def test_one_kernel_does_what_one_sequence_after_another_does() -> None:
    lengths = (1, 200, 37, 300)
    q = torch.randn(1, 16, sum(lengths), 64, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn_like(q[:, :2]) for _ in range(2))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    attend = PackedCausal().over(lengths, q.device)
    weight = torch.randn_like(q)

    def grads_of(y: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((y * weight).sum(), inputs)

    parts = [x.split(lengths, dim=2) for x in inputs]
    one_by_one = torch.cat([causal(0, *part) for part in zip(*parts, strict=True)], dim=2)
    fused = attend(0, q, k, v)
    torch.testing.assert_close(fused, one_by_one, atol=2e-2, rtol=2e-2)
    for ours, theirs in zip(grads_of(fused), grads_of(one_by_one), strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-2, rtol=5e-2)


def test_a_share_of_the_targets_starts_at_pure_noise_and_the_others_stay() -> None:
    model = opened()[0]
    row = row_of(pack_of(0, size=40), CPU, torch.float32)
    plain = draws_for(row, model, (0,), 0.0)
    draws = draws_for(row, model, (0,), 0.0, pure_noise=0.5)
    pure = draws.t == 1
    assert 0.3 < pure.float().mean() < 0.7
    assert not (plain.t == 1).any()
    assert torch.equal(draws.t[~pure], plain.t[~pure])
    assert torch.equal(draws.r[pure], draws.t[pure])
    assert torch.equal(draws.noise, plain.noise)
    assert bool((draws_for(row, model, (0,), 0.0, pure_noise=1.0).t == 1).all())


def test_noise_is_on_what_is_heard_and_not_on_what_is_to_be_said() -> None:
    model = opened()[0].train()
    row = row_of(pack_of(0, size=5), CPU, torch.float32)
    draws = draws_for(row, model, (0,), 0.0)
    loss = PackLoss(model, autocast=None)
    clean = loss(row, draws)
    first, again, other = (
        loss(row, draws, heard_for(row, seed, 0.5)) for seed in ((0, 1), (0, 1), (0, 2))
    )
    assert not torch.equal(first.flow, clean.flow)
    assert torch.equal(first.flow, again.flow), "a resumed run hears the same"
    assert not torch.equal(first.flow, other.flow), "drawn anew for each step"
    # A first patch of plain text has heard nothing, so nothing of it may change.
    starts = torch.tensor([0, *row.pack.lengths]).cumsum(0)[:-1]
    unheard = [
        int(row.pack.is_target[:start].sum())
        for start, layout in zip(starts, row.pack.layouts, strict=True)
        if layout in ("text", "described")
    ]
    assert unheard
    torch.testing.assert_close(first.flow[unheard], clean.flow[unheard])
