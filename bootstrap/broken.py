"""Why an answer broke off: once its bytes flow, HTTP has no more words for that.

A client names its request in the header ``x-request-id``. Where the answer fails after it has begun, it ends before its
end, the connection is closed, and the reason waits under that name until the client asks for it, or others fail.
"""

from collections.abc import AsyncIterator

from starlette.requests import Request

from depin_node.core.errors import DepinError
from depin_node.core.views import ErrorView

NAMED_BY = "x-request-id"
NAME_LENGTH_MAX = 64
REASONS_MAX = 64
FAILED = ErrorView("error", "the node failed to answer; its log says why")


class BrokenAnswers:
    """The reasons of the latest."""

    def __init__(self) -> None:
        self._reasons: dict[str, ErrorView] = {}

    async def watched(self, request: Request, first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield an answer, and keep what ends it early."""
        try:
            yield first
            async for part in rest:
                yield part
        except DepinError as error:
            self._keep(request, ErrorView(error.code, str(error)))
            raise
        except Exception:
            self._keep(request, FAILED)
            raise

    def _keep(self, request: Request, reason: ErrorView) -> None:
        name = request.headers.get(NAMED_BY, "")
        if not 0 < len(name) <= NAME_LENGTH_MAX:
            return
        self._reasons[name] = reason
        if len(self._reasons) > REASONS_MAX:
            del self._reasons[next(iter(self._reasons))]

    def reason(self, name: str) -> ErrorView | None:
        """Return why the answer to a request broke off, once; None if that is not known."""
        return self._reasons.pop(name, None)
