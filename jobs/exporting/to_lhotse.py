"""Lhotse Shar: for each shard the cuts as JSONL, and their recordings as a tar file."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jobs.exporting.audio import ExportClip
from jobs.exporting.formats import Format, Row, json_line
from jobs.exporting.options import FormatName
from jobs.exporting.shards import Shard
from jobs.exporting.telling import told_of

_IN_SUPERVISION = ("clip_id", "text", "language", "speaker", "gender", "duration_s", "sample_rate")


class LhotseShar(Format):
    """SPLIT/cuts.000000.jsonl.gz and SPLIT/recording.000000.tar, for `CutSet.from_shar`."""

    name = FormatName.LHOTSE
    package = "lhotse"
    reads = "`lhotse.CutSet.from_shar(in_dir=FOLDER/SPLIT)` reads it."

    def write(self, folder: Path, shard: Shard, clips: Iterable[ExportClip]) -> list[Row]:
        """Both files; the FLAC goes in as it is, where Lhotse's own writer would encode it again."""
        self.library()
        from lhotse import Recording
        from lhotse.shar import JsonlShardWriter, TarWriter
        from lhotse.shar.utils import to_shar_placeholder

        side = folder / shard.split
        side.mkdir()
        cuts_file = str(side / f"cuts.{shard.index:06}.jsonl.gz")
        tar_file = str(side / f"recording.{shard.index:06}.tar")
        with (
            JsonlShardWriter(cuts_file, shard_size=None) as cuts,
            TarWriter(tar_file, shard_size=None) as recordings,
        ):
            for clip in clips:
                name = clip.row["clip_id"]
                recording = to_shar_placeholder(Recording.from_bytes(clip.audio, name))
                described = json_line(recording.to_dict()).encode()
                recordings.write(f"{name}.flac", io.BytesIO(clip.audio))
                recordings.write(f"{name}.json", io.BytesIO(described), count=False)
                cuts.write(_cut(clip, recording))
        return []


def _cut(clip: ExportClip, recording: Any) -> Any:
    from lhotse import MonoCut, SupervisionSegment

    told = told_of(clip)
    supervision = SupervisionSegment(
        id=told["clip_id"],
        recording_id=told["clip_id"],
        start=0.0,
        duration=recording.duration,
        text=told["text"],
        language=told["language"],
        speaker=told["speaker"],
        gender=told["gender"],
        custom={name: value for name, value in told.items() if name not in _IN_SUPERVISION},
    )
    return MonoCut(
        id=told["clip_id"],
        start=0.0,
        duration=recording.duration,
        channel=0,
        supervisions=[supervision],
        recording=recording,
    )
