"""Single rows of `clips` and `synthetic`, read from the corpus where they are needed."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage import Corpus
from schemas.errors import MissingSource

# A row group is some tens of megabytes, and neighbours are asked for together.
_GROUPS_KEPT = 2


class ClipRows:
    """Reads some columns of clips by part and clip id, a row group at a time. For one thread.

    A part belongs to one table, so its name says in which one the clip lies. columns: of all the
    tables that are asked for.
    """

    def __init__(self, corpus: Corpus, columns: Sequence[str]) -> None:
        self.corpus = corpus
        self.columns = ["clip_id", *(name for name in columns if name != "clip_id")]
        self._places: dict[str, dict[str, tuple[int, int]]] = {}
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()

    def row(self, part: str, clip_id: str) -> dict[str, Any]:
        """The clip's columns as plain values. Raises `MissingSource`."""
        place = self._place(part).get(clip_id)
        if place is None:
            raise MissingSource(f"{part} holds no clip {clip_id}")
        group, row = place
        found: dict[str, Any] = self._group(part, group).slice(row, 1).to_pylist()[0]
        return found

    def _place(self, part: str) -> dict[str, tuple[int, int]]:
        """Clip → row group, and row inside it."""
        if part not in self._places:
            with self._open(part) as file:
                self._places[part] = {
                    str(clip_id): (group, row)
                    for group in range(file.num_row_groups)
                    for row, clip_id in enumerate(
                        file.read_row_group(group, ["clip_id"])["clip_id"].to_pylist()
                    )
                }
        return self._places[part]

    def _group(self, part: str, group: int) -> pa.Table:
        place = (part, group)
        if place not in self._groups:
            with self._open(part) as file:
                self._groups[place] = file.read_row_group(group, self.columns)
            while len(self._groups) > _GROUPS_KEPT:
                self._groups.popitem(last=False)
        self._groups.move_to_end(place)
        return self._groups[place]

    def _open(self, part: str) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(f"{self.corpus.path}/{part}", filesystem=self.corpus.fs)
        except OSError as error:
            raise MissingSource(f"{part} cannot be read: {error}") from error
