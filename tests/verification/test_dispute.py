"""Disputes as a machine: whatever a liar says, the honest one is never named; who answers and lies, is."""

from hashlib import blake2b
from math import ceil, log2

from hypothesis import given, settings
from hypothesis import strategies as st

from depin_node.compute.verification.dispute import AskState, CheckResult, Dispute, DoStep, Over, Party

A, B = b"a" * 32, b"b" * 32


def after(state):
    """One step of the true program."""
    return (blake2b(state[0], digest_size=32).digest(),)


def root_of(state):
    return blake2b(b"root" + state[0], digest_size=32).digest()


FIRST = (bytes(32),)


def truth(steps):
    states = [FIRST]
    for _ in range(steps):
        states.append(after(states[-1]))
    return states


class Witness:
    """A party: ``says(step)`` its state, or None."""

    def __init__(self, states, root=None):
        self.states = states
        self.root = root or root_of(states[-1])

    def says(self, step):
        return self.states[step]


def slips_at(steps, wrong):
    """Does everything right but one step, and goes on from what it got."""
    states = truth(wrong - 1)
    states.append((bytes([wrong % 255 + 1]) * 32,))
    while len(states) <= steps:
        states.append(after(states[-1]))
    return Witness(states)


class Fickle:
    """Says anything, each time anew, or nothing: ``choose`` draws."""

    def __init__(self, steps, choose):
        self.true, self.choose = truth(steps), choose
        self.root = b"?" * 32

    def says(self, step):
        kind = self.choose(st.sampled_from(["true", "wrong", "wrong", "silent", "short"]))
        if kind == "true":
            return self.true[step]
        if kind == "wrong":
            return (bytes([self.choose(st.integers(1, 3))]) * 32,)
        return None if kind == "silent" else ()


def walk(steps, a, b, order=lambda effects: effects.pop(0), can_do=True, twice=False):
    """Carry a walk out; return its end, how many questions were asked, how many steps were done here."""
    parties = {A: a, B: b}
    dispute = Dispute(steps, FIRST, Party(A, a.root), Party(B, b.root))
    effects, asked, done = dispute.start(), 0, 0
    while effects:
        effect = order(effects)
        if isinstance(effect, Over):
            return effect, asked, done
        if isinstance(effect, AskState):
            asked += 1
            state = parties[effect.peer].says(effect.step)
            effects += dispute.said(effect.peer, effect.step, state)
            if twice:  # a message that comes again, and one that nobody asked for
                effects += dispute.said(effect.peer, effect.step, state)
                effects += dispute.said(b"x" * 32, effect.step, state)
        elif isinstance(effect, CheckResult):
            assert effect.party.root == parties[effect.party.peer].root
            effects += dispute.checked(effect.party.peer, root_of(effect.state) == effect.party.root)
        else:
            assert isinstance(effect, DoStep)
            done += 1
            effects += dispute.did(after(effect.state) if can_do else None)
    raise AssertionError("a walk that does not end")


@settings(deadline=None)
@given(st.integers(1, 5000), st.data())
def test_who_slipped_is_named_with_its_first_wrong_step(steps, data):
    wrong = data.draw(st.integers(1, steps))
    honest, liar = Witness(truth(steps)), slips_at(steps, wrong)
    is_first = data.draw(st.booleans())
    found, asked, done = walk(steps, liar if is_first else honest, honest if is_first else liar)
    assert found.liars == (A if is_first else B,)
    assert found.step == wrong
    assert asked <= 2 * (1 + ceil(log2(steps)) if steps > 1 else 1)
    assert done == 1


@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_the_honest_one_is_never_named_whatever_the_other_says(steps, data):
    def order(effects):
        return effects.pop(data.draw(st.integers(0, len(effects) - 1)))

    fickle = Fickle(steps, data.draw)
    found, asked, _ = walk(
        steps, Witness(truth(steps)), fickle, order, data.draw(st.booleans()), data.draw(st.booleans())
    )
    assert A not in found.liars
    assert asked <= 2 * (2 + ceil(log2(steps)))


@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_who_answers_everything_and_has_signed_something_wrong_is_named(steps, data):
    class Adaptive(Fickle):
        def says(self, step):
            if step == steps:
                return (b"w" * 32,)
            return self.true[step] if data.draw(st.booleans()) else (bytes([step % 250 + 1]) * 32,)

    liar = Adaptive(steps, data.draw)
    liar.root = root_of((b"w" * 32,))
    found, _, done = walk(steps, liar, Witness(truth(steps)))
    assert found.liars == (A,)
    assert done == 1


def test_a_result_that_its_own_arrays_contradict_needs_no_step():
    liar = Witness(truth(8), root=b"!" * 32)
    found, asked, done = walk(8, liar, Witness(truth(8)))
    assert (found.liars, found.step, asked, done) == ((A,), 8, 2, 0)


def test_two_liars_that_differ_are_both_named():
    found, *_ = walk(64, slips_at(64, 7), slips_at(64, 8))
    assert (found.liars, found.step) == ((A,), 7)  # the other one is next, against somebody else
    a, b = slips_at(64, 7), slips_at(64, 7)
    b.states[7:] = [(b"z" * 32,)]
    while len(b.states) <= 64:
        b.states.append(after(b.states[-1]))
    b.root = root_of(b.states[-1])
    found, *_ = walk(64, a, b)
    assert (set(found.liars), found.step) == ({A, B}, 7)
