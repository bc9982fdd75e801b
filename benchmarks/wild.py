"""Kernels in the wild: how many of the kernels of a suite of CUDA programs does the translator take?

    python benchmarks/wild.py [--json] [--jobs 2] [--only TEXT] DIR...

Each DIR is a checkout of such a suite (Rodinia, PolyBench-GPU, HeCBench, CuPy's ``examples``); nothing of it is kept.
Counted are *all* kernels found: translated, refused (with the reason), failed (the translator itself went wrong). How a
kernel is cut out of its program is told in ``wild_sources.py``. The last line is one flat JSON object.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from wild_sources import Piece, directives, find_files, instances, read_python, read_source

from depin_node.compute.programs.generated import ElementwiseKernel, ReductionKernel
from depin_node.compute.translate import CompileError
from depin_node.compute.translate.compiler import compile_unit
from depin_node.compute.translate.errors import Diagnostic
from depin_node.core.errors import ConfigError

ROUNDS_MAX = 24
"""How often pieces with errors are left out before a kernel counts as refused."""
INSTANCES_MAX = 6
"""How many instances of a template are tried until one is translated."""
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """What became of one kernel. ``reason`` is empty if it was translated."""

    file: str
    kernel: str
    kind: str
    reason: str = ""
    shape: str = ""


def translate_file(path: Path, root: Path) -> list[Outcome]:
    """Try all kernels of one file."""
    if path.suffix == ".py":
        return [_python(path, root, number, *found) for number, found in enumerate(read_python(path))]
    source, outcomes = read_source(path, root), []
    for kernel in source.pieces:
        if kernel.kernel:
            best = ("refused", "", "")
            for name in instances(kernel, source)[:INSTANCES_MAX]:
                tried = _attempt(source.pieces, kernel, name, source.macros)
                best = tried if tried[0] != "refused" or not best[1] else best
                if tried[0] != "refused":
                    break
            file = str(kernel.origin.relative_to(root)) if kernel.origin.is_relative_to(root) else str(kernel.origin)
            outcomes.append(Outcome(file, kernel.kernel, *best))
    return outcomes


def _attempt(pieces: Sequence[Piece], kernel: Piece, name: str, macros: Sequence[str]) -> tuple[str, str, str]:
    """Translate one kernel, leaving out pieces in which errors are; return kind, reason and shape."""
    kept = [piece for piece in pieces if piece is kernel or not piece.kernel]
    reason = ""
    for _ in range(ROUNDS_MAX):
        lines, text = [], ""
        for piece in kept:
            lines += [piece] * (piece.text.count("\n") + 1)
            text += piece.text + "\n"
        try:
            unit = compile_unit(text, [name], macros, filename="wild.cu", deadline_s=DEADLINE_S)
        except CompileError as error:
            places = [lines[d.line - 1] for d in error.diagnostics if 0 < d.line <= len(lines)]
            reason = reason or _reason(error.diagnostics, lines, kernel)
            wrong = {id(piece) for piece in places if piece is not kernel and not piece.fixed}
            if not wrong:
                return "refused", reason or error.diagnostics[0].text, ""
            kept = [p for q in kept for p in (directives(q.text, q.origin) if id(q) in wrong else (q,))]
        except ConfigError as error:
            return "refused", str(error).splitlines()[0], ""
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            return "failed", f"{type(error).__name__}: {error}"[:300], ""
        else:
            return "translated", "", unit.kernels[0].shape
    return "refused", reason or "too many errors", ""


def _reason(found: Sequence[Diagnostic], lines: Sequence[Piece], kernel: Piece) -> str:
    """Return the first message that lies in the kernel or in other device code, if there is one."""

    def weight(diagnostic: Diagnostic) -> int:
        piece = lines[diagnostic.line - 1] if 0 < diagnostic.line <= len(lines) else None
        return 0 if piece is kernel else 1 if piece is not None and piece.device else 2

    first = min(found, key=weight)
    return first.text if weight(first) < 2 else ""


def _python(path: Path, root: Path, number: int, kind: str, texts: tuple[str, ...]) -> Outcome:
    file, name = str(path.relative_to(root)), f"{kind} {number}"
    try:
        if kind in ("ElementwiseKernel", "ReductionKernel"):
            generated = ElementwiseKernel(*texts) if kind == "ElementwiseKernel" else ReductionKernel(*texts)
            given = [np.ones(8, np.float32 if info.generic else info.type) for info in generated.in_params]
            generated.lower(given).kernel.compile()
        elif kind == "RawKernel":
            compile_unit(texts[0], [texts[1]], filename="wild.cu", deadline_s=DEADLINE_S)
        else:
            names = re.findall(r"__global__\s+void\s+(\w+)", texts[0])
            compile_unit(texts[0], names, filename="wild.cu", deadline_s=DEADLINE_S)
    except ConfigError as error:
        return Outcome(file, name, "refused", str(error).splitlines()[0].rpartition("error: ")[2])
    except Exception as error:  # noqa: BLE001 - as above
        return Outcome(file, name, "failed", f"{type(error).__name__}: {error}"[:300])
    return Outcome(file, name, "translated")


def _category(reason: str) -> str:
    """Return a reason without the names and numbers of one kernel, to count by."""
    return re.sub(r"\b[a-z]\w*\b(?= is not declared)", "NAME", re.sub(r"'[^']*'", "'…'", reason))[:100]


def main() -> None:
    """Count, print the reasons on standard error and the sums on standard output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="only files whose path contains this")
    parser.add_argument("--json", action="store_true", help="one line for each kernel on standard output")
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="take every N-th file only")
    options = parser.parse_args()
    folders = [folder.resolve() for folder in options.folders]
    work = [(p, folder) for folder in folders for p in find_files(folder) if options.only in str(p)][:: options.sample]
    outcomes: dict[tuple[str, str, str], Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="depin-wild-") as cache:
        os.environ["DEPIN_CACHE_DIR"] = cache
        with ProcessPoolExecutor(options.jobs) as pool:
            for (_, folder), found in zip(work, pool.map(translate_file, *zip(*work, strict=True)), strict=True):
                for outcome in found:
                    key = (folder.name, outcome.file, outcome.kernel)
                    if key not in outcomes or outcome.kind == "translated":
                        outcomes[key] = outcome
                if sys.stderr.isatty():
                    print(f"\r{len(outcomes)} kernels", end="", file=sys.stderr)
    if options.json:
        for (suite, *_), outcome in outcomes.items():
            print(json.dumps({"suite": suite, **vars(outcome)}))
    sums = Counter(outcome.kind for outcome in outcomes.values())
    for kind in ("refused", "failed"):
        for reason, count in Counter(_category(o.reason) for o in outcomes.values() if o.kind == kind).most_common(40):
            print(f"{count:5} {kind}: {reason}", file=sys.stderr)
    result: dict[str, object] = {
        "kernels": len(outcomes),
        **{kind: sums[kind] for kind in ("translated", "refused", "failed")},
    }
    result["translated_share"] = round(sums["translated"] / max(1, len(outcomes)), 4)
    for folder in folders:
        mine = [outcome.kind for (suite, *_), outcome in outcomes.items() if suite == folder.name]
        result[f"{folder.name}_share"] = round(mine.count("translated") / max(1, len(mine)), 4)
        result[f"{folder.name}_kernels"] = len(mine)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
