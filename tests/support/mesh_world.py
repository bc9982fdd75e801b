"""What ``make sim`` and its short version in the tests both run: a mesh under attack, and a mesh at rest."""

import random

from mesh_sim import LENDER, MeshSim, Vice

HOSTILE = 0.2
CHURN_PER_MIN = 0.1
JOIN_S = 20.0
WANTED = 32
ASKERS = 5
VICES = (Vice.FLOOD, Vice.FALSE, Vice.ECLIPSE, Vice.SYBIL)


def attacked(seed, nodes, *, seconds=60.0):
    """Return what honest nodes find in a mesh of which a fifth is hostile, after so many simulated seconds.

    The hostile are of all vices in equal shares. Half of those that join by name know only hostile nodes and one
    honest.
    """
    sim, rng = MeshSim(seed), random.Random(seed)
    blocks = [(rng.randrange(20, 100), rng.randrange(256)) for _ in range(2)]  # where the sybils are
    vices = [VICES[number % len(VICES)] for number in range(int(nodes * HOSTILE))]
    vices += [Vice.NONE] * (nodes - len(vices))
    rng.shuffle(vices)
    vices[0] = Vice.NONE
    for number, vice in enumerate(vices):
        first = [rng.choice(sim.nodes)] if sim.nodes else []
        block = rng.choice(blocks) if vice is Vice.SYBIL else None
        sim.start(first, vice=vice, block=block, at_s=JOIN_S * number / nodes)
    events = _churn(rng, nodes, seconds)
    newcomer, parted = None, []
    cut_s, heal_s, newcomer_s = 0.5 * seconds, 0.65 * seconds, JOIN_S + 1
    marks = sorted([*events, (cut_s, "cut"), (heal_s, "heal"), (newcomer_s, "newcomer")], key=lambda mark: mark[0])
    for at_s, what in marks:
        sim.run(at_s)
        living = [node for node in sim.living() if node is not newcomer]
        honest = [node for node in living if not node.is_hostile]
        match what:
            case "die":
                sim.kill(rng.choice(living))
            case "join":
                vice = rng.choice(VICES) if rng.random() < HOSTILE else Vice.NONE
                block = rng.choice(blocks) if vice is Vice.SYBIL else None
                sim.start([rng.choice(honest)], vice=vice, block=block, at_s=at_s)
            case "cut":
                parted = rng.sample(living, nodes // 10)
                sim.partition(parted)
            case "heal":
                sim.heal()
            case "newcomer":
                liars = [node for node in living if node.vice in (Vice.ECLIPSE, Vice.SYBIL)]
                first = [*rng.sample(liars, min(7, len(liars))), rng.choice(honest)]
                newcomer = sim.start(first, at_s=at_s)
    sim.run(seconds)
    askers = rng.sample([node for node in sim.living() if not node.is_hostile and node is not newcomer], ASKERS)
    searches = [(node, sim.search(node, WANTED)) for node in (*askers, newcomer)]
    sim.run(seconds + 16)
    found = [[sim.by_key.get(peer) for peer in node.found.get(search, ())] for node, search in searches]
    live = [[node for node in peers if node is not None] for peers in found]
    shares = [sum(node.is_hostile for node in peers) / max(1, len(peers)) for peers in live]
    population = [node for node in sim.living() if node is not newcomer]
    chosen = [sim.by_key[peer] for peer in newcomer.discovery.choosing.neighbours.chosen() if peer in sim.by_key]
    return {
        "found_live": [len(peers) for peers in live[:ASKERS]],
        "hostile_shares": [round(share, 3) for share in shares[:ASKERS]],
        "hostile_population": sum(node.is_hostile for node in population) / len(population),
        "newcomer_found": len(live[ASKERS]),
        "newcomer_hostile_share": round(shares[ASKERS], 3),
        "newcomer_chosen": len(chosen),
        "newcomer_chosen_honest": sum(not node.is_hostile for node in chosen),
        "newcomer_escaped": any(not node.is_hostile for node in chosen) and shares[ASKERS] < 0.5,
        "dials_per_node": round(sim.counts["dials"] / nodes, 1),
        "honest_blamed": sim.counts["honest blamed"],
        "wrong_peer_dialled": sim.counts["wrong peer dialled"],
        "bits": sorted({node.discovery.sharding.bits_max for node in population if not node.is_hostile}),
    }


def haunted(seed, nodes, makers, *, seconds=60.0):
    """Return what is found among honest nodes while ``makers`` others make up identities from ``JOIN_S`` on."""
    sim, rng = MeshSim(seed), random.Random(seed)
    for number in range(nodes):
        sim.start([rng.choice(sim.nodes)] if sim.nodes else [], at_s=JOIN_S * number / nodes)
    for _ in range(makers):
        sim.start([rng.choice(sim.nodes[:nodes])], vice=Vice.GHOSTS, at_s=JOIN_S)
    sim.run(JOIN_S + seconds)
    askers = rng.sample(sim.nodes[:nodes], ASKERS)
    searches = [(node, sim.search(node, WANTED)) for node in askers]
    sim.run(JOIN_S + seconds + 16)
    return {
        "nodes": nodes,
        "makers": makers,
        "ghosts_made": sim.counts["ghosts"],
        "found_live": [len(node.found.get(search, ())) for node, search in searches],
        "known": round(sum(len(node.discovery.directory) for node in askers) / ASKERS),
        "bits": sorted({node.discovery.sharding.bits_max for node in sim.nodes[:nodes]}),
    }


def traffic(seed, nodes, *, settle_s=60.0, seconds=60.0, config=None):
    """Return the bytes that a node of a mesh at rest sends a second, once all have joined and the shards have settled.

    Half of the nodes lend.
    """
    sim, rng = MeshSim(seed, loss=0.0, config=config), random.Random(seed)
    join_s = JOIN_S if nodes <= 1000 else JOIN_S * nodes / 1000
    for number in range(nodes):
        first = [rng.choice(sim.nodes)] if sim.nodes else []
        sim.start(first, at_s=join_s * number / nodes, **({} if number % 2 else {"offer": type(LENDER)()}))
    sim.run(join_s + settle_s)
    for node in sim.nodes:
        node.sent_bytes = 0
    sim.run(join_s + settle_s + seconds)
    sent = sorted(node.sent_bytes / seconds for node in sim.nodes)
    known = [len(node.discovery.directory) for node in sim.nodes]
    return {
        "nodes": nodes,
        "bytes_per_s": round(sum(sent) / nodes, 1),
        "bytes_per_s_p99": round(sent[int(0.99 * (nodes - 1))], 1),
        "known": round(sum(known) / nodes, 1),
        "links": round(sum(len(node.links) for node in sim.nodes) / nodes, 1),
        "bits": max(node.discovery.sharding.bits_max for node in sim.nodes),
    }


def _churn(rng, nodes, seconds):
    """Return when somebody dies and somebody else joins: of all nodes a tenth a minute, once all have joined."""
    count = int(nodes * CHURN_PER_MIN * (seconds - JOIN_S) / 60)
    times = [rng.uniform(JOIN_S, seconds) for _ in range(count)]
    return [(at_s, "die") for at_s in times] + [(at_s + 0.01, "join") for at_s in times]
