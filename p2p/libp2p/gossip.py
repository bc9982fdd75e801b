"""Gossip of the network on libp2p."""

from typing import TYPE_CHECKING, Any

import trio
from libp2p.peer.id import ID

from depin_node.core.errors import ConfigError
from depin_node.p2p import serving
from depin_node.p2p.libp2p.terms import key_of_id
from depin_node.p2p.network import GossipHandler

if TYPE_CHECKING:
    from depin_node.p2p.libp2p.host import Host


class Topic:
    """One subscribed topic: its handler, run for one message at a time, and how many wait for it."""

    def __init__(self, host: "Host", handler: GossipHandler) -> None:
        self._host = host
        self._handler = handler
        self._turn = trio.Lock()
        self._waiting = 0

    async def validate(self, forwarder: Any, message: Any) -> bool:
        """Say whether gossipsub may forward a message; its signature by ``from_id`` has been checked."""
        host = self._host
        if forwarder == host.id or not host.is_new((message.from_id, message.seqno)):
            return bool(forwarder == host.id)
        if self._waiting >= host.limits.gossip_queue_max:
            host.count["gossip_dropped"] += 1
            return False
        try:
            author = key_of_id(ID(message.from_id))
        except ConfigError:
            host.count["gossip_invalid"] += 1
            return False
        self._waiting += 1
        try:
            async with self._turn:
                return await serving.judge(self._handler, author, message.data, limits=host.limits, counters=host.count)
        finally:
            self._waiting -= 1
