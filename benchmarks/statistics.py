"""Time the summary of 1,000 samples as a ratio to numpy's median of the same array: `python -m benchmarks.statistics`.

Run as a module from the root of the repository: as a script its folder would shadow the standard library's statistics.
"""

from __future__ import annotations

import timeit

import numpy as np

from bench.measure.statistics import summarise

SAMPLES = 1_000
ROUNDS = 5
MEDIANS = 1_000
LIMIT_S = 1.0


def main() -> int:
    """Print seconds and ratio of the fastest of five rounds; return 1 if it took a second or more, else 0."""
    samples = 230 * np.exp(np.random.default_rng(1).normal(0, 0.01, SAMPLES))
    first_s = timeit.timeit(lambda: summarise(samples), number=1)  # with the import of scipy
    summary_s = min(timeit.repeat(lambda: summarise(samples), number=1, repeat=ROUNDS))
    median_s = min(timeit.repeat(lambda: np.median(samples), number=MEDIANS, repeat=ROUNDS)) / MEDIANS
    print(
        f"statistics: {SAMPLES} samples summarised in {summary_s * 1e3:.0f} ms"
        f" ({first_s * 1e3:.0f} ms with the import of scipy), {summary_s / median_s:,.0f} x numpy's median"
        f" ({median_s * 1e6:.0f} us); the limit is {LIMIT_S:g} s"
    )
    return int(summary_s >= LIMIT_S)


if __name__ == "__main__":
    raise SystemExit(main())
