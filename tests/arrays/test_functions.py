"""The functions of the array API standard: values against NumPy and array-api-strict, many in one program."""

import itertools

import array_api_strict as strict
import numpy as np
import pytest
from traced import assert_as_standard, expected, run

from depin_node.compute.programs.arrays import TraceError, namespace, trace
from depin_node.compute.programs.arrays.dtypes import KINDS
from depin_node.compute.programs.arrays.words import WORDS

INF = float("inf")
REAL = [kind for kind, letter in KINDS.items() if letter != "c"]
TWO = {name for name, word in WORDS.items() if "{1}" in "".join(word.texts.values())}


def rng():
    return np.random.default_rng(2024)


def values(kind, second=False):
    """All corners of a dtype, and random numbers."""
    random, letter = rng(), KINDS[kind]
    if letter == "b":
        found = random.integers(0, 2, 64).astype(bool)
    elif letter in "iu":
        info = np.iinfo(kind)
        found = random.integers(info.min, info.max, 64, dtype=kind, endpoint=True)
        found[:32] = random.integers(0 if letter == "u" else -8, 9, 32)
        found[32:36] = info.min, info.max, 0, 1
    elif letter == "f":
        found = (random.standard_normal(64) * 10.0 ** random.integers(-3, 3, 64)).astype(kind)
        found[:14] = 0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 0.5, -0.5, 1.5, 2.5, -2.5, 1e30, 1e-30
    else:
        found = (random.standard_normal(64) + 1j * random.standard_normal(64)).astype(kind)
    return np.concatenate([found, found]) if not second else np.concatenate([random.permutation(found), found])


def stacked(xp, results):
    """One array of all results, by one kernel."""
    rows = xp.reshape(xp.arange(results[0].shape[0]), (-1, 1))
    found = results[0]
    for row, result in enumerate(results[1:], 1):
        found = xp.where(rows == row, result, found)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_elementwise_function_of_every_dtype(kind):
    names = [name for name, word in WORDS.items() if any(KINDS[kind] in kinds for kinds in word.texts)]
    x, y = values(kind), values(kind, second=True)
    if KINDS[kind] == "i":
        names.remove("pow")  # of negative exponents the standard says nothing: test_powers_of_integers

    def by_dtype(xp, x, y):
        results = {}
        for name in names:
            other = (
                xp.bitwise_and(y, 31) if "shift" in name and KINDS[kind] == "i" else y
            )  # negative ones are undefined
            result = getattr(xp, name)(x, other) if name in TWO else getattr(xp, name)(x)
            results.setdefault(result.dtype, []).append(result)
        return [xp.stack(group) if xp is strict else stacked(xp, group) for group in results.values()]

    def repeated(x, y):
        xp, rows = x.__array_namespace__(), len(names)
        return by_dtype(xp, *(xp.broadcast_to(a, (rows, a.size)) for a in (x, y)))

    for found, wanted in zip(run(repeated, x, y), expected(by_dtype, x, y), strict=True):
        assert found.dtype == wanted.dtype
        found = found[: len(wanted)]
        if wanted.dtype.kind in "biu":
            np.testing.assert_array_equal(found, wanted)
        else:
            loose = wanted.dtype.itemsize == (8 if wanted.dtype.kind == "c" else 4)
            np.testing.assert_allclose(found, wanted, rtol=2e-5 if loose else 1e-13, atol=1e-300)


def test_powers_of_integers():
    a, b = np.array([2, -2, 3, 0, 0, 1, -1, -1, 5, 7]), np.array([10, 3, 0, 0, 5, -4, -3, -4, -1, 22])
    found = run(lambda a, b: [a**b, (a.__array_namespace__().astype(a, "int8") ** 2)], a, b)
    assert found[0].tolist() == [1024, -8, 1, 1, 0, 1, -1, 1, 0, 7**22]
    assert found[1].tolist() == [4, 4, 9, 0, 0, 1, 1, 1, 25, 49]


@pytest.mark.parametrize("name", [n for n in WORDS if n in TWO])
def test_dtypes_promote_as_the_standard_says(name):
    for left, right in itertools.product(KINDS, KINDS):
        a, b = np.ones(2, left), np.ones(2, right)
        try:
            wanted = getattr(strict, name)(strict.asarray(a), strict.asarray(b)).dtype
        except TypeError:
            with pytest.raises(TraceError):
                trace(getattr(namespace, name), a, b)
        else:
            assert getattr(namespace, name)(namespace.asarray(a), namespace.asarray(b)).dtype.name == str(
                wanted
            ).removeprefix("array_api_strict."), (left, right)


@pytest.mark.parametrize("number", [True, 3, 2.5, 1j])
@pytest.mark.parametrize("kind", KINDS)
def test_python_numbers_take_the_dtype_of_the_array(kind, number):
    try:
        wanted = (strict.asarray(np.ones(2, kind)) * number).dtype
    except TypeError:
        with pytest.raises(TraceError):
            namespace.asarray(np.ones(2, kind)) * number
    else:
        assert (namespace.asarray(np.ones(2, kind)) * number).dtype == np.dtype(str(wanted).split(".")[-1])


def test_conversions_between_all_dtypes():
    targets = (*REAL, "complex64", "complex128")

    def convert(xp, x):
        found = []
        for source, target in itertools.product(REAL, targets):
            converted = xp.astype(xp.astype(x, getattr(xp, source)), getattr(xp, target))
            found.append(xp.astype(xp.real(converted) if "complex" in target else converted, xp.float64))
        return found

    x = np.array([0, 1, 2, 100, 3, 1])

    def repeated(x):
        xp = x.__array_namespace__()
        return stacked(xp, convert(xp, xp.broadcast_to(x, (len(REAL) * len(targets), 6))))

    np.testing.assert_array_equal(run(repeated, x)[0], expected(convert, x))


def test_floats_beyond_the_range_of_an_integer_end_there():
    x = np.array([300.0, -300.0, 1e10, -1e10, np.inf, -np.inf, 127.9, -128.9, 255.9, -0.9, np.nan])
    kinds = [kind for kind, letter in KINDS.items() if letter in "iu"]
    converted = run(lambda x: [namespace.astype(x, kind) for kind in kinds], x)
    for kind, found in zip(kinds, converted, strict=True):
        info = np.iinfo(kind)
        wanted = [min(max(int(v), info.min), info.max) for v in np.clip(np.nan_to_num(x), -1e30, 1e30)]
        assert found.tolist() == wanted, kind


@pytest.mark.parametrize(
    ("value", "kind"), [(300, "uint8"), (-1, "uint64"), (2**63, None), (INF, "int32"), (1j, "float64")]
)
def test_a_number_that_a_dtype_does_not_have_is_refused(value, kind):
    for make in (
        namespace.full,
        lambda _, value, dtype: namespace.full_like(namespace.ones(2), value, dtype or "int64"),
    ):
        with pytest.raises(TraceError, match="is not possible in an array of"):
            make((2,), value, dtype=kind)
    with pytest.raises(TraceError, match="299 is not possible"):
        namespace.arange(300, dtype="int8")
    assert namespace.full((2,), np.float32(0.5)).kind == "float32"


def test_manipulation():
    x = rng().standard_normal((5, 70, 3))
    assert_as_standard(
        lambda xp, x: [
            xp.reshape(x, (7, 150)),
            xp.permute_dims(x, (2, 0, 1)),
            xp.flip(x),
            xp.flip(x, axis=1),
            xp.roll(x, 7),
            xp.roll(x, (1, -2), axis=(0, 1)),
            xp.roll(x, 3, axis=1),
            xp.expand_dims(x, axis=1),
            xp.broadcast_to(x, (2, 5, 70, 3)),
            xp.repeat(x, 2, axis=1),
            xp.repeat(x, 3),
            xp.tile(x, (2, 1, 3)),
            xp.concat([x, x], axis=1),
            xp.concat([x, x[:, :1, :], x], axis=None),
            xp.stack([x, x + 1], axis=1),
            xp.moveaxis(x, 0, 2),
            xp.squeeze(x[:, :1, :], axis=1),
            *xp.unstack(x, axis=2),
            xp.reshape(xp.permute_dims(x, (1, 0, 2)), (-1, 6)),
            xp.reshape(xp.reshape(x, (5, 210)).T, (10, 105)),
            xp.tril(x),
            xp.triu(x, k=1),
            xp.tril(x[0, ...], k=-2),
        ],
        x,
    )


def test_indexing():
    x = rng().standard_normal((5, 70, 3))
    assert_as_standard(
        lambda xp, x: [
            x[0],
            x[..., 0],
            x[1:4, ::3],
            x[::-1, 5:40:4, -1],
            x[:, None, 3],
            x[-1, -1, -1],
            x[2, :, ::-1],
            x[:, 10:20][1:3, 2:5],
            xp.flip(x[1:])[0],
        ],
        x,
        namespace=np,
    )


def test_index_arrays():
    x, rows, columns = rng().standard_normal((5, 70, 3)), np.array([4, 0, -1, 2]), np.array([[0], [69], [-70]])
    assert_as_standard(
        lambda xp, x, i, j: [
            xp.take(x, i, axis=0),
            xp.take(x, j, axis=1),
            xp.take(xp.exp(x), i, axis=0),
            xp.take_along_axis(x, xp.broadcast_to(j[None, :, :], (5, 3, 3)), axis=1),
            x[i],
            x[:, j],
            x[:, :, i % 3],
            x[i, j],
        ],
        x,
        rows,
        columns,
        namespace=np,
    )


def test_reductions():
    x, i, u = (
        rng().standard_normal((5, 70, 3)),
        rng().integers(-100, 100, (5, 70, 3), "int8"),
        rng().integers(0, 9, (6, 130), "uint32"),
    )
    x[2, 3, 1] = np.nan
    assert_as_standard(
        lambda xp, x, i, u: [
            xp.sum(x, axis=0),
            xp.sum(x, axis=1),
            xp.sum(x[:2, ...], axis=(0, 2)),
            xp.sum(x, axis=-1, keepdims=True),
            xp.prod(x, axis=1),
            xp.max(x, axis=1),
            xp.min(x),
            xp.mean(x, axis=(1, 2)),
            xp.var(x, axis=1),
            xp.std(x, axis=0, correction=1, keepdims=True),
            xp.sum(i),
            xp.sum(i, axis=1),
            xp.prod(u[:, :3], axis=1),
            xp.max(i, axis=0),
            xp.min(u, axis=1),
            xp.any(i > 90, axis=1),
            xp.all(i > -101),
            xp.any(x[0, ...]),
            xp.all(u, axis=1),
            xp.argmax(x),
            xp.argmin(x, axis=1),
            xp.argmax(i, axis=1, keepdims=True),
            xp.argmax(u, axis=0),
            xp.count_nonzero(i, axis=0),
            xp.sum(u, dtype=xp.int64),
        ],
        x,
        i,
        u,
    )


def test_long_reductions_scans_and_sorts():
    x = rng().standard_normal((70, 1000))
    x[3, 7] = x.max()  # argmax has to take the first
    assert_as_standard(
        lambda xp, x: [
            xp.sum(x),
            xp.mean(x, axis=0),
            xp.max(x),
            xp.argmax(x),
            xp.std(x),
            xp.cumulative_sum(xp.reshape(x, (-1,))),
            xp.cumulative_sum(xp.reshape(x, (7, -1)), axis=1),
            xp.sort(xp.reshape(x, (-1,))),
            xp.argsort(xp.reshape(x, (-1,)), descending=True),
        ],
        x,
        rtol=1e-9,
        atol=1e-9,
    )


def test_scans():
    x, i = rng().standard_normal((5, 7, 3)), rng().integers(-100, 100, (5, 7, 3), "int8")
    assert_as_standard(
        lambda xp, x, i: [
            xp.cumulative_sum(x, axis=1),
            xp.cumulative_sum(i, axis=0, include_initial=True),
            xp.cumulative_prod(x[0, :, 0]),
            xp.cumulative_prod(x, axis=2, include_initial=True),
            xp.diff(x, axis=1),
            xp.diff(i, n=2, axis=1, prepend=i),
        ],
        x,
        i,
    )


def test_sorts_are_stable_and_nans_come_last():
    x = rng().standard_normal((7, 700)).astype("float32")
    x[:, ::50], x[:, 3], x[:, 5] = np.nan, -0.0, 0.0
    many, small = rng().integers(0, 50, (3, 1000)), rng().integers(-9, 9, (2, 5, 7), "int8")
    assert_as_standard(
        lambda xp, x, many, small: [
            xp.sort(x),
            xp.sort(x, axis=0),
            xp.argsort(x),
            xp.argsort(many, axis=1),
            xp.argsort(many, axis=1, descending=True),
            xp.sort(many, descending=True, axis=1),
            xp.sort(small, axis=1),
            xp.argsort(small, axis=0),
        ],
        x,
        many,
        small,
    )
    (zeros,) = run(lambda x: x.__array_namespace__().sort(x), np.array([0.0, -0.0, 0.0, -0.0], "float32"))
    assert np.signbit(zeros).tolist() == [False, True, False, True]
    (down,) = run(lambda x: x.__array_namespace__().sort(x, descending=True), np.array([1.0, np.nan, 3.0]))
    np.testing.assert_array_equal(down, [3.0, 1.0, np.nan])


def test_searching():
    s, x, i = np.sort(rng().standard_normal(100)), rng().standard_normal((5, 70, 3)), rng().integers(-9, 9, (4, 6))
    assert_as_standard(
        lambda xp, s, x, i: [
            xp.searchsorted(s, x[0, ...]),
            xp.searchsorted(s, x, side="right"),
            xp.searchsorted(xp.flip(s), x, sorter=xp.argsort(xp.flip(s))),
            xp.where(x > 0, x, -x),
            xp.where(i > 0, i, 2),
            xp.clip(x, -1, 1),
            xp.clip(i, 0, 5),
            xp.clip(x, xp.zeros((3,)), None),
        ],
        s,
        x,
        i,
    )


def test_functions_whose_shape_depends_on_data_take_a_size():
    x, y = np.array([[3, 0, 3], [1, 0, 7]]), np.array([1, 5, 7])

    def sized(x, y):
        xp = x.__array_namespace__()
        counts, inverse = xp.unique_counts(x, size=6, fill_value=-1), xp.unique_inverse(x, size=4)
        return [
            *xp.nonzero(x, size=6, fill_value=9),
            *xp.nonzero(x, size=2),
            xp.unique_values(x, size=2),
            counts.values,
            counts.counts,
            inverse.inverse_indices,
            *xp.unique_all(x, size=6, fill_value=-1),
            xp.isin(x, y),
            xp.isin(x, y, invert=True),
        ]

    rows, columns, few_rows, few_columns, two, found, counts, inverse, *every, inside, outside = run(sized, x, y)
    assert rows.tolist() == [0, 0, 1, 1, 9, 9]
    assert columns.tolist() == [0, 2, 0, 2, 9, 9]
    assert (few_rows.tolist(), few_columns.tolist()) == ([0, 0], [0, 2])
    assert two.tolist() == [0, 1]
    assert found.tolist() == [0, 1, 3, 7, -1, -1]
    assert counts.tolist() == [2, 1, 2, 1, 0, 0]
    np.testing.assert_array_equal(inverse, np.unique(x, return_inverse=True)[1].reshape(x.shape))
    for one, wanted in zip(every, (found, [1, 3, 0, 5, 6, 6], inverse, counts), strict=True):
        np.testing.assert_array_equal(one, wanted)
    np.testing.assert_array_equal(inside, np.isin(x, y))
    np.testing.assert_array_equal(outside, ~np.isin(x, y))


def test_creation():
    assert_as_standard(
        lambda xp, x: [
            xp.arange(5),
            xp.arange(2, 20, 3),
            xp.arange(0.0, 1.0, 0.1),
            xp.arange(10, 0, -3, dtype=xp.float32),
            xp.linspace(0, 1, 7),
            xp.linspace(1, 3, 8, endpoint=False, dtype=xp.float32),
            xp.linspace(-2.8, -3.6, 11, dtype=xp.int32),
            xp.eye(4),
            xp.eye(3, 5, k=1, dtype=xp.int16),
            xp.full((2, 3), 7),
            xp.full((2,), 1.5, dtype=xp.float32),
            xp.zeros(3),
            xp.ones((2, 2), dtype=xp.bool),
            xp.zeros_like(x),
            xp.full_like(x, 3),
            xp.empty((2,)) * 0,
            *xp.meshgrid(xp.arange(3), xp.arange(4)),
            *xp.meshgrid(xp.arange(3), xp.arange(4), indexing="ij"),
            xp.asarray([[1, 2], [3, 4]]),
            xp.asarray(3.5),
            xp.asarray(2**64 - 1, dtype=xp.uint64),
            xp.asarray(-(2**63)),
            xp.full((2,), xp.inf) * x[0, :2],
        ],
        rng().standard_normal((5, 7)),
    )


def test_complex_numbers():
    c = rng().standard_normal((4, 40)) + 1j * rng().standard_normal((4, 40))
    assert_as_standard(
        lambda xp, c: [
            c / (c + 1),
            xp.sum(c, axis=1),
            xp.prod(c, axis=1),
            xp.mean(c),
            xp.astype(c, xp.complex64),
            xp.cumulative_sum(c, axis=1),
            c * 2 + 1j,
            xp.where(xp.real(c) > 0, c, -c),
            xp.real(c) + c,
            c == c,
            xp.linalg.vector_norm(c, axis=1),
            xp.vecdot(c, xp.flip(c, axis=0)),
        ],
        c,
        rtol=1e-6,
    )


def test_generated_linear_algebra():
    x, i, j = rng().standard_normal((5, 70, 3)), rng().integers(-9, 9, (4, 5, 6)), rng().integers(-9, 9, (6, 3))
    assert_as_standard(
        lambda xp, x, i, j: [
            xp.matmul(i, j),
            i @ j[:, 0],
            xp.tensordot(i, j, axes=1),
            xp.vecdot(x, x),
            xp.vecdot(i, i, axis=-3),
            xp.vecdot(xp.astype(i, xp.int8) * 9, xp.astype(i, xp.int8) * 7),
            xp.linalg.outer(x[0, :, 0], x[1, :, 1]),
            xp.linalg.cross(x, xp.flip(x, axis=0)),
            xp.linalg.trace(x),
            xp.linalg.diagonal(x, offset=1),
            xp.linalg.diagonal(x[0, ...], offset=-2),
            xp.linalg.matrix_norm(x),
            xp.linalg.matrix_norm(x, ord=1),
            xp.linalg.matrix_norm(x, ord=INF, keepdims=True),
            xp.linalg.vector_norm(x),
            xp.linalg.vector_norm(x, axis=1, ord=1),
            xp.linalg.vector_norm(x, ord=3, axis=0),
            xp.linalg.vector_norm(x, ord=-INF, axis=0),
        ],
        x,
        i,
        j,
    )


def test_linear_algebra_of_the_library():
    x = rng().standard_normal((5, 70, 3))
    square = rng().standard_normal((2, 6, 6))
    assert_as_standard(
        lambda xp, x, a: [
            xp.matmul(xp.matrix_transpose(x), x),
            x[0, ...].T @ x[0, :, 0],
            xp.tensordot(x, x, axes=((0, 1), (0, 1))),
            xp.linalg.matrix_power(a, 5),
            xp.linalg.matrix_power(a, -2),
            xp.linalg.matrix_power(a[0, ...], 0),
            xp.linalg.inv(a),
            xp.linalg.det(a),
            xp.linalg.slogdet(a).logabsdet,
            xp.linalg.slogdet(a).sign,
            xp.linalg.solve(a, xp.flip(a)),
            xp.linalg.solve(a[0, ...], a[1, 0, :]),
            xp.linalg.cholesky(a @ xp.matrix_transpose(a)),
            xp.linalg.cholesky((a @ xp.matrix_transpose(a))[0, ...], upper=True),
            xp.linalg.eigvalsh(a + xp.matrix_transpose(a)),
            xp.linalg.eigh(a + xp.matrix_transpose(a)).eigenvalues,
            xp.linalg.qr(a).R,
            xp.linalg.qr(x, mode="complete").Q @ xp.linalg.qr(x, mode="complete").R,
            xp.linalg.svdvals(x),
            xp.linalg.svd(x, full_matrices=False).S,
            xp.abs(xp.linalg.svd(x).Vh),
            xp.linalg.pinv(x),
            xp.linalg.matrix_norm(x, ord=2),
            xp.linalg.matrix_norm(x, ord="nuc", keepdims=True),
        ],
        x,
        square,
        rtol=1e-8,
        atol=1e-10,
    )


def test_fourier_transforms():
    r = rng().standard_normal((6, 40))
    c = r + 1j * rng().standard_normal((6, 40))
    assert_as_standard(
        lambda xp, r, c: [
            xp.fft.fft(c),
            xp.fft.ifft(c, axis=0),
            xp.fft.rfft(r),
            xp.fft.irfft(c),
            xp.fft.fftn(c),
            xp.fft.ifftn(c, norm="ortho"),
            xp.fft.rfftn(r),
            xp.fft.irfftn(c, s=(4, 60), axes=(0, 1)),
            xp.fft.fft(c, n=17),
            xp.fft.fft(c, n=64, norm="forward"),
            xp.fft.hfft(c),
            xp.fft.ihfft(r),
            xp.fft.ihfft(r, norm="ortho"),
            xp.fft.fftfreq(9, d=0.1),
            xp.fft.rfftfreq(8),
            xp.fft.fftshift(r),
            xp.fft.ifftshift(r, axes=(1,)),
        ],
        r,
        c,
        rtol=1e-9,
    )
    (two,) = run(lambda r: [r.__array_namespace__().fft.fft2(r)], r.astype("float32"))
    np.testing.assert_allclose(two, np.fft.fft2(r), rtol=1e-3, atol=1e-4)
    assert two.dtype == "complex64"
