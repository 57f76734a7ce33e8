"""What a run was: settings, models, versions, counts, seconds. One JSON file per run."""

import importlib.metadata
import platform
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline.storage import Corpus

# What decides the numbers in the tables; the rest of the environment does not.
RECORDED_PACKAGES = (
    "voxquarry",
    "ray",
    "torch",
    "pyarrow",
    "polars",
    "numpy",
    "ctranslate2",
    "faster-whisper",
    "onnxruntime",
    "silero-vad",
    "speechmos",
    "resemblyzer",
    "praat-parselmouth",
    "pyloudnorm",
    "transformers",
    "soundfile",
    "av",
    "soxr",
)


class RunRecord:
    """Written when a run starts, as `running`, and again when it ends."""

    def __init__(self, corpus: Corpus, phase: str, settings: Mapping[str, Any]) -> None:
        now = datetime.now(UTC)
        self.corpus = corpus
        self.name = f"{phase}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self.values: dict[str, Any] = {
            "run": self.name,
            "phase": phase,
            "started": now.isoformat(),
            "status": "running",
            "settings": settings,
            "versions": versions(),
        }

    def write(self, **facts: Any) -> None:
        """Add facts and write the record."""
        self.values.update(facts)
        self.corpus.write_json(f"_runs/{self.name}.json", self.values)

    def finish(self, status: str, **facts: Any) -> None:
        """Close the record: `finished`, `failed`, `interrupted` or `nothing to do`."""
        self.write(status=status, ended=datetime.now(UTC).isoformat(), **facts)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def without_secrets(uri: str) -> str:
    """A uri without the user and password that may stand in it."""
    return re.sub(r"(?<=://)[^/@]*@", "", uri)
