"""C++ to one WebAssembly module: clang's code generator, then wasm-ld, both from the ziglang wheel.

The C++ is our own text (print_cpp.py): nothing of it can name a file. The flags decide the bits: no fused operations,
no relaxed SIMD, integer overflow wraps, loops without end stay. The stack lies below all data, so that overflowing it
leaves the memory and traps.
"""

from depin_node.compute.programs.module import CANONICAL_NAME
from depin_node.compute.translate.errors import CompileError, Diagnostic
from depin_node.compute.translate.frontend import HEADERS
from depin_node.compute.translate.toolchain import Toolchain

MODULE_BYTES_MAX = 4 << 20
_START_SECTION = 8
STACK_BYTES = 256 << 10
GENERATE = (
    # What clang's driver passes where it was built without assertions, which saves a twentieth: the object is the same.
    *("clang", "-cc1", "-disable-free", "-clear-ast-before-backend", "-disable-llvm-verifier", "-discard-value-names"),
    *("-x", "c++", "-std=c++20", "-triple", "wasm32-unknown-unknown", "-emit-obj", "-O2"),
    *("-mrelocation-model", "static"),  # addresses are constants: the linker knows where the memory begins
    *("-vectorize-loops", "-vectorize-slp", "-target-cpu", "generic", "-target-feature", "+simd128"),
    *("-target-feature", "+bulk-memory", "-target-feature", "+nontrapping-fptoint", "-target-feature", "+sign-ext"),
    *("-ffreestanding", "-fno-builtin", "-ffp-contract=off", "-fwrapv", "-fno-finite-loops", "-relaxed-aliasing"),
    *("-nostdsysteminc", "-nobuiltininc", "-nostdinc++", "-w", "-fno-caret-diagnostics", "-fno-ident"),
    *("-mllvm", "-inline-threshold=1000"),
    # Each turn of a loop costs the engine's look at fuel and clock, and what its registers do not hold: SIMD loops take
    # up to eight vectors at a turn: in eleven of twelve kernels a tenth to a third fewer instructions for each (x86).
    *("-mllvm", "-force-target-max-vector-interleave=8", "-mllvm", "-force-target-num-vector-regs=32"),
    *("-mllvm", "-small-loop-cost=120"),
    # A loop over threads is vectorised on our word that they do not depend on each other. Where LLVM gathers accesses
    # of a stride into groups, it then keeps no order within one either: a thread read what was there before its store.
    *("-mllvm", "-enable-interleaved-mem-accesses=false"),
)
LINK = ("wasm-ld", "--no-entry", "--import-memory", "--stack-first", "-z", f"stack-size={STACK_BYTES}", "-s")


CANONICAL = bytes([0, 1 + len(CANONICAL_NAME), len(CANONICAL_NAME)]) + CANONICAL_NAME
"""A custom section without contents: the module makes every NaN canonical that it stores."""


def compile_cpp(text: str, tools: Toolchain, *, trial: bool = False, canonical: bool = False) -> bytes:
    """Return the module of a C++ text; its variant for a trial runs backwards over other memory (runtime.h).

    ``canonical``: it makes every NaN canonical that it stores, and says so.

    Raises:
        CompileError: it exhausted the compiler, or the module is too large.
    """
    (tools.folder / "kernel.cpp").write_text(text)
    variant = ("-DCUDA_TRIAL",) if trial else ()
    outcome = tools.run(*GENERATE, *variant, "-I", str(HEADERS), "-o", "kernel.o", "kernel.cpp")
    if outcome.status == 0:
        outcome = tools.run(*LINK, "-o", "kernel.wasm", "kernel.o")
    if outcome.status:
        raise tools.crash(outcome)
    module = _without_start((tools.folder / "kernel.wasm").read_bytes()) + (CANONICAL if canonical else b"")
    if len(module) > MODULE_BYTES_MAX:
        text = f"the compiled kernel has {len(module)} bytes, at most {MODULE_BYTES_MAX} are allowed: make it smaller"
        raise CompileError([Diagnostic(text)], tools.filename)
    return module


def _without_start(module: bytes) -> bytes:
    """Drop the start section, if any.

    With an imported memory wasm-ld makes a start function that zeroes what has no initial value. Ours arrives as zeros,
    and devices refuse start functions: they would run before anything is in place.
    """
    kept, at = bytearray(module[:8]), 8
    while at < len(module):
        size, shift, body = 0, 0, at + 1
        while True:
            size |= (module[body] & 0x7F) << shift
            shift, body = shift + 7, body + 1
            if module[body - 1] < 0x80:
                break
        if module[at] != _START_SECTION:
            kept += module[at : body + size]
        at = body + size
    return bytes(kept)
