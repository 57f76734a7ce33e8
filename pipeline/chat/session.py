"""What Ray Data's HTTP processor takes for a client session.

The processor calls `session.post` for every row and awaits the answers one by one. Left alone it
sends a request only when it awaits it, does not retry a 500, gives up with an exception that
holds the whole payload, and would carry the key in its settings. So `post` starts at once, the
desk does the rest, and the processor always gets a small envelope that says how it ended:

    answered   with the response, which the corpus holds by then
    failed     after all retries, or because the clip's audio cannot be read
    ceiling    not sent: it might have cost more than is left
    stopped    not sent, or in vain: no question can be answered here
"""

import asyncio
import json
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from pipeline.chat.config import ChatConfig
from pipeline.chat.desk import BROKEN, CeilingReached, Desk, Stopped
from pipeline.chat.failures import Failed
from pipeline.chat.request import Request
from pipeline.storage import Corpus
from schemas.errors import DataError


def payload_of(request: Request) -> dict[str, str]:
    """A request as the processor carries it: one text, so that Arrow need not know its shape."""
    return {"request": json.dumps(asdict(request), ensure_ascii=False)}


class Envelope:
    """How a question ended, in the shape of an HTTP response that is always well."""

    status = 200
    reason = "OK"

    def __init__(self, ending: str, why: str, kind: str, response: str) -> None:
        self._values = {"status": ending, "reason": why, "kind": kind, "response": response}

    async def json(self) -> dict[str, Any]:
        """The same fields at every ending."""
        return self._values

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


class ChatSessions:
    """Makes the sessions of a worker. Pickles without the key, which the worker's environment has.

    spent: by all questions of the corpus but those of `keys`.
    """

    def __init__(
        self, config: ChatConfig, corpus: str, spent: float, keys: tuple[str, ...]
    ) -> None:
        self.config = config
        self.corpus = corpus
        self.spent = spent
        self.keys = keys
        self._opening: asyncio.Task[Desk] | None = None

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return ChatSessions, (self.config, self.corpus, self.spent, self.keys)

    def __call__(self) -> "ChatSession":
        return ChatSession(self)

    async def desk(self) -> Desk:
        """The same for all sessions."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> Desk:
        desk = Desk(self.config, Corpus(self.corpus))
        await desk.open(self.spent, self.keys)
        return desk


class ChatSession:
    """Answers the questions of one batch."""

    def __init__(self, sessions: ChatSessions) -> None:
        self._sessions = sessions
        self._desk: Desk | None = None
        self._tasks: list[asyncio.Task[Envelope]] = []

    async def __aenter__(self) -> Self:
        self._desk = await self._sessions.desk()
        self._desk.enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._desk is not None
        # What was sent is paid for, so its answer is waited for and kept.
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._desk.leave()

    def post(self, url: str, *, headers: dict[str, Any], data: str) -> asyncio.Task[Envelope]:
        """Start a request; its address and headers are the desk's own."""
        request = Request(**json.loads(json.loads(data)["request"]))
        task = asyncio.create_task(self._answer(request))
        self._tasks.append(task)
        return task

    async def _answer(self, request: Request) -> Envelope:
        desk = self._desk
        assert desk is not None
        ending, why = "answered", ""
        try:
            await desk.ask(request)
        except CeilingReached:
            ending, why = "ceiling", "the spend ceiling leaves no room for it"
        except Stopped:
            ending, why = "stopped", desk.stop_reason
        except Failed as error:
            ending, why = "failed", error.reason
        except DataError as error:
            ending, why = "failed", f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 - Ray would print the whole payload with it
            desk.stop(BROKEN, f"{type(error).__name__}: {error}")
            ending, why = "stopped", desk.stop_reason
        known = desk.known.get(request.key)
        response = json.dumps(asdict(known), ensure_ascii=False) if known else ""
        return Envelope(ending, why, desk.stop_kind, response)
