"""A node lends several devices: which ones, what the mesh is told of them, and that one is lost alone."""

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import trio
from market_world import InlinePool, knows, make_job, output_of, world
from wat_programs import numbers, program

from depin_node.bootstrap.config import NodeConfig
from depin_node.bootstrap.lent import OFFERS_BYTES_MAX, LentDevice, choose, offers, open_lent
from depin_node.client import Mesh, Out, RawKernel, quorum
from depin_node.compute.devices.benchmark import Speed
from depin_node.compute.devices.gpu.nvidia import Found, Gpu, Health, find_gpus
from depin_node.compute.jobs.scheduler import SchedulerConfig
from depin_node.compute.market.lender import Lender, Lending
from depin_node.compute.sandbox.config import PoolConfig, WorkerConfig
from depin_node.compute.sandbox.custody_events import CustodyLimits
from depin_node.compute.sandbox.gpu_pool import open_gpu_pool
from depin_node.core.errors import ConfigError
from depin_node.core.wire import encode
from depin_node.p2p.advert import DeviceOffer

SUPPORT = Path(__file__).parent.parent / "support"
GPUS = tuple(Gpu(uuid, "a product", 8 << 30, (8, 6), "550", (12, 4), 0, None) for uuid in ("GPU-1", "GPU-2", "MIG-3"))
WAIT_S = 120.0


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ((), ["cpu", "GPU-1", "GPU-2", "MIG-3"]),
        (("cpu",), ["cpu"]),
        (("gpu",), ["GPU-1", "GPU-2", "MIG-3"]),
        (("MIG-3", "cpu", "MIG-3"), ["MIG-3", "cpu"]),
        (("GPU-2", "gpu", "some.module:Device"), ["GPU-2", "GPU-1", "MIG-3", "some.module:Device"]),
    ],
    ids=["all", "processor", "every-gpu", "by-uuid", "each-once"],
)
def test_names_mean_devices(names, chosen):
    found = choose(names, Found(GPUS))
    assert [device.name for device in found] == chosen
    assert {device.is_named for device in found if device.gpu} <= {bool(names)}


@pytest.mark.parametrize(
    ("names", "found", "message"),
    [
        (("gpu",), Found((), "no NVIDIA driver"), "there is no gpu to lend: no NVIDIA driver"),
        (("GPU-9",), Found(GPUS), "there is no GPU-9 to lend: the driver knows GPU-1, GPU-2, MIG-3"),
    ],
    ids=["none", "another"],
)
def test_a_gpu_that_is_named_has_to_be_there(names, found, message):
    with pytest.raises(ConfigError, match=message):
        choose(names, found)


def devices(*kinds):
    """(class, slots, memory, model) of each."""
    return [LentDevice("", InlinePool(), Lending(*kind[:3]), kind[3], speed=Speed(90, 9, i)) for i, kind in kinds]


def test_the_advert_has_a_line_for_each_kind_of_device():
    lent = devices(*enumerate([("wasm-1", 3, 512, "a processor"), *[("strict-1", 1, 8192, "a product")] * 3]))
    lender = Lender([device.lending for device in lent])
    assert offers(lent, lender) == [
        DeviceOffer("wasm-1", 512, 3, 3, "a processor", 90, 9, 0),
        DeviceOffer("strict-1", 8192, 3, 3, "a product", 90, 9, 1),
    ]
    lender.withdraw(2)
    assert offers(lent, lender)[1].slots == 2
    for device in (1, 3):
        lender.withdraw(device)
    assert [offer.device_class for offer in offers(lent, lender)] == ["wasm-1"]


def test_the_advert_has_room_for_addresses_whatever_is_lent():
    lent = devices(*enumerate((f"cuda:sm_{i}:nvrtc-12.9:0123abcd", 1, 1 << i, "m" * 48) for i in range(12)))
    told = offers(lent, Lender([device.lending for device in lent]))
    assert sum(len(encode(offer)) for offer in told) <= OFFERS_BYTES_MAX
    assert len(told) == 8


# What a machine without a GPU does can be seen on such a machine only.
@pytest.mark.skipif(bool(find_gpus().gpus), reason="there is a GPU here")
async def test_without_a_gpu_the_processor_is_lent():
    with trio.fail_after(WAIT_S):
        async with open_lent(NodeConfig(lend=True, slots=2, memory_mib=77, task_seconds=60)) as lent:
            assert lent.left_out == []
            (device,) = lent.devices
            assert (device.name, device.lending) == ("cpu", Lending("wasm-1", 2, 77, seconds_max=60))


# What a machine without a GPU does can be seen on such a machine only.
@pytest.mark.skipif(bool(find_gpus().gpus), reason="there is a GPU here")
async def test_a_gpu_that_does_not_start_is_left_out_with_the_reason(monkeypatch):
    """The real worker, with CuPy, looks for a GPU that only we have heard of."""
    pytest.importorskip("cupy", reason="CuPy is not installed")
    monkeypatch.setattr("depin_node.bootstrap.lent.find_gpus", lambda: Found(GPUS[:1]))
    with trio.fail_after(WAIT_S):
        async with open_lent(NodeConfig(lend=True, slots=1)) as lent:
            assert [device.name for device in lent.devices] == ["cpu"]
            (left_out,) = lent.left_out
            assert (left_out.name, left_out.slots) == ("GPU-1", 0)
            assert "no NVIDIA driver" in left_out.unusable  # by the worker or by the driver, whoever is first


class Driver:
    """What the driver says of an invented GPU."""

    def __init__(self):
        self.now = Health("", False)

    def health(self):
        return self.now

    def context_holders(self):
        return frozenset()


# Its workers are real, and start confined: the layers for that are Linux's.
@pytest.mark.skipif(sys.platform != "linux", reason="workers are confined as on Linux")
async def test_a_gpu_that_is_lost_is_withdrawn_alone(tmp_path):
    """A worker's fault, and the driver's word, in the middle of a task; the workers are real processes."""
    driver, limits = Driver(), CustodyLimits(grace_s=0.1, context_s=0.5, look_s=0.05)
    worker = WorkerConfig("moody_device:MoodyDevice", (str(SUPPORT),), nice=0)
    async with world(tmp_path) as w, open_gpu_pool(PoolConfig(worker, spare=False), driver, limits=limits) as gpu:
        a, c = [await w.start(number, config=SchedulerConfig(suitable_s=1.0)) for number in (1, 3)]
        lent = [
            LentDevice("cpu", InlinePool(), Lending("wasm-1", 1, 512), "a processor"),
            LentDevice("GPU-1", gpu, Lending(await gpu.device_class(), 1, 2048), "a product"),
        ]
        b = await w.start(2, devices=lent)
        await knows(a, [b])
        await knows(c, [b])

        async def run(peer, key, device_class, mood=""):
            job, x = await make_job(peer, key=key, candidate=program(source=mood))
            job = msgspec.structs.replace(job, device_classes=(device_class,))
            view = await peer.requester.submit(job)
            return await peer.requester.wait(bytes.fromhex(view.id)), x

        view, _ = await run(a, "on the GPU", "moody", "none")
        assert view.state == "done"
        assert len({*(await output_of(a, view)).tolist()}) == 1  # the worker's process: one agreement, one worker

        async def lose():
            while gpu.custody._attempt is None:  # a real process begins: there is no event for it
                await trio.sleep(0.01)
            driver.now = Health("the driver has lost it", False)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            view, _ = await run(a, "lost with it", "moody", "hang:1")
        assert view.state == "failed"
        assert b.provider.lender.devices() == [0]
        processor, lost = b.provider.views()
        assert (processor.name, processor.slots, processor.unusable) == ("cpu", 1, "")
        assert (lost.name, lost.slots, lost.slots_free) == ("GPU-1", 0, 0)
        assert "the driver has lost it" in lost.unusable
        assert [offer.device_class for offer in offers(lent, b.provider.lender)] == ["wasm-1"]
        view, x = await run(c, "on the processor", "wasm-1")
        assert view.state == "done"
        np.testing.assert_array_equal(await output_of(c, view), x)


SAXPY = """extern "C" __global__ void saxpy(float a, const float* x, const float* y, float* z, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) z[i] = a * x[i] + y[i];
}"""


@pytest.mark.net
# Its workers are real, and start confined: the layers for that are Linux's.
@pytest.mark.skipif(sys.platform != "linux", reason="workers are confined as on Linux")
def test_one_node_serves_a_job_of_each_class(nodes, tmp_path):
    """The processor, and a GPU in all but its driver (``interpreted_gpu``), in one node process."""
    pytest.importorskip("nvidia.cuda_nvrtc", reason="NVRTC is not installed")
    config = tmp_path / "config.toml"
    config.write_text(f'devices = ["cpu", "interpreted_gpu:InterpretedGpu"]\ndevice_path = "{SUPPORT}"\n')
    requester = nodes.start()
    lender = nodes.start("--lend", "--slots", 1, "--peer", requester.address, "--config", config)
    named = {view["name"]: view for view in lender.json("devices")}
    assert {name: view["device_class"] for name, view in named.items()} == {
        "cpu": "wasm-1",
        "interpreted_gpu:InterpretedGpu": "strict-1",
    }
    assert all(view["layers"] for view in named.values())
    assert lender.ready["slots"] == 2
    x, y = numbers(256), numbers(256)[::-1].copy()
    with Mesh(requester.data_dir) as mesh:
        futures = {
            device_class: mesh.launch(
                RawKernel(SAXPY, "saxpy"),
                4,
                64,
                (np.float32(2.5), x, y, Out("float32", 256, tile=64), 256),
                device_class=device_class,
                verify=quorum(1, 1),
                shards=2,
            )
            for device_class in ("wasm-1", "strict-1")
        }
        results = {device_class: future.result(WAIT_S) for device_class, future in futures.items()}
    assert results["wasm-1"].tobytes() == results["strict-1"].tobytes()
    np.testing.assert_array_equal(results["wasm-1"], np.float32(2.5) * x + y)
    (peer,) = requester.json("peers")
    assert {device["device_class"] for device in peer["devices"]} == set(results)
    assert {receipt["device_class"] for receipt in lender.json("receipts", "list")} == set(results)
