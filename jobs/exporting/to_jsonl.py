"""The fine-tuning lists of VoxCPM and Qwen3-TTS: a line of JSON for each clip."""

from collections.abc import Iterable, Iterator, Mapping

from jobs.exporting.audio import ExportClip
from jobs.exporting.formats import Lines, LooseFiles, Place, Row, json_line
from jobs.exporting.options import FormatName


class VoxCpm(LooseFiles):
    """What the official VoxCPM trainer reads; it resamples by itself.

    `dataset_id` numbers the sources. Where no clip has a reference there are no such columns.
    """

    name = FormatName.VOXCPM
    reads = (
        "`SPLIT.jsonl` has a line for each clip; `dataset_id` numbers the sources, clones are one of "
        "their own."
    )
    names_paths = True

    def told(self, clip: ExportClip) -> Row:
        """Text, source and reference."""
        row = clip.row
        told = {"text": row["text"], "dataset_id": row["source_number"]}
        return told | self.reference(clip)

    def manifests(self, split: str) -> Mapping[str, Lines]:
        """SPLIT.jsonl."""
        return {f"{split}.jsonl": self._lines}

    def _lines(self, rows: Iterable[Row], place: Place) -> Iterator[str]:
        for row in rows:
            there = row["reference_id"] is not None and row["reference_id"] not in place.lost
            values = {
                "audio": f"{place.root}/{row['path']}",
                "text": row["text"],
                "duration": row["duration"],
                "dataset_id": row["dataset_id"],
            }
            if place.references:
                values["ref_audio"] = f"{place.root}/{row['reference_path']}" if there else None
                values["ref_duration"] = row["reference_s"] if there else None
            yield json_line(values)


class Qwen3Tts(LooseFiles):
    """What the official Qwen3-TTS fine-tuning reads: WAV at 24 kHz, and a reference for each clip."""

    name = FormatName.QWEN3_TTS
    reads = (
        "`SPLIT_raw.jsonl` has a line for each clip that has a reference, for the trainer's "
        "preparation of codes."
    )
    suffix = "wav"
    sample_rate = 24_000
    needs_reference = True
    names_paths = True

    def told(self, clip: ExportClip) -> Row:
        """Text and reference."""
        return {"text": clip.row["text"]} | self.reference(clip)

    def manifests(self, split: str) -> Mapping[str, Lines]:
        """SPLIT_raw.jsonl, as the preparation of its codes expects it."""
        return {f"{split}_raw.jsonl": self._lines}

    def _lines(self, rows: Iterable[Row], place: Place) -> Iterator[str]:
        for row in rows:
            if row["reference_id"] not in place.lost:
                yield json_line(
                    {
                        "audio": f"{place.root}/{row['path']}",
                        "text": row["text"],
                        "ref_audio": f"{place.root}/{row['reference_path']}",
                    }
                )
