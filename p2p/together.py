"""Tasks that live and die together, for the two directions of one stream or channel."""

from collections.abc import Awaitable, Callable

import trio


class Ended(Exception):
    """All is done: how one task of ``together`` ends the others."""


async def together(*tasks: Callable[[], Awaitable[None]]) -> None:
    """Run all until one raises; raise its error as it is, not in a group. ``Ended`` ends them without an error."""
    errors: list[Exception] = []
    async with trio.open_nursery() as nursery:

        async def run(task: Callable[[], Awaitable[None]]) -> None:
            try:
                await task()
            except Ended:
                nursery.cancel_scope.cancel()
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
                nursery.cancel_scope.cancel()

        for task in tasks:
            nursery.start_soon(run, task)
    if errors:
        raise errors[0]
