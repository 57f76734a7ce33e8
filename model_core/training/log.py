"""What a run writes down: log.jsonl, one object a line, and the same for TensorBoard."""

import json
import math
import os
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

_UNSEEN = ("kind", "step", "epoch")


class RunLog:
    """The log of a run; workers other than the first have a silent one."""

    def __init__(self, folder: Path, *, step: int, silent: bool = False) -> None:
        """step: the last one of the checkpoint that the run goes on from, or 0.

        What was told of later steps is dropped: it will be told again.
        """
        self._file = None
        if silent:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.jsonl"
        if path.exists():
            _cut(path, step)
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, **facts: Any) -> None:
        """One line, and its numbers as curves."""
        if self._file is None:
            return
        line = _plain({"kind": kind, "step": step, **facts})
        self._file.write(json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n")
        self._file.flush()
        for name, value in _numbers(facts):
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def audio(self, step: int, name: str, wave: Tensor, sample_rate: int) -> None:
        """Something to listen to. wave: (samples,) in [-1, 1]."""
        if self._file is not None:
            self._board.add_audio(name, wave[None], step, sample_rate)

    def close(self) -> None:
        """Nothing is written after this."""
        if self._file is not None:
            self._file.close()
            self._board.close()
            self._file = None


def _cut(path: Path, step: int) -> None:
    """Keep the whole lines up to a step."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            fits = line.endswith("\n") and json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            fits = False  # a line that a crash cut off
        if fits:
            kept.append(line)
    aside = path.with_suffix(".tmp")
    aside.write_text("".join(kept), encoding="utf-8")
    os.replace(aside, path)


def _plain(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: they become words."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else str(value)
    return value


def _numbers(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found = []
    for name, value in facts.items():
        if isinstance(value, dict):
            found += _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and name not in _UNSEEN:
            found.append((f"{prefix}{name}", float(value)))
    return found
