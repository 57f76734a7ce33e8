"""NeMo manifests: a line of JSON for each clip, audio beside them."""

from collections.abc import Iterable, Iterator, Mapping

from jobs.exporting.audio import ExportClip
from jobs.exporting.formats import Lines, LooseFiles, Place, Row, json_line
from jobs.exporting.options import FormatName


class Nemo(LooseFiles):
    """Paths are relative to the manifest, so the folder may be moved."""

    name = FormatName.NEMO
    reads = "`SPLIT_manifest.json` has a line for each clip, with paths relative to it."
    suffix = "wav"

    def told(self, clip: ExportClip) -> Row:
        """What NeMo's readers of speech recognition and synthesis know, and whether it is a clone."""
        row = clip.row
        return {
            "text": row["text"],
            "lang": row["language"],
            "speaker": row["speaker_number"],
            "speaker_name": row["voice"],
            "synthetic": row["synthetic"],
        }

    def manifests(self, split: str) -> Mapping[str, Lines]:
        """SPLIT_manifest.json."""
        return {f"{split}_manifest.json": self._lines}

    def _lines(self, rows: Iterable[Row], place: Place) -> Iterator[str]:
        for row in rows:
            yield json_line({"audio_filepath": row.pop("path"), "offset": 0.0, **row})
