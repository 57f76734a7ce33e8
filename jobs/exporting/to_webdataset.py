"""WebDataset shards: tar files with .flac, .txt and .json of each clip."""

from collections.abc import Iterable
from pathlib import Path

from jobs.exporting.audio import ExportClip
from jobs.exporting.formats import Format, Row, json_line
from jobs.exporting.options import FormatName
from jobs.exporting.shards import Shard
from jobs.exporting.telling import told_of


class WebDataset(Format):
    """SPLIT-00000-of-00001.tar."""

    name = FormatName.WEBDATASET
    package = "webdataset"
    reads = "`webdataset.WebDataset(FOLDER/SPLIT-*.tar)` reads .flac, .txt and .json of each clip."

    def write(self, folder: Path, shard: Shard, clips: Iterable[ExportClip]) -> list[Row]:
        """One tar file; the same clips give the same bytes."""
        writer = self.library().TarWriter
        with writer(str(folder / f"{shard.name}.tar"), mtime=0.0, encoder=False) as tar:
            for clip in clips:
                told = told_of(clip)
                tar.write(
                    {
                        "__key__": told["clip_id"],
                        "flac": clip.audio,
                        "txt": told["text"].encode(),
                        "json": json_line(told).encode(),
                    }
                )
        return []
