"""Arrival traces: every send time is known, stored and hashed before the first request leaves."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench import files, schema
from bench.errors import UsageError
from bench.serving.request import refuse_unknown_fields

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

POISSON, CLOSED, REPLAY = "poisson", "closed", "replay"
MOST_ARRIVALS = 1_000_000
TIME_FIELDS = {"at_s": 1.0, "timestamp": 1e-3}
"""A trace file's fields for the send time and their unit in seconds; Mooncake's traces have milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """When requests are sent, in seconds from the start of a phase, in ascending order.

    A closed loop has no times: ``concurrency`` clients send one request after the other for ``duration_s``. ``seed``
    and ``rate_hz`` are those of a drawn trace; ``fields`` are what each line of a replayed trace asks otherwise.
    """

    kind: str
    duration_s: float
    times_s: tuple[float, ...] = ()
    seed: int | None = None
    rate_hz: float | None = None
    concurrency: int | None = None
    fields: tuple[Mapping[str, object], ...] = ()

    @property
    def sha256(self) -> str:
        """The hash over the times as little-endian doubles and, of a replayed trace, over the fields."""
        digest = hashlib.sha256(struct.pack(f"<{len(self.times_s)}d", *self.times_s))
        for fields in self.fields:
            digest.update(json.dumps(dict(fields), sort_keys=True).encode())
        return digest.hexdigest()


def poisson(rate_hz: float, duration_s: float, seed: int) -> Arrivals:
    """Return arrivals of a Poisson process: independent exponential gaps, drawn from ``seed``.

    Raises:
        UsageError: a rate or duration that is not above zero, or more than a million arrivals.
    """
    _positive(rate_hz, "a rate")
    _positive(duration_s, "a duration")
    if rate_hz * duration_s > MOST_ARRIVALS:
        raise UsageError(f"{rate_hz * duration_s:.0f} arrivals in one phase", todo="lower the rate or the duration")
    generator = np.random.default_rng(seed)
    expected = rate_hz * duration_s
    # more gaps than are used, always the same number for the same arguments: the trace depends on nothing else
    gaps = generator.exponential(1 / rate_hz, size=int(expected + 10 * math.sqrt(expected) + 20))
    times = np.cumsum(gaps)
    return Arrivals(
        kind=POISSON,
        duration_s=duration_s,
        times_s=tuple(float(time) for time in times[times < duration_s]),
        seed=seed,
        rate_hz=rate_hz,
    )


def closed(concurrency: int, duration_s: float) -> Arrivals:
    """Return a closed loop: each of ``concurrency`` clients sends its next request when it has its answer.

    Raises:
        UsageError: no client, or a duration that is not above zero.
    """
    if concurrency < 1:
        raise UsageError(f"a closed loop of {concurrency} clients sends nothing", todo="use --concurrency 1 or more")
    _positive(duration_s, "a duration")
    return Arrivals(kind=CLOSED, duration_s=duration_s, concurrency=concurrency)


def replay(path: Path) -> Arrivals:
    """Return the arrivals of a trace file: one JSON object a line, with ``at_s`` or Mooncake's ``timestamp`` (ms).

    Its other fields are those of a request body; one that the server would ignore is refused.

    Raises:
        UsageError: the file cannot be read, has no line, a line without a time, or times that go back.
    """
    lines = [line for line in files.read_bytes(path).splitlines() if line.strip()]
    if not lines:
        raise UsageError("the trace is empty: there is nothing to send", where=path)
    times: list[float] = []
    fields: list[Mapping[str, object]] = []
    for number, line in enumerate(lines, 1):
        time_s, others = _line(line, f"{path}, line {number}")
        if times and time_s < times[-1]:
            raise UsageError(
                "a trace's times must ascend", where=f"{path}, line {number}", todo="sort the file by time"
            )
        times.append(time_s)
        fields.append(others)
    return Arrivals(
        kind=REPLAY,
        duration_s=max(times[-1], 1e-9),
        times_s=tuple(times),
        fields=tuple(fields) if any(fields) else (),
    )


def _line(line: bytes, where: str) -> tuple[float, Mapping[str, object]]:
    content = schema.parse(line, where, UsageError)
    if not isinstance(content, dict):
        raise UsageError("a line of a trace is a JSON object", where=where)
    named = [name for name in TIME_FIELDS if name in content]
    if len(named) != 1:
        raise UsageError(f"a line of a trace has one of {' or '.join(TIME_FIELDS)}", where=where)
    value = content.pop(named[0])
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise UsageError(f"{named[0]} is {value!r}; a time is a number of 0 or more", where=where)
    refuse_unknown_fields(content, where)
    return value * TIME_FIELDS[named[0]], content


def _positive(value: float, what: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{what} is above zero, not {value!r}")
