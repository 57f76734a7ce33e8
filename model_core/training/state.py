"""Checkpoints of a run: what is needed to use the model, and what is needed to go on.

    checkpoints/step_0000200/     a checkpoint in the official layout, or an adapter's folder
        training/                 what only this trainer reads
            state.json            step, settings, where the stream of each worker goes on
            weights.safetensors   the trained weights in float32
            optimizer.safetensors
            average.safetensors   the moving average, where there is one
            random.safetensors    random states of each worker
    checkpoints/last, best        links

A folder of a step appears whole or not at all, so the newest one is where a run goes on, whatever a
crash left of the links. Tensors are in safetensors and facts in JSON: reading a checkpoint runs
nobody's code. (The storage of torch.distributed.checkpoint keeps its index as a pickle.)
"""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from schemas.errors import ConfigError, ModelLoadError

FORMAT = 1
_STEP = re.compile(r"step_(\d{7,})")


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that is there."""

    folder: Path
    step: int
    facts: dict[str, Any]
    """state.json."""

    @property
    def loss(self) -> float | None:
        """Of the validation when it was saved; None where there was none."""
        loss = self.facts.get("loss")
        return None if loss is None else float(loss)

    def tensors(self, name: str) -> "TensorFile":
        """training/NAME.safetensors. Raises ModelLoadError when it is damaged or missing."""
        return TensorFile(self.folder / "training" / f"{name}.safetensors")


class TensorFile:
    """Tensors of a file by name, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Raises ModelLoadError when it does not open."""
        self._path = path
        try:
            self._file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise ModelLoadError(f"{path} does not open: {error}") from error
        self.names = frozenset(self._file.keys())  # type: ignore[no-untyped-call]

    def __getitem__(self, name: str) -> Tensor:
        """Raises ModelLoadError when it is not there."""
        if name not in self.names:
            raise ModelLoadError(f"{self._path} lacks {name}")
        return self._file.get_tensor(name)  # type: ignore[no-untyped-call]


class Checkpoints:
    """The checkpoints folder of a run. The newest and the best are kept."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"

    def all(self) -> list[Saved]:
        """Oldest first. Raises ModelLoadError when one is damaged."""
        found = []
        for path in self.folder.glob("step_*"):
            match = _STEP.fullmatch(path.name)
            if match and path.is_dir():
                found.append(Saved(path, int(match[1]), _facts(path)))
        return sorted(found, key=lambda saved: saved.step)

    def newest(self) -> Saved | None:
        """Where a run goes on."""
        return next(reversed(self.all()), None)

    def best(self) -> Saved | None:
        """The one with the lowest loss."""
        judged = [saved for saved in self.all() if saved.loss is not None]
        return min(judged, key=lambda saved: (saved.loss, saved.step), default=None)

    def aside(self, step: int) -> Path:
        """An empty folder to write a checkpoint into, which is none before `publish`."""
        aside = self._aside(step)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        return aside

    def publish(self, step: int) -> None:
        """Put what was written aside in its place, in one go."""
        folder = self.folder / f"step_{step:07d}"
        shutil.rmtree(folder, ignore_errors=True)
        self._aside(step).rename(folder)
        self.tidy()

    def _aside(self, step: int) -> Path:
        return self.folder / f".step_{step:07d}.tmp"

    def tidy(self) -> None:
        """Point the links at the newest and the best, and remove all else."""
        if not self.folder.is_dir():
            return
        newest, best = self.newest(), self.best()
        for name, saved in (("last", newest), ("best", best)):
            if saved is not None:
                _point(self.folder / name, saved.folder.name)
        kept = {saved.folder for saved in (newest, best) if saved is not None}
        for saved in self.all():
            if saved.folder not in kept:
                shutil.rmtree(saved.folder)
        for leftover in self.folder.glob(".*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """state.json of a checkpoint."""
    text = json.dumps({"format": FORMAT, **facts}, indent=1)
    (folder / "training" / "state.json").write_text(text, encoding="utf-8")


def write_tensors(folder: Path, name: str, tensors: dict[str, Tensor]) -> None:
    """training/NAME.safetensors of a checkpoint."""
    training = folder / "training"
    training.mkdir(exist_ok=True)
    contiguous = {key: value.contiguous() for key, value in tensors.items()}
    save_file(contiguous, training / f"{name}.safetensors")


def check_settings(saved: Saved, asked: dict[str, Any]) -> None:
    """Raises ConfigError naming the first setting that differs from those of the run.

    asked: settings by section, as plain values that JSON knows.
    """
    asked = json.loads(json.dumps(asked))
    for section, settings in asked.items():
        before = saved.facts["settings"].get(section)
        difference = _difference(before, settings, section)
        if difference is not None:
            where, was, now = difference
            raise ConfigError(
                f"the run in {saved.folder.parents[1]} began with {where} = {was!r}, and now it is "
                f"{now!r}; resume with the same, or begin another run"
            )


def _difference(before: Any, now: Any, where: str) -> tuple[str, Any, Any] | None:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            found = _difference(before.get(key), now.get(key), f"{where}.{key}")
            if found is not None:
                return found
        return None
    return None if before == now else (where, before, now)


def _facts(folder: Path) -> dict[str, Any]:
    file = folder / "training" / "state.json"
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{file} is damaged: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ModelLoadError(f"{file} is not of a version that this trainer reads")
    return facts


def _point(link: Path, target: str) -> None:
    """Make a link to a neighbour, in one go; a text file where the file system has no links."""
    aside = link.with_name(f".{link.name}.link")
    aside.unlink(missing_ok=True)
    try:
        aside.symlink_to(target, target_is_directory=True)
    except OSError:
        aside.write_text(f"{target}\n", encoding="utf-8")
        link = link.with_suffix(".txt")
    os.replace(aside, link)
