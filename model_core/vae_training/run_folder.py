"""What a training keeps on disk while it runs.

state.pt                   all that the next step needs; replaced whole
best.safetensors           the AudioVAE at its best on the held-out clips
last.safetensors           the AudioVAE after the last step, once that was done
log.jsonl                  one object a line: parts of the loss, or scores of the held-out clips
tensorboard/               the same as curves
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from model_core.vae_training.checkpoint import save_weights
from schemas.errors import ModelLoadError


class RunFolder:
    """Opened for one training, once its state says where the log goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._board: SummaryWriter | None = None

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last, if any. Raises ModelLoadError where it does not open."""
        file = self.folder / "state.pt"
        if not file.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ModelLoadError(f"{file} does not open; delete {self.folder} to start anew") from (
                error
            )
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state: at any moment one of the two is there, whole."""
        aside = self.folder / f".state.{os.getpid()}.tmp"
        try:
            with aside.open("wb") as sink:
                torch.save(state, sink)
                sink.flush()
                os.fsync(sink.fileno())
            aside.replace(self.folder / "state.pt")
        finally:
            aside.unlink(missing_ok=True)

    def save_best(self, weights: dict[str, torch.Tensor]) -> None:
        """Replace the best weights."""
        save_weights(self.folder / "best.safetensors", weights)

    def save_last(self, weights: dict[str, torch.Tensor]) -> None:
        """Write the weights after the last step."""
        save_weights(self.folder / "last.safetensors", weights)

    def open_log(self, step: int) -> None:
        """Go on after a step: what was logged beyond it will be logged again, so it goes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "log.jsonl"
        if log.is_file():
            lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
            # A line that a crash cut short ends without a line break.
            kept = [ln for ln in lines if ln.endswith("\n") and json.loads(ln)["step"] <= step]
            aside = self.folder / ".log.tmp"
            aside.write_text("".join(kept), encoding="utf-8")
            aside.replace(log)
        self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """One line of the log; its numbers become curves."""
        line = json.dumps({"kind": kind, "step": step, **values})
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")
        assert self._board is not None
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Let go of the log."""
        if self._board is not None:
            self._board.close()
            self._board = None
