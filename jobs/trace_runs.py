"""Which run made a part of a table, and what that run worked with."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from jobs.annotate import DESCRIBE_PHASE, LEVELS_PHASE, TRAITS_PHASE
from jobs.annotate import PHASE as ANNOTATE
from jobs.mine import DUPLICATES_PHASE
from jobs.mine import PHASE as MINE
from jobs.settings import Settings
from pipeline.profile import as_plain
from pipeline.storage import Corpus

# Steps that have no run record of their own.
_RUN_OF = {
    DUPLICATES_PHASE: MINE,
    LEVELS_PHASE: ANNOTATE,
    TRAITS_PHASE: ANNOTATE,
    DESCRIBE_PHASE: ANNOTATE,
}
_KEPT = (
    *("phase", "started", "ended", "status", "checkpoint", "model_hash", "vae_hash"),
    *("tokenizer_hash", "watermark", "encoder", "models", "versions", "settings"),
)


class Runs:
    """Looks up the runs of a corpus, and remembers which were asked for."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.used: dict[str, Any] = {}
        """Run → what it worked with; of settings, also how they differ from the defaults."""
        self._makers: dict[str, dict[str, Any]] = {}

    def maker(self, part: str) -> dict[str, Any]:
        """`run`, the one that committed a part; `one_of` where a corpus of an older version does
        not say which of several."""
        if part not in self._makers:
            self._makers[part] = self._found(part)
        return self._makers[part]

    def mined_from(self, maker: Mapping[str, Any]) -> dict[str, Any]:
        """The cosines that a pair of clips had to have."""
        settings = self.used.get(maker.get("run", ""), {}).get("settings", {})
        names = ("min_cosine", "min_voice_cosine")
        return {name: settings["mine"][name] for name in names if "mine" in settings}

    def _found(self, part: str) -> dict[str, Any]:
        marker = self._marker(part)
        phase = str(marker.get("phase", ""))
        name = marker.get("run")
        if name and name in self._records:
            return {"run": self._use(name)}
        ran = [
            run
            for run, record in self._records.items()
            if record["phase"] == _RUN_OF.get(phase, phase) and record["status"] != "nothing to do"
        ]
        if len(ran) == 1:
            return {"run": self._use(ran[0])}
        return {"one_of": [self._use(run) for run in ran]} if ran else {}

    def _marker(self, part: str) -> dict[str, Any]:
        """The commit that names a part."""
        phase, _, block = part.rpartition("/")[2].removesuffix(".parquet").rpartition("-")
        found: dict[str, Any] | None = self.corpus.find_json(f"_commits/{phase}/{block}.json")
        if found is not None:
            return found
        table = part.partition("/")[0]
        for name in self.corpus.names("_commits"):
            if name.endswith("/current.json"):
                marker: dict[str, Any] = self.corpus.read_json(name)
                if marker["parts"].get(table, {}).get("part") == part:
                    return marker
        return {}

    @cached_property
    def _records(self) -> dict[str, dict[str, Any]]:
        return {run["run"]: run for run in self.corpus.runs()}

    def _use(self, run: str) -> str:
        record = self._records[run]
        known = {name: record[name] for name in _KEPT if name in record}
        differing = _differences(known.get("settings", {}), as_plain(Settings()))
        self.used[run] = {**known, "settings_beside_defaults": differing}
        return run


def _differences(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """stage.field → value, where it is not the default."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        usual = defaults.get(name)
        if isinstance(value, dict) and isinstance(usual, dict):
            inner = _differences(value, usual)
            found |= {f"{name}.{field}": one for field, one in inner.items()}
        # JSON knows no tuples.
        elif value != (list(usual) if isinstance(usual, tuple) else usual):
            found[name] = value
    return found
