"""Measuring a device in the workers that lend it, once a day for each device and version: the file remembers."""

import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec
import structlog
from blake3 import blake3

from depin_node.compute.devices.benchmark import Speed, benchmark_program, measuring
from depin_node.compute.programs.program import encode_program
from depin_node.compute.sandbox.gpu_pool import AnyPool
from depin_node.core.errors import DepinError

log = structlog.get_logger("depin_node.sandbox")
TASK_S: Final = 5.0
MEMORY_BYTES: Final = 512 << 20
KEPT_MAX: Final = 64
KEPT_S: Final = 86_400
"""So long a speed is remembered: the machine may have been busy for all of a measurement, or the device throttled."""
_PACKAGES: Final = ("wasmtime", "numpy", "cupy-cuda12x", "cupy-cuda13x")


class Measured(msgspec.Struct, frozen=True):
    """What is remembered of a device: its speed, and when it was measured, in wall seconds."""

    speed: Speed
    at_s: float


def processor_name() -> str:
    """Return what this machine's processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


async def speed_of(pool: AnyPool, model: str, remembered: Path | None) -> Speed:
    """Return the speed of one slot of a device; measured if the file does not know it, or has known it for a day. All
    zeros if it cannot be.

    Args:
        pool: of the device.
        model: which product it is, with its driver's version if it has one: part of what is remembered.
        remembered: a JSON file that need not exist, None to measure in any case.
    """
    device_class = await pool.device_class()
    key = _key(device_class, model)
    known = _read(remembered)
    if key in known:
        return known[key].speed
    try:
        speed = await _measure(pool)
    except DepinError as error:
        log.warning("a device could not be measured", device_class=device_class, reason=str(error))
        return Speed()
    if remembered is not None:
        _write(remembered, known, key, speed)
    return speed


async def _measure(pool: AnyPool) -> Speed:
    lease = await pool.acquire("benchmark")
    try:
        await lease.load(encode_program(benchmark_program()), {}, seconds=TASK_S, memory_limit_bytes=MEMORY_BYTES)
        results, steps = lease.results(), measuring()
        task = next(steps)
        while True:
            await lease.submit([(task.to_bytes(16, "little"), task)])
            result = await anext(results)
            if result.error:
                raise result.error
            lease.release(result.attempt)
            try:
                task = steps.send(result.duration_ns / 1e9)
            except StopIteration as finished:
                speed: Speed = finished.value
                return speed
    finally:
        await lease.aclose()


def _key(device_class: str, model: str) -> str:
    versions = [platform.machine(), platform.release()]
    for package in _PACKAGES:
        try:
            versions.append(f"{package}={metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    program = encode_program(benchmark_program())
    return f"{device_class} {model} {blake3(' '.join(versions).encode() + program).hexdigest()[:16]}"


def _read(path: Path | None) -> dict[str, Measured]:
    if path is None:
        return {}
    try:
        known = msgspec.json.decode(path.read_bytes(), type=dict[str, Measured])
    except (OSError, msgspec.DecodeError):  # not there, or damaged: measured again
        return {}
    now_s = time.time()
    return {key: measured for key, measured in known.items() if 0 <= now_s - measured.at_s < KEPT_S}


def _write(path: Path, known: dict[str, Measured], key: str, speed: Speed) -> None:
    newest = dict([*known.items(), (key, Measured(speed, time.time()))][-KEPT_MAX:])
    try:
        path.write_bytes(msgspec.json.encode(newest))
    except OSError as error:
        log.warning("a device's speed cannot be remembered", file=str(path), reason=str(error))
