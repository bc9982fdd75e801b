"""``hello/2``: the first thing on every connection, and until it has succeeded the only one that is served.

Who called opens the stream and shows that it belongs to the mesh; who was called answers alike, or says why not, and
hangs up. Both ends then know at once what is wrong: another network (the protocol's name has its id), another
pre-shared key, or not on the list of allowed peers.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import structlog
import trio
from libp2p.custom_types import TProtocol
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator

from depin_node.core.errors import DepinError, PeerViolation, TransportError
from depin_node.core.wire import Message, decode, encode
from depin_node.crypto.membership import is_proof, proof
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.frames import ANSWER, ASK, REFUSE, Frame, FrameReader, RequestRefusedError, exchange, send_frames
from depin_node.p2p.libp2p.mends.registry import abort
from depin_node.p2p.libp2p.stream import Stream
from depin_node.p2p.libp2p.terms import GONE, key_of_id, reason_of
from depin_node.p2p.network import PeerKey
from depin_node.p2p.network import Stream as AnyStream

if TYPE_CHECKING:
    from depin_node.p2p.libp2p.host import Host

log = structlog.get_logger("depin_node.p2p")

HELLO = "hello/2"
HELLO_BYTES_MAX = 64
_GOODBYE_S = 1.0
_TOLD_MAX = 256
"""So many peers that are not of our mesh are remembered, lest each new attempt of theirs be news."""
REASONS = {
    "pre_shared_key": "has another pre-shared key, or only one of us has any: give both nodes the same one",
    "not_allowed": "takes only the peers on its list, and this node is not on it",
}
_REFUSED = {"pre_shared_key": REASONS["pre_shared_key"], "not_allowed": "is not on our list: see allowed_peers"}
"""What the refusing end says to its own user."""


class Hello(Message, frozen=True):
    """What shows that the sender belongs to the mesh: see ``crypto.membership``."""

    proof: Annotated[bytes, msgspec.Meta(max_length=32)]


class Greeting:
    """What has become of the hello on one connection."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: TransportError | None = None
        self.succeeded = False
        """Whether the peer belongs to our mesh."""
        self.is_noted = False
        """Whether the host knows."""

    def fail(self, error: TransportError) -> None:
        """Say that it came to nothing, unless it has ended."""
        if not self.done.is_set():
            self.error = error
            self.done.set()


def greeting_of(muxed: Any) -> Greeting:
    """Return the greeting on a yamux connection."""
    greeting: Greeting = muxed.__dict__.setdefault("depin_greeting", Greeting())
    return greeting


class Greeter:
    """Says and answers hello."""

    def __init__(self, host: "Host", key: bytes | None, allowed: Collection[PeerKey] | None) -> None:
        self._host = host
        self._key = key
        self._allowed = None if allowed is None else frozenset(allowed)
        self._told: dict[tuple[PeerKey, str], int] = {}
        """How often peers were hung up on, each for what reason."""

    async def greet(self, connection: Any) -> None:
        """See to the hello on a new connection; one that comes to nothing in time is closed."""
        muxed = connection.muxed_conn
        greeting, peer = greeting_of(muxed), key_of_id(muxed.peer_id)
        with trio.move_on_after(self._host.limits.dial_timeout_s):
            if muxed.is_initiator:
                error = await self._ask(connection, peer)
                if error is None:
                    self._succeed(muxed)
                else:
                    greeting.fail(error)
            await greeting.done.wait()
        greeting.fail(TransportError(f"{peer_id(peer)} said no hello within {self._host.limits.dial_timeout_s:g} s"))
        if greeting.error is None:
            self._succeed(muxed)
            return
        self._host.count["greetings_failed"] += 1
        self._tell(peer, str(greeting.error))
        with trio.move_on_after(_GOODBYE_S):  # what was said has to arrive
            await muxed.event_closed.wait()
        abort(muxed)

    def _tell(self, peer: PeerKey, reason: str) -> None:
        """Log that a peer is not of our mesh: at the first, the tenth, the hundredth, … time that it is hung up on for
        this reason. It may dial once a second, and so may we."""
        times = self._told.pop((peer, reason), 0) + 1
        self._told[peer, reason] = times
        if len(self._told) > _TOLD_MAX:
            del self._told[next(iter(self._told))]
        if times in (10**power for power in range(10)):
            log.info("not of our mesh: hanging up", peer=peer_id(peer), reason=reason, times=times)

    def _succeed(self, muxed: Any) -> None:
        """Let the host know before anybody who waits; that it has the connection in its books may be to come."""
        greeting = greeting_of(muxed)
        greeting.succeeded = greeting.error is None
        if greeting.succeeded and not greeting.is_noted:
            greeting.is_noted = self._host.note_greeted(muxed)
        greeting.done.set()

    async def _ask(self, connection: Any, peer: PeerKey) -> TransportError | None:
        network = self._host.network_id
        try:
            stream = Stream(self._host, await self._open(connection, peer), HELLO)
            hello = Hello(proof(self._key, network, self._host.key, peer))
            answer = await exchange(stream, FrameReader(stream, size_bytes_max=HELLO_BYTES_MAX), encode(hello))
            shown = decode(answer, Hello, size_bytes_max=HELLO_BYTES_MAX).proof
            await stream.aclose()
        except RequestRefusedError as error:
            reason = REASONS.get(error.refusal, f"refuses this node: {error.refusal}")
            return TransportError(f"{peer_id(peer)} {reason}")
        except TransportError as error:
            return error
        except DepinError as error:  # to who dials, it is a peer that cannot be connected
            return TransportError(f"{peer_id(peer)} breaks {HELLO}: {error}")
        if not is_proof(shown, self._key, network, peer, self._host.key):
            return TransportError(f"{peer_id(peer)} {REASONS['pre_shared_key']}")
        return None

    async def _open(self, connection: Any, peer: PeerKey) -> Any:
        try:
            stream = await connection.new_stream()
            protocol = TProtocol(f"/depin/{self._host.network_id}/{HELLO}")
            await self._host.multiselect.select_one_of([protocol], MultiselectCommunicator(stream))
        except MultiselectClientError as error:
            if "not supported" not in reason_of(error):
                raise TransportError(f"{peer_id(peer)} did not answer {HELLO}: {reason_of(error)}") from error
            raise TransportError(
                f"{peer_id(peer)} is of another network than {self._host.network_id!r}: "
                "give both nodes the same network id"
            ) from error
        except GONE as error:
            raise TransportError(f"{peer_id(peer)} did not answer {HELLO}: {reason_of(error)}") from error
        return stream

    async def answer(self, stream: AnyStream, muxed: Any) -> None:
        """Serve ``hello/2``."""
        frame = None
        with trio.move_on_after(self._host.limits.dial_timeout_s):
            frame = await FrameReader(stream, size_bytes_max=HELLO_BYTES_MAX).read()
        if frame is None or frame.kind != ASK or muxed.is_initiator:
            raise PeerViolation("hello: no hello, or one from the wrong end")
        shown, network = decode(frame.body, Hello, size_bytes_max=HELLO_BYTES_MAX).proof, self._host.network_id
        refusal = ""
        if not is_proof(shown, self._key, network, stream.peer, self._host.key):
            refusal = "pre_shared_key"
        elif self._allowed is not None and stream.peer not in self._allowed:
            refusal = "not_allowed"
        if refusal:
            await send_frames(stream, [Frame(REFUSE, refusal.encode())])
            greeting_of(muxed).fail(TransportError(f"{peer_id(stream.peer)} {_REFUSED[refusal]}"))
            return
        self._succeed(muxed)  # before the answer: what the peer sends after it is served
        hello = Hello(proof(self._key, network, self._host.key, stream.peer))
        await send_frames(stream, [Frame(ANSWER, encode(hello))])
