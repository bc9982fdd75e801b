"""Nodes that only sign receipts for each other: for tests of logs, exports, credit and evidence."""

from depin_node.compute.market.messages import Countersign, Meters, Receipt, Settled, Verdict, digest
from depin_node.compute.trust.chain import Head, Log, origin
from depin_node.compute.trust.export import Record
from depin_node.compute.trust.heads import Run, Step
from depin_node.crypto.envelope import sign, verify_signature
from depin_node.crypto.identity import Identity

NETWORK = "net"


class Keeper:
    """A node with a log. ``records`` is what its journal holds; ``backup`` and ``restore`` do what users do."""

    def __init__(self, number, network=NETWORK):
        self.network = network
        self.identity = Identity(bytes([number]) * 32)
        self.key = self.identity.key
        self.seq = 1000 * number
        self.log = Log(self.key, self.next())
        self.records = []
        self.chain = []  # entries, as stored

    def next(self):
        self.seq += 1
        return self.seq

    def restart(self):
        self.log = Log(self.key, self.next(), self.log.stored)

    def backup(self):
        return self.log.stored, list(self.records), list(self.chain)

    def restore(self, backup):
        """Go back to a backup; the sequence numbers go on, since they come from the clock."""
        stored, self.records, self.chain = backup[0], list(backup[1]), list(backup[2])
        self.log = Log(self.key, self.next(), Head(stored.size, stored.link))

    def entry(self, kind, to, *fields):
        """Sign the next entry and store it."""
        message = kind(to, 100, self.next(), *fields, self.log.place())
        envelope = sign(self.identity, self.network, message)
        entry = self.log.add(digest(envelope))
        assert self.log.note_stored(entry)
        self.chain.append(entry)
        return envelope, entry

    def show(self, haves, limit=4):
        """Return a run of the log for who knows ``haves``; at the first look, its last entries."""
        known = [entry.index + 1 for entry in self.chain if entry.link in haves]
        first = max(known, default=0) if haves else max(0, len(self.chain) - limit)
        taken = self.chain[first : first + limit]
        steps = tuple(Step(entry.epoch, entry.digest) for entry in taken)
        previous = self.chain[first - 1].link if first else origin(self.key)
        more = first + limit < len(self.chain)
        return sign(
            self.identity, self.network, Run(b"", 100, self.next(), self.log.epoch, first, previous, steps, more)
        )

    def shown_to(self, witness):
        """Have a partner look at the log until it has seen all; return the proof of a fork, if there is one."""
        while True:
            run = self.show(witness.haves() if witness.last() else ())
            if not verify_signature(run, Run, self.network).payload.steps:
                return None
            _, forked = witness.take(run)
            if forked or not verify_signature(run, Run, self.network).payload.more:
                return forked

    def pay(self, provider, verdicts=(Verdict.ACCEPTED,), *, elapsed_us=1000, confirmed=True):
        """Have ``provider`` work for us; both keep the receipt."""
        settled = tuple(
            Settled(number, number, b"c" * 32, b"o" * 32, verdict, elapsed_us)
            for number, verdict in enumerate(verdicts)
        )
        fields = (
            b"a" * 32,
            0,
            bytes([len(self.records) % 256]) * 32,
            b"i" * 32,
            "wasm-1",
            settled,
            0,
            True,
            "quorum 1 of 1",
        )
        receipt, ours = self.entry(Receipt, provider.key, *fields)
        countersign, theirs = provider.entry(Countersign, self.key, digest(receipt), Meters(elapsed_us, 7, 5, "rapl"))
        self.records.append(Record(receipt, countersign if confirmed else b""))
        provider.records.append(Record(receipt, countersign))
        return ours, theirs
