"""What is fuzzed, and what has to hold."""

import random
import re

from fuzzing import Finding, mutate, target
from kernel_cases import cases
from kernel_host import Host

from depin_node.compute.translate import CompileError, compile_kernel

CASES = cases()
HOST = Host()
DEADLINE_S = 20.0
_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")
_WORDS = (
    *(
        "if",
        "else",
        "for",
        "while",
        "do",
        "switch",
        "case",
        "break",
        "continue",
        "return",
        "goto",
        "struct",
        "template<class T>",
    ),
    *(
        "__shared__",
        "__device__",
        "__global__",
        "__constant__",
        "extern",
        "static",
        "const",
        "volatile",
        "auto",
        "typename",
    ),
    *(
        "int",
        "unsigned",
        "long long",
        "float",
        "double",
        "bool",
        "char",
        "void",
        "float4",
        "half",
        "complex<float>",
        "*",
        "&",
    ),
    *(
        "threadIdx.x",
        "blockIdx.y",
        "blockDim",
        "gridDim.z",
        "__syncthreads()",
        "__shfl_down_sync(~0u, 1, 1)",
        "atomicAdd",
    ),
    *(
        "0",
        "1",
        "-1",
        "0x7fffffff",
        "1e38f",
        "1.0",
        "'a'",
        '"s"',
        "nullptr",
        "sizeof",
        "this",
        "[]",
        "()",
        "{}",
        ";",
        ",",
        "#",
    ),
)


@target
def translator_tokens(chance: random.Random) -> bytes:
    """Kernels with tokens changed: the translator compiles them or says what is wrong, and what it compiles runs."""
    case = chance.choice(CASES)
    tokens, other = _TOKEN.findall(case.source), _TOKEN.findall(chance.choice(CASES).source)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.randrange(len(tokens))
        match chance.randrange(5):
            case 0:
                del tokens[at : at + chance.choice((1, 1, 1, 5, 20))]
            case 1:
                tokens[at:at] = tokens[at : at + chance.choice((1, 3, 10))]
            case 2:
                second = chance.randrange(len(tokens))
                tokens[at], tokens[second] = tokens[second], tokens[at]
            case 3:
                start = chance.randrange(len(other))
                tokens[at:at] = other[start : start + chance.choice((1, 5, 30))]
            case _:
                tokens[at] = f" {chance.choice(_WORDS)} "
    source = "".join(tokens)
    data = source.encode(errors="surrogatepass")
    try:
        kernel = compile_kernel(source, case.kernel or case.name, tuple(case.options), deadline_s=DEADLINE_S)
    except CompileError as error:
        if not str(error).isprintable() and any(not c.isprintable() for line in str(error).splitlines() for c in line):
            raise Finding("control characters in a message", data) from error
        return data
    except Exception as error:  # whatever it is, it is the finding
        raise Finding(f"{type(error).__name__}: {error}", data) from error
    if [p.pointer for p in kernel.parameters] == [
        hasattr(a, "nbytes") and hasattr(a, "ndim") and a.ndim > 0 for a in case.arguments
    ]:
        try:
            HOST.run(kernel, case.grid, case.block, case.arguments, shared_mem=case.shared_mem, fuel=10**8)
        except (*HOST.trap, ValueError):
            pass  # it trapped, or its parameters have other types now
        except Exception as error:  # as above
            raise Finding(f"running it: {type(error).__name__}: {error}", data) from error
    return data


@target
def translator_bytes(chance: random.Random) -> bytes:
    """Sources that are hardly text any more."""
    case = chance.choice(CASES)
    data = mutate(case.source.encode(), chance, chance.choice(CASES).source.encode())
    source = data.decode(errors="surrogateescape")
    try:
        compile_kernel(source, case.kernel or case.name, tuple(case.options), deadline_s=DEADLINE_S)
    except CompileError:
        pass
    except Exception as error:  # as above
        raise Finding(f"{type(error).__name__}: {error}", data) from error
    return data
