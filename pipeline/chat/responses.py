"""The answers that a corpus has: one file per question, `_responses/<key[:2]>/<key>.json`.

A file says `asked` before a request that costs money leaves, with its worst case as lost, and
`answered` the moment the answer is there, before anybody reads it. So no crash makes the books
forget a request, and no answer is paid for again.
"""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from pyarrow import fs as pafs

from pipeline.storage import Corpus
from schemas.errors import StorageError

FOLDER = "_responses"
# An object store answers in tens of milliseconds, so many are asked at once.
_READERS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What is known of one question."""

    key: str
    clip_id: str
    role: str
    model: str
    """As asked for."""
    host: str
    provider: str
    terms: str
    """As declared when it was asked."""
    prompt_hash: str
    status: str
    """`asked`: no answer yet. `answered`."""
    attempts: int
    """Requests that left, over all runs."""
    lost_cost: float
    """Worst case of the requests that may have been billed and brought nothing."""
    max_output_tokens: int
    content: str = ""
    model_version: str | None = None
    """As the endpoint answered."""
    system_fingerprint: str | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    cost: float = 0.0
    """Of the answer, by its usage; at its worst case where the endpoint tells none."""
    time: str = ""
    """UTC, ISO 8601."""

    @property
    def total_cost(self) -> float:
        """All that the question has cost so far."""
        return self.cost + self.lost_cost

    def serves(self, max_output_tokens: int) -> bool:
        """Whether it holds an answer; one that was cut short does not where more is allowed now."""
        cut = self.finish_reason == "length" and self.max_output_tokens < max_output_tokens
        return self.status == "answered" and not cut


class Responses:
    """Reads and writes them."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def write(self, response: Response) -> None:
        """Whole or not at all."""
        self.corpus.write_json(_name(response.key), asdict(response), indent=None)

    def read(self, key: str) -> Response | None:
        """None where the question was never sent. Raises `StorageError`."""
        name = _name(key)
        try:
            return Response(**self.corpus.read_json(name))
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
            raise StorageError(f"{self.corpus.root}/{name}: no response: {error}") from error

    def read_many(self, keys: Iterable[str]) -> dict[str, Response]:
        """Those that there are."""
        with ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(self.read, keys)
            return {response.key: response for response in found if response is not None}

    def total_cost(self) -> float:
        """All that was ever spent or lost in this corpus."""
        with ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(self.read, self._keys())
            return sum(response.total_cost for response in found if response is not None)

    def _keys(self) -> Iterator[str]:
        selector = pafs.FileSelector(
            f"{self.corpus.path}/{FOLDER}", allow_not_found=True, recursive=True
        )
        for info in self.corpus.fs.get_file_info(selector):
            # A name that starts with a dot was half written when a process ended.
            if info.type == pafs.FileType.File and not info.base_name.startswith("."):
                yield info.base_name.removesuffix(".json")


def _name(key: str) -> str:
    return f"{FOLDER}/{key[:2]}/{key}.json"
