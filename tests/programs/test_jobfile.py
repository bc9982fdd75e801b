import dataclasses
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from depin_node.compute.jobs.job import AGREED_AUDITS, Quorum
from depin_node.compute.programs.binding import bind
from depin_node.compute.programs.generated.parameters import C_TYPES
from depin_node.compute.programs.jobfile import load_job
from depin_node.compute.programs.kernel import Along, In, InOut, Out, RawKernel
from depin_node.compute.programs.program import encode_program
from depin_node.core.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent

GOOD = """
name = "shade"
[kernel]
file = "shade.cu"
name = "shade"
[launch]
grid = ["ceil(cols / 16)", "ceil(rows / 16)"]
block = [16, 16]
[args]
z = { in = "dem.npy" }
shade = { out = "float32", shape = ["rows", "cols"], tile = [16, 16] }
again = { inout = "more.npz:state", tile = ["one * 4"] }
rows = { int32 = "z.shape[0]" }
cols = { int32 = "z.shape[1]" }
one = { uint8 = 1 }
cell = { float32 = 90.0 }
sun = { float32 = [0.5, "rows", 1] }
on = { bool = true }
[shards]
by = "blocks"
count = 16
[verify]
policy = "quorum"
k = 2
n = 3
[limits]
seconds = 60
memory_mib = 512
"""


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "dem.npy", np.arange(40 * 50, dtype="int16").reshape(40, 50))
    np.savez(tmp_path / "more.npz", state=np.zeros(7), other=np.ones(3))
    (tmp_path / "shade.cu").write_text('extern "C" __global__ void shade() {}')
    (tmp_path / "binary.cu").write_bytes(b"\xff\xfe")
    (tmp_path / "text.npy").write_text("not an array")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 broken")
    return tmp_path


def write(folder, text):
    (folder / "job.toml").write_text(text)
    return folder / "job.toml"


def test_a_complete_file(folder):
    job = load_job(write(folder, GOOD))
    assert (job.name, job.kernel.name) == ("shade", "shade")
    assert job.kernel.filename == str(folder / "shade.cu")
    assert (job.grid, job.block, job.shared_mem) == ((4, 3), (16, 16), 0)
    assert (job.shards, job.policy, job.seconds, job.memory_mib) == (16, Quorum(2, 3, AGREED_AUDITS), 60, 512)
    assert list(job.args) == ["z", "shade", "again", "rows", "cols", "one", "cell", "sun", "on"]
    z, again = job.args["z"], job.args["again"]
    assert isinstance(z, In)
    assert z.array.shape == (40, 50)
    assert isinstance(again, InOut)
    assert (again.array.shape, again.tile) == ((7,), (4,))
    assert job.args["shade"] == Out("float32", (40, 50), (16, 16))
    assert [job.args[name] for name in ("rows", "cols", "one", "cell", "on")] == [40, 50, 1, 90.0, True]
    assert job.args["sun"] == [0.5, 40, 1]


def test_what_may_be_left_out(folder):
    short = GOOD[: GOOD.index("[shards]")]
    job = load_job(write(folder, short))
    assert (job.shards, job.policy, job.seconds, job.memory_mib) == (1, Quorum(2, 3, AGREED_AUDITS), 60, 512)


MISTAKES = {
    "not TOML": (GOOD + "[", "job.toml: not valid TOML"),
    "deep TOML": ("a = " + "[" * 5000, "not valid TOML"),
    "unknown table": (GOOD + "[limit]\n", r"limit: unknown key \(did you mean limits\?\)"),
    "unknown key": (GOOD.replace("seconds", "second"), r"\[limits\] second: unknown key \(did you mean seconds\?\)"),
    "no name": (GOOD.replace('name = "shade"\n[kernel]', "[kernel]"), "toml: name: is missing: a key of the file"),
    "empty name": (GOOD.replace('name = "shade"\n[kernel]', 'name = ""\n[kernel]'), "1 to 64 printable"),
    "escape in the name": (GOOD.replace('"shade"\n[kernel]', '"\\u001b[31m"\n[kernel]'), "printable"),
    "table is a number": ("limits = 3\n" + GOOD[: GOOD.index("[limits]")], "limits: expected a table"),
    "no kernel": (GOOD.replace("[kernel]", "[kernels]"), r"kernels: unknown key \(did you mean kernel\?\)"),
    "no kernel file": (GOOD.replace("shade.cu", "missing.cu"), "cannot read .*missing.cu: No such file"),
    "kernel is binary": (GOOD.replace("shade.cu", "binary.cu"), "not UTF-8 text at byte 0"),
    "kernel is a folder": (GOOD.replace("shade.cu", "."), "cannot read"),
    "name of no file": (GOOD.replace("shade.cu", "\\u0000"), "cannot read .*: embedded null byte"),
    "options": (GOOD.replace('[launch]', 'options = "-DX"\n[launch]'), "expected a list of text"),
    "expression": (GOOD.replace("cols / 16", "colums / 16"), r"\[launch\] grid: .*'colums' is not known here"),
    "fraction": (GOOD.replace('"ceil(cols / 16)"', '"cols / 16"'), "25/8, not an integer"),
    "zero blocks": (GOOD.replace('"ceil(cols / 16)"', '"cols - 50"'), "'cols - 50' is 0; expected at least 1"),
    "float grid": (GOOD.replace('"ceil(cols / 16)"', "1.5"), "expected an integer or an expression"),
    "list in a grid": (GOOD.replace('"ceil(cols / 16)"', "[]"), r"expected an integer or an expression, not \[\]"),
    "four dimensions": (GOOD.replace("block = [16, 16]", "block = [1, 1, 1, 1]"), "one to three lengths"),
    "no file": (GOOD.replace("dem.npy", "den.npy"), r"\[args\] z: cannot read .*den.npy: No such file"),
    "long name": (GOOD.replace("dem.npy", 5000 * "z"), r"\[args\] z: cannot read .*zzz: File name too long"),
    "null in a name": (GOOD.replace("dem.npy", "\\u0000"), r"\[args\] z: .*embedded null byte"),
    "not an array file": (GOOD.replace("dem.npy", "text.npy"), r"z: .*text.npy is not a NumPy file: it does not begin"),
    "pickle": (GOOD.replace("dem.npy", "objects.npy"), "is not a NumPy file"),
    "broken archive": (GOOD.replace("more.npz", "broken.npz"), "is not a NumPy file"),
    "no such member": (GOOD.replace(":state", ":stat"), "has no 'stat'; it has: state, other"),
    "archive without member": (GOOD.replace(":state", ""), "several arrays"),
    "member of one array": (GOOD.replace('"dem.npy"', '"dem.npy:z"'), "holds one array"),
    "file is a number": (GOOD.replace('"dem.npy"', "5"), 'such as "a.npy", not 5'),
    "argument is a number": (GOOD.replace('{ in = "dem.npy" }', "5"), r"\[args\] z: expected"),
    "argument of no kind": (GOOD.replace("{ float32 = 90.0 }", "{ flaot32 = 90.0 }"), r"did you mean float32\?"),
    "argument of two kinds": (GOOD.replace("float32 = 90.0", "float32 = 90.0, int32 = 3"), r"\[args\] cell: expected"),
    "tile of an input": (GOOD.replace('"dem.npy" }', '"dem.npy", tile = [1] }'), "'tile' does not go with 'in'"),
    "unknown dtype": (GOOD.replace('out = "float32"', 'out = "float"'), "dtype 'float' is not known; known are: bool"),
    "list as dtype": (GOOD.replace('out = "float32"', 'out = []'), r"dtype \[\] is not known; known are: bool"),
    "no shape": (GOOD.replace('shape = ["rows", "cols"], ', ""), "an output needs its shape"),
    "text for a float": (GOOD.replace("90.0", '"ninety"'), "'ninety' is not known"),
    "number for a bool": (GOOD.replace("bool = true", "bool = 1"), "expected a bool, not 1"),
    "bool for a number": (GOOD.replace("uint8 = 1", "uint8 = true"), "expected a uint8, not True"),
    "later scalar": (GOOD.replace('"z.shape[0]"', '"cols"'), "'cols' is not known here"),
    "by rows": (GOOD.replace('"blocks"', '"rows"'), r'\[shards\] by: .rows. is not known; known are: "blocks", "axis"'),
    "halo by blocks": (GOOD.replace('count = 16', 'halo = 1'), r"\[shards\] halo: unknown key"),
    "cut by blocks": (GOOD.replace('"dem.npy" }', '"dem.npy", halo = 1 }'), r'args.z. halo: this goes with .*"axis"'),
    "slice by blocks": (GOOD.replace('"z.shape[0]"', '"shard.rows"'), "'shard' is not known here"),
    "no shards": (GOOD.replace("count = 16", "count = 0"), "from 1 to 1000000, not 0"),
    "other policy": (GOOD.replace('"quorum"', '"vote"'), "'vote' is not known"),
    "other keys": (GOOD.replace('"quorum"', '"lead"'), r"\[verify\] k: unknown key"),
    "large share": (GOOD.replace('"quorum"\nk = 2\nn = 3', '"confidence"\nf = 0.6'), "expected a number from"),
    "no majority": (GOOD.replace("n = 3", "n = 4"), "k = 2, n = 4: k must be"),
    "k above n": (GOOD.replace("k = 2", "k = 4"), "k = 4, n = 3: k must be"),
    "no time": (GOOD.replace("seconds = 60", "seconds = 0.5"), r"\[limits\] seconds: expected an integer from 1"),
    "true for a number": (GOOD.replace("seconds = 60", "seconds = true"), "expected an integer"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_name_file_key_and_way_out(folder, text, reason):
    assert text != GOOD
    with pytest.raises(ConfigError, match=reason) as caught:
        load_job(write(folder, text))
    assert str(folder) in str(caught.value)


def test_files_that_cannot_be_read(folder):
    with pytest.raises(ConfigError, match=r"cannot read .*none.toml: No such file"):
        load_job(folder / "none.toml")
    (folder / "large.toml").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="more than 1024 KiB"):
        load_job(folder / "large.toml")
    (folder / "binary.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_job(folder / "binary.toml")


def with_input(folder, file):
    return load_job(write(folder, GOOD.replace("dem.npy", file))).args["z"].array


def test_arrays_are_read_whichever_way_they_lie_in_their_file(folder):
    dem = np.load(folder / "dem.npy")
    (folder / "a folder").mkdir()
    np.save(folder / "a folder" / "columns: first.npy", np.asfortranarray(dem))
    np.savez(folder / "big endian.npz", state=dem.astype(">i2"))
    for file in ("a folder/columns: first.npy", "big endian.npz:state"):
        np.testing.assert_array_equal(with_input(folder, file), dem)


def test_files_that_hold_no_array_are_refused_in_words(folder):
    header = b"{'descr': '<i2', 'fortran_order': False, 'shape': (9999999999999, 99999999), }\n"
    (folder / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with zipfile.ZipFile(folder / "any.npz", "w") as archive:
        archive.writestr("text", b"hello")
    for file, reason in (("huge.npy", "huge.npy is not a NumPy file"), ("any.npz:text", "any.npz:text is no array")):
        with pytest.raises(ConfigError, match=reason):
            with_input(folder, file)


def test_a_pipe_is_refused_at_once(folder):
    os.mkfifo(folder / "dem.fifo")
    with pytest.raises(ConfigError, match=r"dem\.fifo is a pipe: an array is read from a file"):
        with_input(folder, "dem.fifo")


def test_the_example_compiles_and_binds(tmp_path):
    shutil.copytree(ROOT / "examples" / "hillshade", tmp_path / "hillshade")
    job = load_job(tmp_path / "hillshade" / "hillshade.toml")
    program = job.bind().program
    assert program.tasks == 24
    assert program.launch.grids == ((26, 22, 1),)
    assert program.exact
    renamed = dataclasses.replace(job, args={("zz" if name == "z" else name): a for name, a in job.args.items()})
    with pytest.raises(ConfigError, match=r"\[args\] has zz, shade.*did you mean z\?"):
        renamed.bind()
    wrong = dataclasses.replace(job, args={**job.args, "z": In(np.zeros((3, 3)))})
    with pytest.raises(ConfigError, match=r"hillshade.toml: z is const int16\*, its array is float64"):
        wrong.bind()


def test_scheduling_needs_no_numpy():
    """A node that only schedules and negotiates stays small: numpy and wasmtime are for workers and clients."""
    code = (
        "import sys, depin_node.compute.programs.program, depin_node.compute.programs.shards, "
        "depin_node.compute.sandbox.pool; print([m for m in ('numpy', 'wasmtime') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


STEPS = """
name = "several"
[kernels.shade]
file = "shade.cu"
[kernels.other]
file = "shade.cu"
name = "shade"
options = ["-DX"]
[arrays]
z = { in = "dem.npy", whole = true }
a = { inout = "more.npz:state" }
b = { temp = "float64", shape = ["a.size"] }
p = { partial = "int32", shape = "cols" }
on = { out = "int32", shape = 1, whole = true }
[numbers]
cols = "z.shape[1]"
mine = "shard.rows * cols"
[[steps]]
repeat = 3
[[steps.steps]]
launch = "shade"
grid = ["ceil(mine / 16)", 2]
block = 16
args = ["z", "a", "mine", 0.5]
radius = 1
[[steps.steps]]
swap = ["a", "b"]
[[steps]]
until = "on"
max = 4
steps = [{ launch = "other", grid = 1, block = 1, args = ["p", "on"] }]
[combine]
how = "sum"
[shards]
by = "axis"
count = 7
"""


def test_a_file_of_several_steps_is_read_before_anything_is_compiled(folder):
    job = load_job(write(folder, STEPS))
    assert (job.shards, job.along, job.kernel) == (7, Along(0), None)
    assert [(b.name, b.role, b.shape) for b in job.builder.buffers] == [
        ("z", "in", (40, 50)), ("a", "inout", (7,)), ("b", "temp", (7,)), ("p", "out", (7, 50)), ("on", "out", (1,)),
    ]  # fmt: skip
    assert job.builder.names(3)["mine"] == 50
    with pytest.raises(ConfigError, match=r"job.toml: shade takes 0 arguments \(\), 4 were given"):
        job.bind()


STEP_MISTAKES = {
    "no arrays": (
        STEPS[: STEPS.index("[arrays]")] + STEPS[STEPS.index("[numbers]") :],
        r"arrays: is missing: the table \[arrays\]",
    ),
    "no steps": (STEPS[: STEPS.index("[[steps]]")] + STEPS[STEPS.index("[shards]") :], "steps: is missing"),
    "kernel and kernels": (STEPS + '[kernel]\nfile = "shade.cu"\n', "kernel: unknown key"),
    "kernel": (STEPS.replace('launch = "shade"', 'launch = "shape"'), r"no kernel 'shape' \(did you mean shade\?\)"),
    "array": (STEPS.replace('swap = ["a", "b"]', 'swap = ["a", "bb"]'), r"swap: there is no array 'bb'"),
    "three to swap": (STEPS.replace('swap = ["a", "b"]', 'swap = ["a", "b", "z"]'), "the names of two arrays"),
    "kind of step": (STEPS.replace("swap =", "swop ="), r"steps are one of launch, .*did you mean swap\?"),
    "key of a step": (STEPS.replace("radius = 1", "radios = 1"), r"radios: unknown key \(did you mean radius\?\)"),
    "two kinds": (STEPS.replace("radius = 1", "repeat = 1"), "steps are one of"),
    "kind of array": (STEPS.replace("{ temp =", "{ tmp ="), r"arrays have one of .*did you mean temp\?"),
    "dtype": (STEPS.replace('temp = "float64"', 'temp = "double"'), "dtype 'double' is not known"),
    "number": (STEPS.replace('"z.shape[1]"', "1.5"), r"\[numbers\] cols: expected an integer or an expression"),
    "shape by slice": (STEPS.replace('["a.size"]', '["mine"]'), "'mine' is not known here"),
    "rows": (
        STEPS.replace(", whole = true }\na", " }\na"),
        r"\[arrays\] a: a has 7 rows along axis 0, the arrays before it 40",
    ),
    "no passes": (STEPS.replace("repeat = 3", "repeat = 0"), "expected an integer from 1"),
    "bound of until": (STEPS.replace("max = 4\n", ""), "max: is missing"),
    "combine": (STEPS.replace('how = "sum"', 'how = "mean"'), r"\[combine\] how: .*'mean' is not known"),
    "a node's output": (STEPS.replace('"dem.npy"', '"job:12ab:z"'), "goes with a running node only"),
}


@pytest.mark.parametrize(("text", "reason"), STEP_MISTAKES.values(), ids=STEP_MISTAKES)
def test_mistakes_in_steps_name_file_key_and_way_out(folder, text, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        load_job(write(folder, text))
    assert str(folder) in str(caught.value)


NUMBERS = {  # as TOML spells them, and as Python does
    "bool": ("true", True),
    "int8": ("-128", -128),
    "uint16": ("0xFF_FF", 65535),
    "int64": ("-9_223_372_036_854_775_808", -(2**63)),
    "uint64": ("18446744073709551615", 2**64 - 1),
    "int32": ("1e3", 1000),
    "float16": ("0.1", 0.1),
    "float32": ("-0.0", -0.0),
    "float64": ("-inf", float("-inf")),
    "complex64": ("[1, -2.5e0]", 1 - 2.5j),
    "complex128": ("nan", float("nan")),
}


def test_a_job_is_the_same_program_in_whichever_way_it_is_described(tmp_path):
    x = np.asfortranarray(np.arange(40, dtype="float32").reshape(10, 4))
    np.save(tmp_path / "x.npy", x)
    parameters = ", ".join(f"{C_TYPES[dtype]} {dtype}_" for dtype in NUMBERS)
    code = f"""#include <cupy/complex.cuh>
    #include <cupy/float16.cuh>
    extern "C" __global__ void all(const float* x, float* o, {parameters}, float3 v, long long n) {{
        if (threadIdx.x < n) o[threadIdx.x] = x[threadIdx.x] * v.y;
    }}"""
    (tmp_path / "all.cu").write_text(code)
    head = 'name = "all"\n[kernel{0}]\nfile = "all.cu"\nname = "all"\n'
    shards = '[shards]\nby = "axis"\ncount = 3\nhalo = 1\nedge = "constant"\nfill = nan\n'
    launch = 'grid = "ceil(shard.rows / 2)"\nblock = 64\n'
    arrays = 'x = { in = "x.npy" }\no = { out = "float32", shape = ["x.shape[0]", 4] }\n'
    numbers = "".join(f"{dtype}_ = {{ {dtype} = {text} }}\n" for dtype, (text, _) in NUMBERS.items())
    last = 'v = { float32 = [0.5, 1, -2] }\nn = { int64 = "(shard.rows + 2) * x.shape[1]" }\n'
    texts = ", ".join(text for text, _ in NUMBERS.values())
    args = f'args = ["x", "o", {texts}, [0.5, 1, -2], "(shard.rows + 2) * x.shape[1]"]\n'
    one = f"{head.format('')}[launch]\n{launch}[args]\n{arrays}{numbers}{last}{shards}"
    several = f'{head.format("s.all")}[arrays]\n{arrays}{shards}[[steps]]\nlaunch = "all"\n{launch}{args}'
    given = [x, Out("float32", (10, 4)), *(value for _, value in NUMBERS.values()), [0.5, 1, -2]]
    bound = bind(
        RawKernel(code, "all"),
        "ceil(shard.rows / 2)",
        64,
        [*given, "(shard.rows + 2) * 4"],
        shards=3,
        along=Along(0, 1, "constant", float("nan")),
    )
    for text in (one, several):
        found = load_job(write(tmp_path, text)).bind()
        assert encode_program(found.program) == encode_program(bound.program)
        for number, array in bound.inputs.items():
            np.testing.assert_array_equal(found.inputs[number], array)
            assert found.inputs[number].flags.c_contiguous
