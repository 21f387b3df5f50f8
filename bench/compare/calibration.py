"""This machine's own noise for a cell (preset, engine, devices): measured A against A, kept, and used by `compare`."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from bench import paths
from bench.record import comparable
from bench.stats import blocks
from bench.stats.unpaired import HistoryNoise

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EFFECT_PERCENT = 1.5
"""The smallest end-to-end gain that SGLang's contributors may claim."""


def _file(record: Mapping[str, Any]) -> Path:
    return paths.cache() / "noise" / f"{comparable.cell(record)}.json"


def store(record: Mapping[str, Any]) -> Path | None:
    """Keep a record's spread between launches and within them for its cell and return where.

    None, and nothing is kept, if the spread between launches could not be seen: zero would be a claim.
    """
    spread = record["timings"]["spread"]
    if spread is None or spread["between_percent"] is None:
        return None
    path = _file(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        "between_percent": spread["between_percent"],
        # launches of one request have none: what they differ by holds that between requests already
        "within_percent": spread["within_percent"] or 0.0,
        "launches": spread["launches"],
        "record": record["id"],
    }
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    return path


def noise(record: Mapping[str, Any]) -> HistoryNoise | None:
    """Return the kept noise of a record's cell, None if it was never calibrated."""
    try:
        kept = json.loads(_file(record).read_text(encoding="utf-8"))
        return HistoryNoise(
            between_launch_percent=float(kept["between_percent"]),
            within_launch_percent=float(kept["within_percent"]),
            launches=int(kept["launches"]),
        )
    except (OSError, ValueError, KeyError):
        return None


def blocks_for(noise: HistoryNoise, requests: int = 1, effect_percent: float = EFFECT_PERCENT) -> int | None:
    """Return how many A-B-B-A blocks of launches with so many requests show an effect, None if no sensible number does.

    A pair's difference of logarithms has the square root of two times the standard deviation of one launch.
    """
    per_pair = math.sqrt(2) * noise.of_launch(requests)
    return blocks.blocks_needed(effect_percent, per_pair, unit=blocks.PAIR)
