"""The devices that a node lends: chosen, opened, and told of.

The configuration names them: ``cpu``, ``gpu`` for every GPU and MIG instance, or one of these by its UUID; a class in
a module is for tests and experiments. Named ones have to work, or the node does not start. Where none is named, all is
lent that can be: the processor, and each GPU that reproduces the known answers; one that does not, or does not start,
is left out, and ``depin-node devices`` tells why. Each device has its pool, its custody if it is a GPU, its slots and
its meter: what befalls one does not touch the others.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import structlog
import trio

from depin_node.bootstrap.config import NodeConfig
from depin_node.compute.devices.benchmark import Speed
from depin_node.compute.devices.gpu.cuda import STRICT_CLASS
from depin_node.compute.devices.gpu.nvidia import Found, Gpu, find_gpus
from depin_node.compute.devices.power import Meter, PowerShare, find_meter
from depin_node.compute.market.lender import Lender, Lending
from depin_node.compute.sandbox.gpu_pool import AnyPool, DriverProbe, gpu_config, open_gpu_pool
from depin_node.compute.sandbox.measuring import processor_name, speed_of
from depin_node.compute.sandbox.pool import PoolConfig, WorkerConfig, open_pool
from depin_node.core.errors import ConfigError, ResourceError
from depin_node.core.text import printable
from depin_node.core.views import DeviceView
from depin_node.core.wire import encode
from depin_node.p2p.advert import DEVICES_MAX, MODEL_CHARACTERS_MAX, DeviceOffer

log = structlog.get_logger("depin_node.node")

CONTEXT_MIB = 768
"""Of a GPU's memory, for a context and the driver: what is left is lent. A context alone takes some hundreds."""
OFFERS_BYTES_MAX = 480
"""Of an advert, for devices: the rest is for addresses and the owner's certificate."""
_LENGTHS = (MODEL_CHARACTERS_MAX, 24, 12, 0)
PROCESSOR, EVERY_GPU = "cpu", "gpu"


@dataclass
class LentDevice:
    """One device. ``name`` is how the configuration calls it; ``speed`` is of one slot, all zeros until it is known."""

    name: str
    pool: AnyPool
    lending: Lending
    model: str = ""
    meter: Meter | None = None
    speed: Speed = field(default_factory=Speed)
    power: PowerShare = field(default_factory=PowerShare)

    def view(self, slots_free: int) -> DeviceView:
        """Return what the operator is told."""
        lending, layers, gone = self.lending, self.pool.layers(), self.pool.withdrawn()
        return DeviceView(
            lending.device_class,
            lending.memory_mib,
            0 if gone else lending.slots,
            slots_free,
            tuple(str(layer) for layer in layers if layer.active),
            tuple(str(layer) for layer in layers if not layer.active),
            self.model,
            self.speed.mflops_f32,
            self.speed.mflops_f64,
            self.speed.mbytes_s,
            f"withdrawn until the node starts again: {gone}" if gone else "",
            self.name,
        )


@dataclass(frozen=True)
class LentDevices:
    """All devices that are lent, and those that could not be, with the reasons."""

    devices: list[LentDevice]
    left_out: list[DeviceView]


@dataclass(frozen=True)
class _Chosen:
    """A device before it is opened. ``gpu`` is None for the processor; ``is_named``: it has to work."""

    name: str
    gpu: Gpu | None
    is_named: bool


def choose(names: Sequence[str], found: Found) -> list[_Chosen]:
    """Return the devices that the names mean, each once; without names all there are.

    Raises:
        ConfigError: a GPU is named that is not there.
    """
    if not names:
        return [_Chosen(PROCESSOR, None, True), *(_Chosen(gpu.uuid, gpu, False) for gpu in found.gpus)]
    chosen = dict[str, _Chosen]()
    by_uuid = {gpu.uuid: gpu for gpu in found.gpus}
    for name in names:
        gpus = list(by_uuid) if name == EVERY_GPU else [name] if _is_gpu(name) else []
        if _is_gpu(name) and not set(gpus) & set(by_uuid):
            known = ", ".join(by_uuid) or "none"
            raise ConfigError(f"devices: there is no {name} to lend: {found.reason or f'the driver knows {known}'}")
        chosen |= {uuid: _Chosen(uuid, by_uuid[uuid], True) for uuid in gpus}
        if not _is_gpu(name):
            chosen[name] = _Chosen(name, None, True)
    return list(chosen.values())


def _is_gpu(name: str) -> bool:
    return name != PROCESSOR and ":" not in name


@asynccontextmanager
async def open_lent(config: NodeConfig) -> AsyncIterator[LentDevices]:
    """Open what is to be lent, as long as the block runs; GPUs run their known answers all at once.

    Raises:
        ConfigError: a GPU is named that is not there.
        ResourceError: a device that is named cannot be used.
    """
    wants_gpus = not config.devices or any(map(_is_gpu, config.devices))
    chosen = choose(config.devices, await trio.to_thread.run_sync(find_gpus) if wants_gpus else Found(()))
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(_open(config, device)) for device in chosen]
        answers = list[LentDevice | ResourceError]([ResourceError("it was not asked")] * len(chosen))

        async def ask(index: int) -> None:
            try:
                answers[index] = await _learn(config, chosen[index], pools[index])
            except ResourceError as error:
                answers[index] = error

        async with trio.open_nursery() as nursery:
            for index in range(len(chosen)):
                nursery.start_soon(ask, index)
        lent, left_out = list[LentDevice](), list[DeviceView]()
        for device, answer in zip(chosen, answers, strict=True):
            if isinstance(answer, LentDevice):
                lent.append(answer)
            elif device.is_named or device.gpu is None:
                raise answer
            else:
                log.warning("a GPU is not lent", device=device.name, reason=str(answer))
                left_out.append(unusable(device.gpu, str(answer)))
        yield LentDevices(lent, left_out)


def unusable(gpu: Gpu, reason: str) -> DeviceView:
    """Return what the operator is told of a GPU that cannot be lent."""
    memory_mib = gpu.memory_bytes >> 20
    return DeviceView(gpu.architecture, memory_mib, 0, 0, model=gpu.name, unusable=reason, name=gpu.uuid)


@asynccontextmanager
async def _open(config: NodeConfig, device: _Chosen) -> AsyncIterator[AnyPool]:
    if device.gpu is not None:
        pool_config = replace(gpu_config(device.gpu), work_max=config.work_max)
        async with open_gpu_pool(pool_config, DriverProbe(device.gpu)) as gpu_pool:
            yield gpu_pool
        return
    worker = WorkerConfig()
    if device.name != PROCESSOR:
        worker = WorkerConfig(device=device.name, sys_path=(config.device_path,) if config.device_path else ())
    slots = config.slots_of_processor()
    async with open_pool(PoolConfig(worker, workers_max=slots, work_max=config.work_max)) as pool:
        yield pool


async def _learn(config: NodeConfig, device: _Chosen, pool: AnyPool) -> LentDevice:
    """Start a first worker: it tells the class. Raises ``ResourceError`` if it cannot, or the class is not wanted."""
    device_class, gpu = await pool.device_class(), device.gpu
    price, seconds = config.price_millicredits, config.task_seconds
    if gpu is None:
        lending = Lending(device_class, config.slots_of_processor(), config.memory_mib, price, seconds)
        return LentDevice(device.name, pool, lending, processor_name(), find_meter())
    if device_class != STRICT_CLASS and not device.is_named:
        raise ResourceError(
            f"its known answers came out wrong: it would be of class {device_class}; to lend it as that, "
            f"name it with --device {gpu.uuid}"
        )
    memory_mib = max(1, (gpu.memory_bytes >> 20) - CONTEXT_MIB)
    lending = Lending(device_class, 1, memory_mib, price, seconds)  # one agreement has all of it
    return LentDevice(device.name, pool, lending, gpu.name, find_meter(gpu))


def offers(devices: Sequence[LentDevice], lender: Lender) -> list[DeviceOffer]:
    """Return what the advert says: devices that differ in nothing but their slots are one line of it. What does not fit
    is shortened: first the models, then the list."""
    kinds = dict[tuple[str, int, str], DeviceOffer]()
    for index in lender.devices():
        device, lending = devices[index], devices[index].lending
        model = printable(device.model, length_max=MODEL_CHARACTERS_MAX)
        slots, free = lending.slots, lender.slots_free(index)
        speed = [device.speed.mflops_f32, device.speed.mflops_f64, device.speed.mbytes_s]
        same = kinds.get(kind := (lending.device_class, lending.memory_mib, model))
        if same is not None:
            slots, free = slots + same.slots, free + same.free_slots
            known = same.mflops_f32, same.mflops_f64, same.mbytes_s
            speed = [min(pair) or max(pair) for pair in zip(speed, known, strict=True)]
        kinds[kind] = DeviceOffer(lending.device_class, lending.memory_mib, slots, free, model, *speed)
    told = list(kinds.values())[:DEVICES_MAX]
    for length in _LENGTHS:
        short = [msgspec.structs.replace(offer, model=offer.model[:length]) for offer in told]
        if sum(len(encode(offer)) for offer in short) <= OFFERS_BYTES_MAX:
            break
    while sum(len(encode(offer)) for offer in short) > OFFERS_BYTES_MAX:
        short.pop()
    return short


async def measure(devices: Sequence[LentDevice], remembered: Path) -> None:
    """Find out how fast a slot of each device is, one after the other; meanwhile all are lent already."""
    for device in devices:
        try:
            device.speed = await speed_of(device.pool, device.model, remembered)
        except ResourceError as error:
            log.info("a device was not measured", device=device.name, reason=str(error))
