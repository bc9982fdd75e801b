"""Mends of gossipsub."""

from typing import Any

from libp2p.abc import ConnectionType
from libp2p.pubsub.pubsub import Pubsub

from depin_node.p2p.libp2p.mends.registry import Plan, abort, option, patch


@option
def adaptive_gossip(plan: Plan) -> None:
    """Fault: ``adaptive_gossip_enabled`` (default) stretches the heartbeat to 30–60 s when the mesh is small or young:
    repair slows and memory grows (83 → 140 MB in 230 s at 100 messages/s of 1 kB; flat when off).

    Until: poor health shortens the interval, as its comment says (> 0.8.1).
    """
    plan.gossip["adaptive_gossip_enabled"] = False


@option
def gossip_rate(plan: Plan) -> None:
    """Fault: more than 10 messages a second by one forwarder on one topic, our own included, are dropped in silence.

    Until: it can be switched off (> 0.8.1). Messages are bounded by ``gossip_queue_max`` instead.
    """
    plan.gossip["max_messages_per_topic_per_second"] = 1e9


@patch
def ghost_peer() -> None:
    """Fault: when a peer comes back while its old connection still looks alive (it crashed, or moved), pubsub keeps
    the old stream and never takes the peer back: no gossip between the two (none in 22 s; mended: 0.5 s).

    Mend: of two connections of one peer in the same direction the newer counts; the older is closed, and pubsub
    registers the peer anew. (Two of opposite directions are a simultaneous dial: both stay, unless the older is
    relayed.) So nobody may open a second connection on purpose. Until: pubsub follows the live connection (> 0.8.1).
    """
    original = Pubsub._handle_new_peer

    async def handle_new_peer(self: Any, peer_id: Any) -> None:
        swarm = self.host.get_network()
        connections = swarm.get_connections(peer_id)
        older = [c for c in connections[:-1] if _gives_way(c, to=connections[-1])]
        for connection in older:
            swarm.remove_conn(connection)  # now: closing takes a while, and streams must not be opened on it
            abort(connection.muxed_conn)
        if older:
            self._handle_dead_peer(peer_id)  # which schedules the registration on what is left
            return
        registering = self.__dict__.setdefault("depin_registering", set())
        if peer_id not in registering:  # two connections at once would leave an orphaned sender behind
            registering.add(peer_id)
            try:
                await original(self, peer_id)
            finally:
                registering.discard(peer_id)

    Pubsub._handle_new_peer = handle_new_peer


def _gives_way(older: Any, *, to: Any) -> bool:
    return _is_relayed(older) or (older.direction == to.direction and not _is_relayed(to))


def _is_relayed(connection: Any) -> bool:
    return bool(connection.get_connection_type() == ConnectionType.RELAYED)
