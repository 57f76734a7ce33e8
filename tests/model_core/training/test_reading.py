"""Reading: what states tell of the text is scored near the diagonal, in sequences that say just that."""

import pytest
import torch
from torch import Tensor

from model_core.sequences import training_sequence
from model_core.training.packs import Pack, packed_up
from model_core.training.reading import WIDTH, diagonal, misread
from model_core.training.step import PackLoss, draws_for, row_of
from tests.model_core.training.toy import opened, pack_of

TEXT = torch.tensor([3, 9, 4, 9, 7])
PATCHES, VOCABULARY = 4, 16


def pack(*layouts: str) -> Pack:
    rows = [
        training_sequence(
            TEXT,
            torch.zeros(PATCHES, 1, 1),
            reference=torch.zeros(3, 1, 1) if layout == "reference" else None,
        )
        for layout in layouts
    ]
    return packed_up(rows, [str(i) for i in range(len(rows))], layouts)


def told(of: Pack, tokens: Tensor) -> Tensor:
    """(T, V) states that tell, before each target patch, of these tokens on the diagonal."""
    states = torch.zeros(len(of), VOCABULARY)
    wanted = torch.zeros(PATCHES, VOCABULARY).index_add_(1, tokens, diagonal(PATCHES, len(tokens)))
    start = 0
    for length in of.lengths:
        states[start + length - 1 - PATCHES : start + length - 1] = wanted.clamp(min=1e-9).log()
        start += length
    return states


def score(of: Pack, states: Tensor) -> float:
    found = misread(states, torch.eye(VOCABULARY), of)
    counted = sum(layout in ("text", "reference") for layout in of.layouts)
    assert found.patches == counted * PATCHES
    return float(found.nats)


def test_training_sequences_end_as_these_tests_think() -> None:
    of = pack("text", "reference")
    ends = torch.tensor(of.lengths).cumsum(0)
    for start, end in zip([0, int(ends[0])], ends.tolist(), strict=True):
        place = of.is_target[start:end].nonzero()[:, 0] + start
        assert place.tolist() == list(range(end - 1 - PATCHES, end - 1))


@pytest.mark.parametrize("layout", ["text", "reference"])
def test_what_is_read_in_its_place_costs_nothing(layout: str) -> None:
    of = pack(layout)
    assert score(of, told(of, TEXT)) == pytest.approx(0, abs=1e-4)
    backwards = score(of, told(of, TEXT.flip(0)))
    assert backwards > PATCHES
    nothing = score(of, torch.zeros(len(of), VOCABULARY))
    assert 0 < nothing < backwards
    twice = pack(layout, layout)
    assert score(twice, told(twice, TEXT.flip(0))) == pytest.approx(2 * backwards, rel=1e-4)


def test_other_layouts_say_more_than_their_patches() -> None:
    one, more = pack("text"), pack("described", "text", "continuation", "described_reference")
    expected = score(one, told(one, TEXT.flip(0)))
    assert score(more, told(more, TEXT.flip(0))) == pytest.approx(expected, rel=1e-4)
    assert score(pack("described"), torch.zeros(len(pack("described")), VOCABULARY)) == 0


@pytest.mark.parametrize(("patches", "tokens"), [(1, 1), (3, 40), (40, 3), (20, 200)])
def test_the_diagonal_runs_from_first_to_last(patches: int, tokens: int) -> None:
    found = diagonal(patches, tokens)
    torch.testing.assert_close(found.sum(-1), torch.ones(patches))
    places = (found * (torch.arange(tokens) + 0.5)).sum(-1)
    assert torch.equal(places, places.sort().values)
    middle = (torch.arange(patches) + 0.5) / patches * tokens
    wide = max(1.0, WIDTH * tokens)
    assert (places - middle).abs().max() < wide


def test_a_model_learns_to_read() -> None:
    model = opened()[0].train()
    row = row_of(pack_of(0, size=5), torch.device("cpu"), torch.float32)
    loss = PackLoss(model, autocast=None, reading=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    found = []
    for _ in range(40):
        loss(row, draws_for(row, model, (0,), 0.0))
        assert loss.misread is not None
        found.append(float(loss.misread.nats.detach()))
        optimizer.zero_grad()
        loss.misread.nats.backward()
        optimizer.step()
    assert found[-1] < 0.7 * found[0]
    loss.eval()
    loss(row, draws_for(row, model, (0,), 0.0))
    assert loss.misread is None, "a validation scores speech alone"
