"""Array operations executed by an array module: NumPy's in the worker of a machine without a GPU, CuPy's on one.

The other half of ``programs/operations.py``: for each operation of that table the call of the module that does it. The
program was validated, so shapes, dtypes and attributes fit; what still can fail is the numbers themselves.

What has to be done before a worker confines itself is ``prepare``: libraries import parts of themselves on first use.
One thread computes: the worker's environment says so to BLAS, before it starts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from depin_node.compute.programs.operations import Attribute
from depin_node.core.errors import TaskNoResult, TaskOutOfMemory

_Call = Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]


def prepare(xp: Any) -> None:
    """Import all that ``execute`` may need of ``xp``, and let its BLAS set itself up."""
    import importlib

    for part in ("linalg", "fft"):
        importlib.import_module(f"{xp.__name__}.{part}")


def execute(
    xp: Any, name: str, inputs: Sequence[Any], outputs: Sequence[Any], attributes: Mapping[str, Attribute]
) -> None:
    """Do one operation of a valid program.

    Args:
        xp: NumPy, or a module with its functions.
        name: of ``programs.operations.OPERATIONS``.
        inputs: arrays of ``xp``, which are not changed.
        outputs: likewise, of the shapes and dtypes that ``plan`` gives; they are filled.
        attributes: as ``plan`` takes them.

    Raises:
        TaskNoResult: a matrix is singular or not positive definite, or an iteration did not converge.
        TaskOutOfMemory: the library could not allocate what it needs.
    """
    try:
        results = _CALLS[name](xp, inputs, attributes)
    except xp.linalg.LinAlgError as error:
        raise TaskNoResult(f"{name}: {error}: the array it was given has no such result") from error
    except MemoryError as error:
        raise TaskOutOfMemory(f"{name}: the library could not allocate what it needs") from error
    for output, result in zip(outputs, results if isinstance(results, tuple) else (results,), strict=True):
        output[...] = result


def _matmul(xp: Any, inputs: Sequence[Any], _: Mapping[str, Any]) -> Any:
    return xp.matmul(inputs[0], inputs[1])


def _cholesky(xp: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    lower = xp.linalg.cholesky(inputs[0])
    return lower.swapaxes(-1, -2).conj() if attributes["upper"] else lower


def _solve(xp: Any, inputs: Sequence[Any], _: Mapping[str, Any]) -> Any:
    return xp.linalg.solve(inputs[0], inputs[1])


def _plain(function: str) -> _Call:
    return lambda xp, inputs, _: getattr(xp.linalg, function)(inputs[0])


def _qr(xp: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    return tuple(xp.linalg.qr(inputs[0], mode="complete" if attributes["complete"] else "reduced"))


def _svd(xp: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    return tuple(xp.linalg.svd(inputs[0], full_matrices=bool(attributes["full"])))


def _svdvals(xp: Any, inputs: Sequence[Any], _: Mapping[str, Any]) -> Any:
    return xp.linalg.svd(inputs[0], compute_uv=False)


def _pinv(xp: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    return xp.linalg.pinv(inputs[0], attributes["rtol"])


def _transform(function: str) -> _Call:
    return lambda xp, inputs, attributes: getattr(xp.fft, function)(
        inputs[0], s=attributes["lengths"], axes=attributes["axes"]
    )


_CALLS: Final[Mapping[str, _Call]] = {
    "matmul": _matmul,
    "cholesky": _cholesky,
    "solve": _solve,
    "inv": _plain("inv"),
    "det": _plain("det"),
    "slogdet": lambda xp, inputs, _: tuple(xp.linalg.slogdet(inputs[0])),
    "qr": _qr,
    "svd": _svd,
    "svdvals": _svdvals,
    "eigh": lambda xp, inputs, _: tuple(xp.linalg.eigh(inputs[0])),
    "eigvalsh": _plain("eigvalsh"),
    "pinv": _pinv,
    "fftn": _transform("fftn"),
    "ifftn": _transform("ifftn"),
    "rfftn": _transform("rfftn"),
    "irfftn": _transform("irfftn"),
}
