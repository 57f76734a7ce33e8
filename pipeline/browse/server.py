"""Pages for one person's browser on the same machine, and the marks that listeners leave.

Other pages of that browser must neither read a corpus nor mark clips: the Host header has to name
this machine (no foreign name that resolves to it), and a mark wants the token of our own pages and
an Origin that is ours. Text of a corpus comes from outside and is escaped by jinja2.
"""

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.browse.catalog import Catalog
from pipeline.browse.query import OPERATORS, VERDICTS, WITHOUT_VALUE, parse
from pipeline.browse.sound import Sounds, outline
from pipeline.reviews import mark_bad, take_back
from pipeline.storage import Corpus
from pipeline.tombstones import FOLDER as TOMBSTONES
from pipeline.tombstones import refuse_unfinished
from schemas.errors import ConfigError, MissingSource, UndecodableAudio

HOSTS = ["127.0.0.1", "localhost"]
MOST_REASON = 500
"""Characters of a mark's reason."""
REASONS = ("wrong text", "cut word", "noise", "music", "two voices", "artefacts", "not speech")
"""What the page suggests."""

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shop:
    """What is on show."""

    name: str
    """Of the corpus."""
    corpus: Corpus
    catalogs: Mapping[str, Catalog]
    sounds: Sounds
    opt_outs: Sequence[str]
    """Tombstones of the corpus when it was read."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """Only our own pages know it."""
    writing: Lock = field(default_factory=Lock)


def make_app(shop: Shop) -> Starlette:
    """The pages of a corpus."""
    pages = Pages(shop)
    first = next(iter(shop.catalogs))
    clip = "/{table}/{clip_id}"
    return Starlette(
        routes=[
            Route("/", lambda request: RedirectResponse(f"/{first}")),
            Mount("/static", StaticFiles(directory=str(files("pipeline.browse") / "static"))),
            Route("/{table}", pages.table),
            Route(clip, pages.clip),
            Route(f"{clip}/panel", pages.panel),
            Route(f"{clip}/audio", pages.audio),
            Route(f"{clip}/outline", pages.outline),
            Route(f"{clip}/review", pages.review, methods=["PUT", "DELETE"]),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS),
            Middleware(_WithHeaders),
        ],
        exception_handlers={
            ConfigError: _told(400),
            MissingSource: _told(404),
            UndecodableAudio: _told(422),
        },
    )


class Pages:
    """The handlers; each runs in a thread of the server."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        environment = Environment(
            loader=PackageLoader("pipeline.browse", "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["shown"] = shown
        environment.globals.update(
            name=shop.name,
            token=shop.token,
            tables={name: len(catalog) for name, catalog in shop.catalogs.items()},
            operators=OPERATORS,
            without_value=WITHOUT_VALUE,
            verdicts=list(VERDICTS),
            suggestions=REASONS,
            most_reason=MOST_REASON,
        )
        self._templates = environment

    def table(self, request: Request) -> Response:
        """A page of clips."""
        catalog = self._catalog(request)
        query = parse(request.query_params)
        view = catalog.view(query)
        asked = [*(one.column for one in query.where), *filter(None, [query.sort])]
        return self._page(
            "list.html",
            table=catalog.name,
            catalog=catalog,
            query=query,
            view=view,
            columns=list(dict.fromkeys([*catalog.shown, *asked])),
        )

    def clip(self, request: Request) -> Response:
        """One clip, as a page."""
        return self._page("clip.html", **self._shown_clip(request))

    def panel(self, request: Request) -> Response:
        """One clip, as a part of another page."""
        return self._page("panel.html", **self._shown_clip(request))

    def audio(self, request: Request) -> Response:
        """A clip's FLAC."""
        return Response(self._sound(request)["audio"], media_type="audio/flac")

    def outline(self, request: Request) -> Response:
        """The outline of a clip's waveform."""
        duration_s, peaks = outline(self._sound(request)["audio"])
        return JSONResponse({"duration_s": duration_s, "peaks": peaks})

    async def review(self, request: Request) -> Response:
        """Mark a clip as bad (PUT), or take the mark back (DELETE)."""
        self._check_ours(request)
        catalog, row = self._row(request)
        reason = await _reason_in(request) if request.method == "PUT" else None
        await run_in_threadpool(self._review, catalog, row["clip_id"], reason)
        return JSONResponse({"clip_id": row["clip_id"], "review": reason})

    def _review(self, catalog: Catalog, clip_id: str, reason: str | None) -> None:
        with self.shop.writing:
            self._refuse_forgotten()
            if reason is None:
                take_back(self.shop.corpus, clip_id)
            else:
                mark_bad(self.shop.corpus, clip_id, reason)
            catalog.review(clip_id, reason)

    def _refuse_forgotten(self) -> None:
        """A mark names a clip, and an opt-out may have taken just that one out of the corpus."""
        refuse_unfinished(self.shop.corpus)
        if self.shop.corpus.names(TOMBSTONES) != self.shop.opt_outs:
            raise ConfigError("the corpus has forgotten somebody meanwhile: start browse anew")

    def _check_ours(self, request: Request) -> None:
        token = request.headers.get("x-voxquarry-token", "")
        origin = request.headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc != request.url.netloc
        if foreign or not secrets.compare_digest(token.encode(), self.shop.token.encode()):
            raise HTTPException(403, "only voxquarry's own pages mark clips")

    def _shown_clip(self, request: Request) -> dict[str, Any]:
        catalog, row = self._row(request)
        heard: dict[str, Any] = {}
        lost = None
        try:
            heard = self.shop.sounds.row(catalog.name, row["part"], row["clip_id"])
        except MissingSource as error:
            lost = str(error)
        return {
            "table": catalog.name,
            "clip": row,
            "columns": catalog.columns,
            "words": heard.get("words") or [],
            "lost": lost,
        }

    def _sound(self, request: Request) -> dict[str, Any]:
        catalog, row = self._row(request)
        return self.shop.sounds.row(catalog.name, row["part"], row["clip_id"])

    def _row(self, request: Request) -> tuple[Catalog, dict[str, Any]]:
        catalog = self._catalog(request)
        row = catalog.clip(request.path_params["clip_id"])
        if row is None:
            raise HTTPException(404, f"the {catalog.name} of this corpus have no such id")
        return catalog, row

    def _catalog(self, request: Request) -> Catalog:
        catalog = self.shop.catalogs.get(request.path_params["table"])
        if catalog is None:
            raise HTTPException(404, "there is no such table")
        return catalog

    def _page(self, template: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(self._templates.get_template(template).render(**values))


def shown(value: Any) -> str:
    """A cell's value as text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(str(one) for one in value) or "–"
    return str(value)


async def _reason_in(request: Request) -> str:
    try:
        reason = json.loads(await request.body())["reason"]
    except (ValueError, KeyError, TypeError) as error:
        raise HTTPException(400, "a mark is JSON with a reason") from error
    if not isinstance(reason, str) or not reason.strip():
        raise HTTPException(400, "a mark wants a reason")
    if len(reason) > MOST_REASON:
        raise HTTPException(400, f"a reason has at most {MOST_REASON} characters")
    return reason.strip()


def _told(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), status)

    return answer


class _WithHeaders:
    """Says in every answer that it is for our own pages alone."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        await self.app(scope, receive, sending)
