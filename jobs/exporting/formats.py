"""What every format has: how its audio is, how it writes a shard, which manifests it ends with."""

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jobs.exporting.audio import ExportClip
from jobs.exporting.options import FormatName
from jobs.exporting.shards import Shard
from schemas.errors import ConfigError

Row = dict[str, Any]
"""What a shard tells of one clip for the manifests; plain JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an export lies, for manifests."""

    root: str
    """The folder, as an absolute path or a uri."""
    lost: frozenset[str]
    """Clips that were planned and could not be read."""
    references: bool
    """Some clip of the export has a reference."""


Lines = Callable[[Iterable[Row], Place], Iterable[str]]
"""Rows of a split → lines of a manifest."""


class Format(ABC):
    """One way to write clips. A shard's files have names that no other shard's files have."""

    name: ClassVar[FormatName]
    package: ClassVar[str | None] = None
    """The library that writes it, where it is not always installed."""
    suffix: ClassVar[str] = "flac"
    """`flac` or `wav`."""
    sample_rate: ClassVar[int | None] = None
    """Hertz, where its readers take one rate only."""
    needs_reference: ClassVar[bool] = False
    reads: ClassVar[str]
    """For the README: what lies where, and how it is read."""
    names_paths: ClassVar[bool] = False
    """Its manifests hold absolute paths, which no object store has."""

    def library(self) -> Any:
        """Import what writes it. Raises `ConfigError` naming the extra that installs it."""
        if self.package is None:
            return None
        try:
            return importlib.import_module(self.package)
        except ImportError as error:
            raise ConfigError(
                f"--to {self.name} needs the package {self.package} ({error}); "
                "`pip install 'voxquarry[export]'` brings it"
            ) from error

    @abstractmethod
    def write(self, folder: Path, shard: Shard, clips: Iterable[ExportClip]) -> list[Row]:
        """Write the shard's files below `folder`, named as in the export. Returns a row for each."""

    def manifests(self, split: str) -> Mapping[str, Lines]:
        """Names of the split's manifests, and how their lines are made."""
        return {}

    def card(self, splits: Iterable[str]) -> dict[str, Any]:
        """What the head of the README says of where things lie."""
        return {}


class LooseFiles(Format):
    """A format whose clips are files of their own: audio/SPLIT/ID[:2]/ID.SUFFIX.

    Clones lie under audio/synthetic.
    """

    def write(self, folder: Path, shard: Shard, clips: Iterable[ExportClip]) -> list[Row]:
        """Write each clip's audio."""
        rows: list[Row] = []
        for clip in clips:
            path = self.path_of(clip.row["clip_id"], clip.row["split"], clip.row["synthetic"])
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(clip.audio)
            if clip.row["listed"]:
                rows.append({"path": path, "duration": clip.duration_s, **self.told(clip)})
        return rows

    def path_of(self, clip_id: str, split: str, synthetic: bool) -> str:
        """The clip's file, relative to the export."""
        side = "synthetic" if synthetic else split
        return f"audio/{side}/{clip_id[:2]}/{clip_id}.{self.suffix}"

    @abstractmethod
    def told(self, clip: ExportClip) -> Row:
        """The clip's row beside path and duration."""

    def reference(self, clip: ExportClip) -> Row:
        """reference_id, reference_path, and reference_s of the clip; nulls where it has none."""
        row = clip.row
        reference = row["reference_id"]
        # What lends its voice was recorded.
        path = None if reference is None else self.path_of(reference, row["split"], False)
        return {
            "reference_id": reference,
            "reference_path": path,
            "reference_s": row["reference_s"],
        }


def json_line(values: Mapping[str, Any]) -> str:
    """One line of JSON, letters as they are."""
    return json.dumps(values, ensure_ascii=False)
