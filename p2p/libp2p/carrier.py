"""A stream through a relay as libp2p's upgrader wants its raw connections: what Noise and yamux run over."""

from typing import TYPE_CHECKING

import trio
from libp2p.abc import ConnectionType
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from multiaddr import Multiaddr

from depin_node.core.errors import TransportError
from depin_node.p2p.network import Stream

if TYPE_CHECKING:
    from depin_node.p2p.libp2p.host import Host

_READ_BYTES = 64 * 1024


class Carrier(ReadWriteCloser):  # type: ignore[misc]
    """Reads and writes one spliced stream; ``abort`` may be called by any task at any time."""

    def __init__(self, host: "Host", stream: Stream, head: bytes, *, bulk: bool) -> None:
        self.bulk = bulk
        self.ended = trio.Event()
        self.depin_heard_s = 0.0  # see ``frozen_peers``
        self._host = host
        self._stream = stream
        self._waiting = bytearray(head)
        self._reading: trio.CancelScope | None = None
        self._aborted = False

    async def read(self, n: int | None = None) -> bytes:
        """Return up to ``n`` bytes, or nothing at the end."""
        if n == 0:
            return b""
        if not self._waiting and not self._aborted:
            try:
                with trio.CancelScope() as self._reading:
                    self._waiting += await self._stream.receive_some(_READ_BYTES)
            except TransportError as error:
                raise ConnectionClosedError(str(error), transport="relay") from error
            finally:
                self._reading = None
        if self._aborted:
            return b""
        self.depin_heard_s = trio.current_time()
        taken = bytes(self._waiting) if n is None else bytes(self._waiting[:n])
        del self._waiting[: len(taken)]
        return taken

    async def write(self, data: bytes) -> None:
        """Send all of ``data``."""
        if self._aborted:
            raise ConnectionClosedError("the connection is closed", transport="relay")
        try:
            await self._stream.send_all(data)
        except TransportError as error:
            raise ConnectionClosedError(str(error), transport="relay") from error

    async def close(self) -> None:
        """End both sides."""
        self._stop()
        await self._stream.aclose()

    def abort(self) -> None:
        """Drop the stream at once."""
        if not self._aborted:
            self._stop()
            self._host.start(self._stream.reset)

    def _stop(self) -> None:
        self._aborted = True
        self.ended.set()
        if self._reading is not None:
            self._reading.cancel()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return None: who is at the other end calls from somewhere that only the relay sees."""
        return None


def carried(carrier: Carrier, address: str, *, outbound: bool) -> RawConnection:
    """Return the raw connection over ``carrier``; ``address`` is the circuit's, without the peer at its end."""
    return RawConnection(carrier, outbound, ConnectionType.RELAYED, [Multiaddr(address)])
