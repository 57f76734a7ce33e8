"""What the trainer asks of whoever reads its audio.

Shapes: B batch, S samples heard, S' samples to be spoken.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
_POLL_S = 0.1


class Cursor(NamedTuple):
    """Where a stream goes on: batches of that chunk before `batch` were given."""

    epoch: int = 0
    chunk: int = 0
    """Of the clips that are shuffled among each other, in the order of the epoch."""
    batch: int = 0


START = Cursor()


class Skipped(NamedTuple):
    """A clip that the stream left out, and why."""

    clip_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Segments of clips, and where the stream goes on after them."""

    heard: Tensor
    """(B, 1, S) at the encoder's rate."""
    target: Tensor
    """(B, 1, S') the same moments at the decoder's rate."""
    sample_rates: Tensor
    """(B,) int64, hertz: what each clip's recording could hold, whatever rate it is brought to."""
    after: Cursor
    skipped: tuple[Skipped, ...] = ()
    """What was left out since the batch before this one."""

    def to(self, device: torch.device) -> "Batch":
        """Move the tensors."""
        return Batch(
            self.heard.to(device, non_blocking=True),
            self.target.to(device, non_blocking=True),
            self.sample_rates.to(device, non_blocking=True),
            self.after,
            self.skipped,
        )


@dataclass(frozen=True, slots=True)
class HeldOutClip:
    """A clip that training never sees."""

    clip_id: str
    heard: Tensor
    """(S,) at the encoder's rate."""
    target: Tensor
    """(S',) at the decoder's rate."""
    sample_rate: int
    """As in `Batch.sample_rates`."""


class SegmentStream(Protocol):
    """Segments of clips for one trainer."""

    @property
    def fingerprint(self) -> str:
        """Of all that decides the batches; a cursor is worth nothing for another one."""
        ...

    def batches(self, start: Cursor) -> Iterator[Batch]:
        """Batches without end, from a cursor on: the same cursor, the same batches, always."""
        ...

    def held_out(self) -> Sequence[HeldOutClip]:
        """At least one clip, the same ones at every call."""
        ...


def ahead(items: Iterator[Item], depth: int = 4) -> Iterator[Item]:
    """The same items, made by a thread up to `depth` of them in advance. What it raises, this does.

    Close the iterator to end the thread.
    """
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def hand_over(item: Item | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put((item, error), timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                hand_over(item, None)
                if stopped.is_set():
                    return
            hand_over(None, None)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            hand_over(None, error)

    thread = threading.Thread(target=work, name="segments", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
