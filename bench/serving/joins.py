"""What the server itself says of the load: its request log and its counters, joined to the client's rows."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

from bench.serving.request import IMAGES, VIDEOS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from bench.serving.client import Exchange
    from bench.serving.outputs import Answer

RECEIVED, FINISHED = "request.received", "request.finished"
WRAPPED = (RECEIVED.encode(), FINISHED.encode())
MERGED = re.compile(rb"Processed (?:dynamic|native grouped) batch of (\d+)/\d+ request")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who answers on the port: the id and version that it names, and whether its listener is below this process."""

    run_id: str | None
    version: str | None
    listener_is_ours: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One request as the server logged it; times on its wall clock, in seconds since 1970.

    ``received`` and ``finished`` count the lines: exactly one of each is expected. ``service_s`` is its execution time
    with whatever preceded it inside the server's own measurement.
    """

    server_id: str
    received: int
    finished: int
    received_unix_s: float | None
    finished_unix_s: float | None
    seed: int | None
    steps: int | None
    width: int | None
    height: int | None
    outputs: int | None
    frames: int | None
    error: str | None

    @property
    def elapsed_s(self) -> float | None:
        """Seconds from received to finished: waiting and service."""
        if self.received_unix_s is None or self.finished_unix_s is None:
            return None
        return self.finished_unix_s - self.received_unix_s


def read_request_log(folder: Path) -> dict[str, Served]:
    """Return the requests in the files that ``--log-requests-target`` names, by the server's id.

    The engine stamps local time without a zone; both are on this host, so this host's zone is meant.
    """
    events: dict[str, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
    for path in sorted(folder.rglob("*.log")) if folder.is_dir() else ():
        for line in path.read_bytes().splitlines():
            # each line is JSON behind the logger's own stamp
            start = line.find(b"{")
            if start < 0 or not any(word in line for word in WRAPPED):
                continue
            try:
                content = orjson.loads(line[start:])
            except orjson.JSONDecodeError:
                continue  # the last line of a server that was killed
            events[str(content["rid"])].append((content["event"], content))
    return {server_id: _served(server_id, lines) for server_id, lines in events.items()}


def _served(server_id: str, lines: Sequence[tuple[str, Mapping[str, Any]]]) -> Served:
    received = [content for event, content in lines if event == RECEIVED]
    finished = [content for event, content in lines if event == FINISHED]
    asked = (received or finished)[0]["obj"].get("sampling_params", {})
    return Served(
        server_id=server_id,
        received=len(received),
        finished=len(finished),
        received_unix_s=_unix_s(received[0]) if received else None,
        finished_unix_s=_unix_s(finished[0]) if finished else None,
        seed=asked.get("seed"),
        steps=asked.get("num_inference_steps"),
        width=asked.get("width"),
        height=asked.get("height"),
        outputs=asked.get("num_outputs_per_prompt"),
        frames=asked.get("num_frames"),
        error=finished[0].get("out", {}).get("meta_info", {}).get("error") if finished else None,
    )


def _unix_s(content: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(content["timestamp"]).astimezone().timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """The client's rows beside the server's. Each list names rows by their index, or the server's ids.

    ``unlogged``: answered without a pair of lines. ``changed``: another workload than asked, with what. ``repeated``:
    an id that two rows have, or more than one pair. ``foreign``: requests that the server got from somebody else.
    """

    pairs: Mapping[int, Served]
    unlogged: tuple[int, ...]
    changed: Mapping[int, str]
    repeated: tuple[str, ...]
    foreign: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether every answered row has exactly one pair, with what was asked, and nobody else's is there."""
        return not (self.unlogged or self.changed or self.repeated or self.foreign)


def join(answered: Iterable[tuple[Exchange, Answer]], log: Mapping[str, Served], own_failures: int = 0) -> Join:
    """Return the rows joined to the request log by id.

    A request that failed has no id to join by: of the ids that no row has, ``own_failures`` may be its own.
    """
    answered = list(answered)
    pairs: dict[int, Served] = {}
    unlogged, repeated, changed = [], [], {}
    seen: set[str] = set()
    for exchange, answer in answered:
        if answer.server_id is None:
            continue
        served = log.get(answer.server_id)
        if answer.server_id in seen or (served is not None and (served.received > 1 or served.finished > 1)):
            repeated.append(answer.server_id)
        seen.add(answer.server_id)
        if served is None or served.received == 0 or served.finished == 0:
            unlogged.append(exchange.index)
            continue
        pairs[exchange.index] = served
        if difference := _changed(exchange, served):
            changed[exchange.index] = difference
    changed |= _unlike_steps(answered, pairs)
    unclaimed = [server_id for server_id in log if server_id not in seen]
    return Join(
        pairs=pairs,
        unlogged=tuple(unlogged),
        changed=changed,
        repeated=tuple(repeated),
        foreign=tuple(unclaimed) if len(unclaimed) > own_failures else (),
    )


def _unlike_steps(answered: Iterable[tuple[Exchange, Answer]], pairs: Mapping[int, Served]) -> dict[int, str]:
    """Return the rows whose steps were left to the server, and that got another number than most."""
    left = [exchange.index for exchange, _ in answered if exchange.request.steps is None and exchange.index in pairs]
    if not left:
        return {}
    usual = Counter(pairs[index].steps for index in left).most_common(1)[0][0]
    return {index: f"steps {pairs[index].steps}, most have {usual}" for index in left if pairs[index].steps != usual}


def _changed(exchange: Exchange, served: Served) -> str | None:
    request = exchange.request
    asked = {
        "seed": request.seed, "steps": request.steps, "width": request.width, "height": request.height,
        "outputs": request.outputs, "frames": getattr(request, "frames", None),
    }  # fmt: skip
    said = [
        f"{name} {getattr(served, name)}, asked for {wanted}"
        for name, wanted in asked.items()
        if wanted is not None and getattr(served, name) != wanted
    ]
    return "; ".join(said) or None


def merged(log: Path) -> Counter[int]:
    """Return how many batches of two requests or more a server's log names, by their size.

    "Batch admission enabled" is not asked: the server prints it for a pipeline that refuses to merge, too.
    """
    sizes = Counter(int(size) for size in MERGED.findall(log.read_bytes()))
    return Counter({size: count for size, count in sizes.items() if size > 1})


SAMPLE = re.compile(r"^(?P<name>sglang:\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """The server's own counts at one moment (since 0.5.21); queue times are left out: they are too short by design.

    ``stages`` counts finished stages by name, steps as ``DenoisingStep``; with batching a step counts once a batch.
    ``requests`` counts generations by status, warm-ups left out; ``posts`` HTTP requests for images and videos.
    """

    stages: Mapping[str, int]
    requests: Mapping[str, int]
    posts: int
    queued: int
    running: int

    def minus(self, before: Counters) -> Counters:
        """Return what was counted since; ``queued`` and ``running`` are those of this moment."""
        return Counters(
            stages=_minus(self.stages, before.stages),
            requests=_minus(self.requests, before.requests),
            posts=self.posts - before.posts,
            queued=self.queued,
            running=self.running,
        )


def _minus(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {name: grown for name, count in after.items() if (grown := count - before.get(name, 0))}


def read_counters(text: str) -> Counters:
    """Return the counts in the text of ``/metrics``."""
    stages: dict[str, int] = defaultdict(int)
    requests: dict[str, int] = defaultdict(int)
    others: dict[str, int] = defaultdict(int)
    for match in SAMPLE.finditer(text):
        name, labels = match["name"].removeprefix("sglang:"), dict(LABEL.findall(match["labels"] or ""))
        if name == "diffusion_stage_host_latency_seconds_count":
            stages[labels["stage"]] += int(float(match["value"]))
        elif name == "diffusion_requests_total" and labels.get("is_warmup") != "true":
            requests[labels["status"]] += int(float(match["value"]))
        elif name in ("diffusion_num_queue_reqs", "diffusion_num_running_reqs"):
            others[name] += int(float(match["value"]))
        elif name == "http_requests_total" and labels["method"] == "POST" and labels["endpoint"] in (IMAGES, VIDEOS):
            others["posts"] += int(float(match["value"]))
    return Counters(
        stages=dict(stages),
        requests=dict(requests),
        posts=others["posts"],
        queued=others["diffusion_num_queue_reqs"],
        running=others["diffusion_num_running_reqs"],
    )
