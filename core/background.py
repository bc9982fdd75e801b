"""Tasks that run beside a block and end with it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """Open a nursery whose tasks are cancelled when the block ends.

    What the block raises leaves as it is. A plain nursery wraps it in a group, which no ``except`` of whoever opened
    something for a block takes; a group is left for what the tasks raise.
    """
    failed: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except Exception as error:  # noqa: BLE001 - raised below
            failed = error
        finally:
            nursery.cancel_scope.cancel()
    if failed is not None:  # here, where no nursery wraps it
        raise failed
