"""What nodes ask each other on ``evidence/1``: requests, one answer each; PROTOCOL.md has the table."""

from typing import Annotated

import msgspec

from depin_node.core.wire import Digest, Key, Message

PROTOCOL = "evidence/1"
KNOWN_MAX = 1024
LINES_MAX = 256


class Line(Message, frozen=True):
    """One case: its digest, and whom it is about."""

    digest: Digest
    accused: Key


class Ask(Message, frozen=True, tag="ask"):
    """Which cases do you have? ``known`` are the first 8 bytes of the digests of mine."""

    known: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)], ...], msgspec.Meta(max_length=KNOWN_MAX)
    ]


class Pull(Message, frozen=True, tag="pull"):
    """Hand me this one."""

    digest: Digest


class Notice(Message, frozen=True, tag="notice"):
    """I have this one; answered by no lines."""

    line: Line


class Question(Message, frozen=True):
    """A request."""

    what: Ask | Pull | Notice


class Lines(Message, frozen=True):
    """Cases that the asker lacks, the newest first."""

    lines: Annotated[tuple[Line, ...], msgspec.Meta(max_length=LINES_MAX)]
