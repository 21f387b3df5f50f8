"""The time that statistics take: 1,000 samples summarised, against numpy's median of the same array."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from _ratio import median_s, show  # noqa: E402

from bench.stats.summary import summarise  # noqa: E402

SAMPLES = 1_000


def main() -> None:
    """Print the time and the ratio."""
    samples = 230 * np.exp(np.random.default_rng(1).normal(0, 0.01, SAMPLES))
    took, plain = median_s(lambda: summarise(samples), 5), median_s(lambda: np.median(samples), 200)
    show(
        f"summary of {SAMPLES:,} samples",
        f"{took:.3f} s",
        f"numpy's median: {plain * 1e6:.0f} us",
        took / plain,
        "< 1 s",
    )


if __name__ == "__main__":
    main()
