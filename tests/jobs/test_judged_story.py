"""Any order of answers, comparisons, checks, audits and losses: results are right, nobody honest is banned, nothing is
lost, the job ends. Stateful: hypothesis looks for the order that breaks it."""

import random
from collections import defaultdict, deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from depin_node.compute.jobs import events as e
from depin_node.compute.jobs.job import Algebraic, Confidence, InputRef, Job, Lead, Limits, Quorum, Tolerance, job_id
from depin_node.compute.jobs.scheduler import Scheduler, SchedulerConfig
from depin_node.compute.market import happenings as hp
from depin_node.compute.market.messages import Want
from depin_node.compute.verification.findings import Finding, Nearness, Outcome
from depin_node.core.clock import SECOND_NS, Now

PROVIDERS, TASKS = 8, 16
OUTCOMES = {"right": Outcome.RIGHT, "beyond": Outcome.ODD, "far": Outcome.WRONG}
POLICIES = [Quorum(2, 3), Quorum(3, 5), Lead(2), Confidence(0.98, 0.2), Algebraic(), Quorum(2, 3, 1.0)]
ACCOMPLICES = Quorum(2, 3, 1.0)
"""Under this one every agreed result is audited, so that two that agree on a lie are found too."""


def root_of(kind, variant, task):
    return f"{kind} {variant} {task}".encode().ljust(32)


def kind_of(root):
    return root.split()[0].decode()


def judged(a, b):
    """Tell whether two answers are close, and far: right ones differ in their last bits only."""
    kinds = {kind_of(a), kind_of(b)}
    return kinds == {"right"}, "far" in kinds and a != b


class Story(RuleBasedStateMachine):
    def start(self, policy, tolerances, **more):
        self.heard, self.shell = defaultdict(deque), []
        self.answers, self.stored, self.ended = {}, {}, None
        job = Job(
            "key", "n", b"p" * 32, 1, (InputRef(0, b"i" * 32, 1),), TASKS, ("wasm-1",), policy, Limits(60, 64), 1,
            tolerances=tolerances,
        )  # fmt: skip
        self.name = job_id(b"me" * 16, job)
        self.feed(e.Submitted(self.name, job, bytearray(TASKS), lambda task: (8,), 8, **more))
        self.look()

    @initialize(
        policy=st.sampled_from(POLICIES), lies=st.sampled_from(["right", "beyond", "far"]), unchecked=st.booleans()
    )
    def begin(self, policy, lies, unchecked):
        self.now_ns, self.unchecked = 0, unchecked
        self.keys = [bytes([number + 1]) * 32 for number in range(PROVIDERS)]
        self.kinds = dict.fromkeys(self.keys, "right")
        for key in self.keys[: 2 if policy == ACCOMPLICES and lies == "far" else 1]:  # who is asked first
            self.kinds[key] = lies
        established = set(self.keys[::2])
        self.banned = set()
        self.scheduler = Scheduler(
            SchedulerConfig(),
            random.Random(1),
            bytes(32),
            self.banned,
            lambda peer, name, now: 0 if peer in established else 8,
        )
        self.start(policy, (Tolerance(0.1, 0.1),), can_audit=True)

    def look(self):
        items = tuple(e.Candidate(key, f"g{n}", (("wasm-1", 1024),), 0) for n, key in enumerate(self.keys))
        self.feed(e.Candidates(items, {}))

    def feed(self, event):
        self.now_ns += SECOND_NS // 1000
        for effect in self.scheduler.handle(event, Now(self.now_ns, self.now_ns)):
            self.carry_out(effect)

    def answer(self, peer, task):
        kind = self.kinds[peer]
        return root_of(kind, 0 if kind == "far" else peer[0] % 3, task)

    def carry_out(self, effect):
        if isinstance(effect, e.Ask):
            agreed = hp.Agreed(b"a" * 32, "wasm-1", 1, 16, effect.terms, 3600)
            self.heard[effect.peer] = deque([hp.BidHeard(1, 16, 0), agreed])
        elif isinstance(effect, e.EndAgreement):
            self.heard[effect.peer].clear()
        elif isinstance(effect, e.Assign):
            for attempt, task in enumerate(effect.tasks, effect.first_attempt):
                self.answers[effect.peer, attempt] = self.answer(effect.peer, task)
                commitment = hp.Committed([(attempt, attempt.to_bytes(32, "big"), 50)])
                self.heard[effect.peer].append(commitment)
        elif isinstance(effect, e.AskReveal | e.AskUpload):
            root = self.answers[effect.peer, effect.attempt]
            if isinstance(effect, e.AskReveal):
                self.heard[effect.peer].append(hp.Revealed([(effect.attempt, root)]))
            if isinstance(effect, e.AskUpload) or effect.want is Want.BYTES:
                self.heard[effect.peer].append(hp.Delivered(effect.attempt, root, [bytearray(8)]))
        elif isinstance(effect, e.Compare):
            roots = tuple(shown.root for shown in effect.answers)
            pairs = [(a, b) for a in roots for b in roots if a != b]
            found = Nearness(*(frozenset(pair for pair in pairs if judged(*pair)[which]) for which in (0, 1)))
            self.shell.append(e.Compared(effect.job_id, effect.task, effect.sequence, roots, found))
        elif isinstance(effect, e.Check):
            is_unchecked = self.unchecked and effect.task % 3 == 0
            outcome = Outcome.UNCHECKED if is_unchecked else OUTCOMES[kind_of(effect.root)]
            self.shell.append(e.Checked(effect.job_id, effect.task, effect.sequence, effect.root, Finding(outcome)))
        elif isinstance(effect, e.Audit):
            kind = kind_of(effect.root)
            ours = effect.root if kind == "right" else root_of("right", 9, effect.task)
            self.shell.append(e.Audited(effect.job_id, effect.task, effect.root, ours, kind == "far"))
        elif isinstance(effect, e.StoreResult):
            assert effect.task not in self.stored, "accepted twice"
            self.stored[effect.task] = effect.root
            self.shell.append(e.ResultsStored(effect.job_id, 1))
        elif isinstance(effect, e.Void):
            for task in effect.tasks:
                del self.stored[task]
        elif isinstance(effect, e.Ban) or (isinstance(effect, e.Caught) and not effect.is_opinion):
            assert self.kinds[effect.peer] == "far", "somebody honest is said to be known to lie"
        elif isinstance(effect, e.JobEnded):
            self.ended = effect

    @rule(data=st.data())
    def something_is_heard(self, data):
        waiting = [key for key in self.keys if self.heard[key]]
        if waiting:
            key = data.draw(st.sampled_from(waiting))
            self.feed(e.Heard(key, self.heard[key].popleft()))

    @rule(data=st.data())
    def something_is_found(self, data):
        if self.shell:
            self.feed(self.shell.pop(data.draw(st.integers(0, len(self.shell) - 1))))

    @rule(number=st.integers(0, PROVIDERS - 1))
    def somebody_is_lost(self, number):
        self.heard[self.keys[number]].clear()
        self.feed(e.Gone(self.keys[number], "lost"))

    @rule()
    def time_passes(self):
        self.now_ns += SECOND_NS
        self.feed(e.Tick())
        self.look()

    @invariant()
    def nobody_honest_is_banned(self):
        liars = {key for key, kind in self.kinds.items() if kind == "far"}
        assert self.banned <= liars  # also where two in league outvote one who is honest

    def teardown(self):
        for _ in range(600):
            if self.ended is not None or not hasattr(self, "scheduler"):
                break
            while self.ended is None and (self.shell or any(self.heard.values())):
                for key in self.keys:
                    if self.heard[key] and self.ended is None:
                        self.feed(e.Heard(key, self.heard[key].popleft()))
                if self.shell and self.ended is None:
                    self.feed(self.shell.pop(0))
            self.time_passes()
        if hasattr(self, "scheduler"):
            assert self.ended is not None, "the job does not end"
            assert self.ended.state == "done", self.ended.error
            assert set(self.stored) == set(range(TASKS))
            assert {kind_of(root) for root in self.stored.values()} == {"right"}
            self.nobody_honest_is_banned()


EXACT = {
    "peers": (Confidence(0.98, 0.2), {"by_peers": True}),
    "peers and steps": (Confidence(0.98, 0.2), {"by_peers": True, "can_walk": True}),
    "steps": (Quorum(2, 3), {"can_walk": True}),
    "steps of three": (Quorum(3, 5), {"can_walk": True}),
    "lead": (Lead(2), {}),
    "steps of a lead": (Lead(2), {"can_walk": True}),
}


class ExactStory(Story):
    """Bits count: answers are run again by peers, and disputes walked, or given up when the liar is silent."""

    @initialize(
        which=st.sampled_from(sorted(EXACT)), often=st.integers(1, 3), silent=st.booleans(), together=st.booleans()
    )
    def begin(self, which, often, silent, together):
        policy, more = EXACT[which]
        self.now_ns, self.unchecked, self.often, self.silent = 0, False, often, silent
        self.keys = [bytes([number + 1]) * 32 for number in range(PROVIDERS)]
        self.kinds = dict.fromkeys(self.keys, "right")
        self.kinds[self.keys[0]] = "far"
        if together and which == "steps of three" and not silent:
            self.kinds[self.keys[1]] = "far"  # two in league are named one after the other
        established = set(self.keys[3::2])  # no liar: newcomers are run again in all they do
        self.banned = set()
        known = SchedulerConfig(), random.Random(1), bytes(32), self.banned
        self.scheduler = Scheduler(*known, lambda peer, name, now: 0 if peer in established else 8)
        self.walks = 0
        self.start(policy, (), **more)

    def answer(self, peer, task):
        lies = self.kinds[peer] == "far" and task % self.often == 0
        return root_of("far" if lies else "right", 0, task)

    def carry_out(self, effect):
        if isinstance(effect, e.Walk):
            a, b = effect.parties
            assert a.root != b.root
            assert a.peer != b.peer
            self.walks += 1
            assert self.walks == 1, "one at a time"
            liars = () if self.silent else tuple(p.peer for p in (a, b) if kind_of(p.root) == "far")
            self.shell.append(e.Walked(effect.job_id, effect.task, effect.sequence, liars, 3, "it did step 3 wrongly"))
            return
        if isinstance(effect, e.Ban):
            assert kind_of(self.answer(effect.peer, effect.task)) == "far"
        if isinstance(effect, e.ReleaseAttempt):
            assert (effect.peer, effect.attempt) in self.answers, "an attempt that was never sent"
        super().carry_out(effect)

    def feed(self, event):
        if isinstance(event, e.Walked):
            self.walks -= 1
        super().feed(event)


ExactStory.TestCase.settings = settings(max_examples=30, stateful_step_count=50, deadline=None)
test_whatever_the_order_of_bits = ExactStory.TestCase
Story.TestCase.settings = settings(max_examples=30, stateful_step_count=50, deadline=None)
test_whatever_the_order = Story.TestCase
