"""When a node does what it does again and again: announcing, catching up, asking for peers, looking who is there.

A part of the discovery machine. Each time is drawn around its interval, so that nodes started together do not act
together; the intervals grow with the mesh, so that what a node hears does not.
"""

from typing import TYPE_CHECKING

from depin_node.core.clock import SECOND_NS

if TYPE_CHECKING:
    from random import Random

    from depin_node.p2p.mesh_config import MeshConfig

SWEEP_S = 5.0
UNMET_SHARE = 16


class Rhythm:
    """The times (boot clock) at which each of these is due, as attributes that end in ``_ns``."""

    def __init__(self, config: "MeshConfig", rng: "Random", start_ns: int) -> None:
        self._config = config
        self._rng = rng
        self._start_ns = start_ns
        self._announced_ns = start_ns - int(config.change_spacing_s * SECOND_NS)
        self._ask_pause_s = config.ask_every_s
        self._catch_up_pause_s = config.catch_up_every_s
        self.nodes = 0
        """How many nodes are known in the largest shard that we follow."""
        self.announce_ns = self.ask_ns = self.catch_up_ns = self.sweep_ns = self.heal_ns = start_ns
        self.feel_ns = self.after(start_ns, config.feel_every_s)
        self.sample_ns = self.after(start_ns, config.sample_every_s)

    def after(self, ns: int, seconds: float) -> int:
        """Return a time about ``seconds`` on: ± a third."""
        return ns + int(seconds * self._rng.uniform(2 / 3, 4 / 3) * SECOND_NS)

    def wake_ns(self, *, asks: bool, samples: bool) -> int:
        """Return when the first is due, of those that are wanted now."""
        wake_ns = min(self.announce_ns, self.catch_up_ns, self.sweep_ns, self.heal_ns, self.feel_ns)
        if samples:
            wake_ns = min(wake_ns, self.sample_ns)
        return min(wake_ns, self.ask_ns) if asks else wake_ns

    # Adverts

    @property
    def spacing_s(self) -> float:
        """How often an advert may change."""
        return max(self._config.change_spacing_s, 0.1 * self.nodes)

    def announced(self, ns: int) -> None:
        """Our advert goes out now."""
        self._announced_ns = ns
        self.announce_ns = self.after(ns, self._config.announce_interval_s(self.nodes))

    def announce_by(self, ns: int, now_ns: int) -> None:
        """See that it goes out by then, but not too soon after the last."""
        earliest_ns = self._announced_ns + int(self.spacing_s * SECOND_NS)
        self.announce_ns = min(self.announce_ns, max(ns, earliest_ns, now_ns))

    # Questions

    @property
    def is_asking_in_vain(self) -> bool:
        """Whether answers name nobody new."""
        return self._ask_pause_s != self._config.ask_every_s

    def asked(self, ns: int) -> None:
        """A neighbour is being asked for peers."""
        self.ask_ns = self.after(ns, self._ask_pause_s)

    def answered(self, *, names_strangers: bool) -> None:
        """The answer came: while nobody new is named the pause grows."""
        longer_s = min(2 * self._ask_pause_s, self._config.announce_every_s)
        self._ask_pause_s = self._config.ask_every_s if names_strangers else longer_s

    def ask_soon(self, ns: int) -> None:
        """Forget that answers named nobody new: things have changed."""
        self._ask_pause_s = self._config.ask_every_s
        self.ask_ns = min(self.ask_ns, self.after(ns, self._ask_pause_s))

    # The rest

    def catching_up(self, ns: int) -> None:
        """A neighbour is being caught up with: while that teaches nothing the pause grows."""
        self.catch_up_ns = self.after(ns, max(self._catch_up_pause_s, 0.1 * self.nodes))
        self._catch_up_pause_s = min(2 * self._catch_up_pause_s, self._config.catch_up_rarely_s)

    def taught(self, ns: int) -> None:
        """An answer named peers that we did not know: there may be more."""
        self._catch_up_pause_s = self._config.catch_up_every_s
        self.catch_up_ns = min(self.catch_up_ns, self.after(ns, max(self._catch_up_pause_s, 0.1 * self.nodes)))

    def felt(self, ns: int) -> None:
        """Somebody we only heard of is being dialled."""
        self.feel_ns = self.after(ns, self._config.feel_every_s)

    def sampled(self, ns: int) -> None:
        """A neighbour is being asked for peers of anywhere."""
        self.sample_ns = self.after(ns, self._config.sample_every_s)

    def swept(self, ns: int) -> None:
        """What has expired, and who is too many, is gone."""
        self.sweep_ns = self.after(ns, SWEEP_S)

    def healed(self, ns: int, *, has_unmet: bool) -> None:
        """First peers are being dialled that are not connected. Those that were never met may be coming up: the pause
        is a share of how long we have waited already.
        """
        waited_s = (ns - self._start_ns) / SECOND_NS
        pause_s = max(1.0, waited_s / UNMET_SHARE) if has_unmet else self._config.heal_every_s
        self.heal_ns = self.after(ns, min(pause_s, self._config.heal_every_s))

    def is_alone(self, ns: int) -> None:
        """With nobody connected only dialling is of use."""
        self.feel_ns = max(self.feel_ns, ns + SECOND_NS)
        self.sample_ns = max(self.sample_ns, ns + SECOND_NS)
        self.ask_ns = self.after(ns, 0.25)
        self.catch_up_ns = max(self.catch_up_ns, self.ask_ns)
        self.heal_ns = max(self.heal_ns, self.ask_ns)
