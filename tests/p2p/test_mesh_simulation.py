"""Many nodes in one process, over the in-memory network, in simulated time."""

import logging
import random
from contextlib import asynccontextmanager

import pytest
import structlog
import trio

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerViolation, TransportError
from depin_node.crypto.identity import Identity
from depin_node.crypto.ownership import Owners, certify, revoke
from depin_node.p2p.addresses import Address, peer_id
from depin_node.p2p.advert import DeviceOffer, Offer
from depin_node.p2p.directory import Need
from depin_node.p2p.memory import MemoryFabric
from depin_node.p2p.mesh import open_mesh
from depin_node.p2p.mesh_config import MeshConfig
from depin_node.p2p.network import NetworkLimits

WALL_NS = 1_800_000_000 * SECOND_NS
WASM = DeviceOffer("wasm-1", 512, 2, 2)
LENDER = Offer(lending=True, devices=(WASM,))
NEED = Need(frozenset({"wasm-1"}), 256)


@pytest.fixture(autouse=True)
def quiet():
    """Formatting thousands of debug lines takes longer than the simulation."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def key(number):
    return Identity(number.to_bytes(32, "big")).key


class Simulation:
    """Nodes by number. ``meshes`` holds those that live."""

    def __init__(self, nursery, seed, **fabric):
        self.seed = seed
        self.fabric = MemoryFabric(seed, **({"latency_s": (0.001, 0.05)} | fabric))
        self.meshes = {}
        self.skew_s = {}
        self._nursery = nursery
        self._scopes = {}

    async def start(self, number, *first, first_addresses=(), limits=None, **options):
        addresses = [*first_addresses, *(self.meshes[n].network.addresses()[0] for n in first)]
        return await self._nursery.start(self._run, number, addresses, limits, options)

    async def _run(self, number, first_peers, limits, options, *, task_status):
        def clock():
            ns = int(trio.current_time() * SECOND_NS)
            return Now(ns, WALL_NS + ns + self.skew_s.get(number, 0) * SECOND_NS)

        identity = Identity(number.to_bytes(32, "big"))
        options = {"offer": LENDER, "rng": random.Random(self.seed * 1000 + number)} | options
        with trio.CancelScope() as self._scopes[number]:
            async with (
                self.fabric.open(identity.key, limits=limits) as network,
                open_mesh(network, identity, first_peers=first_peers, clock=clock, **options) as self.meshes[number],
            ):
                task_status.started(self.meshes[number])
                await trio.sleep_forever()

    def kill(self, number):
        self.fabric.kill(key(number))
        del self.meshes[number]

    def stop(self, number):
        """End a node in order: it says that it leaves."""
        self._scopes[number].cancel()
        del self.meshes[number]

    async def until(self, condition, within_s):
        with trio.move_on_after(within_s):
            while not condition():
                await trio.sleep(0.25)
            return
        pytest.fail(f"not within {within_s} s of simulated time")

    def known_to(self, mesh):
        return {entry.key for entry in mesh.directory.peers()} | {mesh.network.key}

    def all_know_all(self):
        living = {key(number) for number in self.meshes}
        return all(living <= self.known_to(mesh) for mesh in self.meshes.values())

    def is_one_mesh(self):
        """Whether every living node is connected to every other, directly or through others."""
        by_key = {mesh.network.key: mesh for mesh in self.meshes.values()}
        found, waiting = set(), [next(iter(by_key))]
        while waiting:
            peer = waiting.pop()
            if peer in by_key and peer not in found:
                found.add(peer)
                waiting.extend(by_key[peer].network.peers())
        return len(found) == len(by_key)


@asynccontextmanager
async def simulation(seed, **fabric):
    print(f"seed {seed}")
    async with trio.open_nursery() as nursery:
        yield Simulation(nursery, seed, **fabric)
        nursery.cancel_scope.cancel()


async def test_a_hundred_nodes_find_each_other_through_a_first_peer_that_then_dies(autojump_clock):
    async with simulation(1) as sim:
        await sim.start(0)
        for number in range(1, 100):
            await sim.start(number, 0)
            await trio.sleep(0.05)
        await sim.until(sim.all_know_all, 10)
        sim.kill(0)
        await trio.sleep(10)
        assert sim.is_one_mesh()
        assert min(len(mesh.network.peers()) for mesh in sim.meshes.values()) >= 4
        for number in range(100, 105):
            await sim.start(number, number - 50)
        await sim.until(sim.all_know_all, 10)


async def test_a_node_is_ready_within_a_second_of_joining(autojump_clock):
    async with simulation(2) as sim:
        await sim.start(0)
        mesh = await sim.start(1, 0)
        with trio.fail_after(1):
            await mesh.ready.wait()
        assert [entry.key for entry in mesh.candidates(NEED, 5, random.Random(1))] == [key(0)]


async def test_a_node_goes_on_trying_until_its_first_peer_is_up_and_tells_why_not(autojump_clock):
    async with simulation(3) as sim:
        later = Address("ip4", "10.0.0.2", 1026, key(2))  # where the fabric will put its second node
        mesh = await sim.start(1, first_addresses=[str(later)], remembered=["damaged"])
        await trio.sleep(100)
        assert "refused" in mesh.failures()[peer_id(key(2))]
        assert mesh.counters()["undialled"] < 60
        await sim.start(2)
        await sim.until(mesh.ready.is_set, 8)
        assert not mesh.failures()


async def test_a_node_joins_by_peers_it_remembers_when_its_first_peer_is_dead():
    async with simulation(4) as sim:
        await sim.start(0)
        for number in range(1, 6):
            await sim.start(number, 0)
        await sim.until(lambda: len(sim.meshes[1].remembered()) >= 4, 20)
        dead, remembered = sim.meshes[0].network.addresses(), sim.meshes[1].remembered()
        sim.kill(0)
        mesh = await sim.start(6, first_addresses=dead, remembered=remembered)
        await sim.until(mesh.ready.is_set, 2)
        assert set(remembered) - set(dead) <= set(mesh.remembered())


async def test_lost_gossip_is_made_up_for(autojump_clock):
    async with simulation(4, gossip_loss=1.0) as sim:
        await sim.start(0)
        for number in range(1, 40):
            await sim.start(number, 0)
        await sim.until(sim.all_know_all, 30)


async def test_parted_meshes_become_one_again(autojump_clock):
    async with simulation(5) as sim:
        await sim.start(0)
        for number in range(1, 30):
            await sim.start(number, 0)
        await sim.until(sim.all_know_all, 10)
        east = [key(number) for number in range(15)]
        sim.fabric.partition(east)
        await sim.until(lambda: not sim.is_one_mesh(), 20)
        await trio.sleep(200)  # all adverts of the other half have expired
        assert not any(set(east) & sim.known_to(sim.meshes[number]) for number in range(15, 30))
        sim.fabric.heal()
        await sim.until(lambda: sim.is_one_mesh() and sim.all_know_all(), 120)


async def test_who_leaves_is_gone_for_all_and_stays_gone(autojump_clock):
    async with simulation(6) as sim:
        await sim.start(0)
        for number in range(1, 30):
            await sim.start(number, 0)
        await sim.until(sim.all_know_all, 10)
        watch = sim.meshes[3].watch()
        sim.stop(7)
        await sim.until(lambda: not any(key(7) in sim.known_to(mesh) for mesh in sim.meshes.values()), 15)
        seen = set()
        with trio.move_on_after(300):
            async for tell in watch:
                assert (tell.what, tell.peer) != ("discovered", key(7))
                seen.add((tell.what, tell.peer))
        assert ("left", key(7)) in seen
        mesh = await sim.start(7, 5)  # and it may come back
        await sim.until(lambda: sim.all_know_all() and mesh.ready.is_set(), 15)


async def test_who_was_killed_is_no_candidate_until_it_is_heard_again(autojump_clock):
    async with simulation(7) as sim:
        await sim.start(0)
        await sim.start(1, 0)
        await sim.until(sim.all_know_all, 10)
        sim.kill(1)
        mesh = sim.meshes[0]
        await sim.until(lambda: mesh.candidates(NEED, 1, random.Random(1)) == [], 2)
        assert mesh.directory.why_nobody(NEED) == {"unreachable": 1}
        with pytest.raises(TransportError, match="refused"):
            await mesh.connect(key(1))
        await sim.start(1, 0)
        await sim.until(lambda: mesh.candidates(NEED, 1, random.Random(1)) != [], 5)
        await mesh.connect(key(1))


async def test_of_many_who_want_a_peer_that_is_gone_one_dials_and_all_hear_why_it_failed(autojump_clock):
    async with simulation(9) as sim:
        await sim.start(0)
        await sim.start(1, 0)
        await sim.until(sim.all_know_all, 10)
        mesh, dialled, reasons = sim.meshes[0], [], []
        sim.kill(1)
        await sim.until(lambda: key(1) not in mesh.network.peers(), 2)

        async def dial(address):
            dialled.append(address)
            await trio.sleep(1)
            raise TransportError("nobody there")

        async def connect():
            try:
                await mesh.connect(key(1))
            except TransportError as error:
                reasons.append(str(error))

        mesh.dial = dial
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(connect)
            await trio.sleep(0.5)
            with pytest.raises(TransportError, match="nobody there"):  # an address that nobody dials yet
                await mesh._dial(key(1), ["elsewhere"])
        assert (len(dialled), dialled.count("elsewhere")) == (2, 1)
        assert [("nobody there" in reason) for reason in reasons] == [True] * 20


async def test_a_search_ends_with_the_mesh(autojump_clock):
    async with simulation(10) as sim:
        mesh = await sim.start(0)
        await sim.start(1, 0)
        await sim.until(sim.all_know_all, 10)
        sim.fabric.freeze(key(1))  # it answers nothing: the search goes on for a while
        found = []

        async def find():
            found.append(await mesh.find(NEED, 10))

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(find)
                await trio.sleep(0.1)
                assert found == []
                sim.stop(0)
            await find()
        assert len(found) == 2


async def test_a_changed_offer_is_known_to_all_within_seconds_and_seldom_sent(autojump_clock):
    async with simulation(8) as sim:
        await sim.start(0)
        for number in range(1, 20):
            await sim.start(number, 0)
        await sim.until(sim.all_know_all, 10)
        changed = sim.meshes[4]
        before = sim.meshes[11].directory.get(key(4)).advert.seq
        published = 0
        for free in range(100):
            changed.set_offer([DeviceOffer("wasm-1", 512, 100, 100 - free)], lending=True, price=7)
            await trio.sleep(0.05)
            now = sim.meshes[11].directory.get(key(4)).advert.seq
            published, before = published + (now != before), now
        assert published <= 6  # five seconds at no more than one a spacing (2 s for 20 nodes)
        await sim.until(
            lambda: all(mesh.directory.get(key(4)).advert.devices[0].free_slots == 1 for mesh in sim.meshes.values()),
            10,
        )
        assert sim.meshes[11].directory.get(key(4)).advert.price == 7


async def test_a_node_whose_clock_was_set_back_outbids_what_it_said_before(autojump_clock):
    async with simulation(9) as sim:
        await sim.start(0)
        sim.skew_s[1] = 50
        await sim.start(1, 0)
        await sim.until(sim.all_know_all, 10)
        sim.kill(1)
        sim.skew_s[1] = 0
        mesh = await sim.start(1, 0, offer=Offer())
        await sim.until(lambda: not sim.meshes[0].directory.get(key(1)).advert.lending, 10)
        assert mesh.directory.own_seq_seen > 0


async def test_a_node_whose_clock_was_set_back_by_hours_says_that_it_leaves(autojump_clock):
    async with simulation(10) as sim:
        await sim.start(0)
        await sim.start(1, 0)
        await sim.until(sim.all_know_all, 10)
        sim.skew_s[1] = -24 * 3600
        sim.stop(1)
        await trio.testing.wait_all_tasks_blocked()


async def test_a_full_first_peer_makes_room_for_newcomers_but_not_at_the_cost_of_those_in_use(autojump_clock):
    config = MeshConfig(connections_high=16, settle_s=4)
    limits = NetworkLimits(connections_max=20)
    async with simulation(10) as sim:
        hub = await sim.start(0, limits=limits, config=config)
        worker = await sim.start(1, 0, limits=limits, config=config)
        await sim.until(sim.all_know_all, 10)
        with hub.in_use(key(1)), worker.in_use(key(0)):
            for number in range(2, 60):
                await sim.start(number, 0, limits=limits, config=config)
                await trio.sleep(0.5)
            await sim.until(sim.all_know_all, 60)
            assert key(1) in hub.network.peers()
        assert sim.is_one_mesh()
        assert hub.counters()["lost"] > 0


async def test_who_breaks_the_protocol_again_and_again_is_kept_out(autojump_clock):
    async with simulation(11) as sim:
        await sim.start(0)
        mesh = await sim.start(1, 0)
        await sim.until(sim.all_know_all, 10)
        for _ in range(8):
            mesh.report(key(0), PeerViolation("it lied"))
        await sim.until(lambda: key(0) not in mesh.network.peers(), 1)
        assert (mesh.counters()["violated"], mesh.network.counters()["peers_kept_out"]) == (8, 1)
        await trio.sleep(50)
        assert key(0) not in mesh.network.peers()
        await trio.sleep(50)  # both dial at least every 20 s
        assert key(0) in mesh.network.peers()


async def test_what_an_owner_revokes_reaches_its_other_nodes_through_strangers(autojump_clock):
    owner, wall = Identity(bytes([7]) * 32), Now(0, WALL_NS)
    async with simulation(12) as sim:

        def owners(number):
            return Owners("test", key(number), certify(owner, "test", key(number), now=wall, days=30))

        for number in range(8):
            first = [number - 1] if number else []
            await sim.start(number, *first, owners=owners(number) if number in (0, 4, 7) else None)
        await sim.until(sim.all_know_all, 20)
        assert sim.meshes[0].is_fellow(key(7))
        assert not sim.meshes[0].is_fellow(key(3))
        assert {entry.owner for entry in sim.meshes[3].directory.peers()} == {None, owner.key}
        assert sim.meshes[4].revoke(revoke(owner, "test", [key(7)], None, now=sim.meshes[4]._clock()))
        await sim.until(lambda: not sim.meshes[0].is_fellow(key(7)), 60)
        assert sim.meshes[0].is_fellow(key(4))
        await sim.until(lambda: not sim.meshes[7].owners.shown(sim.meshes[7]._clock()), 60)
