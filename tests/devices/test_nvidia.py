"""What is read from NVML, by nvidia-ml-py itself, out of an invented library: no GPU is needed, and none is shown."""

import pytest
from fake_nvml import DRIVER_NOT_LOADED, GIB, Card, Library

from depin_node.compute.devices.gpu.nvidia import Gpu, Health, context_holders, find_gpus, health
from depin_node.compute.devices.power import find_meter

pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
A100 = "NVIDIA A100-SXM4-40GB"


@pytest.fixture
def install(monkeypatch):
    def put(*cards, init=0):
        library = Library(*cards, init=init)
        monkeypatch.setattr(pynvml, "nvmlLib", library)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return library

    return put


def test_a_gpu_with_all_its_facts(install):
    install(Card("GPU-1", minor=3))
    assert find_gpus().gpus == (
        Gpu("GPU-1", "NVIDIA GeForce RTX 3060", 12 * GIB, (8, 6), "550.54.14", (12, 4), 3, 170),
    )
    assert find_gpus().gpus[0].architecture == "sm_86"


def test_what_is_not_reported_is_none(install):
    install(Card("GPU-1", power_mw=None, minor=None))
    (gpu,) = find_gpus().gpus
    assert (gpu.power_limit_w, gpu.minor) == (None, None)


def test_of_a_gpu_in_mig_mode_its_instances_are_listed(install):
    slots = {
        0: Card("MIG-a", f"{A100} MIG 3g.20gb", 20 * GIB, ids=(1, 0)),
        4: Card("MIG-b", f"{A100} MIG 2g.10gb", 10 * GIB, ids=(5, 0)),
    }
    install(Card("GPU-1", A100, 40 * GIB, (8, 0), mig=(1, 1), slots=slots), Card("GPU-2", mig=(0, 1)))
    first, second, third = find_gpus().gpus
    assert (first.uuid, first.memory_bytes, first.parent, first.instances) == ("MIG-a", 20 * GIB, "GPU-1", (1, 0))
    assert (second.uuid, second.instances, second.capability) == ("MIG-b", (5, 0), (8, 0))
    assert (third.uuid, third.parent) == ("GPU-2", "")  # MIG mode that is only pending


def test_the_energy_that_a_gpu_has_drawn(install):
    library = install(Card("GPU-1", energy_mj=7_000), Card("GPU-2", energy_mj=None), Card("GPU-3", lost=True))
    first, second = find_gpus().gpus
    meter = find_meter(first)
    assert (meter.name, meter.read()) == ("nvml", 7_000)
    library.cards[0].energy_mj += 500
    assert meter.read() == 7_500
    assert find_meter(second) is None


def test_a_lost_gpu_does_not_hide_the_others(install):
    install(Card("GPU-1", lost=True), Card("GPU-2"))
    found = find_gpus()
    assert [gpu.uuid for gpu in found.gpus] == ["GPU-2"]
    assert "GPU 0: GPU is lost" in found.reason


@pytest.mark.parametrize(
    ("cards", "init", "reason"), [((), 0, "knows no GPU"), ((), DRIVER_NOT_LOADED, "no NVIDIA driver: ")]
)
def test_a_machine_without_says_why(install, cards, init, reason):
    install(*cards, init=init)
    assert find_gpus().gpus == ()
    assert reason in find_gpus().reason


def test_health_tells_heat_memory_errors_and_loss(install):
    card = Card("GPU-1", reasons=0x4)  # a power cap is no heat
    install(card)
    (gpu,) = find_gpus().gpus
    assert health(gpu) == Health("", False)
    card.reasons = 0x44
    assert health(gpu) == Health("", True)
    card.ecc, card.reasons = 2, 0
    assert "2 uncorrectable memory errors" in health(gpu).broken
    card.lost = True
    assert "the driver has lost it: GPU is lost" in health(gpu).broken


def test_who_holds_a_context(install):
    card = Card("GPU-1")
    library = install(card)
    (gpu,) = find_gpus().gpus
    assert context_holders(gpu) == frozenset()
    card.pids = [77, 4242]
    assert context_holders(gpu) == {77, 4242}
    card.lost = True
    assert context_holders(gpu) is None
    library.init = DRIVER_NOT_LOADED
    assert context_holders(gpu) is None
