"""Whom a search asks, in a mesh of several shards."""

import random

from mesh_sim import LENDER, NEED, MeshSim

from depin_node.p2p.discovery_events import Find, Search
from depin_node.p2p.mesh_config import MeshConfig
from depin_node.p2p.search import ASKED_PER_SHARD, BESIDE_MAX, SHARDS_ASKED


def test_each_chosen_neighbour_is_asked_about_a_shard_beside_its_members():
    sim, rng, nodes = MeshSim(3, loss=0.0, config=MeshConfig(shard_max=10)), random.Random(3), []
    for number in range(60):
        nodes.append(sim.start([rng.choice(nodes)] if nodes else [], at_s=number / 6, offer=LENDER))
    sim.run(30)
    for node in nodes:
        chosen = set(node.discovery.choosing.neighbours.chosen())
        asked = [e for e in node.discovery.handle(Search(1, NEED, 32), sim.now) if isinstance(e, Find)]
        shards = {find.question.shard for find in asked}
        assert len(chosen) >= len(shards) == SHARDS_ASKED
        assert {find.question.shard for find in asked if find.peer in chosen} == shards
        assert len(chosen & {find.peer for find in asked}) >= min(len(chosen), BESIDE_MAX)
        assert len({find.peer for find in asked}) == len(asked) <= SHARDS_ASKED * ASKED_PER_SHARD + BESIDE_MAX
