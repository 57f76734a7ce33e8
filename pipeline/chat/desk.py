"""What all requests of one process share: the pace, the books, the connections, the way to send.

The order of things around a request that costs money: its worst case is set aside, then written
down as lost, then it leaves; its answer is written down before anybody reads it. A process that
is killed anywhere in between has at most overrated what it spent.
"""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime

import aiohttp
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from pipeline.chat.api_key import ApiKey, key_from_environment
from pipeline.chat.completion import Completion, completion_of, cost_of
from pipeline.chat.config import ChatConfig
from pipeline.chat.failures import Failed, failed
from pipeline.chat.request import Request, with_audio
from pipeline.chat.responses import Response, Responses
from pipeline.chat.spending import Books
from pipeline.clip_audio import ClipAudio, wav_at_model_rate
from pipeline.storage import Corpus
from schemas.errors import ConfigError

# Hundreds of times an honest answer.
LARGEST_BODY = 4 * 2**20

REFUSED = "refused"
"""The endpoint wants no question of ours, or there is no key to ask with."""
FAILING = "failing"
"""Nothing goes well any more."""
BROKEN = "broken"
"""Answers cannot be kept, or the fault is our own."""


class Stopped(Exception):
    """No question can be answered here any more; the desk says why."""


class CeilingReached(Exception):
    """The request might cost more than is left."""


class Desk:
    """Sends requests and keeps the answers. Lives on one event loop."""

    def __init__(self, config: ChatConfig, corpus: Corpus) -> None:
        self.config = config
        self.responses = Responses(corpus)
        self.audio = ClipAudio(corpus)
        self.key = ApiKey(None)
        self.books = Books(spent=0.0, ceiling=config.ceiling)
        self.known: dict[str, Response] = {}
        """What is true of each question."""
        self.stop_kind = ""
        self.stop_reason = ""
        self._on_record: dict[str, float] = {}
        """The lost cost that each question's file says, never less than the true one."""
        self._in_flight = asyncio.Semaphore(config.max_in_flight)
        # One at a time, at even distances: a bucket of a minute's requests would send them all at
        # once, and the next minute's right behind.
        self._pace = AsyncLimiter(1, 60 / config.requests_per_minute)
        self._crowded_until = 0.0
        self._failures_in_a_row = 0
        self._http: aiohttp.ClientSession | None = None
        self._num_users = 0

    async def open(self, spent: float, keys: tuple[str, ...]) -> None:
        """Read what is known of the questions to come, so that none is sent twice.

        spent: by all other questions of the corpus.
        """
        try:
            self.key = key_from_environment(self.config.key_env)
            self.known = await asyncio.to_thread(self.responses.read_many, keys)
        except ConfigError as error:
            self.stop(REFUSED, str(error))
        except Exception as error:  # noqa: BLE001 - an exception here would have Ray try for ever
            self.stop(BROKEN, f"{type(error).__name__}: {error}")
        self._on_record = {key: known.lost_cost for key, known in self.known.items()}
        self.books.spent = spent + sum(known.total_cost for known in self.known.values())

    def stop(self, kind: str, reason: str) -> None:
        """Send nothing more. The first reason counts."""
        if not self.stop_kind:
            self.stop_kind, self.stop_reason = kind, self.key.hide(reason)

    def enter(self) -> None:
        """Open the connections for the first who needs them."""
        self._num_users += 1
        if self._http is None:
            self._http = aiohttp.ClientSession(
                # How many are open is for `max_in_flight` to say.
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=self.config.timeout_s),
            )

    async def leave(self) -> None:
        """Close the connections after the last."""
        self._num_users -= 1
        if not self._num_users and self._http is not None:
            http, self._http = self._http, None
            await http.close()

    async def ask(self, request: Request) -> Response:
        """The answer to a question, from what is known or from the endpoint.

        Raises `Stopped`, `CeilingReached`, `Failed` after the last retry, or the `DataError` of
        audio that cannot be read.
        """
        known = self.known.get(request.key)
        if known is not None and known.serves(self.config.max_output_tokens):
            return known
        async with self._in_flight:
            if self.stop_kind:
                raise Stopped
            data = await asyncio.to_thread(self._data, request)
            try:
                response: Response = await self._retrying()(self._send, request, data)
            except Failed as error:
                await self._correct(request)
                self._count(error)
                raise
        self._failures_in_a_row = 0
        return response

    def _data(self, request: Request) -> bytes:
        body = request.body
        if request.hears:
            audio = self.audio.flac(request.part, request.clip_id)
            if self.config.audio_format == "wav":
                audio = wav_at_model_rate(audio)
            body = with_audio(body, audio)
        return json.dumps(body, ensure_ascii=False).encode()

    # ---------------------------------------------------------------- retries

    def _retrying(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Failed) and error.again),
            stop=stop_after_attempt(self.config.max_retries + 1),
            wait=self._wait_s,
            sleep=asyncio.sleep,
            reraise=True,
        )

    def _wait_s(self, state: RetryCallState) -> float:
        config = self.config
        longest = config.longest_wait_s
        grow = wait_exponential_jitter(
            multiplier=config.first_wait_s, max=longest, jitter=config.first_wait_s
        )
        wait_s = grow(state)
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Failed):
            wait_s = min(max(wait_s, error.retry_after_s), longest)
            if error.crowded:
                # For all: others would only be turned away as well, and use up their retries.
                until = asyncio.get_running_loop().time() + wait_s
                self._crowded_until = max(self._crowded_until, until)
        return wait_s

    def _count(self, error: Failed) -> None:
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self.config.failures_in_a_row:
            self.stop(
                FAILING,
                f"{self._failures_in_a_row} questions in a row failed at {self.config.host}; "
                f"the last: {error.reason}",
            )

    # ---------------------------------------------------------------- one request

    async def _send(self, request: Request, data: bytes) -> Response:
        """Send once and keep the answer."""
        loop = asyncio.get_running_loop()
        while (left_s := self._crowded_until - loop.time()) > 0:
            await asyncio.sleep(left_s)
        if self.stop_kind:
            raise Stopped
        worst = request.worst_cost
        if not await self.books.reserve(worst):
            raise CeilingReached
        cost = 0.0
        try:
            await self._pace.acquire()
            if self.stop_kind:
                raise Stopped
            before = self.known.get(request.key) or self._unasked(request)
            # What was cut short and is asked for again has cost what it has cost.
            before = replace(before, lost_cost=before.total_cost, cost=0.0, status="asked")
            at_worst = replace(
                before, lost_cost=before.lost_cost + worst, attempts=before.attempts + 1
            )
            if at_worst.lost_cost > self._on_record.get(request.key, 0.0):
                await self._write(at_worst)
            cost = worst  # unless somebody tells better; a cancelled request stays at this
            self.known[request.key] = at_worst
            try:
                completion = await self._post(request, data)
            except Failed as error:
                if not error.billed:
                    cost = 0.0
                    self.known[request.key] = replace(at_worst, lost_cost=before.lost_cost)
                if error.stops:
                    self.stop(REFUSED, f"{self.config.host} refuses: {error.reason}")
                raise
            cost = cost_of(self.config, completion, worst)
            answered = self._answered(at_worst, before.lost_cost, cost, completion)
            self.known[request.key] = answered
            await self._write(answered)
            return answered
        finally:
            self.books.settle(worst, cost)

    async def _post(self, request: Request, data: bytes) -> Completion:
        """Raises `Failed`."""
        assert self._http is not None
        headers = {
            "Content-Type": "application/json",
            # An endpoint that knows it bills a request once, however often it is sent.
            "Idempotency-Key": f"{request.key}-{self.config.max_output_tokens}",
            **self.key.headers,
        }
        try:
            async with self._http.post(
                # Elsewhere the key has no business.
                self.config.endpoint,
                data=data,
                headers=headers,
                allow_redirects=False,
            ) as response:
                raw = await _body(response)
        except aiohttp.ClientConnectorError as error:
            reason = (
                f"no connection to {self.config.host}: {error.strerror or type(error).__name__}"
            )
            raise Failed(self.key.hide(reason), again=True) from None
        except TimeoutError:
            reason = f"no answer within {self.config.timeout_s:g} s"
            raise Failed(reason, again=True, billed=True) from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            reason = f"the connection broke: {type(error).__name__}"
            raise Failed(reason, again=True, billed=True) from None
        except aiohttp.ClientError as error:
            raise Failed(f"no HTTP: {type(error).__name__}", again=False, billed=True) from None
        # Whatever a server sends back may hold what it was sent.
        text = self.key.hide(raw.decode("utf-8", "replace"))
        if response.status != 200:
            raise failed(response.status, response.headers, text)
        try:
            return completion_of(text)
        except ValueError as error:
            raise Failed(f"HTTP 200, but {error}", again=True, billed=True) from None

    # ---------------------------------------------------------------- records

    def _unasked(self, request: Request) -> Response:
        config = self.config
        return Response(
            key=request.key,
            clip_id=request.clip_id,
            role=request.role,
            model=config.model,
            host=config.host,
            provider=config.provider_name,
            terms=config.terms,
            prompt_hash=request.prompt_hash,
            status="asked",
            attempts=0,
            lost_cost=0.0,
            max_output_tokens=config.max_output_tokens,
        )

    def _answered(
        self, asked: Response, lost_cost: float, cost: float, completion: Completion
    ) -> Response:
        # Who answers now may be another than who was asked in an earlier run.
        return replace(
            asked,
            host=self.config.host,
            provider=self.config.provider_name,
            terms=self.config.terms,
            status="answered",
            lost_cost=lost_cost,
            max_output_tokens=self.config.max_output_tokens,
            content=completion.content,
            model_version=completion.model,
            system_fingerprint=completion.system_fingerprint,
            finish_reason=completion.finish_reason,
            usage=completion.usage,
            cost=cost,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    async def _correct(self, request: Request) -> None:
        """Where nothing more is to come: the file says the worst case, and it was better."""
        known = self.known.get(request.key)
        if known is not None and self._on_record.get(request.key, 0.0) > known.lost_cost:
            await self._write(known)

    async def _write(self, response: Response) -> None:
        await asyncio.to_thread(self.responses.write, response)
        self._on_record[response.key] = response.lost_cost


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Raises `Failed` where it does not end."""
    parts = []
    size = 0
    async for part in response.content.iter_chunked(2**16):
        parts.append(part)
        size += len(part)
        if size > LARGEST_BODY:
            raise Failed(
                f"the answer is longer than {LARGEST_BODY} bytes", again=False, billed=True
            )
    return b"".join(parts)
