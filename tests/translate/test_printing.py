"""``printf``: the text that C would print, in the order of the threads, in a log that is bounded and says so."""

import struct
from typing import Any

import numpy as np
import pytest

from depin_node.compute.translate.abi import LOG_BYTES

FLOATS = [0.0, -0.0, 1.0, 0.5, 1.5, 2.5, 0.125, 1e308, 5e-324, 2.2250738585072014e-308, 1e22, 999999.5, 99999.95]
FLOATS += [0.00009999995, 3e-310, 0.1, 123456789.123, float("inf"), float("-inf"), float("nan")]
FLOATS += list(np.frombuffer(np.random.default_rng(3).bytes(8 * 12), "f8"))
FLOAT_FORMATS = [
    "%f",
    "%.0f",
    "%#.0f",
    "%.1f",
    "%20.4f|",
    "%-20.4f|",
    "%020.5f",
    "%+.2f",
    "% .2f",
    "%e",
    "%.0e",
    "%#.0e",
]
FLOAT_FORMATS += ["%.15E", "%g", "%.3g", "%#.3g", "%.17g", "%G", "%.0g", "%.40f", "%25.17e", "%.350f"]
INTEGERS = [0, 1, -1, 7, -2147483648, 2147483647, 65535, 123456]
INTEGER_FORMATS = ["%d", "%i", "%5d|", "%-8d|", "%08d", "%+d", "% d", "%.5d", "%12.5d|", "%-12.5d|"]
UNSIGNED_FORMATS = ["%u", "%x", "%X", "%8x|", "%-8x|", "%08x", "%#x", "%#X", "%o", "%.6x"]


def printed(build: Any, host: Any, body: str, arguments: str = "", values: Any = (), block: int = 1) -> str:
    kernel = build(f"__global__ void k({arguments}) {{ {body} }}")
    host.run(kernel, [1], [block], list(values))
    return host.log.decode()


def test_doubles_are_printed_to_the_last_digit(build: Any, host: Any) -> None:
    body = "".join(f'printf("{form}\\n", x[i]);' for form in FLOAT_FORMATS)
    kernel = build(f"__global__ void k(const double* x, int i) {{ {body} }}")
    for place, value in enumerate(FLOATS):
        host.run(kernel, [1], [1], [np.array(FLOATS), place])
        lines = host.log.decode().split("\n")[:-1]
        for form, line in zip(FLOAT_FORMATS, lines, strict=True):
            if not np.isfinite(value):
                form = form.replace("%0", "%")  # C, unlike Python, puts no zeros before what is no number
            wanted = form % abs(value) if np.isnan(value) else form % value
            assert line == wanted, (form, value)


def test_hexadecimal_floats(build: Any, host: Any) -> None:
    body = 'printf("%a %.13a %A %.1a %#.0a %a", x[0], x[1], x[2], x[3], x[4], x[5]);'
    text = printed(build, host, body, "const double* x", [np.array([1.0, 0.1, 255.5, 1.03125, 1.5, 5e-324])])
    assert text == "0x1p+0 0x1.999999999999ap-4 0X1.FFP+7 0x1.0p+0 0x2.p+0 0x0.0000000000001p-1022"


def test_integers(build: Any, host: Any) -> None:
    forms = INTEGER_FORMATS + UNSIGNED_FORMATS
    kernel = build("__global__ void k(int x) {" + "".join(f'printf("{form}\\n", x);' for form in forms) + "}")
    for value in INTEGERS:
        host.run(kernel, [1], [1], [value])
        lines = host.log.decode().split("\n")[:-1]
        for form, line in zip(forms, lines, strict=True):
            number = value if form in INTEGER_FORMATS else value & 0xFFFFFFFF
            wanted = (form.replace("u", "d") % number).replace("0o", "0")
            if form.startswith("%#") and not number:
                wanted = "0"  # C, unlike Python, puts no prefix before zero
            assert line == wanted, (form, value)


def test_sizes_texts_and_all_the_rest(build: Any, host: Any) -> None:
    body = r"""
    printf("%hhd %hd %ld %lld %zu %llx %#o %c|%3c|%-3c|\n", c, c, w, w, (size_t)w, w, 8, 'A', 'b', 99);
    printf("%s %5s|%-5s|%.2s %s\n", "text", "abc", "abc", "abc", c > 5 ? "yes\t\"" : "no");
    printf("100%% %*d|%-*d|%.*f\n", 6, c, 6, c, 2, 1.0 / 3);
    printf("%d %p\n", printf("%d%d\n", 1, 2), (void*)0);
    printf("%g %f %d %d\n", 0.1f, h, true, s[0]);
    """
    text = printed(build, host, body, "int c, long w, float h, const short* s", [300, -5, 0.5, np.array([-7], "i2")])
    first, second, third, fourth, fifth, sixth = text.splitlines()
    assert first == f"44 300 -5 -5 {2**64 - 5} {2**64 - 5:x} 010 A|  b|c  |"
    assert second == 'text   abc|abc  |ab yes\t"'
    assert third == "100%    300|300   |0.33"
    assert (fourth, fifth, sixth) == ("12", "2 0x0", "0.1 0.500000 1 -7")


@pytest.mark.parametrize("shape", ["loop", "coroutine"])
def test_threads_print_in_their_order_and_results_stay(build: Any, host: Any, shape: str) -> None:
    source = """__global__ void k(float* x) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i >= 70) return;
      x[i] = i * 0.5f; printf("%d ", i); }"""
    kernel = build(source, _shape=shape)
    (x,) = host.run(kernel, [3], [32], [np.zeros(70, np.float32)])
    assert host.log.decode().split() == [str(i) for i in range(70)]
    assert (x == np.arange(70) * np.float32(0.5)).all()
    assert kernel.exact


def test_a_full_log_says_so(build: Any, host: Any) -> None:
    body = 'for (int i = 0; i < n; ++i) printf("%015d\\n", i);'
    kernel = build(f"__global__ void k(int n) {{ {body} }}")
    host.run(kernel, [1], [1], [1000])
    assert len(host.log) == 16000
    host.run(kernel, [1], [1], [1 << 16])
    assert len(host.log) == LOG_BYTES
    *lines, last, end = host.log.decode().splitlines()
    assert end == "[the log ends here: it holds 16 KiB]"
    assert [int(line) for line in lines] == list(range(len(lines)))
    assert "000000000001021".startswith(last)


def test_text_of_a_buffer_ends_at_the_log(build: Any, host: Any) -> None:
    data = np.frombuffer(b"from a buffer\0" + bytes(2), np.int8)
    assert printed(build, host, 'printf("%s.", x);', "const char* x", [data]) == "from a buffer."
    kernel = build('__global__ void k(const char* x) { printf("%s", x); }')
    host.run(kernel, [1], [1], [np.full(100_000, ord("a"), np.int8)])
    assert len(host.log) == LOG_BYTES


def test_only_modules_that_print_have_a_log(build: Any) -> None:
    silent = build("__global__ void k(int* x) { x[0] = 1; }").module
    loud = build('__global__ void k(int* x) { printf("%d", x[0]); }').module
    assert b"log" not in silent
    assert struct.pack("B", 3) + b"log" in loud
