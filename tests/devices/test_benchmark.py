"""The micro-benchmark: what is shipped runs on every device, and numbers are made of times as they should."""

from itertools import count

import msgspec
import pytest
import trio
from device_programs import load, run_task

from depin_node.compute.devices.benchmark import (
    GROWTH,
    LONG_ENOUGH_S,
    RUNS,
    Speed,
    benchmark_program,
    family_work,
    measuring,
)
from depin_node.compute.devices.device import TaskLimits
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.programs.program import encode_program
from depin_node.compute.programs.validation import decode_program
from depin_node.compute.sandbox.config import PoolConfig, WorkerConfig
from depin_node.compute.sandbox.measuring import KEPT_S, processor_name, speed_of
from depin_node.compute.sandbox.pool import open_pool
from depin_node.core.wire import decode, encode
from depin_node.p2p.advert import DeviceOffer

LIMITS = TaskLimits(30.0, 1 << 30)


def test_the_shipped_program_is_valid_and_exact():
    program = decode_program(encode_program(benchmark_program()))
    assert program.exact
    assert program.tasks == sum(len(work) for work in family_work())
    assert program.units[0].cuda


def test_its_first_tasks_run():
    loaded = load(WasmDevice(), benchmark_program(), limits=LIMITS)
    arithmetic, doubles, _ = (len(work) for work in family_work())
    for task in (0, 1, arithmetic, arithmetic + doubles):
        run_task(loaded, task, LIMITS)


def play(seconds_of):
    """Return the speed of a device whose tasks take ``seconds_of(family, work)``, and the tasks that were run."""
    steps, families = measuring(), [(f, work) for f, works in enumerate(family_work()) for work in works]
    task, run = next(steps), []
    while True:
        run.append(task)
        try:
            task = steps.send(seconds_of(*families[task]))
        except StopIteration as finished:
            return finished.value, run


def test_speed_is_work_over_time_without_what_a_task_costs_anyway():
    rates = (4e9, 1e9, 10e9)
    speed, run = play(lambda family, work: 0.01 + work / rates[family])
    assert speed == Speed(4000, 1000, 10000)
    assert len(set(run)) < sum(len(work) for work in family_work())


def test_a_run_that_had_to_wait_for_the_processor_changes_nothing():
    undisturbed, runs = play(lambda family, work: 0.003 + work / 4e9)
    for disturbed in range(len(runs)):
        numbers = count()
        speed, _ = play(lambda family, work: 0.003 + work / 4e9 + 0.3 * (next(numbers) == disturbed))  # noqa: B023
        assert speed == undisturbed


def test_a_first_task_that_had_to_wait_makes_nobody_fast():
    speed, _ = play(lambda family, work: 0.07 if work in [works[0] for works in family_work()] else work / 4e9)
    assert all(4000 <= number <= 8001 for number in speed.numbers())


@pytest.mark.parametrize("rate", [1e8, 1e10, 1e13])
def test_it_takes_about_a_second_on_slow_and_fast_devices(rate):
    spent = []
    play(lambda family, work: spent.append(work / rate) or spent[-1])
    assert sum(spent) < 3 * RUNS * (LONG_ENOUGH_S * GROWTH * 1.5 + family_work()[0][0] / rate)


def test_a_device_that_does_not_do_what_it_is_given_has_a_speed_that_can_be_told():
    speed, _ = play(lambda family, work: 0.0)
    offer = DeviceOffer("wasm-1", 1024, 1, 1, "", *speed.numbers())
    assert decode(encode(offer), DeviceOffer, size_bytes_max=1024) == offer


async def test_a_measured_device_is_remembered(tmp_path):
    file = tmp_path / "speeds.json"
    with trio.fail_after(60):
        async with open_pool(PoolConfig(WorkerConfig(nice=0), spare=False)) as pool:
            speed = await speed_of(pool, processor_name(), file)
            assert speed.mflops_f32 > 0
            assert speed.mflops_f64 > 0
            assert speed.mbytes_s > 0
            file.write_text(file.read_text().replace(str(speed.mbytes_s), "123456789"))
            assert (await speed_of(pool, processor_name(), file)).mbytes_s == 123456789
            assert (await speed_of(pool, "another processor", file)).mbytes_s != 123456789
            days_old = msgspec.json.decode(file.read_bytes())
            for measured in days_old.values():
                measured["at_s"] -= KEPT_S
            file.write_bytes(msgspec.json.encode(days_old))
            assert (await speed_of(pool, processor_name(), file)).mbytes_s != 123456789
            file.write_text("{damaged")
            assert (await speed_of(pool, processor_name(), file)).mflops_f32 > 0
