"""The argument buffer: offsets, alignment, values that do not fit."""

from dataclasses import dataclass

import pytest

from depin_node.compute.translate.abi import ARGUMENT_BYTES, pack_arguments, slot_offsets


@dataclass(frozen=True)
class P:
    dtype: str
    lanes: int = 1
    pointer: bool = False
    name: str = "p"


def test_slots_begin_at_multiples_of_8_and_of_16_where_they_are_as_wide() -> None:
    slots = [
        P("uint8"),
        P("float32", pointer=True),
        P("float32", 4),
        P("bool"),
        P("float64", 2),
        P("float32", 3),
        P("int64"),
    ]
    assert slot_offsets(slots) == [0, 8, 16, 32, 48, 64, 80]


def test_values_are_little_endian_with_zeros_between() -> None:
    slots = [P("int16"), P("float32", pointer=True), P("uint32", 2), P("bool")]
    packed = pack_arguments(slots, [-2, 0x1234, (1, 2), True])
    assert packed.hex(" ", -8) == "feff000000000000 3412000000000000 0100000002000000 01"


def test_bytes_are_taken_as_they_are() -> None:
    assert pack_arguments([P("float32", 3)], [bytes(range(12))]) == bytes(range(12))


@pytest.mark.parametrize(
    ("slot", "value", "text"),
    [
        (P("uint8"), 256, "is not 1 × uint8"),
        (P("int32"), 1.5, "is not 1 × int32"),
        (P("float32"), 1e40, "is not 1 × float32"),
        (P("float32", 4), (1.0, 2.0), "is not 4 × float32"),
        (P("int32"), b"123", "3 bytes were given where 4 are its size"),
        (P("int32", pointer=True), -1, "is not an address"),
        (P("int32", pointer=True), b"12345678", "8 bytes were given"),
    ],
)
def test_a_value_that_does_not_fit_is_an_error(slot: P, value: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        pack_arguments([slot], [value])


def test_the_number_of_values_counts() -> None:
    with pytest.raises(ValueError, match="2 parameters, 1 values"):
        pack_arguments([P("int8"), P("int8")], [1])


def test_the_buffer_is_bounded() -> None:
    fits = [P("int64")] * (ARGUMENT_BYTES // 8)
    assert len(slot_offsets(fits)) == 512
    with pytest.raises(ValueError, match="at most 4096"):
        slot_offsets([*fits, P("bool")])


def test_the_device_imports_it_without_the_compiler() -> None:
    import subprocess
    import sys

    code = "import sys, depin_node.compute.translate.abi\n"
    code += "print(sorted(m for m in sys.modules if 'translate' in m or 'zig' in m))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert names.strip() == "['depin_node.compute.translate', 'depin_node.compute.translate.abi']"
