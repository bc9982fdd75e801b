"""``make sim``, short: few nodes and few seeds, all that is hostile included."""

import random
import statistics

import mesh_sim
import pytest
from mesh_sim import MeshSim, Vice
from mesh_world import WANTED, attacked, traffic

from depin_node.p2p.mesh_config import MeshConfig


@pytest.fixture(scope="module")
def outcomes():
    return [attacked(seed, 80, seconds=40.0) for seed in (1, 2)]


def test_searches_find_live_providers_and_not_too_many_hostile_ones(outcomes):
    assert min(min(outcome["found_live"]) for outcome in outcomes) >= WANTED - 2
    share = statistics.mean(share for outcome in outcomes for share in outcome["hostile_shares"])
    assert share <= 1.2 * statistics.mean(outcome["hostile_population"] for outcome in outcomes)


def test_a_newcomer_with_one_honest_first_peer_among_hostile_ones_escapes(outcomes):
    assert all(outcome["newcomer_escaped"] for outcome in outcomes)
    assert all(outcome["newcomer_found"] >= WANTED - 2 for outcome in outcomes)


def test_whoever_calls_no_chosen_neighbour_goes():
    sim = MeshSim(1)
    nodes = [sim.start([]) for _ in range(1)]
    nodes += [sim.start([nodes[0]], at_s=1) for _ in range(19)]
    sim.run(20)
    victim = nodes[5]
    before = set(victim.discovery.choosing.neighbours.chosen())
    assert len(before) >= 5
    crowd = [sim.start([victim], vice=Vice.SYBIL, block=(90, 1), at_s=20) for _ in range(80)]
    sim.run(50)
    assert before <= set(victim.discovery.choosing.neighbours.chosen())
    chosen = [peer for peer in victim.discovery.choosing.neighbours.chosen() if peer in {node.key for node in crowd}]
    assert len(chosen) <= 1  # they are all of one group


def test_nodes_that_come_up_in_any_order_each_knowing_one_other_know_all_soon_after_the_last(monkeypatch):
    monkeypatch.setattr(mesh_sim, "DIAL_TIMEOUT_S", 0.01)  # where nobody listens yet a dial is refused at once
    sim, rng, nodes = MeshSim(5, loss=0.0), random.Random(5), []
    for _ in range(40):
        nodes.append(sim.start([rng.choice(nodes)] if nodes else [], at_s=rng.uniform(0, 40)))
    sim.run(50)
    keys = {node.key for node in nodes}
    assert all({entry.key for entry in n.discovery.directory.peers()} == keys - {n.key} for n in nodes)


def test_traffic_hardly_grows_once_there_are_shards():
    config = MeshConfig(shard_max=25)
    small, large = (traffic(1, nodes, settle_s=20, seconds=20, config=config) for nodes in (40, 160))
    assert (small["bits"], large["bits"] >= 2) == (0, True)
    assert large["bytes_per_s"] < 2 * small["bytes_per_s"]  # four times the nodes
