"""The price of an Asian call option by Monte Carlo: 131,072 paths of 52 weeks, in eight tasks.

Each task adds up its own paths; the eight sums are merged in a fixed tree when they are fetched (``combine``). A
European call on the same paths shows whether they are right: its price is known.
"""

import sys
from math import sqrt
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from place import Place, difference, main  # noqa: E402 - these folders are
from reference import black_scholes, payoffs  # noqa: E402 - no packages

from depin_node.client import Along, ProgramBuilder, RawModule  # noqa: E402

PATHS, TASKS, FOURS, SEED = 1 << 17, 8, 13, 2026
SPOT, STRIKE, RATE, VOLATILITY = MARKET = (100.0, 105.0, 0.03, 0.25)
CLOSE = 1e-12
"""Relative, to NumPy's prices of the same paths: its functions differ from ours in their last bits."""
OFF_MAX = 4
"""Standard errors from the known price: chance alone leads further once in 16,000 times."""


def program() -> ProgramBuilder:
    """Return the steps of a task: its paths' payoffs, which stay on the device, and their sums."""
    module = RawModule(code=(HERE / "asian.cu").read_text(), filename="asian.cu")
    simulate, add_up = module.get_function("simulate"), module.get_function("add_up")
    steps = ProgramBuilder(shards=TASKS, along=Along(axis=0))
    payoff = steps.temp("payoff", "float64", (PATHS, 2))
    sums = steps.partial("sums", "float64", 4)
    first, paths = steps.shard.start, steps.shard.rows
    steps.launch(simulate, "ceil(shard.rows / 128)", 128, (payoff, first, paths, SEED, FOURS, *MARKET))
    steps.launch(add_up, 1, 256, (payoff, paths, sums))
    steps.combine("sum")
    return steps


def example(place: Place) -> bool:
    """Run it, check it, print the prices with their standard errors."""
    asian, asian2, european, european2 = place.run(program())["sums"]

    def price(total: float, squares: float) -> tuple[float, float]:
        mean = total / PATHS
        return mean, sqrt((squares / PATHS - mean**2) / PATHS)

    value, error = price(asian, asian2)
    control, control_error = price(european, european2)
    known = black_scholes(*MARKET)
    off = (control - known) / control_error
    print(f"Asian call     {value:.4f} ± {error:.4f}")
    print(f"European call  {control:.4f} ± {control_error:.4f}, Black-Scholes {known:.4f}: {off:+.1f} standard errors")

    expected = payoffs(PATHS, SEED, FOURS, *MARKET).mean(1)
    found = np.array([value, control])
    right = bool(np.allclose(found, expected, rtol=CLOSE, atol=0)) and abs(off) < OFF_MAX
    return place.judge(right, f"both prices: {difference(found, expected)}")


if __name__ == "__main__":
    raise SystemExit(main(example, "option_pricing", str(__doc__)))
