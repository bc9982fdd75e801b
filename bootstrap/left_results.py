"""Results that stayed with those who computed them: fetched when somebody wants them.

A provider keeps what stays for an hour, and serves it under a grant of the job's requester: this node grants itself
what it fetches. What no holder has any more is told by its task, to be computed again.
"""

from collections.abc import Iterable, Sequence

import structlog
import trio

from depin_node.bootstrap.market import MarketContext
from depin_node.compute.jobs.schema import StoredOutput
from depin_node.core.errors import DepinError, ResourceError
from depin_node.p2p.blobs import issue_grant

log = structlog.get_logger("depin_node.requester")

AT_ONCE = 4
"""Tasks whose results are fetched at the same time."""
TIMEOUT_S = 300.0
GRANT_S = 600
BLOBS_GRANTED_MAX = 64


class LeftResults:
    """Brings results here."""

    def __init__(self, context: MarketContext) -> None:
        self._context = context

    async def bring(self, job: bytes, results: Sequence[tuple[int, tuple[StoredOutput, ...]]]) -> list[int]:
        """Fetch what of ``results`` (task, outputs) is not in the store; return the tasks whose bytes nobody has.

        Raises:
            ResourceError: no room here.
        """
        lost: list[int] = []
        failures: list[ResourceError] = []
        turn = trio.CapacityLimiter(AT_ONCE)

        async def one(task: int, blobs: list[bytes]) -> None:
            async with turn:
                try:
                    await self._fetch(job, task, blobs)
                except ResourceError as error:
                    failures.append(error)
                except DepinError as error:
                    log.warning("a result that stayed cannot be had", job=job.hex(), task=task, reason=str(error))
                    lost.append(task)

        async with trio.open_nursery() as nursery:
            for task, outputs in results:
                missing = self.missing(outputs)
                if missing:
                    nursery.start_soon(one, task, missing)
        if failures:
            raise failures[0]
        return sorted(lost)

    def missing(self, outputs: Iterable[StoredOutput]) -> list[bytes]:
        """Return the blobs among ``outputs`` that are not in the store, each once."""
        store = self._context.blobs.store
        blobs = [output.blob for output in outputs if output.blob is not None and not store.has(output.blob)]
        return list(dict.fromkeys(blobs))

    async def _fetch(self, job: bytes, task: int, blobs: list[bytes]) -> None:
        context = self._context
        holders = context.journal.reader.holders(job, task)
        for first in range(0, len(blobs), BLOBS_GRANTED_MAX):
            granted = blobs[first : first + BLOBS_GRANTED_MAX]
            grant = issue_grant(
                context.identity,
                context.network.network_id,
                context.network.key,
                granted,
                seq=context.pen.next_seq(),
                now=context.clock(),
                lifetime_s=GRANT_S,
            )
            for blob in granted:
                size_bytes_max = context.blobs.store.quota_bytes
                await context.blobs.fetch(blob, holders, grant, size_bytes_max=size_bytes_max, timeout_s=TIMEOUT_S)
