"""The sequences that the model reads: text tokens and audio patches in one row of positions.

    layout                      positions (T text, A audio)                           target
    text                        T 101 A 102                                           A
    described text              T = "(description)text", else the same                A
    reference                   103 A(ref) 104 T 101 A 102                            last A
    reference, described        the same with a description in T                      last A
    continuation                T(prompt text + text) 101 A(prompt) A 102             last A
    reference and continuation  103 A(ref) 104 T(prompt text + text) 101 A(prompt) A 102
    voice prompt (no target)    T 103 A 104                                           none

In generation a sequence ends before the target, and 102 is neither written nor read. Only target
patches carry loss. Shapes: T positions, A patches, P frames of a patch, C latent channels.
Source: spec §9 and §10.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

AUDIO_START = 101
AUDIO_END = 102
REFERENCE_START = 103
REFERENCE_END = 104


@dataclass(frozen=True, slots=True)
class Sequence:
    """One row. Audio positions hold token 0 and take the patches in order."""

    tokens: Tensor
    """(T,) int64."""
    is_audio: Tensor
    """(T,) booleans."""
    patches: Tensor
    """(A, P, C) latents, one for each audio position."""
    is_target: Tensor
    """(T,) booleans: patches that carry loss."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def stop_labels(self) -> Tensor:
        """(T,) int64: 1 at the last target patch, else 0."""
        labels = torch.zeros_like(self.tokens)
        targets = self.is_target.nonzero()
        if len(targets):
            labels[targets[-1]] = 1
        return labels


class _Part(NamedTuple):
    """Tokens, or patches of which some may be the target."""

    tokens: Tensor | None = None
    patches: Tensor | None = None
    is_target: bool = False


def _special(token: int) -> _Part:
    return _Part(tokens=torch.tensor([token]))


def _reference(patches: Tensor | None) -> list[_Part]:
    if patches is None:
        return []
    return [_special(REFERENCE_START), _Part(patches=patches), _special(REFERENCE_END)]


def _join(parts: list[_Part], empty: Tensor) -> Sequence:
    """empty: (0, P, C), for a row without audio."""
    tokens, audio, targets, patches = [], [], [], [empty]
    for part in parts:
        if part.tokens is not None:
            tokens.append(part.tokens.long())
        if part.patches is not None:
            tokens.append(torch.zeros(len(part.patches), dtype=torch.long))
            patches.append(part.patches)
        audio.append(torch.full((len(tokens[-1]),), part.patches is not None))
        targets.append(torch.full((len(tokens[-1]),), part.is_target))
    return Sequence(torch.cat(tokens), torch.cat(audio), torch.cat(patches), torch.cat(targets))


def generation_sequence(
    text: Tensor, empty: Tensor, *, reference: Tensor | None = None, prompt: Tensor | None = None
) -> Sequence:
    """What generation starts from.

    text: (T,) ids, of prompt text and text as one string where there is a prompt;
    empty: (0, P, C); reference, prompt: (A, P, C) patches.
    """
    parts = [*_reference(reference), _Part(tokens=text), _special(AUDIO_START)]
    if prompt is not None:
        parts.append(_Part(patches=prompt))
    return _join(parts, empty)


def training_sequence(
    text: Tensor,
    target: Tensor,
    *,
    reference: Tensor | None = None,
    prompt: Tensor | None = None,
) -> Sequence:
    """A generation sequence, its answer, and the end of audio. target: (A, P, C) patches."""
    parts = [*_reference(reference), _Part(tokens=text), _special(AUDIO_START)]
    if prompt is not None:
        parts.append(_Part(patches=prompt))
    parts += [_Part(patches=target, is_target=True), _special(AUDIO_END)]
    return _join(parts, target[:0])


def voice_prompt_sequence(text: Tensor, patches: Tensor) -> Sequence:
    """Text and its audio as a prompt that is never predicted."""
    return _join([_Part(tokens=text), *_reference(patches)], patches[:0])


class Where(NamedTuple):
    """Positions of a batch, row after row."""

    audio: Tensor
    """(A,) int64."""
    targets: Tensor
    """(N,) int64."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences padded on the right with zeros to the longest."""

    tokens: Tensor
    """(B, T) int64."""
    text_mask: Tensor
    """(B, T) booleans."""
    audio_mask: Tensor
    """(B, T) booleans; padding is neither text nor audio."""
    patches: Tensor
    """(A, P, C): the patches at the audio positions, row by row."""
    loss_mask: Tensor
    """(B, T) booleans."""
    stop_labels: Tensor
    """(B, T) int64."""
    lengths: Tensor
    """(B,) int64."""
    where: Where | None = None
    """What the masks say, as indices found on the host: a device need not wait for its own."""

    @property
    def audio_index(self) -> Tensor:
        """(A,) int64: the audio positions among all B · T."""
        return _flat_index(self.audio_mask) if self.where is None else self.where.audio

    @property
    def target_index(self) -> Tensor:
        """(N,) int64: the target patches among all B · T positions."""
        return _flat_index(self.loss_mask) if self.where is None else self.where.targets

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Batch":
        """Move everything; dtype is that of the patches."""
        return Batch(
            self.tokens.to(device),
            self.text_mask.to(device),
            self.audio_mask.to(device),
            self.patches.to(device, dtype),
            self.loss_mask.to(device),
            self.stop_labels.to(device),
            self.lengths.to(device),
            None if self.where is None else Where(*(index.to(device) for index in self.where)),
        )


def _flat_index(mask: Tensor) -> Tensor:
    return mask.flatten().nonzero()[:, 0]


def collate(sequences: Rows[Sequence]) -> Batch:
    """Pad to the longest."""
    pad = torch.nn.utils.rnn.pad_sequence
    lengths = torch.tensor([len(row) for row in sequences])
    audio = pad([row.is_audio for row in sequences], batch_first=True)
    loss = pad([row.is_target for row in sequences], batch_first=True)
    inside = torch.arange(audio.shape[1]) < lengths[:, None]
    return Batch(
        tokens=pad([row.tokens for row in sequences], batch_first=True),
        text_mask=inside & ~audio,
        audio_mask=audio,
        patches=torch.cat([row.patches for row in sequences]),
        loss_mask=loss,
        stop_labels=pad([row.stop_labels for row in sequences], batch_first=True),
        lengths=lengths,
        where=Where(_flat_index(audio), _flat_index(loss)),
    )
