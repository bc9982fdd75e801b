"""The process that compiles strangers' CUDA text; its parent's side is ``devices.gpu.compiling``.

It loads NVRTC and compiles a line of our own, so that everything is open that will be needed; then the same layers as
around a wasm worker: no files, no network, no processes, limited memory and CPU time. No GPU: it could not open one.
"""

import json
import os
import sys
from typing import Any, Final, NoReturn

from depin_node.compute.devices.gpu import nvrtc
from depin_node.compute.devices.gpu.compiling import (
    HEADER,
    LOG_CHARACTERS_MAX,
    OUTPUT_BYTES_MAX,
    TEXT_BYTES_MAX,
    Compile,
    Compiled,
)
from depin_node.compute.sandbox.config import LAYERS
from depin_node.compute.sandbox.confine import limit_cpu, limit_data, seal
from depin_node.compute.sandbox.start import confine
from depin_node.core import wire

_WARM_UP: Final = 'extern "C" __global__ void warm_up(double* x) { x[threadIdx.x] = sqrt(x[0]) / x[1]; }'
_NICE: Final = 10


def _exactly(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = os.read(0, min(1 << 18, size - len(data)))
        if not part:
            os._exit(0)
        data += part
    return bytes(data)


def _send(body: bytes) -> None:
    view = memoryview(HEADER.pack(len(body)) + body)
    while view:
        view = view[os.write(1, view) :]


def _answer(request: Compile) -> Compiled:
    try:
        ptx, cubin = nvrtc.to_ptx(request.text, request.options), nvrtc.to_cubin(request.text, request.options)
    except (nvrtc.NvrtcError, ValueError) as error:  # a NUL or a lone surrogate in the text
        text = "".join(c if c.isprintable() or c == "\n" else " " for c in str(error))
        return Compiled("", b"", text[:LOG_CHARACTERS_MAX] or "NVRTC does not say why")
    if len(ptx) + len(cubin) > OUTPUT_BYTES_MAX - 64:
        return Compiled("", b"", f"it makes {len(ptx) + len(cubin)} bytes, at most {OUTPUT_BYTES_MAX} are allowed")
    return Compiled(ptx, cubin, "")


def main(arguments: list[str]) -> NoReturn:
    """Start from the one argument that ``Compiler`` gives: a JSON object."""
    config: dict[str, Any] = json.loads(arguments[0])
    architecture = f"--gpu-architecture=sm_{max(nvrtc.architectures())}"
    nvrtc.to_ptx(_WARM_UP, [architecture])
    nvrtc.to_cubin(_WARM_UP, [architecture])
    confine(config["parent"])
    os.nice(_NICE)
    layers = seal(LAYERS)
    limit_data(config["memory_bytes"])
    _send("; ".join(layer.name for layer in layers if layer.active).encode())
    while True:
        (size,) = HEADER.unpack(_exactly(HEADER.size))
        request = wire.decode(_exactly(size), Compile, size_bytes_max=TEXT_BYTES_MAX + (1 << 16))
        limit_cpu(config["seconds"])
        _send(wire.encode(_answer(request)))


if __name__ == "__main__":
    main(sys.argv[1:])
