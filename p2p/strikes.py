"""Who broke the rules lately, and who is kept out for it: one count for everything that a peer does. A pure machine.

A breach weighs up to ``STRIKES_MAX``, at which a peer is disconnected and kept out, each time twice as long; lesser
ones fade. Whatever finds fault, a handler, gossip, the directory or yamux's reader, ends here.
"""

from collections import OrderedDict
from dataclasses import dataclass

from depin_node.core.clock import SECOND_NS
from depin_node.p2p.network import PeerKey

PEERS_REMEMBERED_MAX = 4096
KEPT_OUT_S_MAX = 24 * 3600.0
FORGIVEN_S = 24 * 3600.0
"""Who has kept the rules for so long begins anew."""
STRIKES_MAX = 8.0
STRIKE_FADES_S = 120.0


@dataclass
class _Record:
    """What a peer did."""

    strikes: float = 0.0
    times: int = 0
    touched_ns: int = 0
    until_ns: int = 0


class Strikes:
    """See the module. Times are of the boot clock.

    Args:
        kept_out_s: for how long a peer is kept out the first time.
    """

    def __init__(self, kept_out_s: float) -> None:
        self._kept_out_s = kept_out_s
        self._records: OrderedDict[PeerKey, _Record] = OrderedDict()

    def keeps_out(self, peer: PeerKey, ns: int) -> bool:
        """Tell whether ``peer`` is kept out."""
        record = self._records.get(peer)
        return record is not None and ns < record.until_ns

    def broke(self, peer: PeerKey, ns: int, *, weight: float = STRIKES_MAX, is_exempt: bool = False) -> bool:
        """``peer`` broke a rule: return whether it must be disconnected now. Unless it is exempt, it is kept out from
        now on.
        """
        record = self._records.setdefault(peer, _Record())
        self._records.move_to_end(peer)
        if len(self._records) > PEERS_REMEMBERED_MAX:
            self._records.popitem(last=False)
        idle_s = (ns - record.touched_ns) / SECOND_NS
        if idle_s > FORGIVEN_S:
            record.times = 0
        record.strikes = max(0.0, record.strikes - idle_s / STRIKE_FADES_S) + weight
        record.touched_ns = ns
        if record.strikes < STRIKES_MAX:
            return False
        record.strikes = 0.0
        if not is_exempt:
            kept_out_s = min(self._kept_out_s * 2.0 ** min(record.times, 30), KEPT_OUT_S_MAX)
            record.until_ns = ns + int(kept_out_s * SECOND_NS)
            record.times += 1
        return True
