"""Guided attention: a small corpus teaches the semantic LM where in the text it is.

Speech follows its text from left to right, and a model that has heard years of speech finds that
out. One that has heard minutes predicts the next patch from the last ones for long, and babbles. So
some heads of one layer are told to read near the diagonal between text and target patches.
Source: arXiv 1710.08969, section 4.1, equations 5 and 6.

Shapes: H query heads, G key heads, T positions of a pack, n target patches and N text positions of
a sequence, K channels of a head.
"""

import torch
from torch import Tensor

from model_core.training.packs import Pack
from model_core.transformer import Attend

WIDTH = 0.1
"""How far from the diagonal, as a share of the text, reading is all but free."""
GUIDED = ("text", "reference")
"""Layouts whose text is what their target patches say, all of it, and no description before it."""


class Guided:
    """An `Attend` that also measures how far from the diagonal one layer reads."""

    def __init__(self, attend: Attend, layer: int, pack: Pack) -> None:
        """layer: which one is guided; the query heads of its first key head are."""
        self.attend, self.layer, self.pack = attend, layer, pack
        self.strayed: Tensor | None = None
        """Summed over the target patches of guided sequences, from 0 to 1 each."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(layer, q (1, H, T, K), k (1, G, T, K), v (1, G, T, K)) -> (1, H, T, K)."""
        if layer == self.layer:
            heads = q.shape[1] // k.shape[1]
            self.strayed = _strayed(q[0, :heads].float(), k[0, 0].float(), self.pack)
        return self.attend(layer, q, k, v)


def _strayed(q: Tensor, k: Tensor, pack: Pack) -> Tensor:
    """q (heads, T, K), k (T, K) -> a number."""
    total = q.new_zeros(())
    start = 0
    for length, layout in zip(pack.lengths, pack.layouts, strict=True):
        span = slice(start, start + length)
        start += length
        if layout not in GUIDED:
            continue
        first = int(pack.is_target[span].int().argmax())
        targets = int(pack.is_target[span].sum())
        heard = pack.is_audio[span][:first].nonzero()
        begin = int(heard[-1]) + 1 if len(heard) else 0
        texts = first - 1 - begin  # the token before the first patch is no text
        if texts < 1 or targets < 1:
            continue
        asked = q[:, span][:, first - 1 : first - 1 + targets]  # a patch is made one before it
        scores = asked @ k[span][begin : begin + texts].T * q.shape[-1] ** -0.5
        there = torch.arange(targets, device=q.device)[:, None] / targets
        here = torch.arange(texts, device=q.device) / texts
        penalty = 1 - torch.exp(-((there - here) ** 2) / (2 * WIDTH**2))
        total = total + (scores.softmax(dim=-1) * penalty).sum(dim=-1).mean(dim=0).sum()
    return total
