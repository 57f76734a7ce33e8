"""Guided attention: how far from its text's diagonal a head reads, in guided sequences alone."""

import pytest
import torch

from model_core.sequences import Sequence
from model_core.training.attention import PackedCausal
from model_core.training.guidance import WIDTH, Guided
from model_core.training.packs import Pack, packed_up
from model_core.training.step import PackLoss, draws_for, row_of
from tests.model_core.training.toy import opened, pack_of

TEXT, HEARD, SPOKEN, CHANNELS = 12, 3, 6, 16


def sequence(heard: int) -> Sequence:
    """A voice of so many patches, twelve text tokens, the start of speech, six target patches."""
    length = heard + TEXT + 1 + SPOKEN
    audio = torch.zeros(length, dtype=torch.bool)
    audio[:heard] = audio[-SPOKEN:] = True
    target = torch.zeros(length, dtype=torch.bool)
    target[-SPOKEN:] = True
    return Sequence(
        torch.zeros(length, dtype=torch.long), audio, torch.zeros(heard + SPOKEN, 1, 1), target
    )


def pack(*layouts: str) -> Pack:
    rows = [sequence(HEARD if layout == "reference" else 0) for layout in layouts]
    return packed_up(rows, [str(i) for i in range(len(rows))], layouts)


def strayed(of: Pack, line: list[int], layer: int = 1) -> float:
    """Of heads that read, for each target patch, the text token of that number, and no other."""
    keys = torch.zeros(len(of), CHANNELS)
    queries = torch.zeros(len(of), CHANNELS)
    start = 0
    for length in of.lengths:
        first = start + length - SPOKEN
        keys[first - 1 - TEXT : first - 1, :TEXT] = 100 * torch.eye(TEXT)
        queries[first - 1 : first - 1 + SPOKEN, :TEXT] = torch.eye(TEXT)[line]
        start += length
    guided = Guided(PackedCausal().over(of.lengths, torch.device("cpu")), 1, of)
    q = queries[None, None].repeat(1, 4, 1, 1)
    q[:, 2:] = 0  # those of the other key head read everywhere, as they may
    k = keys[None, None].repeat(1, 2, 1, 1)
    assert guided(layer, q, k, k).shape == q.shape
    return 0.0 if guided.strayed is None else float(guided.strayed)


DIAGONAL, BACKWARDS = [0, 2, 4, 6, 8, 10], [11, 9, 7, 5, 3, 1]


@pytest.mark.parametrize("layout", ["text", "reference"])
def test_the_diagonal_is_free_and_reading_backwards_is_not(layout: str) -> None:
    assert strayed(pack(layout), DIAGONAL) == pytest.approx(0, abs=1e-3)
    there = torch.arange(SPOKEN) / SPOKEN
    here = torch.tensor(BACKWARDS) / TEXT
    expected = (1 - torch.exp(-((there - here) ** 2) / (2 * WIDTH**2))).sum()
    assert strayed(pack(layout), BACKWARDS) == pytest.approx(float(expected), rel=1e-3)
    assert strayed(pack(layout, layout), BACKWARDS) == pytest.approx(2 * float(expected), rel=1e-3)


def test_other_layouts_and_other_layers_read_where_they_like() -> None:
    one = strayed(pack("text"), BACKWARDS)
    assert strayed(pack("text", "described", "continuation"), BACKWARDS) == pytest.approx(one)
    assert strayed(pack("described"), BACKWARDS) == 0
    assert strayed(pack("text"), BACKWARDS, layer=0) == 0


def test_a_model_learns_where_to_read() -> None:
    model = opened()[0].train()
    row = row_of(pack_of(0, size=5), torch.device("cpu"), torch.float32)
    loss = PackLoss(model, autocast=None, guided=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    found = []
    for _ in range(30):
        loss(row, draws_for(row, model, (0,), 0.0))
        assert loss.strayed is not None
        found.append(float(loss.strayed.detach()))
        optimizer.zero_grad()
        loss.strayed.backward()
        optimizer.step()
    assert found[-1] < 0.5 * found[0]
    loss.eval()
    loss(row, draws_for(row, model, (0,), 0.0))
    assert loss.strayed is None, "a validation is not guided"
