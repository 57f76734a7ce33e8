"""Latents, read from the corpus by place and checked before anyone computes with them.

Shapes: F frames, C channels.
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage import Corpus
from schemas.samples import Place

Latents = npt.NDArray[np.float16]

_COLUMNS = ("clip_id", "latent", "frames", "channels", "crc32")


def read_latents(
    corpus: Corpus, places: Iterable[Place], channels: int
) -> tuple[dict[str, Latents], dict[str, str]]:
    """Latents (F, C) by clip, and what is wrong with the clips that have none that can be used.

    A row group is read once, however many of its rows are wanted.
    """
    by_part: dict[str, dict[int, Place]] = {}
    for place in places:
        by_part.setdefault(place.part, {})[place.row] = place
    found: dict[str, Latents] = {}
    faults: dict[str, str] = {}
    for part, wanted in by_part.items():
        for place, row in _rows(corpus, part, wanted, faults):
            fault = _fault(place, row, channels)
            if fault is None:
                latent = np.frombuffer(row["latent"], "<f2").reshape(-1, channels)
                if np.isfinite(latent).all():
                    found[place.clip_id] = latent
                    continue
                fault = "its latent holds NaN or infinity"
            faults[place.clip_id] = f"{fault} ({part}, row {place.row})"
    return found, faults


def _rows(
    corpus: Corpus, part: str, wanted: Mapping[int, Place], faults: dict[str, str]
) -> Iterable[tuple[Place, dict[str, Any]]]:
    """The rows that can be read; what cannot goes to `faults`."""
    try:
        file = pq.ParquetFile(f"{corpus.path}/{part}", filesystem=corpus.fs)
    except (OSError, pa.ArrowException) as error:
        _blame(wanted.values(), f"{part} cannot be read: {error}", faults)
        return
    with file:
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            here = {row - start: place for row, place in wanted.items() if start <= row < end}
            start = end
            if not here:
                continue
            try:
                table = file.read_row_group(group, list(_COLUMNS))
            except (OSError, pa.ArrowException) as error:
                _blame(here.values(), f"row group {group} of {part} is damaged: {error}", faults)
                continue
            rows = sorted(here)
            for row, values in zip(rows, table.take(rows).to_pylist(), strict=True):
                yield here[row], values
        _blame((p for row, p in wanted.items() if row >= start), f"{part} is cut", faults)


def _blame(places: Iterable[Place], why: str, faults: dict[str, str]) -> None:
    first_line = why.splitlines()[0]
    faults |= {place.clip_id: first_line for place in places}


def _fault(place: Place, row: Mapping[str, Any], channels: int) -> str | None:
    if row["clip_id"] != place.clip_id:
        return f"another clip lies in its place: {row['clip_id']}"
    if zlib.crc32(row["latent"]) != row["crc32"]:
        return "its latent is damaged: the checksum differs"
    if row["channels"] != channels:
        return f"its latent has {row['channels']} channels, the model reads {channels}"
    if row["frames"] != place.frames or len(row["latent"]) != place.frames * channels * 2:
        return f"its latent does not have the {place.frames} frames that its sample expects"
    return None
