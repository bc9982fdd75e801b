"""The life of a lent GPU: no hardware, but a world that hangs, faults and forgets as hypothesis and seeds have it."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from depin_node.compute.sandbox import custody_events as e
from depin_node.compute.sandbox.custody import Custody, State
from depin_node.core.clock import SECOND_NS, Now

LIMITS = e.CustodyLimits()
CODES = {"crashed", "timed_out"}


class World:
    """A device, its driver and its processes; the machine's effects happen to it, faults are injected into it."""

    def __init__(self):
        self.custody, self.now_ns = Custody(LIMITS), 0
        self.process = self.killed = self.context = self.stuck = self.sticky = self.deaf = False
        self.testing, self.serial = False, 0
        self.running = None  # the attempt
        self.ended, self.failed, self.granted = {}, {}, []
        self.revoked, self.withdrawn, self.alarms, self.looks = [], "", [], 0

    def tell(self, event):
        for effect in self.custody.handle(event, Now(self.now_ns, 0)):
            self.carry_out(effect)

    def carry_out(self, effect):
        match effect:
            case e.Grant():
                assert not self.process, "granted with a process on it"
                assert not self.context, "granted with a context on it"
                self.granted.append(effect.lease)
            case e.Spawn():
                assert not self.process, "two workers on one device"
                assert not self.context, "a worker beside another's context"
                self.process, self.killed, self.testing = True, False, effect.test
            case e.Kill():
                assert self.process
                self.killed = True
            case e.Fail():
                assert effect.code in CODES
                assert effect.reason
                assert effect.attempt not in self.failed
                assert effect.attempt not in self.ended
                self.failed[effect.attempt] = effect.code
                self.running = None if self.running == effect.attempt else self.running
            case e.Look():
                self.looks += 1
            case e.Revoke():
                self.revoked.append(effect.lease)
            case e.Withdraw():
                assert not self.withdrawn
                self.withdrawn = effect.reason
            case e.WakeAt():
                self.alarms.append(effect.boottime_ns)
            case e.Refuse() | e.Available():
                pass

    # What the world does by itself

    def reap(self):
        """A killed process ends, unless the driver holds it; its context goes, unless it is sticky."""
        if self.process and self.killed and not self.stuck:
            self.exit("signal SIGKILL")

    def exit(self, how):
        self.process = self.testing = False
        self.context = self.context and self.sticky
        self.running = None
        self.tell(e.Exited(how))

    def answer_looks(self):
        while self.looks and not self.deaf:
            self.looks -= 1
            self.tell(e.Contexts(self.context))

    def sleep(self, seconds):
        """Let time pass, alarm by alarm, with the world going on in between."""
        until = self.now_ns + int(seconds * SECOND_NS)
        for _ in range(10_000):
            self.reap()
            self.answer_looks()
            due = [at for at in self.alarms if at <= until]
            if not due:
                break
            self.now_ns = max(self.now_ns, min(due))
            self.alarms = [at for at in self.alarms if at > self.now_ns]
            self.tell(e.Tick())
        else:
            raise AssertionError("it never comes to rest")
        self.now_ns = until


@settings(max_examples=150, stateful_step_count=40, deadline=None)
class Life(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.world, self.leases, self.began = World(), 0, set()

    @property
    def custody(self):
        return self.world.custody

    @rule()
    def want(self):
        self.leases += 1
        before = list(self.world.granted)
        self.world.tell(e.Wanted(f"lease {self.leases}"))
        if len(self.world.granted) > len(before):
            assert self.custody.lease == f"lease {self.leases}"

    @precondition(lambda self: self.custody.lease)
    @rule()
    def give_back(self):
        if self.world.running is not None:
            self.world.ended[self.world.running] = "given up"
            self.world.running = None
        self.world.tell(e.Returned(self.custody.lease))

    @rule()
    def a_stranger_gives_back_what_it_has_not(self):
        self.world.tell(e.Returned("nobody"))

    @precondition(lambda self: self.world.process and not self.world.killed)
    @rule()
    def get_ready(self):
        self.world.context = True
        self.world.tell(e.Ready())

    @precondition(lambda self: self.idle())
    @rule(seconds=st.sampled_from([0.1, 10.0, 3600.0]))
    def begin(self, seconds):
        self.world.serial += 1
        self.world.context, self.world.running = True, self.world.serial
        self.began.add(self.world.serial)
        self.world.tell(e.Began(self.world.serial, seconds))

    def idle(self):
        world = self.world
        return world.process and not world.killed and not world.testing and world.running is None

    @precondition(lambda self: self.world.running is not None)
    @rule(lost=st.booleans())
    def end(self, lost):
        attempt, self.world.running = self.world.running, None
        self.world.ended[attempt] = "context lost" if lost else "done"
        self.world.tell(e.Ended(attempt, lost))

    @precondition(lambda self: self.world.process)
    @rule(how=st.sampled_from(["signal SIGSEGV", "signal SIGKILL", "exit code 1"]))
    def die(self, how):
        self.world.exit(how)

    @precondition(lambda self: self.world.process and self.world.testing and not self.world.killed)
    @rule(passed=st.booleans())
    def test(self, passed):
        self.world.tell(e.Tested(passed, "two kernels differ"))

    @rule(stuck=st.booleans(), sticky=st.booleans(), deaf=st.booleans())
    def hurt(self, stuck, sticky, deaf):
        self.world.stuck, self.world.sticky, self.world.deaf = stuck, sticky, deaf

    @rule(hot=st.booleans())
    def heat(self, hot):
        self.world.tell(e.Heat(hot))

    @rule()
    def doubt(self):
        self.world.tell(e.Doubted("Xid 13"))

    @precondition(lambda self: self.leases > 3)
    @rule()
    def break_down(self):
        self.world.tell(e.Broken("the GPU is lost"))

    @rule(seconds=st.sampled_from([0.0, 0.3, 6.0, 20.0, 200.0]))
    def wait(self, seconds):
        self.world.sleep(seconds)

    @invariant()
    def nobody_shares(self):
        world, custody = self.world, self.custody
        if custody.state is State.FREE:
            assert not world.process
            assert not world.context
            assert not custody.lease
        if custody.state is State.WITHDRAWN:
            assert world.withdrawn == custody.reason
            assert not custody.lease
            assert world.killed or not world.process

    def teardown(self):
        """Once nothing more goes wrong, the device is free again or withdrawn, and no attempt or agreement hangs."""
        world = self.world
        if self.custody.lease and world.running is None and self.custody.state is State.LEASED:
            world.tell(e.Returned(self.custody.lease))
        world.sleep(1e5)
        if world.testing and world.process and not world.killed:
            world.tell(e.Tested(True, ""))
        if self.custody.lease:
            world.tell(e.Returned(self.custody.lease))
        world.sleep(1e5)
        assert self.custody.state in (State.FREE, State.WITHDRAWN)
        assert self.began == world.failed.keys() | world.ended.keys()
        assert len(set(world.granted)) == len(world.granted)
        if world.context:
            assert self.custody.state is State.WITHDRAWN


TestLife = Life.TestCase


@pytest.fixture
def world():
    found = World()
    found.tell(e.Wanted("alice"))
    found.context = True
    found.tell(e.Ready())
    return found


def test_an_agreement_has_the_device_alone_and_gives_it_back(world):
    world.tell(e.Wanted("bob"))
    assert world.granted == ["alice"]
    world.tell(e.Returned("alice"))
    world.tell(e.Wanted("bob"))  # the process still ends
    assert world.granted == ["alice"]
    world.sleep(1)
    assert world.custody.state is State.FREE
    world.tell(e.Wanted("bob"))
    assert world.granted == ["alice", "bob"]


def test_a_launch_that_hangs_costs_one_attempt_and_the_agreement_goes_on(world):
    world.tell(e.Began(1, 10.0))
    world.sleep(10 + LIMITS.grace_s + 1)
    assert world.failed == {1: "timed_out"}
    assert (world.custody.state, world.custody.lease, world.process) == (State.LEASED, "alice", True)


def test_a_process_that_dies_is_reported_as_what_it_was(world):
    world.tell(e.Began(1, 10.0))
    effects = world.custody.handle(e.Exited("signal SIGSEGV"), Now(1, 0))
    assert effects[0] == e.Fail(1, "crashed", "the worker died: signal SIGSEGV")


@pytest.mark.parametrize(
    ("trouble", "reason"), [("sticky", "a context stayed"), ("stuck", "did not end"), ("deaf", "a context stayed")]
)
def test_what_does_not_go_takes_the_device_with_it(world, trouble, reason):
    setattr(world, trouble, True)
    world.tell(e.Returned("alice"))
    world.sleep(LIMITS.kill_s - 1)
    assert not world.withdrawn
    world.sleep(LIMITS.kill_s + LIMITS.context_s)
    assert reason in world.withdrawn
    world.tell(e.Wanted("bob"))
    assert world.granted == ["alice"]


@pytest.mark.parametrize("passes", [True, False])
def test_crash_after_crash_makes_a_device_suspect_until_its_answers_are_right(world, passes):
    for attempt in range(LIMITS.crashes_max):
        assert world.custody.state is State.LEASED
        world.tell(e.Began(attempt, 10.0))
        world.exit("signal SIGSEGV")
        world.sleep(1)
    assert (world.custody.state, world.testing) == (State.SUSPECT, True)
    world.tell(e.Tested(passes, "saxpy differs"))
    world.sleep(1)
    assert world.custody.state is (State.LEASED if passes else State.WITHDRAWN)
    assert world.revoked == ([] if passes else ["alice"])
    assert passes or "3 workers in a row died; then saxpy differs" in world.withdrawn


def test_a_good_attempt_between_crashes_clears_the_device(world):
    for attempt in range(0, 20, 2):
        world.tell(e.Began(attempt, 10.0))
        world.tell(e.Ended(attempt, False))
        world.exit("signal SIGSEGV")
        world.sleep(1)
        assert world.custody.state is State.LEASED


def test_a_lost_context_ends_the_process_and_its_attempt_was_told_by_the_worker(world):
    world.tell(e.Began(1, 10.0))
    world.tell(e.Ended(1, True))
    assert world.killed
    world.sleep(1)
    assert (world.failed, world.custody.state, world.process) == ({}, State.LEASED, True)


def test_a_device_that_is_gone_is_withdrawn_at_once_and_its_attempt_fails(world):
    world.tell(e.Began(1, 10.0))
    world.tell(e.Broken("the driver lost it"))
    assert (world.failed, world.revoked, world.withdrawn) == ({1: "crashed"}, ["alice"], "the driver lost it")
    assert world.killed


def test_a_hot_device_ends_what_it_has_and_is_not_lent_until_it_cools(world):
    world.tell(e.Heat(True))
    world.tell(e.Began(1, 1.0))
    world.tell(e.Ended(1, False))
    world.tell(e.Returned("alice"))
    world.sleep(1)
    assert e.Refuse("bob", "the device is too hot to be lent now") in world.custody.handle(e.Wanted("bob"), Now(0, 0))
    assert world.custody.handle(e.Heat(False), Now(0, 0)) == [e.Available()]


def test_a_worker_that_hangs_in_its_start_is_replaced_then_doubted():
    world = World()
    world.tell(e.Wanted("alice"))
    world.sleep(LIMITS.crashes_max * (LIMITS.start_s + 1) + 1)
    assert world.testing
    world.sleep(LIMITS.test_s)
    assert "took over" in world.withdrawn
