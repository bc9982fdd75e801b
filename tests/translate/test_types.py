"""Clang's texts of types."""

import pytest

from depin_node.compute.translate.types import (
    F32,
    F64,
    I8,
    I32,
    I64,
    U8,
    U64,
    Array,
    Field,
    Name,
    Pointer,
    Record,
    Reference,
    Type,
    TypeTextError,
    align_of,
    homogeneous,
    parse_type,
    size_of,
)

SEEN: list[list[Name]] = []
RECORD = Record("R", "R0", fields=[Field("a", I8, "1"), Field("b", I64, "2"), Field("c", Array(F32, 3), "3")])


def parse(text: str) -> Type:
    SEEN.clear()

    def lookup(names: list[Name]) -> Type:
        SEEN.append(names)
        if names[-1].text == "nothing":
            raise TypeTextError("nothing")
        return RECORD

    return parse_type(text, lookup, lambda names: 7)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("int", I32),
        ("unsigned long", U64),
        ("long long", I64),
        ("const unsigned char", U8),
        ("const float *const __restrict", Pointer(F32, True)),
        ("float **", Pointer(Pointer(F32))),
        ("const float *const *", Pointer(Pointer(F32, True), True)),
        ("int[16][17]", Array(Array(I32, 17), 16)),
        ("float (*)[17]", Pointer(Array(F32, 17))),
        ("int (&)[4]", Reference(Array(I32, 4))),
        ("double &&", Reference(F64)),
        ("unsigned char[]", Array(U8, None)),
        ("int *(*)[2]", Pointer(Array(Pointer(I32), 2))),
        ("struct ns::R *", Pointer(RECORD)),
        ("(unnamed struct at k.cu:3:5)", RECORD),
        ("const typename Vec<float, 3>::value_type &", Reference(RECORD)),
    ],
)
def test_what_clang_prints_is_read(text: str, wanted: Type) -> None:
    assert parse(text) == wanted


def test_template_arguments_are_types_integers_and_constants() -> None:
    parse("a::V<const float *, -3, true, W<int, 4U>, 'x', nothing>::T")
    assert [n.text for n in SEEN[-1]] == ["a", "V", "T"]
    assert SEEN[-1][1].arguments == (Pointer(F32, True), -3, 1, RECORD, ord("x"), 7)


@pytest.mark.parametrize(
    "text", ["", "int (*)(float)", "float[n]", "__int128", "_Float16", "long double", "int &*x", "int)", "V<int"]
)
def test_the_rest_is_refused(text: str) -> None:
    with pytest.raises(TypeTextError):
        parse(text)


def test_layout_is_that_of_lp64() -> None:
    assert (size_of(RECORD), align_of(RECORD)) == (32, 8)
    assert size_of(Array(RECORD, 3)) == 96
    union = Record("U", "U0", is_union=True, fields=[Field("a", F64, "1"), Field("b", Array(I8, 11), "2")])
    assert (size_of(union), align_of(union)) == (16, 8)
    assert size_of(Record("E", "E0")) == 1
    assert size_of(Record("A", "A0", align=16, fields=[Field("a", F32, "1")])) == 16


def test_homogeneous_records_are_arrays_of_their_scalar() -> None:
    assert homogeneous(Array(Array(F32, 3), 2)) == (F32, 6)
    assert homogeneous(Record("P", "P0", fields=[Field("a", F32, "1"), Field("b", Array(F32, 2), "2")])) == (F32, 3)
    assert homogeneous(RECORD) is None
    padded = Record("Q", "Q0", align=16, fields=[Field("a", F32, "1")])
    assert homogeneous(padded) is None
