"""A scheduler with providers that answer at once: for its bounds, its choices and its speed, without conversations."""

import random
from collections import Counter, deque

from depin_node.compute.jobs import events as e
from depin_node.compute.jobs.job import InputRef, Job, Limits, job_id
from depin_node.compute.jobs.scheduler import Scheduler, SchedulerConfig
from depin_node.compute.market import happenings as hp
from depin_node.compute.market.messages import Want
from depin_node.core.clock import Now

ROOT = b"r" * 32


class InstantMesh:
    """``run`` does a job; ``events`` counts what the scheduler took, ``attempts`` who got how many."""

    def __init__(self, providers=4, window=64, seed=1, config=None, memory_mib=1024):
        self.time_ns = 0
        self.scheduler = Scheduler(config or SchedulerConfig(), random.Random(seed), bytes(32), set())
        self.candidates = tuple(
            e.Candidate(n.to_bytes(32, "big"), f"g{n}", (("wasm-1", memory_mib),), 0) for n in range(providers)
        )
        self.window = window
        self.queue = deque()
        self.events = 0
        self.attempts = Counter()
        self.ended = {}
        self.largest_batch = 0

    def now(self):
        return Now(self.time_ns, self.time_ns)

    def submit(self, tasks, policy, key="key", done=None, device_class="wasm-1", memory_mib=64, seconds=60, **whole):
        inputs, classes = (InputRef(0, b"i" * 32, 1),), (device_class,)
        job = Job(key, "n", b"p" * 32, 1, inputs, tasks, classes, policy, Limits(seconds, memory_mib), 1, **whole)
        name = job_id(b"me" * 16, job)
        self.queue.append(e.Submitted(name, job, done or bytearray(tasks), lambda task: (8,), 8))
        self.queue.append(e.Candidates(self.candidates, {}))
        return name

    def run(self, on_event=None):
        while self.queue:
            self.time_ns += 100_000
            event = self.queue.popleft()
            self.events += 1
            for effect in self.scheduler.handle(event, self.now()):
                self.carry_out(effect)
            if on_event:
                on_event(self)
        return self

    def carry_out(self, effect):
        kind, heard = type(effect), self.heard
        if kind is e.AskReveal:
            heard(effect, hp.Revealed([(effect.attempt, ROOT)]))
            if effect.want is Want.BYTES:
                heard(effect, hp.Delivered(effect.attempt, ROOT, [bytearray(8)]))
        elif kind is e.StoreResult:
            self.queue.append(e.ResultsStored(effect.job_id, 1))
        elif kind is e.Assign:
            self.attempts[effect.peer] += len(effect.tasks)
            attempts = range(effect.first_attempt, effect.first_attempt + len(effect.tasks))
            self.largest_batch = max(self.largest_batch, len(effect.tasks))
            heard(effect, hp.Committed([(attempt, attempt.to_bytes(32, "big"), 50) for attempt in attempts]))
        elif kind is e.Ask:
            (device_class,) = effect.terms.device_classes
            heard(effect, hp.BidHeard(1, self.window, 0))
            heard(effect, hp.Agreed(b"a" * 32, device_class, 1, self.window, effect.terms, 3600))
        elif kind is e.JobEnded:
            self.ended[effect.job_id] = effect

    def heard(self, effect, event):
        self.queue.append(e.Heard(effect.peer, event))
