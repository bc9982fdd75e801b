"""Mends of what a stranger could do to a node."""

import logging
from typing import Any

import libp2p.network.connection.swarm_connection as swarm_connection
import libp2p.stream_muxer.yamux.yamux as yamux_module
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import YamuxStream

from depin_node.p2p.libp2p.mends.registry import Plan, abort, log, option, patch

_WINDOW_BYTES_MAX = 8 << 20


@option
def noise_only(plan: Plan) -> None:
    """Fault: a host without ``sec_opt`` also accepts ``/plaintext/2.0.0`` and secio: no encryption, no proof of key.

    Until: py-libp2p offers only authenticated transports by default (> 0.8.1).
    """
    plan.security = {
        NOISE_ID: NoiseTransport(plan.key_pair, noise_privkey=create_x25519_key_pair().private_key),
    }


@patch
def handler_errors() -> None:
    """Fault: an exception in a stream handler ends the service that runs it, and with it the whole host.

    A peer gets there with whatever makes a handler raise: with gossipsub, 51 bytes of garbage did.
    Until: py-libp2p contains handler errors (> 0.8.1).
    """
    original = Swarm.set_stream_handler

    def set_stream_handler(self: Any, handler: Any) -> None:
        async def contained(stream: Any) -> None:
            try:
                await handler(stream)
            except Exception as error:  # noqa: BLE001 - one stream's failure stays with that stream
                log.debug("libp2p stream failed", protocol=stream.get_protocol(), error=repr(error)[:200])
                await _reset_quietly(stream)

        original(self, contained)

    Swarm.set_stream_handler = set_stream_handler


async def _reset_quietly(stream: Any) -> None:
    try:
        await stream.reset()
    except Exception as error:  # noqa: BLE001 - it is gone anyway
        log.debug("reset failed", error=repr(error)[:200])


@patch
def inbound_slots() -> None:
    """Fault: an inbound slot is held until the *node* ends, so after ``max_connections − min_connections`` accepted
    connections in a node's life all further ones are refused.

    Mend: hold it until the connection ends. Until: py-libp2p does so (> 0.8.1).
    """

    async def handle(self: Any, socket: Any, listen_address: Any, failure: Any) -> None:
        raw = RawConnection(socket, False)
        try:
            connection = await self.upgrade_inbound_raw_conn(raw, listen_address)
        except Exception as error:  # noqa: BLE001 - a stranger's failed handshake
            log.debug("inbound connection failed", error=repr(error)[:200])
            await raw.close()
            return
        await connection.event_closed.wait()

    Swarm._do_handle_inbound_connection = handle


@patch
def receive_window() -> None:
    """Fault: the receive window is not enforced: a peer may send without end into a stream that nobody reads.

    Measured: 200 MiB raise a process from 83 to 283 MB. Mend: a connection that overruns a window is closed; and a
    stream's window grows to 8 MiB instead of 16. Until: py-libp2p enforces it (> 0.8.1).
    """
    yamux_module.MAX_WINDOW_SIZE = _WINDOW_BYTES_MAX

    def get(self: Any) -> int:
        window: int = self.__dict__["recv_window"]
        return window

    def put(self: Any, value: int) -> None:
        self.__dict__["recv_window"] = value
        if value < 0:
            log.warning("peer overran its receive window", peer=str(self.conn.peer_id), bytes=-value)
            abort(self.conn)

    YamuxStream.recv_window = property(get, put)


@patch
def root_logging() -> None:
    """Fault: ``swarm_connection`` logs by ``logging.debug(…)``, which installs a handler on the root logger, so that
    the library's warnings appear on the program's stderr.

    Until: py-libp2p uses a logger of its own there (> 0.8.1).
    """
    swarm_connection.logging = logging.getLogger("libp2p.network.connection")
