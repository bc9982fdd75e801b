"""The same modules on another processor: emulated aarch64 gives equal bits and burns equal fuel."""

from pathlib import Path

import blake3
import pytest
from aarch64 import Unavailable, replay, set_up
from kernel_cases import cases


@pytest.mark.slow
def test_the_corpus_gives_the_same_bits_and_fuel_on_aarch64(host, build, tmp_path: Path) -> None:
    try:
        set_up()
    except Unavailable as error:
        pytest.skip(f"no aarch64 system to be had here: {error}")
    names, runs, wanted = [], [], []
    for case in (case for case in cases() if case.exact):
        for shape in case.shapes:
            kernel = build(case.source, case.kernel or case.name, *case.options, _shape=shape)
            arrays = host.run(kernel, case.grid, case.block, case.arguments, shared_mem=case.shared_mem)
            outputs = [blake3.blake3(array.tobytes()).hexdigest() for array in arrays]
            launch = {"grid": case.grid, "block": case.block, "arguments": list(case.arguments)}
            names.append(f"{case.name} ({shape})")
            runs.append({"kernel": kernel, **launch, "shared_mem": case.shared_mem})
            wanted.append({"fuel": host.fuel_used, "outputs": outputs})
    found = replay(runs, tmp_path)
    assert len(found) == len(runs) >= 40
    assert [name for name, here, there in zip(names, wanted, found, strict=True) if here != there] == []
