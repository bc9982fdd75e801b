"""The control API: how the client and the command line talk to the node of the same user.

HTTP on 127.0.0.1, one token, kept in ``control.json`` for who may read the data directory. A web page in the user's
browser can reach the port too, so that every request must bear the token and name this very server in its Host header
(which defeats DNS rebinding). Every body has a cap; blobs are streamed to disk, results and events from the node.

    GET  /v1/status /v1/peers /v1/devices /v1/receipts /v1/credit
    HEAD /v1/blobs/ID             204 or 404          PUT /v1/blobs/ID    the bytes; they must have this id.
                                  Either keeps them for a job to come; ?keep=hour for an hour, whatever jobs use them
    POST /v1/jobs                 a canonical ``Job`` → its view; the same key again is the same job
    GET  /v1/jobs /v1/jobs/ID     views               DELETE /v1/jobs/ID  cancels
    GET  /v1/copies               jobs of fellows that this node could go on with
    POST /v1/jobs/ID/attach       goes on with such a job here → its view
    GET  /v1/jobs/ID/state        a job's state as a file (``job_files.py``)
    POST /v1/jobs/attach          such a file: goes on with its job here → its view
    GET  /v1/jobs/ID/events       the view whenever it changes, as server-sent events, until the job has ended
    GET  /v1/jobs/ID/program      the encoded program: how to put outputs together
    GET  /v1/jobs/ID/story        what happened to it, line by line
    GET  /v1/jobs/ID/logs         what its accepted tasks printed
    GET  /v1/jobs/ID/outputs/N    output buffer N: what its tasks returned, in task order, as raw bytes
    GET  /v1/broken/NAME          why the answer to the request of this ``x-request-id`` broke off, or 404
"""

import hmac
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, Protocol

import msgspec
import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from depin_node.bootstrap.broken import FAILED, BrokenAnswers
from depin_node.compute.jobs.events import JobEvent
from depin_node.compute.jobs.explain import ExplainView
from depin_node.compute.jobs.job import END_STATES, Job, JobView
from depin_node.core.errors import (
    ConfigError,
    DepinError,
    NotFoundError,
    PeerViolation,
    ResourceError,
    TaskError,
    TransportError,
)
from depin_node.core.views import (
    BlobView,
    CopyView,
    CreditView,
    DeviceView,
    ErrorView,
    LogsView,
    PeerView,
    ReceiptView,
    StatusView,
)
from depin_node.core.wire import decode
from depin_node.crypto.blob import BLOB_BYTES_MAX

log = structlog.get_logger("depin_node.control")

JOB_BYTES_MAX = 64 * 1024
JOB_FILE_BYTES_MAX = 1 << 40
"""The store's own quota is what bounds a job file."""
LISTED_MAX = 200
UPLOAD_STALL_S = 30.0
"""An uploading client on the same machine that sends nothing for so long is gone."""
KEEP_ALIVE_S = 10.0
"""How often a quiet event stream says that it is alive; readers may give up after three of these."""
GRACE_S = 1.0
"""How long requests may go on once the node stops."""

_STATUS: Mapping[type[DepinError], int] = {
    NotFoundError: 404,
    ConfigError: 400,
    PeerViolation: 400,
    TaskError: 422,
    TransportError: 503,
    ResourceError: 507,
    DepinError: 500,
}


class Backend(Protocol):
    """What the API asks of a node. ``Node`` is one."""

    def status(self) -> StatusView:
        """Return how the node is."""

    def peers(self) -> list[PeerView]:
        """Return the peers that are known, connected ones first."""

    def devices(self) -> list[DeviceView]:
        """Return what this node can run tasks on."""

    async def receipts(self, limit: int) -> list[ReceiptView]:
        """Return the newest receipts."""

    def credit(self, limit: int) -> CreditView:
        """Return what lies between this node and its partners."""

    def has_blob(self, blob_id: bytes, *, for_an_hour: bool) -> bool:
        """Tell whether the blob is here, whole; if so, it stays for an hour, or long enough to submit a job."""

    async def put_blob(self, blob_id: bytes, chunks: AsyncIterator[bytes], *, for_an_hour: bool) -> None:
        """Store a blob. Raises ``ConfigError`` if the bytes have another id, ``ResourceError`` if there is no room."""

    def blob(self, blob_id: bytes) -> AsyncIterator[bytes]:
        """Return a blob's bytes. Raises ``NotFoundError``."""

    async def assemble(self, job_id: bytes, buffer: int) -> bytes:
        """Put an output together as one blob. Raises as ``output``, and ``ResourceError`` if there is no room."""

    async def submit(self, job: Job) -> JobView:
        """Take responsibility for ``job``: when this returns, it is journalled."""

    def jobs(self, limit: int) -> list[JobView]:
        """Return the newest jobs."""

    def job(self, job_id: bytes) -> JobView:
        """Return one job. Raises ``NotFoundError``."""

    async def changed(self, job_id: bytes, seen: JobView) -> None:
        """Wait until the job's view may differ from ``seen``. Cancelling loses nothing."""

    async def cancel(self, job_id: bytes) -> JobView:
        """Stop a job; one that has ended stays as it is. Raises ``NotFoundError``."""

    def copies(self) -> list[CopyView]:
        """Return the jobs of nodes of the same owner that this node could go on with."""

    async def attach(self, job_id: bytes) -> JobView:
        """Go on with such a job. Raises ``NotFoundError``, ``ConfigError``."""

    def export(self, job_id: bytes) -> AsyncIterator[bytes]:
        """Yield a job's state as a file."""

    async def attach_file(self, parts: AsyncIterator[bytes]) -> JobView:
        """Go on with the job of such a file."""

    async def program(self, job_id: bytes) -> bytes:
        """Return a job's encoded program. Raises ``NotFoundError``."""

    def story(self, job_id: bytes) -> list[JobEvent]:
        """Return what happened to a job. Raises ``NotFoundError``."""

    def explain(self, job_id: bytes) -> ExplainView:
        """Return why a job is as it is. Raises ``NotFoundError``."""

    def logs(self, job_id: bytes) -> LogsView:
        """Return what the accepted tasks of a job printed. Raises ``NotFoundError``."""

    def parts(self, job_id: bytes, *, in_order: bool) -> AsyncIterator[bytes]:
        """Return what tasks returned, as it is accepted. Raises ``ConfigError`` if it stays with providers."""

    def output(self, job_id: bytes, buffer: int) -> AsyncIterator[bytes]:
        """Return an output's bytes, task by task. Raises ``ConfigError`` unless the job is done and has that output."""


def application(backend: Backend, token: str) -> ASGIApp:
    """Return the API as an ASGI application that lets in who bears ``token``."""
    routes = Routes(backend)
    app = Starlette(
        routes=[
            Route("/v1/status", routes.status),
            Route("/v1/peers", routes.peers),
            Route("/v1/devices", routes.devices),
            Route("/v1/receipts", routes.receipts),
            Route("/v1/credit", routes.credit),
            Route("/v1/blobs/{blob}", routes.has_blob, methods=["HEAD"]),
            Route("/v1/blobs/{blob}", routes.put_blob, methods=["PUT"]),
            Route("/v1/blobs/{blob}", routes.blob),
            Route("/v1/jobs", routes.submit, methods=["POST"]),
            Route("/v1/jobs", routes.jobs),
            Route("/v1/jobs/{job}", routes.job),
            Route("/v1/jobs/{job}", routes.cancel, methods=["DELETE"]),
            Route("/v1/copies", routes.copies),
            Route("/v1/jobs/attach", routes.attach_file, methods=["POST"]),
            Route("/v1/jobs/{job}/attach", routes.attach, methods=["POST"]),
            Route("/v1/jobs/{job}/state", routes.state),
            Route("/v1/jobs/{job}/events", routes.events),
            Route("/v1/jobs/{job}/program", routes.program),
            Route("/v1/jobs/{job}/story", routes.story),
            Route("/v1/jobs/{job}/explain", routes.explain),
            Route("/v1/jobs/{job}/logs", routes.logs),
            Route("/v1/jobs/{job}/parts", routes.parts),
            Route("/v1/jobs/{job}/outputs/{buffer:int}", routes.output),
            Route("/v1/jobs/{job}/outputs/{buffer:int}/blob", routes.assemble, methods=["POST"]),
            Route("/v1/broken/{name}", routes.broken),
        ],
        exception_handlers={DepinError: _refuse, HTTPException: _http_error, Exception: _internal_error},
    )
    return Guard(app, token)


class Guard:
    """Lets through who bears the token and addressed this very server."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._bearer = b"Bearer " + token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket: closing before accepting refuses it
            await send({"type": "websocket.close", "code": 1008})
            return
        problem = self._problem(scope)
        if problem is None:
            await self._app(scope, receive, send)
            return
        status, message = problem
        await _error(status, "unauthorized", message)(scope, receive, send)

    def _problem(self, scope: Scope) -> tuple[int, str] | None:
        port = scope["server"][1]
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or hosts[0] not in (f"127.0.0.1:{port}".encode(), f"localhost:{port}".encode()):
            return 421, f"the Host header must be 127.0.0.1:{port} or localhost:{port}"
        tokens = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(tokens) != 1 or not hmac.compare_digest(tokens[0], self._bearer):
            return 401, "the Authorization header must bear the token that control.json in the data directory holds"
        return None


class Routes:
    """The requests, each: bytes in, one call to the node, bytes out."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._broken = BrokenAnswers()

    async def status(self, request: Request) -> Response:
        """Answer ``GET /v1/status``."""
        return _json(self._backend.status())

    async def peers(self, request: Request) -> Response:
        """Answer ``GET /v1/peers``."""
        return _json(self._backend.peers())

    async def devices(self, request: Request) -> Response:
        """Answer ``GET /v1/devices``."""
        return _json(self._backend.devices())

    async def receipts(self, request: Request) -> Response:
        """Answer ``GET /v1/receipts``."""
        return _json(await self._backend.receipts(LISTED_MAX))

    async def credit(self, request: Request) -> Response:
        """Answer ``GET /v1/credit``."""
        return _json(self._backend.credit(LISTED_MAX))

    async def has_blob(self, request: Request) -> Response:
        """Answer ``HEAD /v1/blobs/ID``."""
        is_here = self._backend.has_blob(_digest(request, "blob"), for_an_hour=_for_an_hour(request))
        return Response(status_code=204 if is_here else 404)

    async def put_blob(self, request: Request) -> Response:
        """Answer ``PUT /v1/blobs/ID``."""
        chunks = _body(request, BLOB_BYTES_MAX)
        await self._backend.put_blob(_digest(request, "blob"), chunks, for_an_hour=_for_an_hour(request))
        return Response(status_code=204)

    async def blob(self, request: Request) -> Response:
        """Answer ``GET /v1/blobs/ID``."""
        return await self._streamed(request, self._backend.blob(_digest(request, "blob")))

    async def assemble(self, request: Request) -> Response:
        """Answer ``POST /v1/jobs/ID/outputs/N/blob``."""
        blob = await self._backend.assemble(_digest(request, "job"), request.path_params["buffer"])
        return _json(BlobView(blob.hex()))

    async def submit(self, request: Request) -> Response:
        """Answer ``POST /v1/jobs``."""
        body = b"".join([chunk async for chunk in _body(request, JOB_BYTES_MAX)])
        return _json(await self._backend.submit(decode(body, Job, size_bytes_max=JOB_BYTES_MAX)))

    async def jobs(self, request: Request) -> Response:
        """Answer ``GET /v1/jobs``."""
        return _json(self._backend.jobs(LISTED_MAX))

    async def job(self, request: Request) -> Response:
        """Answer ``GET /v1/jobs/ID``."""
        return _json(self._backend.job(_digest(request, "job")))

    async def cancel(self, request: Request) -> Response:
        """Answer ``DELETE /v1/jobs/ID``."""
        return _json(await self._backend.cancel(_digest(request, "job")))

    async def copies(self, request: Request) -> Response:
        """Answer ``GET /v1/copies``."""
        return _json(self._backend.copies())

    async def attach(self, request: Request) -> Response:
        """Answer ``POST /v1/jobs/ID/attach``."""
        return _json(await self._backend.attach(_digest(request, "job")))

    async def state(self, request: Request) -> Response:
        """Answer ``GET /v1/jobs/ID/state``."""
        return await self._streamed(request, self._backend.export(_digest(request, "job")))

    async def attach_file(self, request: Request) -> Response:
        """Answer ``POST /v1/jobs/attach``."""
        async with aclosing(_body(request, JOB_FILE_BYTES_MAX)) as parts:
            return _json(await self._backend.attach_file(parts))

    async def events(self, request: Request) -> Response:
        """Answer ``GET /v1/jobs/ID/events``. ``connection: close`` lets the server end without waiting for readers."""
        job_id = _digest(request, "job")
        headers = {"connection": "close", "cache-control": "no-store"}
        return await self._streamed(request, self._views(job_id), media_type="text/event-stream", headers=headers)

    async def _views(self, job_id: bytes) -> AsyncIterator[bytes]:
        while True:
            view = self._backend.job(job_id)
            yield b"data: " + msgspec.json.encode(view) + b"\n\n"
            if view.state in END_STATES:
                return
            while True:
                with trio.move_on_after(KEEP_ALIVE_S) as quiet:
                    await self._backend.changed(job_id, view)
                if not quiet.cancelled_caught:
                    break
                yield b": still here\n\n"

    async def program(self, request: Request) -> Response:
        """Answer ``GET /v1/jobs/ID/program``."""
        return Response(await self._backend.program(_digest(request, "job")), media_type="application/octet-stream")

    async def story(self, request: Request) -> Response:
        """Answer ``GET /v1/jobs/ID/story``."""
        return _json(self._backend.story(_digest(request, "job")))

    async def explain(self, request: Request) -> Response:
        """Answer ``GET /v1/jobs/ID/explain``."""
        return _json(self._backend.explain(_digest(request, "job")))

    async def logs(self, request: Request) -> Response:
        """Answer ``GET /v1/jobs/ID/logs``."""
        return _json(self._backend.logs(_digest(request, "job")))

    async def parts(self, request: Request) -> Response:
        """Answer ``GET /v1/jobs/ID/parts``, ``?order=task`` in task order: task by task while the job runs."""
        parts = self._backend.parts(_digest(request, "job"), in_order=request.query_params.get("order") == "task")
        return await self._streamed(request, parts, headers={"connection": "close", "cache-control": "no-store"})

    async def output(self, request: Request) -> Response:
        """Answer ``GET /v1/jobs/ID/outputs/N``."""
        parts = self._backend.output(_digest(request, "job"), request.path_params["buffer"])
        return await self._streamed(request, parts)

    async def _streamed(
        self,
        request: Request,
        parts: AsyncIterator[bytes],
        *,
        media_type: str = "application/octet-stream",
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        first = await anext(parts, b"")  # most of what is wrong shows here, while the answer can still say so
        return StreamingResponse(self._broken.watched(request, first, parts), media_type=media_type, headers=headers)

    async def broken(self, request: Request) -> Response:
        """Answer ``GET /v1/broken/NAME``."""
        reason = self._broken.reason(request.path_params["name"])
        if reason is None:
            raise NotFoundError("no answer of this name broke off, or it was told already")
        return _json(reason)


def _digest(request: Request, name: str) -> bytes:
    text = request.path_params[name]
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32 or text != digest.hex():
        raise ConfigError(f"{text[:80]!r} is not a {name} id: it has 64 lower-case hex digits")
    return digest


def _for_an_hour(request: Request) -> bool:
    return request.query_params.get("keep") == "hour"


async def _body(request: Request, size_bytes_max: int) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives. Raises ``ConfigError`` if it grows too large, ``TransportError`` if it stops."""
    too_large = ConfigError(f"this body may have at most {size_bytes_max} bytes")
    if int(request.headers.get("content-length", "0")) > size_bytes_max:
        raise too_large
    received = 0
    chunks = request.stream().__aiter__()
    while True:
        try:
            with trio.fail_after(UPLOAD_STALL_S):
                chunk = await anext(chunks, None)
        except (trio.TooSlowError, ClientDisconnect):
            raise TransportError("the upload broke off") from None
        if chunk is None:
            return
        received += len(chunk)
        if received > size_bytes_max:
            raise too_large
        yield chunk


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _error(status: int, code: str, message: str) -> Response:
    # A refused upload may leave its body unread: the connection cannot be used again.
    body = msgspec.json.encode(ErrorView(code, message))
    return Response(body, status, {"connection": "close"}, media_type="application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, DepinError)
    status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
    return _error(status, error.code, str(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, "not_found" if error.status_code == 404 else "config", str(error.detail))


async def _internal_error(request: Request, error: Exception) -> Response:
    if isinstance(error.__cause__, DepinError):  # in the middle of an answer
        log.warning("an answer broke off", path=request.url.path, reason=str(error.__cause__))
    else:
        log.error("request failed", path=request.url.path, exc_info=error)
    return _error(500, FAILED.code, FAILED.message)


@asynccontextmanager
async def serving(app: ASGIApp, port: int) -> AsyncIterator[str]:
    """Serve ``app`` on 127.0.0.1 for as long as the context is open, and give its base URL. Port 0 takes a free one.

    Raises:
        ResourceError: the port is taken.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise ResourceError(
            f"control_port {port} on 127.0.0.1 cannot be used ({error.strerror}); choose another, or 0 for a free one"
        ) from error
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    config.accesslog = None
    config.include_server_header = False
    config.graceful_timeout = GRACE_S
    config.keep_alive_timeout = 60.0
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(hypercorn_serve, app, config, shutdown_trigger=stopping.wait))
        try:
            yield url
        finally:
            stopping.set()
