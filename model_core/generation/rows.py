"""A batch of rows in flight, each at its own position.

Rows are kept dense: the first n are alive, and the last takes the place of one that leaves. Which
row does what is known on the host; the device only computes, and the stop flags are all that comes
back. On a GPU they are looked at one step late, so that the host never waits for the step at hand.
Shapes: n rows alive, P frames of a patch, C latent channels, D width of the LMs.
"""

from collections import deque
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from model_core.cache import KVCache
from model_core.flow_matching import Solver
from model_core.generation.replay import Replay
from model_core.generation.requests import Generated, PatchRequest
from model_core.sequences import collate
from model_core.voxcpm import VoxCPM

_POSITION_BLOCK = 256


@dataclass(eq=False, slots=True)
class Row:
    """One request on its way."""

    ticket: int
    request: PatchRequest
    noise: Tensor
    """(A, P, C) of this attempt, on the host."""
    start: tuple[Tensor, Tensor, Tensor]
    """What the first patch is made from: semantic (D,), acoustic (D,), past patch (P, C)."""
    attempt: int = 0
    patches: list[Tensor] = field(default_factory=list)

    @property
    def seed(self) -> int:
        """Of the attempt at hand."""
        return self.request.seed + self.attempt

    @property
    def position(self) -> int:
        """Where the last patch goes when it is fed back; the first free place if there is none."""
        return len(self.request.sequence) + max(len(self.patches) - 1, 0)

    def retry(self) -> None:
        """Begin anew with the next seed; the sequence's keys and values are still in place."""
        self.attempt += 1
        self.patches = []
        self.noise = noise_of(self.request, self.seed, self.noise.shape[1:])


@dataclass(slots=True)
class _Flags:
    """Stop flags on their way to the host, and whose patch they judge: row, attempt, number."""

    flags: Tensor
    of: list[tuple[Row, int, int]]
    ready: torch.cuda.Event | None


def noise_of(request: PatchRequest, seed: int, shape: torch.Size) -> Tensor:
    """(A, P, C) standard normal, drawn patch after patch as (C, P), like the official loop.

    Drawn on the host in float32, so that a seed means the same on every device and in any batch.
    """
    frames, channels = shape
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(channels, frames, generator=generator) for _ in range(request.max_patches)]
    return torch.stack(drawn).transpose(1, 2)


class Rows:
    """Runs up to `capacity` requests in step."""

    def __init__(
        self, model: VoxCPM, solver: Solver, capacity: int, *, steady: bool | None = None
    ) -> None:
        """steady: shapes change seldom, at the price of padding; None: on a GPU alone, where steps
        of one shape are recorded and replayed.
        """
        config, self.device, self.dtype = model.config, model.device, model.dtype
        self.model, self.solver, self.capacity = model, solver, capacity
        self._steady = self.device.type == "cuda" if steady is None else steady
        self._replay = Replay(self.device)
        self.alive: list[Row] = []
        self._patch_shape = torch.Size((config.patch_size, config.feat_dim))
        self._base, self._residual = (
            KVCache(part, capacity, _POSITION_BLOCK, dtype=self.dtype, device=self.device)
            for part in (config.base, config.residual)
        )

        def buffer(*shape: int) -> Tensor:
            return torch.zeros(capacity, *shape, dtype=self.dtype, device=self.device)

        self._g, self._r = buffer(config.base.dim), buffer(config.base.dim)
        self._past = buffer(*self._patch_shape)
        self._flags: deque[_Flags] = deque()

    def admit(self, asked: list[tuple[int, PatchRequest]]) -> None:
        """Read the sequences of new requests; there must be room for them."""
        assert len(self.alive) + len(asked) <= self.capacity, "more rows than there is room for"
        first = len(self.alive)
        batch = collate([request.sequence for _, request in asked]).to(self.device, self.dtype)
        # What may be needed, where more room later means to record anew; else what is needed now.
        self._make_room(
            max(len(r.sequence) + (r.max_patches if self._steady else 0) for _, r in asked)
        )
        rows = torch.arange(first, first + len(asked), device=self.device)
        hidden = self.model.hidden(batch, self._base.prefill(rows), self._residual.prefill(rows))
        ends = torch.arange(len(asked), device=self.device), batch.lengths - 1
        self._g[rows], self._r[rows] = hidden.semantic[ends], hidden.acoustic[ends]
        for place, (ticket, request) in enumerate(asked, start=first):
            sequence = request.sequence
            continues = bool(sequence.is_audio[-1])
            self._past[place] = sequence.patches[-1].to(self._past) if continues else 0
            start = self._g[place].clone(), self._r[place].clone(), self._past[place].clone()
            noise = noise_of(request, request.seed, self._patch_shape)
            self.alive.append(Row(ticket, request, noise, start))

    def sample(self) -> Tensor:
        """The next patch of every row: (n, P, C)."""
        n = len(self.alive)
        drawn = [row.noise[len(row.patches)] for row in self.alive]
        drawn += drawn[-1:] * (self._width(n) - n)
        noise = torch.stack(drawn).to(self.device, self.dtype, non_blocking=True)
        patches, stop = self._replay(("sample", len(noise)), self._sample, noise)
        # Out of the recording's hands, before the next step writes over it.
        patches, stop = patches[:n].clone(), stop[:n]
        self._past[:n] = patches
        for row, patch in zip(self.alive, patches, strict=True):
            row.patches.append(patch)
        of = [(row, row.attempt, len(row.patches)) for row in self.alive]
        if self.device.type == "cuda":
            host = torch.empty(n, dtype=torch.bool, pin_memory=True)
            host.copy_(stop, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._flags.append(_Flags(host, of, event))
        else:
            self._flags.append(_Flags(stop, of, None))
        return patches

    def _sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, P, C) and stop flags (B,) of the first B rows."""
        width = len(noise)
        g, r = self._g[:width], self._r[:width]
        patches = self.solver(noise, self.model.condition(g, r), self._past[:width])
        logits = self.model.stop_logits(g)
        return patches, logits[:, 1] > logits[:, 0]

    def retire(self) -> list[tuple[int, Generated]]:
        """Rows that are done leave, rows that went wrong begin anew.

        Looks at the flags of the last step, or on a GPU of the step before it.
        """
        late = 1 if self.device.type == "cuda" else 0
        ended: dict[Row, int] = {}
        while len(self._flags) > late:
            flags = self._flags.popleft()
            if flags.ready is not None:
                flags.ready.synchronize()
            for (row, attempt, count), stop in zip(flags.of, flags.flags.tolist(), strict=True):
                current = attempt == row.attempt
                if stop and current and count - 1 > row.request.min_patches:
                    ended.setdefault(row, count)
        done = []
        for row in list(self.alive):
            stopped = row in ended
            if not stopped and len(row.patches) < row.request.max_patches:
                continue
            taken = ended.get(row, row.request.max_patches)
            again = row.attempt + 1 < row.request.max_attempts
            if again and taken >= row.request.too_many:
                row.retry()  # `advance` gives it its start again
                continue
            patches = torch.stack(row.patches[:taken]).float()
            done.append((row.ticket, Generated(patches, stopped, row.seed, row.attempt + 1)))
            self._leave(row)
        return done

    def advance(self) -> None:
        """Feed every row's last patch back. Rows that have none yet are as they should be."""
        n = len(self.alive)
        if not n:
            return
        positions = [row.position for row in self.alive]
        fresh = [place for place, row in enumerate(self.alive) if not row.patches]
        width, span = self._width(n), max(positions) + 1
        self._make_room(span)
        if self._steady:
            span = -(-span // _POSITION_BLOCK) * _POSITION_BLOCK
        positions += [0] * (width - n)  # rows that are not alive; whoever takes them writes anew
        where = torch.tensor(positions).to(self.device, non_blocking=True)
        self._replay(("advance", width, span), partial(self._advance, span=span), where)
        for place in fresh:  # a row that begins anew was in the batch, but had nothing to feed
            self._g[place], self._r[place], self._past[place] = self.alive[place].start

    def _advance(self, where: Tensor, *, span: int) -> tuple[Tensor, ...]:
        """The states of the first B rows after their last patches, into their places."""
        width = len(where)
        ragged = width > 1 or self._steady
        base = self._base.step(where, span, ragged=ragged)
        residual = self._residual.step(where, span, ragged=ragged)
        hidden = self.model.step(self._past[:width], where, base, residual)
        self._g[:width], self._r[:width] = hidden.semantic[:, 0], hidden.acoustic[:, 0]
        return ()

    def _width(self, rows: int) -> int:
        """Rows that a step computes: those alive, or the next power of two."""
        return min(self.capacity, 1 << (rows - 1).bit_length()) if self._steady else rows

    def _leave(self, row: Row) -> None:
        place, last = self.alive.index(row), len(self.alive) - 1
        if place != last:
            for cache in (self._base, self._residual):
                cache.move(last, place)
            for state in (self._g, self._r, self._past):
                state[place] = state[last]
            self.alive[place] = self.alive[last]
        self.alive.pop()

    def _make_room(self, positions: int) -> None:
        blocks = -(-positions // _POSITION_BLOCK)
        if blocks * _POSITION_BLOCK > self._base.positions:
            self._replay.forget()
            for cache in (self._base, self._residual):
                cache.grow(blocks * _POSITION_BLOCK)
