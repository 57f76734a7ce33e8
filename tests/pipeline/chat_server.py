"""A chat endpoint that speaks OpenAI's API over real HTTP, keeps a ledger, and misbehaves on order.

It decodes the audio that it gets, bills what it answers, and remembers what it billed.
"""

import asyncio
import base64
import hashlib
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import soundfile as sf
from aiohttp import web

INPUT_PRICE, OUTPUT_PRICE = 10.0, 100.0
"""Per million tokens; what the tests' configs say too."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request as it came."""

    time: float
    authorization: str | None
    idempotency: str
    role: str
    body: dict[str, Any]
    body_hash: str
    times_before: int
    """Requests with this idempotency key before."""
    index: int
    """Requests of any kind before."""
    audio_s: float | None
    sample_rate: int | None
    level: float | None
    """RMS of what came, in [0, 1]."""

    @property
    def text(self) -> str:
        """All that was said, without the audio."""
        contents = [message["content"] for message in self.body["messages"]]
        return "\n".join(c if isinstance(c, str) else c[0]["text"] for c in contents)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What to do with a request. The default is a good answer."""

    status: int = 200
    content: str | None = None
    """Of the model's message; None: a good answer by the schema of the request."""
    raw: str | None = None
    """In place of a chat completion, such as a proxy's page; nothing is billed."""
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0.0
    drops: bool = False
    """Ends the connection where the answer should be; the answer is billed."""
    thinks: int = 0
    """Tokens of thought that only the total counts."""
    usage: bool = True
    finish: str = "stop"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger."""

    seen: Seen
    status: int
    billed: float
    replayed: bool = False


Behaviour = Callable[[Seen], Reply]


def well(seen: Seen) -> Reply:
    """The behaviour of a server that does its work."""
    return Reply()


def good(schema: dict[str, Any]) -> Any:
    """The first value that the schema allows."""
    if schema["type"] == "object":
        return {name: good(part) for name, part in schema["properties"].items()}
    if schema["type"] == "number":
        return 0.9
    if "enum" in schema:
        return schema["enum"][0]
    return "A warm female voice speaks slowly and softly."


class ChatServer:
    """Serves on a free port of the loopback, in a thread, until its `with` ends."""

    def __init__(
        self, behave: Behaviour = well, *, key: str | None = None, replays: bool = True
    ) -> None:
        self.behave = behave
        self.key = key
        """What it lets in; None: everybody."""
        self.replays = replays
        """Whether an idempotency key that was billed gets the same answer without a bill."""
        self.ledger: list[Entry] = []
        self.most_at_once = 0
        self._at_once = 0
        self._requests: Counter[str] = Counter()
        self._answers: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def billed(self) -> float:
        return sum(entry.billed for entry in self.ledger)

    def bills(self) -> Counter[str]:
        """Idempotency key → how often it was billed."""
        return Counter(entry.seen.idempotency for entry in self.ledger if entry.billed)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._complete)
        runner = web.AppRunner(app, shutdown_timeout=0)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._reply(request, raw)
        finally:
            self._at_once -= 1

    async def _reply(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        seen = self._seen(request, raw)
        if self.key is not None and seen.authorization != f"Bearer {self.key}":
            self.ledger.append(Entry(seen=seen, status=401, billed=0.0))
            told = f"Incorrect API key provided: {seen.authorization}"
            return web.json_response({"error": {"message": told}}, status=401)
        if self.replays and seen.idempotency in self._answers:
            self.ledger.append(Entry(seen=seen, status=200, billed=0.0, replayed=True))
            return web.Response(
                text=self._answers[seen.idempotency], content_type="application/json"
            )
        reply = self.behave(seen)
        if reply.status != 200:
            self.ledger.append(Entry(seen=seen, status=reply.status, billed=0.0))
            return web.Response(
                text=reply.raw or "<html>oops</html>",
                status=reply.status,
                headers=reply.headers,
                content_type="text/html",
            )
        if reply.raw is not None:
            self.ledger.append(Entry(seen=seen, status=200, billed=0.0))
            return web.Response(text=reply.raw, content_type="text/html")
        text, cost = self._answer(seen, reply)
        self._answers[seen.idempotency] = text
        # Billed before the caller has it: where the money is lost if anything goes wrong now.
        self.ledger.append(Entry(seen=seen, status=200, billed=cost))
        await asyncio.sleep(reply.after_s)
        if reply.drops:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(text=text, content_type="application/json")

    def _answer(self, seen: Seen, reply: Reply) -> tuple[str, float]:
        content = reply.content
        if content is None:
            content = json.dumps(good(schema_of(seen.body)))
        prompt = 50 + int(32 * (seen.audio_s or 0)) + len(seen.text) // 4
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": 60,
            "total_tokens": prompt + 60 + reply.thinks,
        }
        cost = (prompt * INPUT_PRICE + (60 + reply.thinks) * OUTPUT_PRICE) / 1e6
        message = {"role": "assistant", "content": content}
        body = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": f"{seen.body['model']}-2026-01",
            "system_fingerprint": "fp_7",
            "choices": [{"index": 0, "message": message, "finish_reason": reply.finish}],
            **({"usage": usage} if reply.usage else {}),
        }
        return json.dumps(body), cost

    def _seen(self, request: web.Request, raw: bytes) -> Seen:
        body = json.loads(raw)
        idempotency = request.headers["Idempotency-Key"]
        before = self._requests[idempotency]
        self._requests[idempotency] += 1
        wave, rate = _audio_of(body)
        return Seen(
            time=time.monotonic(),
            authorization=request.headers.get("Authorization"),
            idempotency=idempotency,
            role=body.get("response_format", {}).get("json_schema", {}).get("name", ""),
            body=body,
            body_hash=hashlib.blake2b(raw).hexdigest(),
            times_before=before,
            index=sum(self._requests.values()) - 1,
            audio_s=None if wave is None else len(wave) / rate,
            sample_rate=rate or None,
            level=None if wave is None else float(np.sqrt(np.mean(wave**2))),
        )


def schema_of(body: dict[str, Any]) -> dict[str, Any]:
    """The schema that an answer is asked for by, wherever it stands."""
    if "response_format" in body:
        schema = body["response_format"]["json_schema"]["schema"]
    else:
        text = body["messages"][-1]["content"]
        if isinstance(text, list):
            text = text[0]["text"]
        schema = json.loads(text.split("The JSON schema: ", 1)[1])
    assert isinstance(schema, dict)
    return schema


def _audio_of(body: dict[str, Any]) -> tuple[np.ndarray | None, int]:
    """The audio of a request: mono, and a real file of the format that it says."""
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] == "input_audio":
                data = base64.b64decode(part["input_audio"]["data"], validate=True)
                with sf.SoundFile(io.BytesIO(data)) as file:
                    assert file.format.lower() == part["input_audio"]["format"]
                    assert file.channels == 1
                    assert file.subtype == "PCM_16"
                    return file.read(dtype="float32"), file.samplerate
    return None, 0
