"""The control API from the client's side: typed answers, and a node's errors raised as what they were.

One HTTP connection pool to the node on this machine. Every wait is bounded: a node that says nothing for
``QUIET_S`` is gone, and an event stream says every ten seconds that it is alive.
"""

import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec

from depin_node.compute.jobs.events import JobEvent
from depin_node.compute.jobs.explain import ExplainView
from depin_node.compute.jobs.job import Job, JobView
from depin_node.core import errors
from depin_node.core.local import DataDir, NotRunningError
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
from depin_node.core.wire import encode
from depin_node.crypto.blob import Buffer, blob_id, chunks

T = TypeVar("T")

QUIET_S = 30.0
CONNECT_S = 5.0
ASSEMBLE_S = 300.0
NO_ROUTE = "Not Found"
"""What a node says of a path that it does not know."""
EVENT_BYTES_MAX = 8 << 20
BLOB_BYTES_MAX = 8 << 20
"""The largest blob that is read back whole: a program."""
KNOWN_BLOBS_MAX = 1024
KNOWN_S = 300.0
"""For so long nobody asks again whether the node has a blob."""


class _QuietError(errors.TransportError):
    """The node did not answer in time."""


class Control:
    """A connection to the running node of a data directory. Use it as a context manager, or ``close`` it.

    Raises:
        NotRunningError: no node runs there.
    """

    def __init__(self, data_dir: str | os.PathLike[str] | None = None) -> None:
        self.data_dir = DataDir.locate(data_dir)
        control = self.data_dir.read_control()
        self._http = httpx.Client(
            base_url=control.url,
            headers={"authorization": f"Bearer {control.token}"},
            timeout=httpx.Timeout(QUIET_S, connect=CONNECT_S),
            trust_env=False,  # a proxy has no business between us and our own machine
        )
        self._on_node_until_s: dict[bytes, float] = {}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def status(self) -> StatusView:
        """Return how the node is."""
        return self._get("/v1/status", StatusView)

    def peers(self) -> list[PeerView]:
        """Return the peers the node knows."""
        return self._get("/v1/peers", list[PeerView])

    def devices(self) -> list[DeviceView]:
        """Return what the node can run tasks on."""
        return self._get("/v1/devices", list[DeviceView])

    def credit(self) -> CreditView:
        """Return what lies between the node and its partners."""
        return self._get("/v1/credit", CreditView)

    def receipts(self) -> list[ReceiptView]:
        """Return the newest receipts."""
        return self._get("/v1/receipts", list[ReceiptView])

    def put_blob(self, data: Buffer, *, for_an_hour: bool = False) -> bytes:
        """Make sure that the node has ``data`` (contiguous) and return its 32-byte id; nothing is sent if it has.

        It stays for a job that is submitted next; ``for_an_hour``: for any number of jobs.
        """
        digest = blob_id(data)
        now_s = time.monotonic()
        if not for_an_hour and self._on_node_until_s.get(digest, 0) > now_s:
            return digest
        self._put(digest, data, for_an_hour=for_an_hour)
        self._on_node_until_s = {known: until for known, until in self._on_node_until_s.items() if until > now_s}
        if len(self._on_node_until_s) < KNOWN_BLOBS_MAX:
            self._on_node_until_s[digest] = now_s + KNOWN_S
        return digest

    def blob(self, digest: bytes, size_bytes: int) -> bytearray:
        """Return the bytes of a blob on the node. Raises ``NotFoundError``."""
        data = bytearray()
        with self._stream(f"/v1/blobs/{digest.hex()}") as answer:
            for part in answer.iter_raw():
                data += part
                if len(data) > size_bytes:
                    break
        if len(data) != size_bytes:
            raise errors.TransportError(f"the node sent {len(data)} bytes of a blob of {size_bytes}")
        return data

    def blob_parts(self, digest: bytes) -> Iterator[bytes]:
        """Yield a blob on the node, bit by bit. Raises ``NotFoundError``."""
        with self._stream(f"/v1/blobs/{digest.hex()}") as answer:
            yield from answer.iter_raw()

    def assemble(self, job_id: str, buffer: int) -> bytes:
        """Have the node put an output of a job together as one blob of its own, and return its id."""
        with self._reaching():
            answer = self._http.post(f"/v1/jobs/{job_id}/outputs/{buffer}/blob", timeout=ASSEMBLE_S)
        return bytes.fromhex(msgspec.json.decode(self._check(answer).content, type=BlobView).id)

    def forget_uploads(self) -> None:
        """Ask again what the node has, from now on."""
        self._on_node_until_s.clear()

    def _put(self, digest: bytes, data: Buffer, *, for_an_hour: bool) -> None:
        path = f"/v1/blobs/{digest.hex()}{'?keep=hour' if for_an_hour else ''}"
        with self._reaching():
            there = self._http.head(path)
        if there.status_code == 204:
            return
        if there.status_code != 404:
            self._check(self._http.get(path))  # a HEAD has no body; ask again for the reason
        size = memoryview(data).nbytes
        with self._reaching():
            stored = self._http.put(
                path, content=(bytes(chunk) for chunk in chunks(data)), headers={"content-length": str(size)}
            )
        self._check(stored)

    def submit(self, job: Job) -> JobView:
        """Hand over a job. When this returns the node has it on disk; the same key again is the same job."""
        with self._reaching():
            answer = self._http.post("/v1/jobs", content=encode(job), headers={"content-type": "application/msgpack"})
        return msgspec.json.decode(self._check(answer).content, type=JobView)

    def jobs(self) -> list[JobView]:
        """Return the newest jobs."""
        return self._get("/v1/jobs", list[JobView])

    def job(self, job_id: str) -> JobView:
        """Return how a job stands. Raises ``NotFoundError``."""
        return self._get(f"/v1/jobs/{job_id}", JobView)

    def cancel(self, job_id: str) -> JobView:
        """Stop a job, and return how it stands."""
        with self._reaching():
            answer = self._http.delete(f"/v1/jobs/{job_id}")
        return msgspec.json.decode(self._check(answer).content, type=JobView)

    def copies(self) -> list[CopyView]:
        """Return the jobs of nodes of the same owner that this node could go on with."""
        return self._get("/v1/copies", list[CopyView])

    def attach(self, job_id: str) -> JobView:
        """Go on with such a job here, and return how it stands."""
        with self._reaching():
            answer = self._http.post(f"/v1/jobs/{job_id}/attach", timeout=ASSEMBLE_S)
        return msgspec.json.decode(self._check(answer).content, type=JobView)

    def state(self, job_id: str) -> Iterator[bytes]:
        """Yield a job's state as a file, bit by bit."""
        with self._stream(f"/v1/jobs/{job_id}/state") as answer:
            yield from answer.iter_raw()

    def attach_file(self, parts: Iterable[bytes]) -> JobView:
        """Go on with the job of such a file here, and return how it stands."""
        with self._reaching():
            answer = self._http.post("/v1/jobs/attach", content=parts, timeout=ASSEMBLE_S)
        return msgspec.json.decode(self._check(answer).content, type=JobView)

    def program(self, job_id: str) -> bytes:
        """Return the encoded program of a job."""
        with self._stream(f"/v1/jobs/{job_id}/program") as answer:
            data = bytearray()
            for part in answer.iter_raw():
                data += part
                if len(data) > BLOB_BYTES_MAX:
                    raise errors.TransportError("the node sent a program larger than programs can be")
        return bytes(data)

    def story(self, job_id: str) -> list[JobEvent]:
        """Return what happened to a job, line by line."""
        return self._get(f"/v1/jobs/{job_id}/story", list[JobEvent])

    def explain(self, job_id: str) -> ExplainView:
        """Return why a job is as it is."""
        return self._get(f"/v1/jobs/{job_id}/explain", ExplainView)

    def logs(self, job_id: str) -> LogsView:
        """Return what the accepted tasks of a job printed."""
        return self._get(f"/v1/jobs/{job_id}/logs", LogsView)

    def events(self, job_id: str, timeout_s: float = QUIET_S) -> Iterator[JobView | None]:
        """Yield the job's view now and whenever it changes, until it has ended; None when nothing changed for a while.

        ``timeout_s`` bounds each wait for the next; if it is less than ``QUIET_S``, the events just end then.
        """
        read_s = min(timeout_s, QUIET_S)
        try:
            with self._stream(f"/v1/jobs/{job_id}/events", read_s) as answer:
                for event in _events(answer.iter_raw()):
                    yield msgspec.json.decode(event, type=JobView) if event else None
        except _QuietError:
            if timeout_s > QUIET_S:
                raise

    @contextmanager
    def parts(self, job_id: str, *, in_order: bool) -> Iterator[Iterator[bytes]]:
        """Give the results of tasks as they are accepted, cut anywhere: ``task u32 LE``, then its outputs."""
        with self._stream(f"/v1/jobs/{job_id}/parts{'?order=task' if in_order else ''}") as answer:
            yield answer.iter_raw()

    @contextmanager
    def output(self, job_id: str, buffer: int) -> Iterator[Iterator[bytes]]:
        """Give the parts of an output, in task order, cut anywhere."""
        with self._stream(f"/v1/jobs/{job_id}/outputs/{buffer}") as answer:
            yield answer.iter_raw()

    def _get(self, path: str, kind: type[T]) -> T:
        with self._reaching():
            answer = self._http.get(path)
        return msgspec.json.decode(self._check(answer).content, type=kind)

    @contextmanager
    def _stream(self, path: str, read_s: float = QUIET_S) -> Iterator[httpx.Response]:
        timeout, name = httpx.Timeout(read_s, connect=CONNECT_S), secrets.token_hex(16)
        with self._reaching():
            try:
                with self._http.stream("GET", path, headers={"x-request-id": name}, timeout=timeout) as answer:
                    if answer.is_error:
                        answer.read()
                    yield self._check(answer)
            except (httpx.RemoteProtocolError, httpx.ReadError):
                self._raise_why(name)
                raise

    def _raise_why(self, name: str) -> None:
        """Raise what broke the answer to a request off, if the node is still there to tell."""
        try:
            answer = self._http.get(f"/v1/broken/{name}")
        except httpx.TransportError:
            return
        if answer.status_code == 200:
            raise error_of(msgspec.json.decode(answer.content, type=ErrorView), self.data_dir.path) from None

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError:
            raise self.data_dir.not_running("nothing listens where it said") from None
        except httpx.TimeoutException:
            raise _QuietError(f"the node on {self.data_dir.path} has not answered in time") from None
        except httpx.TransportError as error:
            raise NotRunningError(
                f"the node on {self.data_dir.path} went away ({error}); start it again: jobs that it has go on by"
                " themselves then (depin-node job list)"
            ) from None

    def _check(self, answer: httpx.Response) -> httpx.Response:
        if not answer.is_error:
            return answer
        if answer.status_code == 401:  # another process got the port of a node that died
            raise self.data_dir.not_running("another process listens where it said")
        try:
            problem = msgspec.json.decode(answer.content, type=ErrorView)
        except msgspec.DecodeError:
            raise errors.TransportError(f"the node answered {answer.status_code} without a reason") from None
        raise error_of(problem, self.data_dir.path)


_KINDS = {
    kind.code: kind
    for kind in (*vars(errors).values(), NotRunningError)
    if isinstance(kind, type) and issubclass(kind, errors.DepinError)
}
"""What a node's codes mean. Parts that are not the client's may use the same words for errors of their own."""


def error_for(code: str) -> type[errors.DepinError]:
    """Return the error class of a code."""
    return _KINDS.get(code, errors.DepinError)


def error_of(problem: ErrorView, path: Path) -> errors.DepinError:
    """Return what to raise for what the node on ``path`` says. What it does not understand, or does not know the way
    of, most likely comes from a command of another version: the node was not started again after an upgrade."""
    if problem.code == errors.PeerViolation.code or problem.message == NO_ROUTE:
        return errors.ConfigError(
            f"the node on {path} does not understand this ({problem.message}): it may be of another version of"
            " depin-node than this command; start it again"
        )
    return error_for(problem.code)(problem.message)


def _events(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Cut a stream of server-sent events, each one line, into their data; a comment is empty data."""
    waiting = bytearray()
    for part in parts:
        waiting += part
        *whole, rest = bytes(waiting).split(b"\n\n")
        waiting = bytearray(rest)
        if len(waiting) > EVENT_BYTES_MAX:
            raise errors.TransportError("the node sent an event without end")
        for event in whole:
            yield event.removeprefix(b"data: ") if event.startswith(b"data: ") else b""
