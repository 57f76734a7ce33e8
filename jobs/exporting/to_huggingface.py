"""Parquet shards with an Audio feature, as the library `datasets` and its hub read them."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.exporting.audio import ExportClip
from jobs.exporting.formats import Format, Row
from jobs.exporting.options import FormatName
from jobs.exporting.shards import Shard
from jobs.exporting.telling import NUMBERS, TEXTS, told_of

# A row group is read as a whole: some megabytes of audio.
ROWS_PER_GROUP = 64


class HuggingFace(Format):
    """data/SPLIT-00000-of-00001.parquet; `datasets.load_dataset(OUT)` finds them by the README."""

    name = FormatName.HUGGINGFACE
    package = "datasets"
    reads = "`datasets.load_dataset(FOLDER)` reads it."

    def write(self, folder: Path, shard: Shard, clips: Iterable[ExportClip]) -> list[Row]:
        """One Parquet file with the features in its metadata."""
        schema = self._schema()
        path = folder / "data" / f"{shard.name}.parquet"
        path.parent.mkdir(parents=True)
        with pq.ParquetWriter(path, schema, write_page_index=True) as writer:
            for group in _groups(clips):
                rows = [_row(clip) for clip in group]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        return []

    def card(self, splits: Iterable[str]) -> dict[str, Any]:
        """Where each split lies."""
        files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
        return {"configs": [{"config_name": "default", "data_files": files}]}

    def _schema(self) -> pa.Schema:
        datasets = self.library()
        features = datasets.Features(
            {
                "audio": datasets.Audio(),
                **{name: datasets.Value("string") for name in TEXTS},
                **{name: datasets.Value("float64") for name in (*NUMBERS, "duration_s")},
                "sample_rate": datasets.Value("int64"),
                "synthetic": datasets.Value("bool"),
            }
        )
        schema: pa.Schema = features.arrow_schema
        return schema


def _row(clip: ExportClip) -> dict[str, Any]:
    audio = {"bytes": clip.audio, "path": f"{clip.row['clip_id']}.flac"}
    return {"audio": audio, **told_of(clip)}


def _groups(clips: Iterable[ExportClip]) -> Iterator[list[ExportClip]]:
    left = iter(clips)
    while group := list(islice(left, ROWS_PER_GROUP)):
        yield group
