"""Makes ``compute/devices/benchmark.json`` of ``benchmark.cu``: ``python tests/support/make_benchmark.py``."""

from base64 import b64encode
from pathlib import Path

import msgspec

from depin_node.compute.devices import benchmark
from depin_node.compute.translate import compile_unit

NAMES = ("flops_f32", "flops_f64", "stream", "finish")


def main():
    file = Path(benchmark.__file__).with_suffix(".json")
    unit = compile_unit(file.with_suffix(".cu").read_text(), NAMES, filename="benchmark.cu")
    assert [kernel.entry for kernel in unit.kernels] == [0, 1, 2, 3]
    shipped = benchmark.Shipped(b64encode(unit.module).decode(), unit.cuda)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(shipped), indent=1) + b"\n")


if __name__ == "__main__":
    main()
