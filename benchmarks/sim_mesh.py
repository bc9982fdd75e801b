"""``make sim``: the mesh under attack, and what it costs a node, in simulated time over many seeds.

Each seed: ``NODES`` machines with latency, loss and churn of 10 % a minute, a fifth of them hostile (floods, false
addresses, eclipse, sybil groups), a tenth of the mesh cut off for a while. After 60 simulated seconds some honest
nodes each look for 32 providers; how many of those found are alive, and how many hostile? A newcomer that knows one
honest node among hostile ones joins at 20 s; how many of its chosen neighbours, and of whom it finds, are hostile?
Seeds run on all cores; the line of each is appended to a file, and a seed that is there is not run again.

    python benchmarks/sim_mesh.py                       100 seeds of 1,000 nodes; build/sim-mesh.jsonl
    python benchmarks/sim_mesh.py --seeds 5 --nodes 300
    python benchmarks/sim_mesh.py --report              what of them is known by now: docs/attacked.csv and its plot
    python benchmarks/sim_mesh.py --ghosts              identities made up by the thousand: what no rule here prevents
    python benchmarks/sim_mesh.py --traffic             bytes a second and node, 10 to 10,000 nodes: docs/traffic.csv

The last line is one flat JSON object.
"""

import argparse
import csv
import gc
import json
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))  # behind what is compiled

from mesh_world import attacked, haunted, traffic

SIZES = (10, 30, 100, 300, 1000, 3000, 10_000)


def run_seed(arguments):
    """Run one seed of the attack in a process of its own."""
    seed, nodes = arguments
    gc.disable()  # a process ends before its cycles matter
    started_s = time.process_time()
    outcome = attacked(seed, nodes)
    return {"nodes": nodes, "seed": seed} | outcome | {"cpu_s": round(time.process_time() - started_s, 1)}


def attack(first, seeds, nodes, processes, out):
    """Run the seeds, from ``first`` on, whose outcome is not in ``out`` yet; return all that is there then together."""
    out.parent.mkdir(parents=True, exist_ok=True)
    outcomes = known(seeds, nodes, out)
    missing = [(seed, nodes) for seed in range(first, seeds + 1) if seed not in outcomes]
    print(f"{len(outcomes)} of {seeds} seeds are in {out}", flush=True)
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool, out.open("a") as file:
        for outcome in pool.imap_unordered(run_seed, missing):
            outcomes[outcome["seed"]] = outcome
            print(json.dumps(outcome), flush=True)
            print(json.dumps(outcome), file=file, flush=True)
    return summary(list(outcomes.values()), nodes)


def known(seeds, nodes, out):
    """Return the outcomes that are in the file ``out``, by seed."""
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return {line["seed"]: line for line in lines if line["nodes"] == nodes and line["seed"] <= seeds}


def report(outcomes, out):
    """Write one line a seed into the CSV file ``out``, and draw them."""
    rows = [
        {
            "nodes": outcome["nodes"],
            "seed": outcome["seed"],
            "found_live_min": min(outcome["found_live"]),
            "found_live_mean": statistics.mean(outcome["found_live"]),
            "hostile_over_population": over_population(outcome),
            "newcomer_found": outcome["newcomer_found"],
            "newcomer_hostile_share": outcome["newcomer_hostile_share"],
            "newcomer_chosen_honest": outcome["newcomer_chosen_honest"],
            "newcomer_chosen": outcome["newcomer_chosen"],
            "newcomer_escaped": int(outcome["newcomer_escaped"]),
            "honest_blamed": outcome["honest_blamed"],
        }
        for outcome in sorted(outcomes, key=lambda outcome: outcome["seed"])
    ]
    write_csv(rows, out)
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "attacked"
    figure, (shares, found) = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    shares.hist([row["hostile_over_population"] for row in rows], bins=20)
    shares.axvline(1.2, linestyle=":", color="black")
    shares.set(xlabel="hostile share of what is found,\nover theirs in the population", ylabel="seeds", xlim=(0, None))
    found.hist([row["found_live_min"] for row in rows], bins=[n - 0.5 for n in range(28, 34)])
    found.axvline(29.5, linestyle=":", color="black")
    found.set(xlabel="found alive of 32, least of five searches")
    figure.savefig(out.with_suffix(".svg"), metadata={"Date": None})


def over_population(outcome):
    """Return the hostile share of what a seed's searches found, over theirs in the population."""
    return round(statistics.mean(outcome["hostile_shares"]) / outcome["hostile_population"], 3)


def write_csv(rows, out):
    """Write ``rows`` of numbers."""
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({name: f"{value:g}" for name, value in row.items()} for row in rows)


def summary(outcomes, nodes):
    """Return what all seeds together show."""
    shares = [share for outcome in outcomes for share in outcome["hostile_shares"]]
    population = statistics.mean(outcome["hostile_population"] for outcome in outcomes)
    return {
        "sim_seeds": len(outcomes),
        "sim_nodes": nodes,
        "sim_found_min": min(min(outcome["found_live"]) for outcome in outcomes),
        "sim_found_mean": round(statistics.mean(n for outcome in outcomes for n in outcome["found_live"]), 2),
        "sim_hostile_share": round(statistics.mean(shares), 4),
        "sim_hostile_over_population": round(statistics.mean(shares) / population, 3),
        "sim_hostile_over_population_worst": max(over_population(outcome) for outcome in outcomes),
        "sim_newcomers_escaped": sum(outcome["newcomer_escaped"] for outcome in outcomes) / len(outcomes),
        "sim_cpu_s_per_seed": round(statistics.mean(outcome["cpu_s"] for outcome in outcomes), 1),
    }


def haunt(nodes):
    """Return how many live providers a search for 32 finds while one or four nodes make up ten identities a second."""
    outcomes = {makers: haunted(1, nodes, makers) for makers in (0, 1, 4)}
    for outcome in outcomes.values():
        print(json.dumps(outcome), flush=True)
    return {f"ghosts_{makers}_found_min": min(outcome["found_live"]) for makers, outcome in outcomes.items()}


def measure_traffic(sizes, out):
    """Measure bytes a second and node at each size that is not in the CSV file ``out`` yet; draw them all."""
    gc.disable()
    rows = []
    if out.exists():
        with out.open(newline="") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    for nodes in sorted(set(sizes) - {row["nodes"] for row in rows}):
        rows.append(traffic(1, nodes))
        print(json.dumps(rows[-1]), flush=True)
        write_csv(rows, out)
    plot(rows, out.with_suffix(".svg"))
    first, last = next((row for row in rows if row["nodes"] >= 300), rows[0]), rows[-1]
    ratio = last["bytes_per_s"] / first["bytes_per_s"]
    return {f"traffic_{last['nodes']:g}_over_{first['nodes']:g}": round(ratio, 3)}


def plot(rows, out):
    """Draw bytes a second over the number of nodes."""
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "traffic"
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot([row["nodes"] for row in rows], [row["bytes_per_s"] / 1000 for row in rows], "o-", label="mean")
    axes.plot([row["nodes"] for row in rows], [row["bytes_per_s_p99"] / 1000 for row in rows], ":", label="99 %")
    axes.set(xscale="log", xlabel="nodes in the mesh", ylabel="kB a second that a node sends", ylim=(0, None))
    axes.legend()
    figure.savefig(out, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=1, help="the first seed to run: several of these may run at once")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--traffic", action="store_true")
    parser.add_argument("--ghosts", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--out", type=Path, help="where outcomes are kept; begin anew by removing it")
    options = parser.parse_args()
    if options.traffic:
        result = measure_traffic(options.sizes, options.out or Path("docs/traffic.csv"))
    elif options.ghosts:
        result = haunt(120)
    else:
        out = options.out or Path("build/sim-mesh.jsonl")
        if options.report:
            outcomes = list(known(options.seeds, options.nodes, out).values())
            report(outcomes, Path("docs/attacked.csv"))
            result = summary(outcomes, options.nodes)
        else:
            result = attack(options.first, options.seeds, options.nodes, options.processes, out)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
