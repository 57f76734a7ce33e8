"""`voxquarry trace`: the way of anything in a corpus back to its recording.

A trace is plain values, the same for the terminal and for machines: what the thing is, what it was
made from, and, once each, the runs that made it, with their models, versions and settings.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from jobs.judge import JUDGE_PHASE
from jobs.judge_synthetic import JUDGE_PHASE as SYNTHETIC_JUDGE_PHASE
from jobs.trace_runs import Runs
from pipeline.storage import Corpus
from pipeline.tombstones import Tombstones, refuse_unfinished
from schemas.arrow import (
    ATTRIBUTES,
    CLIPS,
    DESCRIPTIONS,
    DUPLICATES,
    LATENTS,
    RECORDINGS,
    REFERENCES,
    SAMPLES,
    SYNTHETIC,
    SYNTHETIC_VERDICTS,
    TABLES,
    TRAITS,
    VERDICTS,
    Table,
)
from schemas.errors import ConfigError

_BYTES_AND_VECTORS = {"audio", "latent", "speaker_embedding", "vector", "words", "speech"}
_ROW = re.compile(r"(?P<part>.+\.parquet)[:#](?P<row>\d+)")
Found = dict[str, Any]


def trace(root: str, name: str) -> Found:
    """Everything that led to a clip, recording, clone, sample, reference pair or row of a part.

    name: an id; a recording's uri; TARGET:REFERENCE, two clips; or PART:ROW, as messages name
    latents. Raises `ConfigError` for one that the corpus does not know.
    """
    corpus = Corpus(root)
    if not corpus.exists():
        raise ConfigError(f"{root} holds no corpus; `voxquarry run SOURCE --out {root}` makes one")
    refuse_unfinished(corpus)
    return Tracing(corpus).trace(name)


class Tracing:
    """Follows ids through the tables of one corpus."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.runs = Runs(corpus)
        self.recordings: dict[str, Found] = {}
        """Those that are on the way."""

    def trace(self, name: str) -> Found:
        """As the function."""
        found = (
            self._row_of_part(name)
            or self._pair(name)
            or self._sample(name)
            or self._with_uses(name)
            or self.clone(name)
            or self._recording_by_name(name)
        )
        if found is None:
            if time := Tombstones.of(self.corpus).recordings.get(name):
                raise ConfigError(f"{self.corpus.root} has forgotten {name}, on {time}")
            raise ConfigError(
                f"{self.corpus.root} knows no clip, recording, clone, sample, pair or row {name}"
            )
        return {**found, "recordings": self.recordings, "runs": self.runs.used}

    # ---------------------------------------------------------------- what it is

    def _row_of_part(self, name: str) -> Found | None:
        place = _ROW.fullmatch(name)
        if place is None:
            return None
        part, row = place["part"], int(place["row"])
        table = TABLES.get(part.partition("/")[0])
        if table is None or part not in self.corpus.parts(table.name):
            return None
        path = f"{self.corpus.path}/{part}"
        columns = [one for one in table.schema.names if one not in _BYTES_AND_VECTORS]
        rows = pq.read_table(path, columns=columns, filesystem=self.corpus.fs)
        if row >= rows.num_rows:
            raise ConfigError(f"{part} has {rows.num_rows} rows, counted from 0: there is no {row}")
        values = rows.slice(row, 1).to_pylist()[0]
        known = {"row": {"part": part, "row": row, **self.runs.maker(part)}}
        for key in ("sample_id", "target_id", "clip_id", "recording_id"):
            if key in values:
                name = values[key]
                if key == "target_id":
                    name = f"{name}:{values['reference_id']}"
                way = self._pair(name) or self._sample(name) or self.clip(name)
                return known | (way or self.clone(name) or self._recording_by_name(name) or {})
        return {"row": known["row"] | values}

    def _sample(self, name: str) -> Found | None:
        found = self._find(SAMPLES, "sample_id", name)
        if found is None:
            return None
        part, row = found
        places = {one: row.pop(one) for one in ("target", "prompt")}
        references = row.pop("references")
        clip_id = places["target"]["clip_id"]
        return {
            "sample": {**row, **self.runs.maker(part)},
            "target": {
                "place": places["target"],
                **(self.clip(clip_id) or self.clone(clip_id) or {"missing": clip_id}),
            },
            **({"prompt": self._lent(places["prompt"])} if places["prompt"] else {}),
            **({"references": [self._lent(one) for one in references]} if references else {}),
        }

    def _lent(self, place: Mapping[str, Any]) -> Found:
        """A recorded clip that a sample hears, and where its latent lies."""
        known = (self.clip(place["clip_id"]) or {}).get("clip", {"missing": place["clip_id"]})
        return {**known, "place": dict(place)}

    def _pair(self, name: str) -> Found | None:
        target, _, reference = name.partition(":")
        if not reference or "/" in name:
            return None
        for part, row in self._rows(REFERENCES, "target_id", target):
            if row["reference_id"] == reference:
                mining = self.runs.maker(part)
                return {
                    "pair": {**row, **mining, "thresholds": self.runs.mined_from(mining)},
                    "target": self.clip(target) or {"missing": target},
                    "reference": self.clip(reference) or {"missing": reference},
                }
        return None

    def clip(self, clip_id: str) -> Found | None:
        """A recorded clip with its recording, verdict, description and latents."""
        found = self._find(CLIPS, "clip_id", clip_id)
        if found is None:
            return None
        part, row = found
        place = ("start_s", "end_s", "chunk_index", "index_in_recording", "sample_rate")
        said = ("text", "text_source", "language", "speaker", "duration_s", "separated_by")
        return _without_nothing(
            {
                "clip": {
                    "clip_id": clip_id,
                    **_without_nothing({name: row[name] for name in (*said, *place)}),
                    **self._back(row["recording_id"]),
                    **self.runs.maker(part),
                },
                "verdict": self._verdict(VERDICTS, JUDGE_PHASE, row),
                "description": self._description(clip_id),
                "latents": self._latents(clip_id),
            }
        )

    def clone(self, clip_id: str) -> Found | None:
        """A generated clip with the clips that it was made from."""
        found = self._find(SYNTHETIC, "clip_id", clip_id)
        if found is None:
            return None
        part, row = found
        return _without_nothing(
            {
                "clone": {**row, **self.runs.maker(part)},
                "verdict": self._verdict(SYNTHETIC_VERDICTS, SYNTHETIC_JUDGE_PHASE, row),
                "voice": self.clip(row["described_id"]),
                "other_references": [
                    self.clip(one) for one in row["reference_ids"] if one != row["described_id"]
                ],
                "words": self.clip(row["transcript_id"]),
                "latents": self._latents(clip_id),
            }
        )

    def _back(self, recording_id: str) -> Found:
        """What a clip says of its recording; all that is known of it goes to `recordings`."""
        if recording_id not in self.recordings:
            found = self._find(RECORDINGS, "recording_id", recording_id)
            if found is None:
                self.recordings[recording_id] = {"note": "its last chunk is not curated yet"}
            else:
                part, row = found
                given = any((row.pop("transcript"), row.pop("utterances")))
                row = _without_nothing(row) | {"transcript_given": given}
                self.recordings[recording_id] = row | self.runs.maker(part)
        known = self.recordings[recording_id]
        names = ("uri", "licence", "consent")
        told = {name: known[name] for name in names if name in known}
        return {"recording_id": recording_id, **told}

    def _recording_by_name(self, name: str) -> Found | None:
        for column in ("recording_id", "uri"):
            if found := self._find(RECORDINGS, column, name):
                recording = found[1]["recording_id"]
                clips = [row["clip_id"] for _, row in self._rows(CLIPS, "recording_id", recording)]
                return {"recording": self._back(recording), "clips": clips}
        return None

    # ---------------------------------------------------------------- what is known of a clip

    def _with_uses(self, clip_id: str) -> Found | None:
        """A clip, and what was made with it."""
        found = self.clip(clip_id)
        if found is None:
            return None
        repeats = self._rows(DUPLICATES, "clip_id", clip_id)
        uses = {
            "near_duplicate_of": sorted({row["group_id"] for _, row in repeats}),
            "references": [
                {name: row[name] for name in ("reference_id", "cosine", "rank")}
                | self.runs.maker(part)
                for part, row in self._rows(REFERENCES, "target_id", clip_id)
            ],
            "lends_its_voice_to": sorted(
                {row["target_id"] for _, row in self._rows(REFERENCES, "reference_id", clip_id)}
            ),
            "clones": [row["clip_id"] for _, row in self._rows(SYNTHETIC, "described_id", clip_id)],
            "samples": [
                row["sample_id"]
                for row in self.corpus.read(SAMPLES, ["sample_id", "target"]).to_dicts()
                if row["target"]["clip_id"] == clip_id
            ],
        }
        return found | _without_nothing(uses)

    def _description(self, clip_id: str) -> Found:
        found: Found = {}
        for name, table in (("measured", ATTRIBUTES), ("traits", TRAITS)):
            if known := self._find(table, "clip_id", clip_id):
                part, row = known
                found[name] = _without_nothing(row) | self.runs.maker(part)
                del found[name]["clip_id"]
        if known := self._find(DESCRIPTIONS, "clip_id", clip_id):
            found |= _without_nothing(known[1]) | self.runs.maker(known[0])
            del found["clip_id"]
        return found

    def _verdict(self, table: Table, phase: str, row: Mapping[str, Any]) -> Found:
        """Accepted or not, and every rule with the value that it judged."""
        found = self._find(table, "clip_id", row["clip_id"])
        if found is None:
            return {}
        policy = (self.corpus.find_json(f"_commits/{phase}/current.json") or {}).get("policy", {})
        rules = {
            reason: {
                "column": rule["column"],
                "value": row.get(rule["column"]),
                **_without_nothing({name: v for name, v in rule.items() if name != "column"}),
            }
            for reason, rule in policy.get("rules", {}).items()
        }
        verdict = _without_nothing({**found[1], "clip_id": None})
        return verdict | ({"thresholds": rules} if rules else {})

    def _latents(self, clip_id: str) -> list[Found]:
        found = []
        for part, piece in self.corpus.scan(LATENTS, ["clip_id"]):
            rows = [n for n, one in enumerate(piece["clip_id"].to_pylist()) if one == clip_id]
            for number in rows:
                _, row = self._rows(LATENTS, "clip_id", clip_id, [part])[0]
                found.append({"part": part, "row": number, **row, **self.runs.maker(part)})
        return found

    # ---------------------------------------------------------------- rows

    def _rows(
        self, table: Table, column: str, value: str, parts: Sequence[str] | None = None
    ) -> list[tuple[str, Found]]:
        """(part, row) of every row with this value, later attempts last."""
        columns = [name for name in table.schema.names if name not in _BYTES_AND_VECTORS]
        found = []
        for part in self.corpus.parts(table.name) if parts is None else parts:
            rows = pq.read_table(
                f"{self.corpus.path}/{part}",
                columns=columns,
                filters=[(column, "=", value)],
                filesystem=self.corpus.fs,
            )
            found += [(part, row) for row in rows.to_pylist()]
        return sorted(found, key=lambda one: one[1].get("attempt", 0))

    def _find(self, table: Table, column: str, value: str) -> tuple[str, Found] | None:
        rows = self._rows(table, column, value)
        return rows[-1] if rows else None


def _without_nothing(values: Mapping[str, Any]) -> Found:
    """Without what was not measured, or is not there."""
    return {name: value for name, value in values.items() if value not in (None, [], {}, ())}
