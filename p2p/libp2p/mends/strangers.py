"""Mends of what a stranger could do to a node."""

import logging
from typing import Any

import libp2p.network.connection.swarm_connection as swarm_connection
import libp2p.protocol_muxer.multiselect_communicator as communicator
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
from libp2p.exceptions import ParseError
from libp2p.io.utils import read_exactly
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.transport.exceptions import SecurityUpgradeFailure
from libp2p.transport.upgrader import TransportUpgrader

from depin_node.p2p.libp2p.mends.registry import Plan, log, option, patch
from depin_node.p2p.libp2p.terms import GONE, reason_of

_NEGOTIATION_BYTES_MAX = 1024


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
def handshake_errors() -> None:
    """Fault: Noise raises what its own parts do (``InvalidTag``, ``ValueError``) where a message does not decrypt, and
    only an ordinary dial expects that: at a probe, in a circuit or in a punched hole one such message ended the node.
    It takes no attacker: two peers that call each other at once both begin the handshake.

    Mend: all of it is a handshake that failed. Until: py-libp2p wraps them (> 0.8.1).
    """
    original = TransportUpgrader.upgrade_security

    async def upgrade_security(self: Any, raw: Any, is_initiator: bool, peer: Any = None) -> Any:
        try:
            return await original(self, raw, is_initiator, peer)
        except GONE:
            raise
        except Exception as error:
            raise SecurityUpgradeFailure(f"the handshake broke: {reason_of(error)}") from error

    TransportUpgrader.upgrade_security = upgrade_security


@patch
def inbound_slots() -> None:
    """Fault: an inbound slot is held until the *node* ends, so after ``max_connections − min_connections`` accepted
    connections in a node's life all further ones are refused. And sockets that only stay open take all slots until
    their handshakes time out.

    Mend: places for handshakes and for connections are counted apart, and held as long as those last; a handshake
    that finds none puts out the oldest (``guard``, ``admission``). Until: py-libp2p does so (> 0.8.1).
    """

    async def handle(self: Any, socket: Any, listen_address: Any) -> None:
        raw, connection = RawConnection(socket, False), None
        with self.depin_guard.arriving(socket) as may_come:
            if may_come:
                try:
                    connection = await self.upgrade_inbound_raw_conn(raw, listen_address)
                except Exception as error:  # noqa: BLE001 - a stranger's failed handshake
                    log.debug("inbound connection failed", remote=raw.get_remote_address(), reason=reason_of(error))
        if connection is None:
            await raw.close()
            return
        await connection.event_closed.wait()

    Swarm._handle_inbound_connection = handle


@patch
def long_negotiations() -> None:
    """Fault: a multistream message may announce any length, and what comes of it is gathered in memory: before Noise
    has run, anybody may send as much as the line carries in 10 s.

    Mend: none is longer than 1 KiB. Until: py-libp2p limits them (> 0.8.1).
    """

    async def read_delim(reader: Any) -> bytes:
        size_bytes, shift = 0, 0
        while True:
            byte = (await read_exactly(reader, 1))[0]
            size_bytes |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift > 14:
                raise ParseError("a multistream message announces too many bytes")
        if not 0 < size_bytes <= _NEGOTIATION_BYTES_MAX:
            raise ParseError(f"a multistream message of {size_bytes} bytes")
        message: bytes = await read_exactly(reader, size_bytes)
        if message[-1:] != b"\n" or not message.isascii():
            raise ParseError("no multistream message")
        return message[:-1]

    communicator.read_delim = read_delim


@patch
def root_logging() -> None:
    """Fault: ``swarm_connection`` logs by ``logging.debug(…)``, which installs a handler on the root logger, so that
    the library's warnings appear on the program's stderr.

    Until: py-libp2p uses a logger of its own there (> 0.8.1).
    """
    swarm_connection.logging = logging.getLogger("libp2p.network.connection")
