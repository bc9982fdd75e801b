"""What peers say to each other about reachability: four small request protocols.

    reach/1    [port] → [host, port, called, outcome, wall_s]
               "where do you see me, and can you call me back at this port?"
    relay/1    [target] → [lasts_s, circuit_s, circuit_bytes_max, bulk, host, port]
               an empty target: "keep a place for me"; else "connect me with it": after the answer the stream is the
               circuit's, bytes both ways
    relayed/1  [source, bulk, host, port] → []            the relay to the target; then the same
    punch/1    [open_port, punchable] → the same          over a relayed connection: "let us meet, now"

``host`` and ``port`` are where the relay sees the other one: the only place that either calls to meet it, so that
nobody can make others call a third party.

A relay sees the ciphertext of what its circuits carry: both ends run Noise and yamux over the spliced stream, as they
would over TCP.
"""

from enum import IntEnum
from typing import Annotated

import msgspec

from depin_node.core.wire import Key, Message, Uint

REACH_PROTOCOL = "reach/1"
RELAY_PROTOCOL = "relay/1"
RELAYED_PROTOCOL = "relayed/1"
PUNCH_PROTOCOL = "punch/1"
MESSAGE_BYTES_MAX = 1024

Host = Annotated[str, msgspec.Meta(max_length=45)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class Outcome(IntEnum):
    """What became of a call back."""

    NOT_TRIED = 0
    REACHED = 1
    NOT_REACHED = 2


class Question(Message, frozen=True):
    """Where do you see me? And, if ``port`` is not 0: call me back at it, on the host where you see me."""

    port: Port


class Answer(Message, frozen=True):
    """The other end of the asker's connection as the answerer sees it: an IP address, or empty if there is a relay in
    between. ``called``: the asker called, so that ``port`` is the one its network gave to that call. ``wall_s``: the
    answerer's clock, which is shown to people and goes into nothing else.
    """

    host: Host
    port: Port
    called: bool
    outcome: Outcome
    wall_s: Uint


class RelayQuestion(Message, frozen=True):
    """``target``: whom to be connected with; empty: keep a place for me."""

    target: Annotated[bytes, msgspec.Meta(max_length=32)]


class RelayTerms(Message, frozen=True):
    """How long a reservation lasts, and what each of its circuits may carry. ``bulk``: blobs too. ``host`` and
    ``port``: where the relay sees the target; empty and 0 in the answer to a reservation.
    """

    lasts_s: Uint
    circuit_s: Uint
    circuit_bytes_max: Uint
    bulk: bool
    host: Host
    port: Port


class Incoming(Message, frozen=True):
    """``source``, which the relay sees at ``host`` and ``port``, wants to be connected with you."""

    source: Key
    bulk: bool
    host: Host
    port: Port


class Meeting(Message, frozen=True):
    """How the sender can be met: its host can be called at ``open_port`` (0: no); or calls can meet half way
    (``punchable``), from the port that the relay sees.
    """

    open_port: Port
    punchable: bool
