"""How late the load generator is at 200 requests a second, and whether waiting times measured with it equal M/D/1.

Against the stand-in server of the tests, so everything that is late is the client's, the stand-in's or the machine's.
"""

from __future__ import annotations

import itertools
import multiprocessing
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from stand_in_server import StandIn  # noqa: E402

from bench.serving import arrivals, client  # noqa: E402
from bench.serving.request import ImageRequest  # noqa: E402

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

LATENESS_S = 0.005
SERVICE_S = 0.05
SECONDS = 240
TOLERANCE = 0.05


def load(rate_hz: float, seconds: float, service_s: float) -> client.Phase:
    """Return one open-loop phase against a stand-in."""
    request = ImageRequest(prompt="x", seed=1, steps=1, width=16, height=16)
    trace = arrivals.poisson(rate_hz, seconds, 1)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, service_s))
    process.start()
    try:
        return client.run(ours.recv(), "load", trace, itertools.repeat(request), limit_s=2 * seconds)
    finally:
        ours.send(None)
        process.join()


def serve(pipe: Connection, service_s: float) -> None:
    """Serve in a process of its own, so that the client has its interpreter to itself, until told to end."""
    with StandIn(service_s=service_s) as server:
        pipe.send(server.url)
        pipe.recv()


def main() -> int:
    """Print lateness and waiting, each with what is expected; return 1 if one of them is outside."""
    phase = load(200, 15, 0.0)
    late = float(np.percentile([e.lateness_s for e in phase.exchanges if e.lateness_s is not None], 99))
    print(f"lateness p99 at 200/s: {late * 1e3:.2f} ms (expected below {LATENESS_S * 1e3:.0f} ms)")
    failed = late > LATENESS_S
    for utilisation in (0.3, 0.6, 0.8):
        phase = load(utilisation / SERVICE_S, SECONDS, SERVICE_S)
        latencies = [e.latency_s for e in phase.exchanges if e.latency_s is not None]
        # a trace of minutes is far from the formula's mean at .8: the client is held to the trace's own waiting
        rate_hz = len(phase.exchanges) / SECONDS
        rho = rate_hz * SERVICE_S
        waited = float(np.mean(latencies)) - SERVICE_S
        own = _wait(phase)
        formula = rho * SERVICE_S / (2 * (1 - rho))
        print(
            f"utilisation {rho:.3f}: waited {waited * 1e3:.2f} ms, the trace's own {own * 1e3:.2f} ms"
            f" ({waited / own - 1:+.1%}), M/D/1 {formula * 1e3:.2f} ms ({waited / formula - 1:+.1%})"
        )
        failed |= abs(waited / own - 1) > TOLERANCE
    return int(failed)


def _wait(phase: client.Phase) -> float:
    from bench.serving import queueing  # noqa: PLC0415

    times = phase.arrivals.times_s
    return float(queueing.lindley(times, [SERVICE_S] * len(times)).mean()) - SERVICE_S


if __name__ == "__main__":
    sys.exit(main())
