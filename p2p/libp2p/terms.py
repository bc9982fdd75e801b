"""Between the library's terms and ours: peer ids and keys, errors and their reasons."""

from typing import Any

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.id import ID

from depin_node.crypto.identity import key_of
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.network import PeerKey

# What a libp2p call may raise when its peer or connection is gone, besides its own errors.
GONE = (BaseLibp2pError, OSError, trio.BrokenResourceError, trio.ClosedResourceError, KeyError)


def key_of_id(identity: Any) -> PeerKey:
    """Return the key of a libp2p peer id. Raises ``ConfigError`` for one that is not of an Ed25519 key."""
    return key_of(identity.to_base58())


def id_of_key(key: PeerKey) -> Any:
    """Return the libp2p peer id of a key."""
    return ID.from_base58(peer_id(key))


def reason_of(error: BaseException | None) -> str:
    """Return the innermost message of a chain of errors, in one line."""
    message = ""
    while error is not None:
        message = str(error) or type(error).__name__
        several = getattr(error, "errors", None) or getattr(error, "exceptions", None)
        error = several[-1] if several else error.__cause__
    return " ".join(message.split())[:300]
