"""Reading: the semantic LM's states are held to tell which tokens of its text a patch says.

Speech follows its text from left to right, and a model that hears years of speech finds that out by
itself. One that hears minutes soon predicts the next patch from the last ones and from what all
utterances have in common; what it reads is then a hundredth of its states, and no loss that speech
gives brings it back. So the states that LocDiT is told, behind the quantisation, are also scored as a
language model's: against the tokens about the diagonal between text and target patches. The idea of
the diagonal is that of guided attention, arXiv 1710.08969, section 4.1; it is asked here of what was
read, not of where.

Shapes: T positions of a pack, D channels, V tokens; n target patches, N text tokens of a sequence.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.training.packs import Pack

WIDTH = 0.04
"""Deviation of a patch's tokens about the diagonal, as a share of the text; at least one token."""
GUIDED = ("text", "reference")
"""Layouts whose text is what their target patches say, all of it, and no description before it."""


class Misread(NamedTuple):
    """How far the states of a pack are from telling its text."""

    nats: Tensor
    """Divergence from what is there, summed over the patches."""
    patches: int
    """Those that were scored."""


def misread(before: Tensor, embedding: Tensor, pack: Pack) -> Misread:
    """Divergence of what states tell of the text from what is there.

    before: (T, D) semantic states that are known before each position; embedding: (V, D) of the
    tokens, by which the states are scored. Only sequences of the layouts in `GUIDED` count.
    """
    total = before.new_zeros((), dtype=torch.float32)
    start = scored = 0
    for length, layout in zip(pack.lengths, pack.layouts, strict=True):
        span = slice(start, start + length)
        start += length
        if layout not in GUIDED:
            continue
        targets = pack.is_target[span].nonzero()[:, 0]
        heard = pack.is_audio[span][: int(targets[0])].nonzero()
        begin = int(heard[-1]) + 2 if len(heard) else 0  # behind a reference and its end
        tokens = pack.tokens[span][begin : int(targets[0]) - 1]  # the last one begins the speech
        if not len(tokens):
            continue
        wanted = diagonal(len(targets), len(tokens)).to(before.device)
        spread = wanted.new_zeros(len(targets), len(embedding))
        spread.index_add_(1, tokens.to(before.device), wanted)
        scores = before[span][targets.to(before.device)] @ embedding.T
        scored += len(targets)
        total = total + F.kl_div(scores.float().log_softmax(-1), spread, reduction="sum")
    return Misread(total, scored)


def diagonal(patches: int, tokens: int) -> Tensor:
    """(n, N): how likely each patch says each token, where all take equally long."""
    there = (torch.arange(patches) + 0.5)[:, None] / patches * tokens
    here = torch.arange(tokens) + 0.5
    return (-0.5 * ((there - here) / max(1.0, WIDTH * tokens)) ** 2).softmax(-1)
