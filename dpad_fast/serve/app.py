"""The server as an ASGI application: endpoints around one `MicroBatcher`."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dpad_fast._version import __version__
from dpad_fast.rewards import MicroBatcher, RewardScorer
from dpad_fast.serve import foreign, responses, wire
from dpad_fast.serve.answers import Answers
from dpad_fast.serve.guard import Budget, Endpoint, Guard, read_body, refusal_parts
from dpad_fast.serve.metrics import Metrics
from dpad_fast.serve.pictures import PictureStore
from dpad_fast.serve.rows import Rows, is_light, read_request
from dpad_fast.serve.schema import (
    OpenRlhfReply,
    OpenRlhfRequest,
    PictureReply,
    Problem,
    ScoreReply,
    ScoreRequest,
    SlimeRequest,
)
from dpad_fast.serve.settings import Refusal, Settings
from dpad_fast.serve.unfolding import check_weight
from dpad_fast.types import ScoreBatch

_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "the token is missing or wrong"},
    409: {"model": Problem, "description": "pictures are not known here; the body names them"},
    413: {"model": Problem, "description": "too large, or too much at once"},
    422: {"model": Problem, "description": "the body cannot be read; the reason names the field"},
    500: {"model": Problem, "description": "the scorer failed"},
    503: {"model": Problem, "description": "overloaded; Retry-After says when to try again"},
}


# Bytes of a body that is read on the event loop: a thread would cost as much as the reading.
_SMALL = 1 << 13


class ScoreServer:
    """The endpoints, and what they share.

    Args:
        scorer: scores for everybody.
        settings: limits and rights.
        name: what the scorer is made of, beside its configuration; two servers of one name give equal rewards.
    """

    def __init__(self, scorer: RewardScorer, settings: Settings, name: str = "") -> None:
        self.scorer, self.settings = scorer, settings
        self.config = scorer.config
        digest = None if scorer.encoder is None else scorer.encoder.digest.hex()
        identity = [self.config.to_dict(), name, digest, __version__]
        self.identity = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        self.metrics = Metrics()
        self.batcher = MicroBatcher(scorer, settings.window_ms, settings.max_batch, observe=self.metrics.batch)
        self.pictures = PictureStore(settings.store)
        self._answers = Answers(settings.answers)
        self._budget = Budget(settings.held)
        # Reading bodies beside the event loop, so that a large one holds up nobody's small one.
        self._readers = ThreadPoolExecutor(2, "dpad-read")
        self.metrics.queue.set_function(lambda: self.batcher.waiting)
        self.metrics.pictures.set_function(lambda: len(self.pictures))
        self.metrics.picture_bytes.set_function(lambda: self.pictures.bytes)
        self.metrics.held.set_function(lambda: self._budget.held)

    async def score(self, request: Request) -> Response:
        """Scores N rows; each gets what `RewardScorer.score(..., on_error="row")` gives."""

        def rows(given: ScoreRequest) -> Rows:
            return read_request(given, self.pictures, self.settings, wire.looks(self.config))

        return await self._answered(request, ScoreRequest, rows, wire.scores_out)

    async def openrlhf(self, request: Request) -> Response:
        """OpenRLHF's `remote_url`; the prompt and the end tokens are cut off before reading."""
        keep = foreign.keeps_unscored(request.query_params.get("unscored"))

        def rows(given: OpenRlhfRequest) -> Rows:
            if not len(given.query) == len(given.prompts) == len(given.labels):
                raise Refusal(422, "query, prompts and labels have different lengths")
            pairs = enumerate(zip(given.query, given.prompts, strict=True))
            answers = [foreign.response_of(query, prompt, i, keep=keep) for i, (query, prompt) in pairs]
            return foreign.read_rows(answers, given.labels, self.config, self.pictures, self.settings, keep=keep)

        def reply(batch: ScoreBatch) -> dict[str, Any]:
            return foreign.openrlhf_reply(batch, self.config, keep=keep)

        return await self._answered(request, OpenRlhfRequest, rows, reply)

    async def slime(self, request: Request) -> Response:
        """Slime's `--rm-url`: one sample, one number."""
        keep = foreign.keeps_unscored(request.query_params.get("unscored"))

        def rows(given: SlimeRequest) -> Rows:
            answers = [responses.without_end(given.response)]
            return foreign.read_rows(answers, [given.label], self.config, self.pictures, self.settings, keep=keep)

        return await self._answered(
            request, SlimeRequest, rows, lambda batch: foreign.totals_of(batch, self.config, keep=keep)[0]
        )

    async def put_picture(self, request: Request) -> Response:
        """Keeps the bytes of a picture under their SHA-256, for requests that name it."""
        sha256 = request.scope["path"].rpartition("/")[2]
        if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
            raise Refusal(422, "a picture's name is the SHA-256 of its bytes, 64 hexadecimal digits in lower case")
        await self._kept(request, sha256)
        return Response(status_code=204)

    async def post_picture(self, request: Request) -> Response:
        """Keeps the bytes of a picture, and says their SHA-256, so that a client need not find it too."""
        return self._json({"sha256": await self._kept(request, None)})

    async def about(self, request: Request) -> Response:
        """The configuration of the scorer, and the limits of a request."""
        limits = {name: getattr(self.settings, name) for name in ("rows", "body", "picture")}
        return self._json({"config": self.config.to_dict(), "limits": limits, "version": __version__})

    async def health(self, request: Request) -> Response:
        """Whether the server answers."""
        return self._json({"status": "ok", "version": __version__})

    async def metric(self, request: Request) -> Response:
        """Metrics for Prometheus."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def close(self) -> None:
        """Scores what was accepted, and ends the threads."""
        self.batcher.close()
        self._readers.shutdown()

    async def _kept(self, request: Request, sha256: str | None) -> str:
        body = await read_body(request, self.settings.picture, self.settings, self._budget, kind=None)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._readers, self.pictures.put, sha256, body)
        finally:
            self._budget.give(len(body))

    async def _answered(
        self,
        request: Request,
        model: type[BaseModel],
        rows: Callable[[Any], Rows],
        reply: Callable[[ScoreBatch], Any],
    ) -> Response:
        settings = self.settings
        body = await read_body(request, settings.body, settings, self._budget, kind="application/json")
        name = request.headers.get(wire.REQUEST_ID)
        try:
            if name is not None:
                name = f"{request.scope['path']} {name}"

            def work() -> Awaitable[bytes]:
                return self._work(body, model, rows, reply)

            answer = await self._answers.get(name, body, work, settings.answer_s)
        finally:
            self._budget.give(len(body))
        return Response(answer, media_type="application/json", headers={wire.SCORER_ID: self.identity})

    async def _work(
        self, body: bytes, model: type[BaseModel], rows: Callable[[Any], Rows], reply: Callable[[ScoreBatch], Any]
    ) -> bytes:
        check_weight([body], self.settings.weight, "the values of this body")
        given = _checked(model, body) if len(body) <= _SMALL else None
        if isinstance(given, ScoreRequest) and is_light(given):
            found = rows(given)
        else:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._readers, lambda: rows(given or _checked(model, body)))
        if self.batcher.waiting + len(found.completions) > self.settings.queue:
            raise Refusal(503, f"{self.batcher.waiting} rows are waiting; try again", retry_s=1)
        self._budget.take(found.held)
        try:
            batch = await asyncio.wrap_future(self.batcher.submit_rows(*found.columns()))
        except ValueError as error:  # of the whole request, such as pictures that are needed and not there
            raise Refusal(422, str(error)[:500]) from None
        except RuntimeError as error:
            raise Refusal(500, f"the scorer failed: {type(error).__name__}: {error}"[:500]) from error
        finally:
            self._budget.give(found.held)
        return json.dumps(reply(batch), allow_nan=False).encode()

    def _json(self, value: Any) -> Response:
        content = json.dumps(value)
        return Response(content, media_type="application/json", headers={wire.SCORER_ID: self.identity})


def _checked(model: type[BaseModel], body: bytes) -> Any:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise Refusal(422, foreign.said(error)) from None


def make_app(server: ScoreServer) -> Any:
    """The ASGI application of a server.

    Args:
        server: is closed when the application is shut down.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.get_running_loop().run_in_executor(None, server.close)

    app = FastAPI(title="dpad-fast", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    _post(app, "/score", server.score, ScoreRequest, ScoreReply)
    _post(app, "/openrlhf", server.openrlhf, OpenRlhfRequest, OpenRlhfReply)
    _post(app, "/slime", server.slime, SlimeRequest, float)
    picture = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}
    app.add_api_route(
        "/pictures/{sha256}",
        server.put_picture,
        methods=["PUT"],
        status_code=204,
        responses=_REFUSALS,
        openapi_extra=picture,
    )
    app.add_api_route(
        "/pictures",
        server.post_picture,
        methods=["POST"],
        response_model=PictureReply,
        responses=_REFUSALS,
        openapi_extra=picture,
    )
    app.add_api_route("/config", server.about, methods=["GET"])
    app.add_api_route("/healthz", server.health, methods=["GET"])
    app.add_api_route("/metrics", server.metric, methods=["GET"])
    _describe(app)
    for kind in (Refusal, HTTPException, Exception):
        app.add_exception_handler(kind, _raised)
    posts = {"/score": server.score, "/openrlhf": server.openrlhf, "/slime": server.slime}

    def quick(method: str, path: str) -> Endpoint | None:
        if method == "POST":
            return server.post_picture if path == "/pictures" else posts.get(path)
        picture = method == "PUT" and path.startswith("/pictures/") and path.count("/") == 2
        return server.put_picture if picture else None

    return Guard(app, server.settings, server.metrics, quick)


async def _raised(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):  # no such place, no such method
        error = Refusal(error.status_code, str(error.detail))
    if not isinstance(error, Refusal):  # a fault of ours; the guard logs it
        error = Refusal(500, f"the server failed: {type(error).__name__}: {error}"[:500])
    body, headers = refusal_parts(error)
    return Response(body, error.status, headers)


def _post(app: Any, path: str, endpoint: Any, model: type[BaseModel], reply: Any) -> None:
    """An endpoint that reads its body itself, beside the event loop, and is documented all the same."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}
    app.add_api_route(path, endpoint, methods=["POST"], response_model=reply, responses=_REFUSALS, openapi_extra=body)


def _describe(app: Any) -> None:
    """Puts the bodies that endpoints read themselves into the OpenAPI page."""

    def page() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, routes=app.routes)
            schemas = found.setdefault("components", {}).setdefault("schemas", {})
            for model in (ScoreRequest, OpenRlhfRequest, SlimeRequest):
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[model.__name__] = schema
            app.openapi_schema = found
        described: dict[str, Any] = app.openapi_schema
        return described

    app.openapi = page
