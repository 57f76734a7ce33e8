"""The run's side of the chat: what is known already, what goes through Ray, and what it cost.

Questions go in blocks, so that a corpus of any size fits into memory. Those whose answers the
corpus holds never reach Ray. The others go to one worker, so that one process keeps the books,
with many requests on their way inside it.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from pipeline.chat.config import ChatConfig
from pipeline.chat.desk import BROKEN, REFUSED
from pipeline.chat.request import Question, Request, request_of
from pipeline.chat.responses import Response, Responses
from pipeline.chat.session import ChatSessions, payload_of
from pipeline.chat.spending import Purse
from pipeline.storage import Corpus
from schemas.errors import ConfigError, StorageError, TooManyFailures

# Starting a worker takes seconds, so a block should take minutes.
QUESTIONS_PER_BLOCK = 1024
# Batches that are on their way together: while one waits for its slowest answer, the next run.
_BATCHES_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """How a question ended."""

    question: Question
    status: str
    """`answered`, `failed` (after all retries) or `ceiling` (not sent; ask again with more)."""
    response: Response | None
    """As the corpus holds it; null where the question never left."""
    reason: str
    """Empty when answered."""
    cached: bool
    """Whether the corpus held it before."""

    @property
    def content(self) -> str:
        """What the model said; empty where there is no answer."""
        answered = self.status == "answered" and self.response is not None
        return self.response.content if answered and self.response else ""


class Chat:
    """One endpoint, asked about the clips of one corpus. Needs a connected Ray.

    purse: shared by all who ask about this corpus in this run.
    """

    def __init__(self, corpus: Corpus, config: ChatConfig, purse: Purse) -> None:
        if not config.on:
            raise ConfigError("chat has no url, so there is nobody to ask")
        self.corpus = corpus
        self.config = config
        self.purse = purse
        self._responses = Responses(corpus)

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Every question's answer, in any order; a question that comes twice is answered once.

        Raises `ConfigError` when the endpoint refuses (wrong key, model or address),
        `TooManyFailures` when nothing succeeds any more, and `StorageError` when answers cannot be
        kept; always after the answers that were bought on the way.
        """
        block: dict[str, tuple[Question, Request]] = {}
        for question in questions:
            request = request_of(self.config, question)
            block.setdefault(request.key, (question, request))
            if len(block) >= QUESTIONS_PER_BLOCK:
                yield from self._answers(block)
                block = {}
        yield from self._answers(block)

    def _answers(self, block: dict[str, tuple[Question, Request]]) -> Iterator[Answer]:
        known = self._responses.read_many(block)
        left = {}
        for key, (question, request) in block.items():
            response = known.get(key)
            if response is not None and response.serves(self.config.max_output_tokens):
                yield Answer(
                    question=question, status="answered", response=response, reason="", cached=True
                )
            elif self._too_dear(request):
                yield Answer(
                    question=question,
                    status="ceiling",
                    response=response,
                    reason="the spend ceiling leaves no room for it",
                    cached=False,
                )
            else:
                left[key] = (question, request)
        if left:
            before = {key: known[key].total_cost if key in known else 0.0 for key in left}
            yield from self._through_ray(left, before)

    def _too_dear(self, request: Request) -> bool:
        ceiling = self.config.ceiling
        return ceiling is not None and self.purse.spent + request.worst_cost > ceiling

    def _through_ray(
        self, block: dict[str, tuple[Question, Request]], before: dict[str, float]
    ) -> Iterator[Answer]:
        priced = self.config.ceiling is not None
        spent = self.purse.spent - sum(before.values()) if priced else 0.0
        sessions = ChatSessions(self.config, self.corpus.root, spent, tuple(block))
        stopped = ""
        stop_kind = ""
        # Neighbours in a part are read together.
        requests = sorted((request for _, request in block.values()), key=lambda r: r.part)
        for row in self._rows(requests, sessions):
            values = json.loads(row["answer"])
            response = Response(**json.loads(values["response"])) if values["response"] else None
            if response is not None:
                self.purse.add(response.total_cost - before[row["key"]])
            if values["status"] == "stopped":
                stopped, stop_kind = values["reason"], values["kind"]
                continue
            yield Answer(
                question=block[row["key"]][0],
                status=values["status"],
                response=response,
                reason=values["reason"],
                cached=False,
            )
        if stopped:
            raise _stop(stop_kind, stopped, self.config)

    def _rows(self, requests: list[Request], sessions: ChatSessions) -> Iterator[dict[str, Any]]:
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.enable_operator_progress_bars = False
        processor = processor_of(self.config, sessions)
        rows = [{"key": request.key, "payload": payload_of(request)} for request in requests]
        size = processor.config.batch_size
        source = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size))
        for batch in processor(source).iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            assert isinstance(batch, pa.Table)
            yield from batch.to_pylist()


def processor_of(config: ChatConfig, sessions: ChatSessions) -> Any:
    """Ray Data's HTTP processor around our sessions, with one worker."""
    # Imported here: it takes a second, and most commands ask nobody.
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    processor = build_processor(
        HttpRequestProcessorConfig(
            url=config.endpoint,
            session_factory=sessions,
            batch_size=max(1, min(config.max_in_flight // 2, 32)),
            concurrency=1,
            max_retries=0,
        ),
        preprocess=_as_it_is,
        postprocess=_answer_row,
    )
    # The processor's own pool would work on one batch at a time.
    processor.get_stage_by_name("HttpRequestStage").map_batches_kwargs["compute"] = (
        ActorPoolStrategy(
            size=1,
            max_tasks_in_flight_per_actor=_BATCHES_AT_ONCE,
            max_concurrent_calls_per_actor=_BATCHES_AT_ONCE,
        )
    )
    return processor


def _as_it_is(row: dict[str, Any]) -> dict[str, Any]:
    return {}


def _answer_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"key": row["key"], "answer": json.dumps(row["http_response"])}


def _stop(kind: str, reason: str, config: ChatConfig) -> Exception:
    if kind == REFUSED:
        return ConfigError(f"chat with model {config.model}: {reason}")
    if kind == BROKEN:
        return StorageError(f"the answers of {config.host} cannot be kept: {reason}")
    return TooManyFailures(reason)
