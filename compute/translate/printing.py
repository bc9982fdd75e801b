"""``printf``: the format is a text in the source, so what each conversion wants is checked here, once.

The grammar is CUDA's (CUDA C++ Programming Guide, "Formatted Output"): ``%[flags][width][.precision][size]type`` with
types ``c d i o u x X p e E f F g G a A s %``; sizes are ``h``, ``hh``, ``l``, ``ll``, and ``z``, ``j``, ``t``: 64 bits.
headers/log.h formats in the module. An integer of another width than its conversion wants is cut or extended, as
printing the low bytes would do; any other mismatch prints garbage on a GPU and is refused here.
"""

from collections.abc import Sequence

from depin_node.compute.translate.types import F64, Pointer, Scalar, Type

ARGUMENTS_MAX = 32
"""As in CUDA."""
FORMAT_BYTES_MAX = 4096
_FLAGS, _SIZES = "-+ 0#", "hlzjt"
_WANTED = {
    **dict.fromkeys("cdiouxX", "an integer"),
    **dict.fromkeys("eEfFgGaA", "a float or double"),
    "s": "text",
    "p": "a pointer",
}


def conversions(text: str) -> list[str]:
    """Return the letter of the conversion of each argument; ``*`` for a width or precision.

    Raises:
        ValueError: the format is not understood.
    """
    found, at = list[str](), 0
    while (at := text.find("%", at)) >= 0:
        start, at = at, at + 1
        while text[at : at + 1] and text[at] in _FLAGS:
            at += 1
        for part in range(2):
            if part and text[at : at + 1] == ".":
                at += 1
            elif part:
                break
            if text[at : at + 1] == "*":
                found.append("*")
                at += 1
            else:
                while text[at : at + 1].isdigit():
                    at += 1
        sizes = at
        while text[at : at + 1] and text[at] in _SIZES:
            at += 1
        letter = text[at : at + 1]
        if letter == "%" and at == start + 1:
            at += 1
        elif letter and letter in _WANTED and text[sizes:at] in ("", "h", "hh", "l", "ll", "z", "j", "t"):
            found.append(letter)
            at += 1
        else:
            raise ValueError(f"printf: the conversion {text[start : at + 1]!r} is not supported")
    return found


def check_arguments(text: str, types: Sequence[Type]) -> None:
    """Check the arguments' types against the format.

    Raises:
        ValueError: they do not fit.
    """
    wanted = conversions(text)
    if len(text) > FORMAT_BYTES_MAX or len(types) > ARGUMENTS_MAX:
        raise ValueError(f"printf takes a format of {FORMAT_BYTES_MAX} bytes and {ARGUMENTS_MAX} arguments at most")
    if len(wanted) != len(types):
        raise ValueError(f"printf: the format has {len(wanted)} conversions, {len(types)} arguments are given")
    for letter, type_ in zip(wanted, types, strict=True):
        fits = isinstance(type_, Scalar) and type_.kind != "f"
        if letter in "eEfFgGaA":
            fits = type_ == F64
        elif letter in "ps":
            fits = isinstance(type_, Pointer) and (
                letter == "p" or (isinstance(type_.target, Scalar) and type_.target.bits == 8)
            )
        if not fits:
            what = _WANTED.get(letter, "an integer")
            raise ValueError(f"printf: %{letter} wants {what}" if letter != "*" else f"printf: * wants {what}")


def text_bytes(value: str, size: int) -> bytes:
    """Return what a string literal holds, from clang's form of it.

    Args:
        value: as clang prints it: in quotes, with escapes.
        size: of its array, with the zero at the end.

    Raises:
        ValueError: it is not plain text.
    """
    if not (value.startswith('"') and value.endswith('"') and value.isascii()):
        raise ValueError("only plain text is supported")
    inner, found, at = value[1:-1], bytearray(), 0
    simple = {"n": 10, "t": 9, "r": 13, "a": 7, "b": 8, "f": 12, "v": 11, "\\": 92, '"': 34, "'": 39, "?": 63}
    while at < len(inner):
        if inner[at] != "\\":
            found.append(ord(inner[at]))
            at += 1
        elif inner[at + 1] in simple:
            found.append(simple[inner[at + 1]])
            at += 2
        else:
            found.append(int(inner[at + 1 : at + 4], 8) & 0xFF)
            at += 4
    if len(found) + 1 != size:
        raise ValueError("only plain text is supported")
    return bytes(found)


def cpp_text(data: bytes) -> str:
    """Return a C++ string literal of these bytes: letters and digits as they are, all else as octal escapes."""
    return '"' + "".join(chr(b) if chr(b).isalnum() and b < 128 else f"\\{b:03o}" for b in data) + '"'
