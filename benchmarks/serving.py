"""How late the load generator is, what joining 10,000 requests takes, and whether waiting times equal M/D/1.

Against the stand-in server of the tests, so everything that is late is the client's, the stand-in's or the machine's;
beside it stands how late bare timers of the same times were in this run.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from _ratio import median_s, show  # noqa: E402
from stand_in_server import StandIn  # noqa: E402

from bench.serving import arrivals, client, joins  # noqa: E402
from bench.serving import run as campaigns  # noqa: E402
from bench.serving.outputs import Answer  # noqa: E402
from bench.serving.request import ImageRequest  # noqa: E402

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

LATENESS_S = 0.005
JOINED, JOINS_S = 10_000, 5.0
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
        return client.run(client.send(ours.recv(), "load", trace, itertools.repeat(request), limit_s=2 * seconds))
    finally:
        ours.send(None)
        process.join()


def serve(pipe: Connection, service_s: float) -> None:
    """Serve in a process of its own, so that the client has its interpreter to itself, until told to end."""
    with StandIn(service_s=service_s) as server:
        pipe.send(server.url)
        pipe.recv()


async def bare_timers(times_s: tuple[float, ...]) -> float:
    """Return how late the 99th percentile of timers is that do nothing, in seconds."""
    start, late = time.monotonic(), []
    for due_s in times_s:
        await asyncio.sleep(max(start + due_s - time.monotonic(), 0))
        late.append(time.monotonic() - start - due_s)
    return float(np.percentile(late, 99))


def joining() -> bool:
    """Print what reading the request log, joining and judging 10,000 requests takes; return whether it is too long."""
    request = ImageRequest(prompt="x", seed=1, steps=1, width=16, height=16)
    trace = arrivals.poisson(100, JOINED / 100, 1)
    exchanges = tuple(
        client.Exchange(index=i, request=request, intended_s=t, sent_s=t, headers_s=t, done_s=t + 0.01, status=200)
        for i, t in enumerate(trace.times_s)
    )
    answers = tuple(
        Answer(server_id=f"id-{i}", service_s=0.009, pixels_sha256=("0" * 64,)) for i in range(len(exchanges))
    )
    sampling = {"seed": 1, "num_inference_steps": 1, "width": 16, "height": 16, "num_outputs_per_prompt": 1}
    lines = [
        json.dumps(
            {
                "timestamp": "2026-11-28T12:00:00",
                "event": event,
                "rid": answer.server_id,
                "obj": {"sampling_params": sampling},
            }
        )
        for answer in answers
        for event in (joins.RECEIVED, joins.FINISHED)
    ]
    phase = client.Phase(
        name="load", arrivals=trace, started_unix_s=0.0, ended_s=trace.duration_s + 0.01, exchanges=exchanges
    )
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "host_0.log").write_text("".join(f"[2026-11-28 12:00:00] {line}\n" for line in lines))

        def joined() -> None:
            found = joins.join(zip(exchanges, answers, strict=True), joins.read_request_log(Path(name)))
            assert found.holds
            campaigns.level(phase, answers, 1.0, merges=False)

        took, plain = median_s(joined, 3), median_s(lambda: [json.loads(line) for line in lines], 3)
    ratio = took / plain
    show(
        f"joins of {len(exchanges):,} requests",
        f"{took:.2f} s",
        f"json.loads of the log: {plain:.2f} s",
        ratio,
        "< 5 s",
    )
    return took > JOINS_S


def main() -> int:
    """Print lateness and waiting, each with what is expected; return 1 if one of them is outside."""
    phase = load(200, 15, 0.0)
    late = float(np.percentile([e.lateness_s for e in phase.exchanges if e.lateness_s is not None], 99))
    bare = asyncio.run(bare_timers(phase.arrivals.times_s))
    told = f"bare timers: {bare * 1e3:.2f} ms"
    show("lateness p99 at 200 requests a second", f"{late * 1e3:.2f} ms", told, late / bare, "< 5 ms")
    failed = joining() or late > LATENESS_S
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
