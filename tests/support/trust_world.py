"""A world of requesters and providers, some of them hostile, around the machines that decide what to believe.

Pure and seeded; no network, no clock. ``Ballot``, the rules, and ``Settlement`` are the node's own objects; what is
simulated is who answers what. Beside the node's policies: double and triple replication without memory, and BOINC's
adaptive replication (sched/sched_send.cpp, ``set_trust``: ten consecutive valid results, then trusted with probability
1 - 1/that number).

Each requester keeps to ``providers`` nodes drawn by lot from all; a task goes to one of those by lot (equal speeds).
Hostile nodes know the policy, its parameters and how many tasks they will get; they do not know the requester's secret.
All wrong answers to a task are the same: accomplices have agreed on it.

Adversaries:

- ``constant``: lies always.
- ``sleeper``: is honest until it is established, then tells as many lies as pay best against the policy (``plan``),
  spread evenly over what it gets.
- ``late``: the same lies, all at the end: whoever is caught then has wasted most.
- ``waster``: honest for nine tenths of what it gets, then lies always: never settled, but all of it runs again.
- ``colluder``: lies only where accomplices hold every copy (of a single attempt: as the sleeper).
- ``whitewasher``: the same lies as soon as it is established; once caught, it comes back at once under a new name and
  in a new group, and is given tasks like anybody else, without end: it tries until it is lucky.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from depin_node.compute.jobs.job import Confidence
from depin_node.compute.verification.bounds import hazard, lambert_w, lead_for
from depin_node.compute.verification.quorum import Ballot
from depin_node.compute.verification.rules import SINGLE, Rule, audit_by, leading
from depin_node.compute.verification.settlement import Settlement, audit_key, draw_of

ADVERSARIES = ("constant", "sleeper", "late", "waster", "colluder", "whitewasher")
BOINC_VALID = 10
LEAD = lead_for(0.999, 0.2)
RIGHT, WRONG = b"r" * 32, b"w" * 32


@dataclass(frozen=True)
class Scale:
    """How large a world is: ``tasks`` of one requester, of which each of its ``providers`` gets an equal part."""

    nodes: int = 200
    requesters: int = 10
    providers: int = 20
    tasks: int = 20_000


@dataclass
class Outcome:
    """What came of it. ``expelled``: how many tasks each hostile identity had run when it was caught; None: never."""

    tasks: int = 0
    wrong: int = 0
    work: int = 0
    honest_caught: int = 0
    expelled: list[int | None] = field(default_factory=list)


class Node:
    """One identity as one requester meets it."""

    def __init__(self, key: bytes, lies_at: frozenset[int] | None, is_hostile: bool) -> None:
        self.key = key
        self.group = key.hex()
        self.is_hostile = is_hostile
        self.lies_at = lies_at  # None: always
        self.done = 0
        self.verified = 0

    def lies(self) -> bool:
        """Tell whether it lies in the next task that it runs, and count it."""
        self.done += 1
        return self.is_hostile and (self.lies_at is None or self.done in self.lies_at)


def plan(adversary: str, part: int, newcomer: int, lies: int) -> frozenset[int] | None:
    """Return at which of its ``part`` tasks a hostile node lies; None: at all of them."""
    if adversary == "constant":
        return None
    if adversary == "waster":
        return frozenset(range(part * 9 // 10, 100 * part))
    if adversary == "late":
        return frozenset(range(part - lies, part))
    if adversary == "whitewasher":
        return frozenset(range(newcomer + 1, newcomer + 1 + lies))
    room = part - newcomer
    return frozenset(newcomer + 1 + room * index // max(1, lies) for index in range(lies))


class World:
    """All nodes of one run, and the lot."""

    def __init__(self, scale: Scale, share: float, adversary: str, seed: int) -> None:
        self.scale = scale
        self.adversary = adversary
        self.rng = Random(f"{seed} {share} {adversary}")
        self.hostile = set(self.rng.sample(range(scale.nodes), round(share * scale.nodes)))
        self._named = 0

    def run(self, requester: Callable[["World", Outcome], None]) -> Outcome:
        """Let each requester have its job done."""
        outcome = Outcome()
        for _ in range(self.scale.requesters):
            requester(self, outcome)
        return outcome

    def node(self, *, is_hostile: bool, lies_at: frozenset[int] | None) -> Node:
        """Return a new identity."""
        self._named += 1
        return Node(self._named.to_bytes(32, "big"), lies_at, is_hostile)

    def chosen(self, lies_at: frozenset[int] | None) -> list[Node]:
        """Return the providers of one requester."""
        numbers = self.rng.sample(range(self.scale.nodes), self.scale.providers)
        return [self.node(is_hostile=number in self.hostile, lies_at=lies_at) for number in numbers]

    def expel(self, nodes: list[Node], node: Node, outcome: Outcome) -> None:
        """A node was caught: it is never asked again, but may have another name."""
        nodes.remove(node)
        if not node.is_hostile:
            outcome.honest_caught += 1
            return
        outcome.expelled.append(node.done)
        if self.adversary == "whitewasher":
            nodes.append(self.node(is_hostile=True, lies_at=node.lies_at))


def peers_say(world: World, nodes: list[Node], provider: Node, root: bytes, had: set[bytes], due: int):
    """Have ``due`` others run a task again, and more if they differ; return the root that is believed, how many runs it
    took, and who was outvoted. Accomplices know each other's lies, and deny them; constant liars contradict anybody."""
    rng, runs = world.rng, 0
    votes, outvoted = [(provider, root)], []
    free = [node for node in nodes if node is not provider and node.key not in had]
    rng.shuffle(free)
    rule = audit_by(due)
    while free:
        roots = [said for _, said in votes]
        best = max(set(roots), key=roots.count)
        second = len(roots) - roots.count(best)
        if rule.accepts(roots.count(best), second):
            outvoted = [node for node, said in votes if said != best and node is not provider]
            had.update(node.key for node, _ in votes)
            return best, runs, outvoted
        if second:
            rule = leading(LEAD)
        for _ in range(min(len(free), rule.wanted(roots.count(best), second, 0, len(roots)))):
            node = free.pop()
            runs += 1
            denies = root == WRONG or world.adversary == "constant"
            votes.append((node, WRONG if node.is_hostile and denies else RIGHT))
    raise AssertionError("more providers are needed to decide")


def confidence(policy: Confidence, newcomer: int, *, by_peers: bool = False) -> Callable[[World, Outcome], None]:
    """A requester that audits on its own device, or ``by_peers``; ``newcomer``: answers found right that make a node
    established (all are, where peers audit: what sleepers have earned before)."""

    def requester(world: World, outcome: Outcome) -> None:
        scale, rng = world.scale, world.rng
        part = scale.tasks // scale.providers
        lies = round((1 + lambert_w(policy.f / (2.718281828 * (1 - policy.f)))) / hazard(policy.p, policy.f, part))
        nodes = world.chosen(plan(world.adversary, part, newcomer, lies))
        key = audit_key(rng.randbytes(32))
        job = rng.randbytes(32)
        settlement = Settlement(policy, scale.tasks, by_peers=by_peers)
        auditors: dict[int, set[bytes]] = {}
        by_key = {node.key: node for node in nodes}
        for node in nodes:
            settlement.joined(node.key)
        waiting = list(range(scale.tasks))
        wrong: set[int] = set()
        settled = 0

        def taking_part() -> list[Node]:
            """Where peers audit, who joined after a catch has no part while there are enough others."""
            if not by_peers:
                return nodes
            others = [node for node in nodes if not settlement.is_watched(node.key)]
            return others if len(others) > LEAD else nodes

        def follow(ruling) -> None:
            nonlocal settled
            todo = [ruling]
            while todo:
                ruling = todo.pop()
                settled += len(ruling.settled)
                if ruling.caught:
                    waiting.extend(ruling.void)
                    wrong.difference_update(ruling.void)
                    world.expel(nodes, by_key[ruling.caught], outcome)
                    by_key.update((node.key, node) for node in nodes[-1:])
                for task in ruling.audit:
                    peer = settlement.provider(task)
                    if peer is None:  # void meanwhile
                        continue
                    if not by_peers:
                        outcome.work += 1
                        found = settlement.audited(task, RIGHT)
                        by_key[peer].verified += not found.caught
                        todo.append(found)
                        continue
                    root = settlement.answer(task)[1]
                    had = auditors.setdefault(task, set())
                    asked = taking_part()
                    believed, runs, outvoted = peers_say(world, asked, by_key[peer], root, had, settlement.due(task))
                    outcome.work += runs
                    todo.append(settlement.audited(task, believed))
                    for node in outvoted:
                        void = settlement.void(node.key)
                        waiting.extend(void)
                        wrong.difference_update(void)
                        world.expel(nodes, node, outcome)
                        by_key.update((other.key, other) for other in nodes[-1:])

        while settled < scale.tasks:
            while waiting:
                task = waiting.pop()
                node = rng.choice(taking_part())
                root = WRONG if node.lies() else RIGHT
                outcome.work += 1
                ballot = Ballot(task, SINGLE)
                auditors.pop(task, None)
                ref = (node.key, node.done)
                ballot.started(ref, node.group, "wasm-1")
                ballot.committed(ref, node.key)
                assert ballot.ready()
                ballot.revealed(ref, root)
                assert ballot.decided
                if root is WRONG:
                    wrong.add(task)
                draw = draw_of(key, job, task, ballot.commitments() + node.done.to_bytes(4, "big"))
                is_newcomer = not by_peers and node.verified < newcomer
                follow(settlement.accepted(node.key, task, ballot.decided, draw, is_newcomer=is_newcomer))
            follow(settlement.close())
        outcome.tasks += scale.tasks
        outcome.wrong += len(wrong)
        outcome.expelled += [None for node in nodes if node.is_hostile]

    return requester


def voting(rule: Rule, *, first: int = 0, bans: bool = True) -> Callable[[World, Outcome], None]:
    """A requester that believes a vote; ``first``: attempts at once, by default as the rule wants."""

    def requester(world: World, outcome: Outcome) -> None:
        scale, rng = world.scale, world.rng
        always = frozenset(range(BOINC_VALID + 1, 1 + scale.tasks))  # nothing is gained by lying less
        nodes = world.chosen(None if world.adversary == "constant" else always)
        for task in range(scale.tasks):
            ballot = Ballot(task, rule)
            voters: dict[tuple[bytes, int], Node] = {}
            while not ballot.decided:
                wanted = max(ballot.wanted(), 0 if voters else first)
                free = [node for node in nodes if not ballot.has_group(node.group)]
                if not wanted or len(free) < wanted:
                    break
                chosen = rng.sample(free, wanted)
                together = world.adversary != "colluder" or all(n.is_hostile for n in (*chosen, *voters.values()))
                answers = {}
                for node in chosen:
                    ref = (node.key, task)
                    lies = node.lies() and together
                    answers[ref] = WRONG if lies else RIGHT
                    voters[ref] = node
                    ballot.started(ref, node.group, "wasm-1")
                    ballot.committed(ref, node.key)
                outcome.work += len(chosen)
                for ref in ballot.ready():
                    ballot.revealed(ref, answers[ref])
            outcome.tasks += 1
            outcome.wrong += ballot.decided != RIGHT
            if bans and ballot.decided:
                for ref in ballot.dissenters():
                    world.expel(nodes, voters[ref], outcome)
        outcome.expelled += [None for node in nodes if node.is_hostile]

    return requester


def boinc() -> Callable[[World, Outcome], None]:
    """BOINC's adaptive replication: who has ten valid results in a row is mostly believed alone."""

    def requester(world: World, outcome: Outcome) -> None:
        scale, rng = world.scale, world.rng
        nodes = world.chosen(None)
        valid = dict.fromkeys((node.key for node in nodes), 0)

        def lies(node: Node) -> bool:
            node.done += 1
            if not node.is_hostile or world.adversary == "constant":
                return node.is_hostile
            if world.adversary == "waster":
                return valid[node.key] >= 3 * BOINC_VALID
            return valid[node.key] >= BOINC_VALID  # whoever is trusted is rarely checked

        for _ in range(scale.tasks):
            first = rng.choice(nodes)
            outcome.work += 1
            outcome.tasks += 1
            count = valid[first.key]
            root = lies(first)
            if count >= BOINC_VALID and rng.random() > 1 / count:
                outcome.wrong += root
                continue
            answers = {first.key: root}
            others = rng.sample(nodes, len(nodes))
            second = next(node for node in others if node is not first)
            answers[second.key] = lies(second) and not (world.adversary == "colluder" and not root)
            if world.adversary == "colluder" and not second.is_hostile:
                answers[first.key] = False  # it does not hold every copy
            outcome.work += 1
            for node in others:
                if sum(answers.values()) >= 2 or len(answers) - sum(answers.values()) >= 2:
                    break
                if node.key not in answers:
                    answers[node.key] = lies(node)
                    outcome.work += 1
            decided = sum(answers.values()) >= 2
            outcome.wrong += decided
            for key, answer in answers.items():
                valid[key] = valid[key] + 1 if answer == decided else 0

    return requester


NEWCOMER = 8
"""Answers found right that make a node established."""


def policies(newcomer: int = NEWCOMER) -> dict[str, Callable[[World, Outcome], None]]:
    """Return what is compared, by name."""
    return {
        "confidence(0.999, 0.2)": confidence(Confidence(0.999, 0.2), newcomer),
        "confidence by peers": confidence(Confidence(0.999, 0.2), newcomer, by_peers=True),
        "quorum(2, 3)": voting(Rule(2, 0, 3)),
        "quorum(3, 5)": voting(Rule(3, 0, 5)),
        "lead(3)": voting(leading(3)),
        "lead(5)": voting(leading(5)),
        "double": voting(Rule(2, 0, 15), bans=False),
        "triple": voting(Rule(2, 0, 3), first=3, bans=False),
        "boinc": boinc(),
    }
