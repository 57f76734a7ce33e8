"""Who is compared: checkpoints, and the recordings themselves where there are any."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from annotators.registry import checkpoint_folder, checkpoint_hash
from jobs.evaluation.utterances import Utterance
from schemas.errors import ConfigError

RECORDED = "recorded"
_UNSAFE = re.compile(r"[^\w.-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """A checkpoint, or what was recorded."""

    label: str
    """How tables call it."""
    checkpoint: Path | None = None
    """Its folder; None for the recordings."""
    model_hash: str = ""

    @property
    def folder(self) -> str:
        """Below the evaluation's folder; another checkpoint under the same name has another one."""
        return f"{safe_name(self.label)}-{self.model_hash[:8]}" if self.checkpoint else RECORDED


def safe_name(text: str) -> str:
    """A text as part of a file name: it neither leads elsewhere nor is hidden or long."""
    return _UNSAFE.sub("_", text).strip("._-")[:60] or "_"


def systems_of(checkpoints: Sequence[str], utterances: Sequence[Utterance]) -> list[System]:
    """Checkpoints in the order given; after them the recordings, if any text was recorded.

    Raises ModelLoadError, and ConfigError where one is named twice.
    """
    folders = [checkpoint_folder(name).resolve() for name in checkpoints]
    found: list[System] = []
    for folder, label in zip(folders, labels_of(checkpoints, folders), strict=True):
        system = System(label=label, checkpoint=folder, model_hash=checkpoint_hash(folder))
        same = next((one for one in found if one.model_hash == system.model_hash), None)
        if same is not None:
            raise ConfigError(f"{same.checkpoint} and {folder} are the same checkpoint")
        found.append(system)
    if any(one.truth for one in utterances):
        found.append(System(label=RECORDED))
    return found


def labels_of(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """A name as it was given; of a folder, as much of the end of its path as tells it apart."""
    labels = []
    for name, folder in zip(names, folders, strict=True):
        others = [other for other in folders if other != folder]
        parts = folder.parts[1:] if Path(name).expanduser().is_dir() else (name,)
        depth = next(
            (
                n
                for n in range(1, len(parts))
                if all(other.parts[-n:] != parts[-n:] for other in others)
            ),
            len(parts),
        )
        label = "/".join(parts[-depth:]) or name
        labels.append(label if label != RECORDED else str(folder))
    return labels
