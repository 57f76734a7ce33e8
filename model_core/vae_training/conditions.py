"""Which sample rates a decoder was trained for, and what becomes of the others."""

from collections.abc import Iterator

import torch
from torch import Tensor

from model_core.audio_vae.decoder import Decoder, SampleRateCondition


def untold(decoder: Decoder, seen: Tensor) -> list[int]:
    """Buckets that are as they were made and that no segment asked for.

    seen: (N,) segments per bucket. Buckets that an earlier training told apart are left alone.
    """
    fresh = torch.ones(len(seen), dtype=torch.bool)
    for table, made_of in _tables(decoder):
        fresh &= (table.detach().cpu() == made_of).all(dim=1)
    known = any(True for _ in _tables(decoder))
    return [int(b) for b in torch.nonzero((seen.cpu() == 0) & fresh)[:, 0]] if known else []


@torch.no_grad()
def told_by_their_neighbours(decoder: Decoder, seen: Tensor) -> list[int]:
    """Let untold buckets speak as the nearest that were trained, the lower of two, in place.

    A decoder is asked for its own rate where nobody names another; without this, one that heard
    16 kHz recordings alone would be asked for what nobody taught it. Returns the buckets changed.
    """
    taught = [int(b) for b in torch.nonzero(seen)[:, 0]]
    changed = untold(decoder, seen) if taught else []
    for bucket in changed:
        nearest = min(taught, key=lambda other: (abs(other - bucket), other))
        for table, _ in _tables(decoder):
            table[bucket] = table[nearest]
    return changed


def _tables(decoder: Decoder) -> Iterator[tuple[Tensor, float]]:
    """Each table of the condition, and the value that a new one holds; "concat" starts at random."""
    for condition in decoder.sr_cond_model.values():
        assert isinstance(condition, SampleRateCondition)
        if condition.cond_type == "add":
            yield condition.cond_embed.weight, 0.0
        elif condition.cond_type != "concat":
            yield condition.scale_embed.weight, 1.0
            yield condition.bias_embed.weight, 0.0
