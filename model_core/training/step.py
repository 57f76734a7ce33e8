"""The losses of a pack, and the random numbers they are taken with.

Shapes: T positions of the pack, A audio positions, N target patches, P frames of a patch,
C latent channels.
"""

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from model_core.flow_matching import Draws, draw
from model_core.losses import Losses, losses_after
from model_core.sequences import Batch, Where
from model_core.training.attention import PackedCausal
from model_core.training.packs import Pack
from model_core.training.reading import Misread, misread
from model_core.voxcpm import VoxCPM
from schemas.samples import LAYOUTS


@dataclass(frozen=True, slots=True)
class Row:
    """A pack as the model reads it: a batch of one row."""

    pack: Pack
    """As it came, on the host."""
    batch: Batch
    positions: Tensor
    """(1, T) int64, from 0 in every sequence."""
    layouts: Tensor
    """(N,) int64: which of `LAYOUTS` each target patch belongs to."""
    owners: Tensor
    """(N,) int64, on the host: which sequence of the pack each target patch belongs to."""

    @property
    def num_targets(self) -> int:
        """N."""
        return len(self.owners)


def row_of(pack: Pack, device: torch.device, dtype: torch.dtype) -> Row:
    """Bring a pack to a device; dtype is that of the latents there.

    All indices are found on the host, so that the device is never waited for.
    """
    audio, targets = pack.is_audio.nonzero()[:, 0], pack.is_target.nonzero()[:, 0]
    owners = pack.owner[targets]
    layouts = torch.tensor([LAYOUTS.index(layout) for layout in pack.layouts])[owners]
    batch = Batch(
        tokens=pack.tokens[None],
        text_mask=~pack.is_audio[None],
        audio_mask=pack.is_audio[None],
        patches=pack.patches,
        loss_mask=pack.is_target[None],
        stop_labels=pack.stop_labels[None],
        lengths=torch.tensor([len(pack)]),
        where=Where(audio, targets),
    )
    return Row(
        pack,
        batch.to(device, dtype),
        pack.positions[None].to(device, non_blocking=True),
        layouts.to(device, non_blocking=True),
        owners,
    )


class PackLoss(nn.Module):
    """A model and its losses on packs: the module that is spread over workers."""

    def __init__(
        self, model: VoxCPM, *, autocast: torch.dtype | None, reading: bool = False
    ) -> None:
        """autocast: type of the products; None where the weights have it themselves.

        reading: whether training also measures what the states tell of the text.
        """
        super().__init__()
        self.model = model
        self.autocast = autocast
        self.reading = reading
        self.misread: Misread | None = None
        """Of the last pack: see `model_core.training.reading`."""
        self._attend = PackedCausal()

    def forward(self, row: Row, draws: Draws, heard: Tensor | None = None) -> Losses:
        """Losses of the N target patches: (N,) each, float32.

        heard: (A, P, C) what the LMs hear in the place of the patches.
        """
        model, device = self.model, row.batch.tokens.device
        attend = self._attend.over(row.pack.lengths, device)
        given = row.batch if heard is None else replace(row.batch, patches=heard)
        self.misread = None
        with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            before = model.shifted(model.hidden(given, attend, attend, row.positions))
            if self.reading and self.training:
                tokens = model.base_lm.embed_tokens.weight
                self.misread = misread(before.semantic[0], tokens, row.pack)
            return losses_after(model, row.batch, before, draws)


def draws_for(
    row: Row,
    model: VoxCPM,
    seed: tuple[int | str, ...],
    progress: float,
    *,
    pure_noise: float = 0.0,
) -> Draws:
    """Random numbers for the target patches of a pack. pure_noise: share of them at time 1.

    They follow from the seed and the samples in the pack and from nothing else: not from which
    worker computes it, from what came before, or from whether the run was interrupted.
    """
    patches = row.batch.patches
    config = model.config
    generator = _generator(row, seed)
    draws = draw(
        patches.new_empty(row.num_targets, *patches.shape[1:]),
        config.dit_config.cfm_config,
        progress=progress,
        mean_mode=config.mean_mode,
        generator=generator,
    )
    if not pure_noise:
        return draws
    pure = torch.rand(row.num_targets, device=patches.device, generator=generator) < pure_noise
    return replace(draws, t=draws.t.masked_fill(pure, 1.0), r=draws.r.masked_fill(pure, 1.0))


def heard_for(row: Row, seed: tuple[int | str, ...], most: float) -> Tensor:
    """(A, P, C) the patches of a pack with noise, of another deviation up to `most` in each.

    The noise follows from the seed and the samples, as in `draws_for`.
    """
    patches = row.batch.patches
    generator = _generator(row, (*seed, "heard"))
    level = most * patches.new_empty(len(patches), 1, 1).uniform_(generator=generator)
    return patches + level * torch.empty_like(patches).normal_(generator=generator)


def _generator(row: Row, seed: tuple[int | str, ...]) -> torch.Generator:
    key = repr((seed, row.pack.sample_ids)).encode()
    number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) >> 1
    return torch.Generator(row.batch.patches.device).manual_seed(number)
