"""The folder of an export: its shards and the markers that say which of them are whole.

    OUT/_export/export.json       format, and whether all of it is there
    OUT/_export/SHARD.jsonl       what the shard tells its split's manifests
    OUT/_export/SHARD.json        the marker, written last: fingerprint and names of the files
    OUT/…                         the shards' files; then the manifests; README.md comes last

A shard without its marker is written again. A marker that no plan has any more takes its files
along, so the same command after a change of the corpus leaves what a fresh export would.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import fs as pafs

from jobs.exporting.audio import Lost
from jobs.exporting.formats import Row, json_line
from jobs.exporting.shards import Shard
from pipeline.storage import Corpus
from schemas.errors import ConfigError, StorageError

BOOKS = "_export"
_STATE = f"{BOOKS}/export.json"
_ASIDE = f"{BOOKS}/.aside"


class ExportFolder(Corpus):
    """A folder or object-store prefix, written as a corpus is: each file whole or not at all."""

    def claim(self, format_name: str, corpus: str) -> None:
        """Make it the folder of an export. Raises `ConfigError` if it is something else."""
        state = self.find_json(_STATE)
        if state is None and self._files(""):
            raise ConfigError(f"{self.root} is not empty and no export; name another --out")
        if state is not None and state["format"] != format_name:
            raise ConfigError(
                f"{self.root} holds an export to {state['format']}; name another --out"
            )
        if self.is_local:
            shutil.rmtree(Path(self.path, _ASIDE), ignore_errors=True)
        if state is None:
            self.write_json(_STATE, {"format": format_name, "corpus": corpus, "plan": None})

    def finished_plan(self) -> str | None:
        """Fingerprint of the plan whose export is all there."""
        plan: str | None = self.read_json(_STATE)["plan"]
        return plan

    def keep(self, shards: Sequence[Shard]) -> set[str]:
        """Remove what these shards are not, and return the names of those that are there."""
        wanted = {shard.name: shard.fingerprint for shard in shards}
        there = set()
        for name in self._files(BOOKS):
            marker = PurePosixPath(name)
            if marker.suffix != ".json" or name == _STATE:
                continue
            known = self.read_json(name)
            if wanted.get(marker.stem) == known["fingerprint"]:
                there.add(marker.stem)
                continue
            # The marker first: what is half removed is not there.
            self._delete([name, f"{BOOKS}/{marker.stem}.jsonl", *known["files"]])
        return there

    def reopen(self, manifests: Iterable[str]) -> None:
        """From here on it is not finished: its README and manifests are of another plan."""
        self.write_json(_STATE, {**self.read_json(_STATE), "plan": None})
        self._delete(["README.md", *manifests])

    @contextmanager
    def aside(self) -> Iterator[Path]:
        """An empty local folder for a shard's files; on the same disk where the export is local."""
        place = None
        if self.is_local:
            place = Path(self.path, _ASIDE)
            place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place) as folder:
            yield Path(folder)

    def publish(self, shard: Shard, written: Path, rows: Sequence[Row], lost: list[Lost]) -> None:
        """Move a shard's files in, and then its marker."""
        files = sorted(
            path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()
        )
        for name in files:
            self._move_in(written / name, name)
        text = "".join(f"{json_line(row)}\n" for row in rows)
        self.write_lines(f"{BOOKS}/{shard.name}.jsonl", [text])
        marker = {
            "fingerprint": shard.fingerprint,
            "files": files,
            "lost": [asdict(one) for one in lost],
        }
        self.write_json(f"{BOOKS}/{shard.name}.json", marker)

    def finish(self, plan: str, readme: str) -> None:
        """Write the README, and that all of the plan is there."""
        self.write_lines("README.md", [readme])
        self.write_json(_STATE, {**self.read_json(_STATE), "plan": plan})

    def lost(self, shards: Iterable[Shard]) -> list[Lost]:
        """Clips of the shards that could not be read."""
        markers = (self.read_json(f"{BOOKS}/{shard.name}.json") for shard in shards)
        return [Lost(**one) for marker in markers for one in marker["lost"]]

    def rows(self, shards: Iterable[Shard]) -> Iterator[Row]:
        """What the shards told of their clips, one shard in memory at a time."""
        for shard in shards:
            with self.fs.open_input_stream(f"{self.path}/{BOOKS}/{shard.name}.jsonl") as source:
                for line in source.read().decode().splitlines():
                    yield json.loads(line)

    def write_lines(self, name: str, pieces: Iterable[str]) -> None:
        """Write a text file piece by piece, whole or not at all."""

        def write(sink: Any) -> None:
            for piece in pieces:
                sink.write(piece.encode())

        self._write_atomically(name, write, in_pieces=True)

    def _move_in(self, source: Path, name: str) -> None:
        target = f"{self.path}/{name}"
        if self.is_local:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        else:
            pafs.copy_files(
                str(source),
                target,
                source_filesystem=pafs.LocalFileSystem(),
                destination_filesystem=self.fs,
            )

    def _files(self, folder: str) -> list[str]:
        """Names below a folder of the export, sorted."""
        selector = pafs.FileSelector(
            f"{self.path}/{folder}".rstrip("/"), allow_not_found=True, recursive=not folder
        )
        found = (info.path for info in self.fs.get_file_info(selector) if info.is_file)
        return sorted(path[len(self.path) + 1 :] for path in found)

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise StorageError(f"{self.root}: a marker names {name!r}, which is outside")
            if self.fs.get_file_info(f"{self.path}/{name}").type == pafs.FileType.File:
                self.fs.delete_file(f"{self.path}/{name}")
