"""What hostile nodes of a simulated mesh do beside their part in it."""

from enum import Enum

from msgspec.structs import replace

from depin_node.core.wire import encode
from depin_node.crypto.identity import Identity
from depin_node.p2p.addresses import parse, peer_id
from depin_node.p2p.advert import Advert, sign_advert
from depin_node.p2p.gossip import POST, Post


class Vice(Enum):
    """What a hostile node does."""

    NONE = "none"
    FLOOD = "flood"
    """Sends a new advert to all its neighbours ten times a second."""
    FALSE = "false addresses"
    """Advertises where somebody else is, or nobody."""
    ECLIPSE = "eclipse"
    """Tells of hostile nodes only, and dials as many nodes as it can."""
    SYBIL = "sybil"
    """One of many in two address ranges; tells of hostile nodes only."""
    GHOSTS = "ghosts"
    """Makes up identities, ten a second, each of another address range where nobody is, and gossips their adverts."""


class Vices:
    """The hostile nodes of ``sim`` at work."""

    def __init__(self, sim):
        self._sim = sim
        self._hostile = []

    def begin(self, node):
        """A node has come up."""
        if node.is_hostile:
            self._hostile.append(node)
        if node.vice is Vice.FLOOD:
            self._sim.after(node.rng.random(), self._flood, node)
        if node.vice is Vice.GHOSTS:
            self._sim.after(node.rng.random(), self._make_up, node)
        if node.vice is Vice.ECLIPSE:
            self._sim.after(5 + node.rng.random(), self._crowd, node)

    def shown_address(self, node):
        """Return where a node says that it is."""
        if node.vice is not Vice.FALSE:
            return node.address
        sim = self._sim
        if sim.rng.random() < 0.5:
            return replace(sim.rng.choice(sim.nodes).address, peer=node.key)
        return parse(f"/ip4/{sim.host()}/tcp/9/p2p/{peer_id(node.key)}")

    def twisted(self, node, adverts, at_least=0):
        """Return what a node tells: hostile ones that want to be found leave all others out."""
        if node.vice not in (Vice.ECLIPSE, Vice.SYBIL):
            return adverts
        friends = [other.advert for other in self._hostile if other.is_alive]
        return node.rng.sample(friends, min(len(friends), max(len(adverts), at_least, 16)))

    def _flood(self, node):
        if node.is_alive:
            if node.links:
                self._sim.sign(node)
                self._post(node, node.advert)
            self._sim.after(0.1, self._flood, node)

    def _make_up(self, node):
        sim = self._sim
        if node.is_alive:
            ghost = Identity(node.rng.randbytes(32))
            address = f"/ip4/{sim.host()}/tcp/9/p2p/{peer_id(ghost.key)}"
            lifetime_s = Advert.LIFETIME_S_MAX
            self._post(
                node, sign_advert(ghost, "sim", node.offer, [address], seq=1, now=sim.now, lifetime_s=lifetime_s)
            )
            sim.counts["ghosts"] += 1
            sim.after(0.1, self._make_up, node)

    def _post(self, node, advert):
        for topic in self._sim.topics(node):
            body = encode(Post(topic, advert))
            for peer in list(node.links):
                self._sim.send_frame(node, peer, POST, body)

    def _crowd(self, node):
        """Dial all the nodes there are, a few at a time, to fill their connections."""
        sim = self._sim
        if node.is_alive:
            for other in sim.rng.sample(sim.living(), min(2, len(sim.by_key))):
                if other is not node and len(other.links) < sim.CONNECTIONS_MAX:
                    sim.link(node, other)
            sim.after(0.5, self._crowd, node)
