"""The scheduler and both ends of every conversation, as machines, in simulated time, under seeded faults.

Each conversation is a pair of queues of frames. At every step the seed chooses what happens next: a frame
arrives, a provider finishes or fails an attempt, the journal confirms, time passes, a connection breaks, a
frame is lost, doubled, swapped with the next, or damaged, a node restarts. Invariants are checked as it goes.
"""

import random
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from depin_node.compute.jobs import events as e
from depin_node.compute.jobs.job import Confidence, InputRef, Job, Limits, Policy, job_id
from depin_node.compute.jobs.scheduler import Scheduler, SchedulerConfig
from depin_node.compute.market import happenings as hp
from depin_node.compute.market import provider as pm
from depin_node.compute.market import requester as rm
from depin_node.compute.market.lender import Lender, Lending
from depin_node.compute.market.messages import PROTOCOL, FailCode, Kind, Output, Receipt, WorkBody
from depin_node.compute.market.pen import Pen
from depin_node.compute.market.pricing import Prices
from depin_node.compute.market.transfer import frames as data_frames
from depin_node.compute.trust.book import ESTABLISHED_ANSWERS
from depin_node.compute.trust.chain import Log, origin
from depin_node.compute.trust.receipts import PAID
from depin_node.compute.verification.quorum import Phase
from depin_node.compute.verification.rules import rule_of
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerViolation
from depin_node.crypto.blob import blob_id
from depin_node.crypto.envelope import verify_signature
from depin_node.crypto.identity import Identity
from depin_node.crypto.replay import ReplayGuard, Sequence

WALL_NS = 1_800_000_000 * SECOND_NS
STEPS_MAX = 300_000
HONEST_US, DEAR_US = 5, 900_000
"""What a task takes, and what it takes by the word of a provider that wants more for it."""


@dataclass
class Scenario:
    """What is simulated. ``providers``: behaviour of each; see ``World.finish``."""

    seed: int
    providers: list[str]
    policy: Policy
    tasks: int
    window: int = 8
    slots: int = 2
    sizes: tuple[int, ...] = (8,)
    fault_rate: float = 0.0
    groups: list[int] = field(default_factory=list)
    restarts: int = 0
    cancel_at: int | None = None
    jobs: int = 1
    suitable_s: float = 60.0


class Node:
    def __init__(self, number):
        self.identity = Identity(number.to_bytes(32, "big"))
        self.key = self.identity.key

    def pen(self, now):
        sequence = Sequence(0, now)
        sequence.reserved += 1 << 40
        return Pen(self.identity, "sim", sequence, ReplayGuard({}))


class Link:
    """One conversation: both machines and the frames between them."""

    def __init__(self, world, index, ask):
        node = world.nodes[index]
        self.index = index
        self.open = True
        self.was_disturbed = False
        self.requester = rm.RequesterTalk(world.pen, node.key)
        self.provider = pm.ProviderTalk(
            world.provider_pens[index], world.requester.key, "g-requester", world.lenders[index], bytes(32)
        )
        self.to_provider = deque()
        self.to_requester = deque()
        self.running = {}  # attempt: (work, task)
        self.bodies = {}
        self.known = {}  # every attempt there was
        self.shown_before = {}
        self.stored_before = deque()  # for each message of tasks under way: what was stored when it left
        self.closing = False
        self.outputs = {}
        self.requester.propose(ask.terms, ask.price_max, ask.duration_s, world.now())


class World:
    def __init__(self, scenario):
        self.s = scenario
        self.rng = random.Random(scenario.seed)
        self.time_ns = 1_000 * SECOND_NS
        self.requester = Node(1)
        self.nodes = {i: Node(i + 2) for i in range(len(scenario.providers))}
        self.index_of = {node.key: i for i, node in self.nodes.items()}
        groups = scenario.groups or list(range(len(scenario.providers)))
        self.group_of = {node.key: f"g{groups[i]}" for i, node in self.nodes.items()}
        self.pen = self.requester.pen(self.now())
        self.provider_pens = {i: node.pen(self.now()) for i, node in self.nodes.items()}
        slots = scenario.slots - scenario.slots // 2, scenario.slots // 2  # of two devices, where there are two
        lendings = [Lending("wasm-1", n, 1024, window_max=scenario.window) for n in slots if n]
        self.lenders = {i: Lender(lendings) for i in self.nodes}
        self.links = {}
        self.prices = defaultdict(Prices)
        self.journal = deque()  # what waits to be confirmed
        self.results = defaultdict(dict)  # durable: job → task → root
        self.jobs = {}
        self.ended = {}
        self.handed = Counter()  # (job, task): how often a result was handed to the journal
        self.rule = rule_of(scenario.policy)
        self.is_audited = isinstance(scenario.policy, Confidence)
        self.caught = set()
        self.caught_in = defaultdict(set)  # durable: job → who was found out in it
        self.banned = set()
        self.verified = Counter()
        self.tabs = defaultdict(dict)  # durable: job → task → what is provisional
        self.void = set()  # what waits to be stored, and is void already
        self.evidence = {}
        self.answers = defaultdict(dict)  # (job, task, root) → key → group: who computed it
        self.revealed = Counter()  # (job, task): how many answers were shown
        self.dead = set()
        self.finished = set()  # (provider, job, task): what an honest provider has on its disk, whatever breaks
        self.handed_in = 0
        self.doubled = 0
        self.attempts_after_done = []
        self.receipts = []
        self.logs = defaultdict(list)  # durable: key → entries of its log
        self.left_for_the_price = 0
        self.price_of = {}  # (agreement, work): what each of its tasks costs
        self.paid = set()  # (agreement, attempt) that some receipt counts as work
        self.countersigned = set()
        self.violations = []
        self.new_scheduler()
        for number in range(scenario.jobs):
            self.submit(number)

    # Setting up.

    def now(self):
        return Now(self.time_ns, WALL_NS + self.time_ns)

    def new_scheduler(self):
        config = SchedulerConfig(suitable_s=self.s.suitable_s)
        self.scheduler = Scheduler(config, self.rng, bytes(32), set(self.banned), self.missing)

    def missing(self, peer, device_class, now):
        """Where nobody audits all are taken to be established: more happens then."""
        return max(0, ESTABLISHED_ANSWERS - self.verified[peer]) if self.is_audited else 0

    def submit(self, number):
        job = Job(
            f"key{number}",
            "sim",
            bytes([number]) * 32,
            100,
            (InputRef(0, b"i" * 32, 10),),
            self.s.tasks,
            ("wasm-1",),
            self.s.policy,
            Limits(20, 64),
            1,
        )
        name = job_id(self.requester.key, job)
        self.jobs[name] = job
        self.feed_submitted(name)

    def feed_submitted(self, name):
        done = bytearray(self.s.tasks)
        for task in self.results[name]:
            done[task] = 1
        sizes, size_max = (lambda task: self.s.sizes), sum(self.s.sizes)
        kept, caught = tuple(self.tabs[name].values()), frozenset(self.caught_in[name])
        whole = {"can_audit": self.is_audited, "kept": kept, "caught": caught}
        self.feed(e.Submitted(name, self.jobs[name], done, sizes, size_max, **whole))

    # The scheduler's effects.

    def feed(self, event):
        for effect in self.scheduler.handle(event, self.now()):
            self.carry_out(effect)

    def carry_out(self, effect):
        if isinstance(effect, e.StoreResult):
            self.check_result(effect)
            self.journal.append(("result", self.scheduler, effect))
        elif isinstance(effect, e.JobEnded):
            self.journal.append(("end", self.scheduler, effect))
        elif isinstance(effect, e.Note):
            self.doubled += effect.event.kind == "doubled"
        elif isinstance(effect, e.Verified):
            self.verified[effect.peer] += effect.answers
        elif isinstance(effect, e.Audit):
            self.journal.append(("audit", self.scheduler, effect))
        elif isinstance(effect, e.Settle):
            self.journal.append(("settle", self.scheduler, effect))
        elif isinstance(effect, e.Void):
            self.note_void(effect)
        elif isinstance(effect, e.Ban):
            self.caught.add(effect.peer)
            self.caught_in[effect.job_id].add(effect.peer)
            self.banned.add(effect.peer)
        elif isinstance(effect, e.Caught):
            assert effect.is_opinion
            self.caught_in[effect.job_id].add(effect.peer)
            link = self.links[effect.peer]
            evidence = link.requester.evidence(effect.attempt) or self.evidence[(effect.peer, effect.attempt)]
            assert evidence.commits
            assert evidence.reveals
            self.caught.add(effect.peer)
        elif isinstance(effect, e.Cleared):
            self.caught_in[effect.job_id].discard(effect.peer)
        elif isinstance(effect, e.Ask):
            index = self.index_of[effect.peer]
            if effect.peer in self.links and self.links[effect.peer].open:
                self.last_words(self.links[effect.peer])
            if index in self.dead:
                self.journal.append(("gone", self.scheduler, effect.peer))
            else:
                self.links[effect.peer] = Link(self, index, effect)
        else:
            link = self.links.get(effect.peer)
            if link is not None:
                self.carry_out_on(link, effect)

    def carry_out_on(self, link, effect):
        talk, now = link.requester, self.now()
        if isinstance(effect, e.Assign):
            talk.assign(effect.work, effect.first_attempt, effect.tasks, now)
        elif isinstance(effect, e.AskReveal):
            talk.ask(effect.attempt, effect.set_digest, effect.want, now)
        elif isinstance(effect, e.AskUpload):
            talk.ask_upload(effect.attempt, now)
        elif isinstance(effect, e.ReleaseAttempt):
            self.take(link, talk.release(effect.attempt, effect.verdict, now))
        elif isinstance(effect, e.OpenWork):
            job = self.jobs[effect.job_id]
            terms = self.scheduler.terms(effect.job_id)
            body = WorkBody(effect.job_id, job.program, 100, job.inputs, job.tasks, terms)
            talk.open_work(
                effect.work, body, b"grant", self.scheduler.sizes(effect.job_id), self.prices[effect.job_id], now
            )
        elif isinstance(effect, e.SettleAttempts):
            self.take(link, talk.settle(effect.work, effect.tasks, effect.verdict, now))
        elif isinstance(effect, e.CloseWork):
            self.take(link, talk.close_work(effect.work, effect.verified_by, now))
        else:
            assert isinstance(effect, e.EndAgreement)
            talk.end(effect.code)
            link.closing = True

    def take(self, link, happened):
        for event in happened:
            if isinstance(event, hp.StoreAgreement):
                self.journal.append(("agreement", link, event))
            elif isinstance(event, hp.StoreReceipt):
                self.receipts.append(event)
                self.check_receipt(event)
                self.journal.append(("receipt", link, event))
            elif isinstance(event, hp.StoreCountersign):
                self.countersigned.add(event.receipt)
            elif link.open and self.links.get(link.requester.peer) is link and not link.closing:
                if isinstance(event, hp.Revealed):
                    self.note_reveals(link, event)
                self.left_for_the_price += isinstance(event, hp.Ended) and event.code in ("price", "dear")
                self.feed(e.Heard(link.requester.peer, event))
                if isinstance(event, hp.Ended | hp.Declined):
                    self.close(link)

    def note_reveals(self, link, event):
        for attempt, _ in event.items:
            work, task = link.known[attempt]
            self.revealed[(link.bodies[work].job, task)] += 1

    def check_result(self, effect):
        """No result against the policy: k providers of different groups computed just this, none of them a
        copier."""
        key = (effect.job_id, effect.task, effect.root)
        groups = set(self.answers[key].values())
        assert len(groups) >= self.rule.agree, "accepted against the policy"
        assert (effect.tab is not None) is self.is_audited
        assert effect.task not in self.results[effect.job_id], "accepted twice"
        self.handed[(effect.job_id, effect.task)] += 1
        agree = self.rule.agree
        if agree > self.s.providers.count("colluder") and (agree > 1 or "liar" not in self.s.providers):
            assert effect.root == honest_root(effect.job_id, effect.task, self.s.sizes)
            assert effect.outputs == honest_outputs(effect.job_id, effect.task, self.s.sizes)

    # What a provider's shell does.

    def carry_out_orders(self, link, orders):
        for order in orders:
            if isinstance(order, pm.StoreAgreement):
                self.journal.append(("accept", link, order))
            elif isinstance(order, pm.StoreReceipt):
                self.journal.append(("countersign", link, order))
            elif isinstance(order, pm.Prepare):
                link.bodies[order.work] = order.body
            elif isinstance(order, pm.Run):
                stored = link.stored_before.popleft()
                for attempt, task in order.items:
                    link.running[attempt] = (order.work, task)
                    link.known[attempt] = (order.work, task)
                    job = link.bodies[order.work].job
                    link.shown_before[attempt] = self.revealed[(job, task)]
                    if (job, task) in stored:
                        self.attempts_after_done.append((job, task))
                    if (link.index, job, task) in self.finished:
                        self.handed_in += 1
                        self.finish(link, attempt)
            elif isinstance(order, pm.Free):
                for attempt in order.attempts:
                    link.running.pop(attempt, None)
                    link.outputs.pop(attempt, None)

    def finish(self, link, attempt):
        """A provider ends an attempt, each in its own manner."""
        behaviour = self.s.providers[link.index]
        work, task = link.running[attempt]
        job = link.bodies[work].job
        if behaviour == "staller":
            return
        if behaviour == "copier" and self.revealed[(job, task)] == link.shown_before[attempt]:
            return  # it waits until somebody has shown an answer, since it was asked for its own
        if behaviour == "slow" and (link.index, job, task) not in self.finished and self.rng.random() < 0.98:
            return
        del link.running[attempt]
        if behaviour in ("honest", "slow"):
            self.finished.add((link.index, job, task))
        if behaviour == "failer" or (behaviour == "flaky" and self.rng.random() < 0.3):
            link.provider.failed(attempt, FailCode.TRAPPED if behaviour == "failer" else FailCode.CRASHED, self.now())
            return
        outputs = honest_outputs(job, task, self.s.sizes)
        if behaviour == "liar":
            outputs = [bytes([link.index + 1]) * len(output) for output in outputs]
        elif behaviour == "colluder":
            outputs = [b"\xcc" * len(output) for output in outputs]
        link.outputs[attempt] = outputs
        named = tuple(Output(blob_id(output), len(output)) for output in outputs)
        root = pm.result_root(output.blob for output in named)
        if behaviour != "copier":
            self.answers[(job, task, root)][link.requester.peer] = self.group_of[link.requester.peer]
        link.provider.finished(attempt, named, DEAR_US if behaviour == "dear" else HONEST_US)

    # Steps.

    def pump(self, link):
        """What the writers of both ends do whenever they can."""
        for kind, body in link.requester.drain(self.now()):
            if kind == Kind.TASKS:
                link.stored_before.append({(job, task) for job, tasks in self.results.items() for task in tasks})
            link.to_provider.append((kind, body))
        link.to_requester.extend(link.provider.drain(self.now()))
        while (attempt := link.provider.next_upload()) is not None:
            for parts in data_frames(attempt, [memoryview(output) for output in link.outputs[attempt]]):
                link.to_requester.append((Kind.DATA, b"".join(parts)))

    def deliver(self, link, queue):
        kind, body = queue.popleft()
        if queue is link.to_provider:
            self.receive(link, lambda: self.carry_out_orders(link, link.provider.receive(kind, body, self.now())))
        else:
            self.receive(link, lambda: self.take(link, link.requester.receive(kind, body, self.now())))

    def receive(self, link, action):
        try:
            action()
        except PeerViolation as error:
            if not link.was_disturbed:
                raise AssertionError("an honest pair fell out") from error
            self.violations.append(error)
            self.break_(link, error.code)

    def break_(self, link, code="lost"):
        if not link.open:
            return
        peer = link.requester.peer
        self.carry_out_orders(link, link.provider.ended())
        if self.links.get(peer) is link and not link.closing:
            self.feed(e.Gone(peer, code))
        self.close(link)

    def close(self, link):
        for attempt in link.requester.shown():
            self.evidence[(link.requester.peer, attempt)] = link.requester.evidence(attempt)
        self.carry_out_orders(link, link.provider.ended())
        link.open = False

    def last_words(self, link):
        """We have ended it: what is on its way to the provider arrives before a new conversation begins."""
        assert link.closing
        self.pump(link)
        while link.open and link.to_provider:
            self.deliver(link, link.to_provider)
        self.close(link)

    def disturb(self, link, queue):
        """Do to one frame what a hostile network may, and an honest one does not."""
        link.was_disturbed = True
        what = self.rng.choice(["drop", "double", "swap", "damage"])
        if what == "drop":
            queue.popleft()
        elif what == "double":
            queue.append(queue[0])
        elif what == "swap" and len(queue) > 1:
            queue[0], queue[1] = queue[1], queue[0]
        elif what == "damage":
            kind, body = queue[0]
            at = self.rng.randrange(len(body))
            queue[0] = (kind, body[:at] + bytes([body[at] ^ 1 << self.rng.randrange(8)]) + body[at + 1 :])

    def confirm(self):
        """The journal has the oldest waiting write."""
        what, owner, item = self.journal.popleft()
        if what == "result":
            if id(item) in self.void:
                self.void.remove(id(item))  # the next one may have its place in memory
            else:
                self.results[item.job_id][item.task] = item.root
                if item.tab is not None:
                    peer, draw = item.tab
                    self.tabs[item.job_id][item.task] = e.Kept(item.task, peer, item.root, draw, False)
            if owner is self.scheduler:
                self.feed(e.ResultsStored(item.job_id, 1))
        elif what == "settle":
            self.note_settled(item)
        elif what == "audit":
            if owner is self.scheduler:
                ours = honest_root(item.job_id, item.task, self.s.sizes)
                self.feed(e.Audited(item.job_id, item.task, item.root, ours))
        elif what == "end":
            if owner is self.scheduler:
                self.ended.setdefault(item.job_id, item)
                self.scheduler.forget(item.job_id)
        elif what == "gone":
            if owner is self.scheduler:
                self.feed(e.Gone(item, "unreachable"))
        elif what in ("receipt", "countersign"):
            self.confirm_entry(what, owner, item)
        elif not owner.open:
            return
        elif what == "agreement":
            owner.requester.stored(self.now())
        else:
            self.carry_out_orders(owner, owner.provider.stored(self.now()))

    def note_settled(self, effect):
        """Results are for good; those that an audit has confirmed stay on their tab."""
        tab = self.tabs[effect.job_id]
        for task in effect.tasks:
            if not effect.confirmed:
                tab.pop(task, None)
            elif task in tab:
                tab[task] = tab[task]._replace(is_confirmed=True)

    def note_void(self, effect):
        """Results are void, those too that still wait to be stored."""
        for task in effect.tasks:
            assert self.handed.pop((effect.job_id, task)) == 1
            self.results[effect.job_id].pop(task, None)
            self.tabs[effect.job_id].pop(task, None)
        for what, _, item in self.journal:
            if what == "result" and item.job_id == effect.job_id and item.task in effect.tasks:
                self.void.add(id(item))

    def confirm_entry(self, what, link, item):
        """A receipt or a countersignature is durable: only then it is sent."""
        pen = self.pen if what == "receipt" else self.provider_pens[link.index]
        if not pen.note_stored(item.entry, is_stored=True):
            return  # of before a restart: never sent
        self.logs[pen.key].append(item.entry)
        if not link.open:
            return
        if what == "receipt":
            link.requester.send_receipt(item)
        else:
            link.provider.send_countersign(item)

    def check_receipt(self, event):
        """No answer is paid twice, whatever happens."""
        receipt = verify_signature(event.envelope, Receipt, "sim").payload
        for settled in receipt.settled:
            work = (receipt.agreement, receipt.work)
            assert self.price_of.setdefault(work, settled.price_us) == settled.price_us, "a work with two prices"
            assert settled.price_us <= (DEAR_US if self.is_dear(receipt.to) else HONEST_US), "more than was asked"
            if settled.verdict in PAID:
                assert (receipt.agreement, settled.attempt) not in self.paid, "paid twice"
                self.paid.add((receipt.agreement, settled.attempt))

    def is_dear(self, key):
        return self.s.providers[self.index_of[key]] == "dear"

    def check_logs(self):
        """Every node's entries hang together, and no place was used twice."""
        for key, entries in self.logs.items():
            links = {origin(key): 0}
            for entry in entries:
                assert links[entry.previous] == entry.index, "a log with a hole"
                assert entry.link not in links
                links[entry.link] = entry.index + 1
            assert len({(entry.epoch, entry.index) for entry in entries}) == len(entries), "a place used twice"

    def tick(self, step_ns):
        self.time_ns += step_ns
        unsuitable = {}
        if self.scheduler.needs() is not None:
            items = [
                e.Candidate(node.key, self.group_of[node.key], (("wasm-1", 1024),), 0) for node in self.nodes.values()
            ]
            self.rng.shuffle(items)
            self.feed(e.Candidates(tuple(items), unsuitable))
        for link in [link for link in self.links.values() if link.open]:
            self.take(link, link.requester.tick(self.now()))
            if link.open:
                self.carry_out_orders(link, link.provider.tick(self.now()))
        self.feed(e.Tick())

    def restart(self):
        """The requester dies and comes back with what the journal had confirmed."""
        for link in list(self.links.values()):
            link.closing = True
            self.close(link)
        self.links.clear()
        self.journal.clear()
        for pen in (self.pen, *self.provider_pens.values()):  # what they were writing is gone with the queue
            pen.log = Log(pen.key, pen.next_seq(), pen.log.stored)
        self.handed.clear()
        for job, results in self.results.items():
            for task in results:
                self.handed[(job, task)] += 1
        self.new_scheduler()
        for name in self.jobs:
            if name not in self.ended:
                self.feed_submitted(name)

    def step(self):
        links = [link for link in self.links.values() if link.open]
        choices = []
        for link in links:
            if link.requester.has_output() or link.provider.has_output():
                choices.append((self.pump, link))
            if link.to_provider:
                choices.append((self.deliver, link, link.to_provider))
            if link.to_requester:
                choices.append((self.deliver, link, link.to_requester))
            runnable = list(link.running)[: self.s.slots]
            if runnable:
                choices.append((self.finish, link, self.rng.choice(runnable)))
        if self.journal:
            choices.append((self.confirm,))
        if self.s.fault_rate and links and self.rng.random() < self.s.fault_rate:
            link = self.rng.choice(links)
            queue = self.rng.choice([link.to_provider, link.to_requester])
            if self.rng.random() < 0.3 or not queue:
                link.was_disturbed = True
                self.break_(link)
            else:
                self.disturb(link, queue)
            return
        stalled = all(
            choice[0] == self.finish and self.s.providers[choice[1].index] in ("staller", "copier", "slow")
            for choice in choices
        )
        if not choices or (stalled and self.rng.random() < 0.5) or self.rng.random() < 0.01:
            self.tick(self.rng.choice([SECOND_NS // 10, SECOND_NS // 2]))
            return
        function, *arguments = self.rng.choice(choices)
        function(*arguments)

    def run(self):
        """Until every job has ended."""
        restart_at = sorted(self.rng.randrange(2000) for _ in range(self.s.restarts))
        for number in range(STEPS_MAX):
            if len(self.ended) == len(self.jobs):
                self.settle()
                self.check_logs()
                return self
            while restart_at and number >= restart_at[0]:
                restart_at.pop(0)
                self.restart()
            if self.s.cancel_at == number:
                self.feed(e.CancelAsked(next(iter(self.jobs))))
            self.step()
            self.check()
        raise AssertionError(f"no end after {STEPS_MAX} steps: {[self.scheduler.view(name) for name in self.jobs]}")

    def settle(self):
        """Let what is on its way arrive: receipts, above all."""
        for _ in range(3000):
            self.pump_all()
            busy = [
                (link, queue)
                for link in self.links.values()
                if link.open
                for queue in (link.to_provider, link.to_requester)
                if queue
            ]
            if busy:
                self.deliver(*busy[0])
            elif self.journal:
                self.confirm()
            else:
                return
        raise AssertionError("receipts do not come to rest")

    def pump_all(self):
        for link in self.links.values():
            if link.open:
                self.pump(link)

    # Invariants.

    def check(self):
        for peer, partner in self.scheduler._board.partners.items():
            assert len(partner.open) <= max(self.s.window, partner.window)
            for attempt, task in partner.open.items():
                assert (peer, attempt) in task.ballot.runs
        for progress in self.scheduler._board.jobs.values():
            running = 0
            for number, task in progress.tasks.items():
                assert not progress.done[number]
                groups = [run.group for run in task.ballot.runs.values()]
                assert len(groups) == len(set(groups)), "one group twice"
                answers = sum(run.phase is not Phase.RUNNING for run in task.ballot.runs.values())
                assert answers <= progress.rule.most
                assert len(groups) <= progress.rule.most + task.spares
                running += sum(run.phase is Phase.RUNNING for run in task.ballot.runs.values())
            assert progress.running == running
            assert all(count == 1 for count in self.handed.values()), "a result was handed in twice"


def honest_outputs(job, task, sizes):
    return [bytes((job[0] + task + i) % 251 for i in range(size)) for size in sizes]


def honest_root(job, task, sizes):
    return pm.result_root(blob_id(output) for output in honest_outputs(job, task, sizes))


__all__ = ["PROTOCOL", "STEPS_MAX", "Scenario", "World", "honest_outputs", "honest_root"]
