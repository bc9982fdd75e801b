"""Whether a GPU gives the known answers: all that is between a device and the class ``strict-1``."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from depin_node.compute.devices.gpu import known_answers, strict
from depin_node.compute.devices.gpu.compiling import Compiled
from depin_node.compute.devices.gpu.driver import Driver
from depin_node.compute.devices.gpu.known_answers import Case, Value
from depin_node.compute.devices.gpu.ptx import check_entry, why_not_strict
from depin_node.compute.translate.abi import pack_arguments


def wrong_answers(
    driver: Driver,
    compile_text: Callable[[str, Sequence[str]], Compiled],
    report: Callable[[int, Case, bool], None] | None = None,
) -> list[int]:
    """Run the shipped set on a device.

    Args:
        driver: of the device.
        compile_text: see ``cuda.CudaDevice``.
        report: called for each launch with its number, and whether its answer is right.

    Returns:
        The numbers of the launches whose answers differ; every one if what the compiler made of the text is not strict.

    Raises:
        DriverError, TaskError: the device or the compiler failed.
    """
    answers = known_answers.known_answers()
    threads = max(prod(case.block) for case in answers.cases)
    options = strict.options(driver.architecture, real=True)
    compiled = compile_text(strict.whole_text(answers.cuda, threads), options)
    is_strict = not why_not_strict(compiled.ptx)
    module = driver.load(compiled.ptx, compiled.cubin)
    wrong = []
    for number, case in enumerate(answers.cases):
        is_right = is_strict and _answer(driver, module, compiled.ptx, case) == case.digest
        if not is_right:
            wrong.append(number)
        if report is not None:
            report(number, case, is_right)
    return wrong


def _answer(driver: Driver, module: Any, ptx: str, case: Case) -> str:
    """Run one launch, all its blocks at once; they are few."""
    name = check_entry(ptx, case.entry, case.parameters)
    arguments = [(0).to_bytes(8, "little"), *(number.to_bytes(4, "little") for number in (*case.grid, case.shared_mem))]
    arrays, addresses = [], []
    try:
        for argument, parameter in zip(case.arguments, case.parameters, strict=True):
            value = known_answers.make_argument(argument)
            if isinstance(argument, Value):
                arguments.append(pack_arguments([parameter], [value]))
                continue
            address = driver.allocate(value.nbytes)
            addresses.append(address)
            arrays.append((address, value))
            driver.upload(address, memoryview(value.view(np.uint8)))
            arguments.append(address.to_bytes(8, "little"))
        driver.launch(driver.function(module, name), prod(case.grid), case.block, case.shared_mem, arguments)
        driver.wait()
        for address, value in arrays:
            driver.download(address, memoryview(value.view(np.uint8)))
    finally:
        for address in reversed(addresses):
            driver.free(address)
    return known_answers.digest([value for _, value in arrays])
