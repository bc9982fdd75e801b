"""How a node looks for peers and tells of itself: intervals and bounds, with what they were chosen by."""

from dataclasses import dataclass

from depin_node.p2p.advert import Advert
from depin_node.p2p.shards import SHARD_MAX


@dataclass(frozen=True)
class MeshConfig:
    """See the module."""

    neighbours_wanted: int = 8
    """A random graph of degree 8 stays connected when many nodes die."""
    chosen_wanted: int = 5
    """Neighbours that we dialled ourselves, of as many groups. With a fifth of the mesh hostile all of five are so once
    in 3,000 nodes."""
    kin_wanted: int = 4
    """Neighbours of our own shard, once the mesh has several: gossip goes only through those who follow it."""
    shard_max: int = SHARD_MAX
    """Nodes of one topic."""
    ask_every_s: float = 1.5
    """Asking a neighbour for peers, ± a third. At 40 nodes each had 4 neighbours after 4 s. While answers name nobody
    new the pause doubles, up to ``announce_every_s``: a small mesh has no more to give."""
    dials_max: int = 4
    """Dials under way at once, but for those of searches."""
    dial_pause_s: tuple[float, float] = (0.25, 15.0)
    """First and longest pause before the same peer is dialled again; each failure doubles it."""
    feel_every_s: float = 30.0
    """Dialling somebody whom we only heard of (Heilman et al. 2015, countermeasure 4)."""
    announce_every_s: float = 15.0
    """Least time between adverts when nothing changes; with N nodes in the topic it is max(this, N × 1 s), so that a
    node hears about one advert a second and topic whatever the size of the mesh."""
    change_spacing_s: float = 1.0
    """Least time between adverts when things change; with N nodes in the topic it is max(this, N × 0.1 s)."""
    catch_up_every_s: float = 5.0
    """Catching up with a random neighbour; with N nodes in the topic it is max(this, N × 0.1 s). While that teaches
    nothing the pause doubles, up to ``catch_up_rarely_s``: gossip carries what changes."""
    catch_up_rarely_s: float = 40.0
    sample_every_s: float = 15.0
    """Asking a random neighbour for some peers of anywhere, once the mesh has several shards."""
    heal_every_s: float = 60.0
    """Dialling a first or remembered peer that is not connected."""
    connections_high: int = 96
    """Above this, connections that are not in use and older than ``settle_s`` are dropped."""
    settle_s: float = 10.0
    """By then a newcomer has been introduced to others, and has caught up."""

    def announce_interval_s(self, peers: int) -> float:
        """Return the time between adverts when nothing changes."""
        return min(max(self.announce_every_s, float(peers)), Advert.LIFETIME_S_MAX / 3)

    def advert_lifetime_s(self, peers: int) -> int:
        """Return for how long an advert holds: two may get lost."""
        return int(min(max(60.0, 3 * self.announce_interval_s(peers)), Advert.LIFETIME_S_MAX))
