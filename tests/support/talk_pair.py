"""The two ends of one conversation of the market, message by message: each stage of ``Pair`` leads to the next."""

from depin_node.compute.jobs.job import InputRef, Limits
from depin_node.compute.market import happenings as hp
from depin_node.compute.market import messages as m
from depin_node.compute.market import provider as pm
from depin_node.compute.market import requester as rm
from depin_node.compute.market.accounts import Owed
from depin_node.compute.market.lender import Lender, Lending
from depin_node.compute.market.messages import Kind, Verdict, Want
from depin_node.compute.market.pen import Pen
from depin_node.compute.market.pricing import NOMINAL, Prices
from depin_node.compute.market.transfer import frames as data_frames
from depin_node.compute.trust.chain import Place
from depin_node.core.clock import SECOND_NS, Now
from depin_node.crypto.blob import blob_id
from depin_node.crypto.identity import Identity
from depin_node.crypto.replay import ReplayGuard, Sequence

REQUESTER, PROVIDER = Identity(bytes([1]) * 32), Identity(bytes([2]) * 32)
WALL_NS = 1_800_000_000 * SECOND_NS
TERMS = m.Terms(("wasm-1",), Limits(10, 64), 1 << 20)
BODY = m.WorkBody(b"j" * 32, b"p" * 32, 100, (InputRef(0, b"i" * 32, 10),), 50, TERMS)
OUTPUTS = [b"first output", b"", b"third"]
NAMED = tuple(m.Output(blob_id(output), len(output)) for output in OUTPUTS)
SIZES = tuple(len(output) for output in OUTPUTS)
DIGEST = b"d" * 32
ASKED = m.SetEntry(0, DIGEST, Want.BYTES)
PLACE = Place(9, 4, DIGEST)
SOMETHING = b"?" * 32


class Pair:
    """Both ends, at time ``at_s``; ``heard`` and ``ordered`` collect what each machine wants of its shell."""

    def __init__(self, speed=NOMINAL, **lending):
        self.at_s = 100
        fields = {"device_class": "wasm-1", "slots": 2, "memory_mib": 1024, "window_max": 4} | lending
        self.lender = Lender([Lending(**fields)])
        self.lender.measured(0, speed)
        self.pens = [self.pen(REQUESTER), self.pen(PROVIDER)]
        self.r = rm.RequesterTalk(self.pens[0], PROVIDER.key)
        self.p = pm.ProviderTalk(self.pens[1], REQUESTER.key, "g", self.lender, b"s" * 32)
        self.heard, self.ordered = [], []
        self.prices = Prices()

    def pen(self, identity):
        sequence = Sequence(0, self.now)
        sequence.reserved += 1000
        return Pen(identity, "net", sequence, ReplayGuard({}))

    @property
    def now(self):
        return Now(self.at_s * SECOND_NS, WALL_NS + self.at_s * SECOND_NS)

    def to_provider(self):
        """Deliver what the requester has to say; return the kinds."""
        frames = self.r.drain(self.now)
        for kind, body in frames:
            self.ordered += self.p.receive(kind, body, self.now)
        return [Kind(kind) for kind, _ in frames]

    def to_requester(self):
        frames = self.p.drain(self.now)
        while (attempt := self.p.next_upload()) is not None:
            frames += [(Kind.DATA, b"".join(parts)) for parts in data_frames(attempt, [memoryview(o) for o in OUTPUTS])]
        for kind, body in frames:
            self.heard += self.r.receive(kind, body, self.now)
        return [Kind(kind) for kind, _ in frames]

    def take(self, kind):
        """Return the one effect of a kind, and forget all others."""
        (found,) = [item for item in self.heard + self.ordered if isinstance(item, kind)]
        self.heard.clear()
        self.ordered.clear()
        return found

    def bid(self):
        self.r.propose(TERMS, 0, 3600, self.now)
        assert self.to_provider() == [Kind.OFFER]
        assert self.to_requester() == [Kind.BID]
        return self

    def agree(self):
        self.bid()
        assert not self.r.has_output()  # nothing is awarded before it is stored
        self.take(hp.StoreAgreement)
        self.r.stored(self.now)
        assert self.to_provider() == [Kind.AWARD]
        assert not self.p.has_output()
        self.take(hp.StoreAgreement)
        self.ordered += self.p.stored(self.now)
        assert self.to_requester() == [Kind.ACCEPT]
        self.take(hp.Agreed)
        return self

    def work(self, *tasks):
        self.agree()
        self.r.open_work(0, BODY, b"grant", lambda task: SIZES, self.prices, self.now)
        self.r.assign(0, 0, list(tasks or [7]), self.now)
        assert self.to_provider() == [Kind.WORK, Kind.TASKS]
        return self

    def commit(self):
        self.work()
        self.p.energy_by = "rapl"
        self.p.finished(0, NAMED, 55, fuel=9, energy_mj=70)
        assert self.to_requester() == [Kind.COMMITS]
        return self

    def reveal(self, upload=True):
        self.commit()
        self.r.ask(0, DIGEST, Want.BYTES if upload else Want.ROOT, self.now)
        assert self.to_provider() == [Kind.COMMIT_SET]
        self.heard.clear()
        self.to_requester()
        return self

    def release(self):
        """The requester has what it wants, and has not said yet what it thinks of it."""
        self.reveal()
        self.r.release(0, Verdict.ACCEPTED, self.now)
        self.to_provider()
        self.heard.clear()
        self.ordered.clear()
        return self

    def priced(self):
        """The requester has fixed a price, and not that of the probe."""
        self.release()
        self.requester_says(m.Price, self.p.agreement, 0, 56)
        return self

    def settle(self):
        self.release()
        self.requester_says(m.Receipt, *due(self))
        self.ordered.clear()
        return self

    def say(self, identity, kind, *fields):
        """Sign a message that the machine itself would not."""
        pen = self.pens[0 if identity is REQUESTER else 1]
        to = PROVIDER.key if identity is REQUESTER else REQUESTER.key
        return kind.KIND, pen.sign(kind, to, self.now, *fields)

    def provider_says(self, kind, *fields):
        self.heard += self.r.receive(*self.say(PROVIDER, kind, *fields), self.now)

    def requester_says(self, kind, *fields):
        self.ordered += self.p.receive(*self.say(REQUESTER, kind, *fields), self.now)


def due(pair, verdict=Verdict.ACCEPTED, *, agreement=None, work=0, price=0, final=False, **other):
    """The fields of the receipt for attempt 0, but for what is changed."""
    (owed,) = pair.p._accounts._owed.values() or [Owed(0, 7, SOMETHING, SOMETHING, 1, 0, 0)]
    settled = m.Settled(
        0, owed.task, other.get("commitment", owed.commitment), other.get("output", owed.output), verdict, 55
    )
    key = pair.pens[0].receipt_key(BODY.job)
    inputs = other.get("inputs", m.keyed_inputs(key, BODY))
    device_class = other.get("device_class", "wasm-1")
    agreement = agreement or pair.p.agreement
    return (agreement, work, BODY.job, inputs, device_class, (settled,), price, final, "", PLACE)
