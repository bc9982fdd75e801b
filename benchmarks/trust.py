"""``make sim-trust``: how many wrong results get through, and at what cost, by policy, adversary and hostile share.

Seeded and pure: the node's own ballots, rules and settlement (``tests/support/trust_world.py`` says what is simulated).
Full size is 200 nodes and 10 requesters with 20,000 tasks each on 20 providers, 1,000 tasks a pair. The cells that
carry the claim (``confidence`` at f = 0 and 0.2) are full size, 20 seeds, and 40 of the adversaries that come closest
to the bound; its other shares have one requester, 20 seeds. Votes need no history of a pair: one requester with 2,000
tasks, BOINC's rule one with 20,000, 20 seeds.

Writes docs/verification.csv and docs/verification-*.png; the last line is one flat JSON object at p = 0.999, f = 0.2:
``wrong_settled_upper`` is the 99 % upper bound of the mean share of wrong results among settled ones, over seeds
(Student's t), of the worst adversary; ``work_at_20`` the mean work a task of the worst; ``work_honest`` without any;
``expel_tasks_p50`` how many tasks a hostile identity had run when it was caught, the median, of the worst one.
"""

import argparse
import csv
import dataclasses
import json
import math
import multiprocessing
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "support")]

from trust_world import ADVERSARIES, Scale, World, policies  # noqa: E402

CLAIM, PEERS = "confidence(0.999, 0.2)", "confidence by peers"
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
FULL, LONG, SHORT = Scale(), Scale(requesters=1), Scale(requesters=1, tasks=2_000)
CLOSEST = ("sleeper", "late")
SAME_FOR_VOTES = ("late", "waster")
"""Adversaries that differ from a sleeper only in when it is found out."""
T_99 = {10: 2.821, 20: 2.539, 40: 2.426}
"""Student's t, one-sided 99 %, for so many seeds less one."""


class Cell(NamedTuple):
    """One run."""

    policy: str
    adversary: str
    share: float
    seed: int
    scale: Scale


def cells(seeds: int, *, is_small: bool) -> list[Cell]:
    """Return all runs, the long ones first; ``is_small``: one requester everywhere, and votes on 1,000 tasks."""
    found = []
    for policy in policies():
        for share in SHARES:
            for adversary in ADVERSARIES if share else ("constant",):
                if policy not in (CLAIM, PEERS) and adversary in SAME_FOR_VOTES:
                    continue
                if policy == PEERS and share not in (0.0, 0.2):
                    continue
                carries = policy == CLAIM and share in (0.0, 0.2)
                scale = FULL if carries else LONG if policy in (CLAIM, PEERS, "boinc") else SHORT
                if is_small:
                    scale = LONG if scale != SHORT else Scale(requesters=1, tasks=1_000)
                count = 2 * seeds if carries and adversary in CLOSEST else seeds
                found += [Cell(policy, adversary, share, seed, scale) for seed in range(count)]
    return sorted(found, key=lambda cell: -cell.scale.requesters * cell.scale.tasks)


def run(cell: Cell) -> tuple[Cell, float, float, int, list[float]]:
    """Simulate one; return wrong share, work a task, honest nodes caught, and tasks until expelled."""
    world = World(cell.scale, cell.share, cell.adversary, cell.seed)
    outcome = world.run(policies()[cell.policy])
    expelled = [math.inf if ran is None else float(ran) for ran in outcome.expelled]
    wrong, work = outcome.wrong / outcome.tasks, outcome.work / outcome.tasks
    return cell, wrong, work, outcome.honest_caught, expelled


def kept(file: Path | None) -> list[tuple[Cell, float, float, int, list[float]]]:
    """Return the runs that are done already. They are those of the same code only if nobody changed it since."""
    if file is None or not file.exists():
        return []
    lines = map(json.loads, file.read_text().splitlines())
    return [(Cell(*cell[:4], Scale(*cell[4])), *figures) for cell, *figures in lines]


def rows(results: list[tuple[Cell, float, float, int, list[float]]]) -> list[dict[str, Any]]:
    """Return one line for each policy, adversary and share."""
    grouped: dict[tuple[str, str, float], list[tuple[float, float, int, list[float]]]] = {}
    for cell, *figures in results:
        grouped.setdefault((cell.policy, cell.adversary, cell.share), []).append(tuple(figures))  # type: ignore[arg-type]
    lines = []
    for (policy, adversary, share), runs in grouped.items():
        wrong = [figures[0] for figures in runs]
        expelled = [ran for figures in runs for ran in figures[3]]
        half = T_99.get(len(runs), 2.6) * statistics.stdev(wrong) / math.sqrt(len(runs))
        lines.append(
            {
                "policy": policy,
                "adversary": adversary,
                "hostile_share": share,
                "seeds": len(runs),
                "wrong_mean": statistics.mean(wrong),
                "wrong_upper_99": statistics.mean(wrong) + half,
                "work_mean": statistics.mean(figures[1] for figures in runs),
                "honest_caught_mean": statistics.mean(figures[2] for figures in runs),
                "expel_tasks_p50": statistics.median_low(expelled) if expelled else math.nan,
            }
        )
    return sorted(lines, key=lambda line: (line["policy"], line["hostile_share"], line["adversary"]))


def figures(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Return what is claimed."""
    claimed = [line for line in lines if line["policy"] == CLAIM]
    at_20 = [line for line in claimed if line["hostile_share"] == 0.2]
    honest = next(line for line in claimed if line["hostile_share"] == 0.0)
    worst = max(at_20, key=lambda line: line["wrong_upper_99"])
    return {
        "wrong_settled_upper": worst["wrong_upper_99"],
        "work_at_20": max(line["work_mean"] for line in at_20),
        "work_honest": honest["work_mean"],
        "expel_tasks_p50": worst["expel_tasks_p50"],
        "expel_tasks_p50_constant": next(x["expel_tasks_p50"] for x in at_20 if x["adversary"] == "constant"),
        "peers_wrong_settled_upper": max(line["wrong_upper_99"] for line in lines if line["policy"] == PEERS),
        "peers_work_at_20": max(line["work_mean"] for line in lines if line["policy"] == PEERS),
        "peers_work_honest": max(
            line["work_mean"] for line in lines if line["policy"] == PEERS and not line["hostile_share"]
        ),
        "wrong_double": max(x["wrong_mean"] for x in lines if x["policy"] == "double" and x["hostile_share"] == 0.2),
        "wrong_triple": max(x["wrong_mean"] for x in lines if x["policy"] == "triple" and x["hostile_share"] == 0.2),
        "wrong_boinc": max(x["wrong_mean"] for x in lines if x["policy"] == "boinc" and x["hostile_share"] == 0.2),
        "work_boinc": max(x["work_mean"] for x in lines if x["policy"] == "boinc" and x["hostile_share"] == 0.2),
    }


def worst_by_share(lines: list[dict[str, Any]], policy: str, column: str) -> list[float]:
    """Return the worst adversary's figure at each hostile share."""
    return [
        max(line[column] for line in lines if line["policy"] == policy and line["hostile_share"] == share)
        for share in SHARES
    ]


def plot(lines: list[dict[str, Any]], folder: Path) -> None:
    """Draw wrong share and work over the hostile share, the worst adversary of each policy."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = ["confidence(0.999, 0.2)", "quorum(2, 3)", "quorum(3, 5)", "lead(5)", "double", "triple", "boinc"]
    for column, label, name in (
        ("wrong_mean", "wrong share among settled results, worst adversary", "wrong"),
        ("work_mean", "work per task, worst adversary", "work"),
    ):
        figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
        for policy in names:
            values = worst_by_share(lines, policy, column)
            if column == "wrong_mean":
                values = [max(value, 2e-6) for value in values]
            width = 2.4 if policy == CLAIM else 1.2
            axes.plot(SHARES, values, marker="o", markersize=3.5, linewidth=width, label=policy)
        if column == "wrong_mean":
            axes.set_yscale("log")
            axes.axhline(0.001, color="grey", linestyle=":", linewidth=1)
        axes.axvline(0.2, color="grey", linestyle=":", linewidth=1)
        axes.set_xlabel("hostile share")
        axes.set_ylabel(label)
        axes.legend(fontsize=8)
        figure.savefig(folder / f"verification-{name}.png", dpi=130)
        plt.close(figure)


def main() -> int:
    """Run, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--small", action="store_true", help="a tenth of the claim's size: for a first look")
    parser.add_argument("--keep", type=Path, help="a file of runs that are done: another start goes on behind them")
    options = parser.parse_args()
    began, results = time.monotonic(), kept(options.keep)
    done = {result[0] for result in results}
    todo = [cell for cell in cells(options.seeds, is_small=options.small) if cell not in done]
    with multiprocessing.get_context("spawn").Pool() as pool:
        for result in pool.imap_unordered(run, todo):
            results.append(result)
            if options.keep:
                with options.keep.open("a") as file:
                    file.write(json.dumps(result, default=dataclasses.astuple) + "\n")
            if len(results) % 100 == 0:
                took_s = time.monotonic() - began
                print(f"{len(results)} of {len(todo)} runs, {took_s:.0f} s", file=sys.stderr, flush=True)
    lines = rows(results)
    with (options.docs / "verification.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()} for line in lines)
    plot(lines, options.docs)
    print(json.dumps({name: float(f"{value:.6g}") for name, value in figures(lines).items()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
