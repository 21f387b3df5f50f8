"""What is compared: the words of ``--metric``, and where a record has their values."""

from __future__ import annotations

import difflib
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError
from bench.run import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT = "total"
LOAD = "load"
KEYS = {"total": "total_ms", "denoise": "denoise_ms", "peak-memory": "peak_allocated_mib"}
OF_TIMINGS = {"wall": ("wall_s", 1000), LOAD: ("load_s", 1)}
"""Where a record has a median that the dump lacks, and the factor to the unit here."""
SERVICE, CAPACITY = "service", "capacity"
SERVED = {SERVICE: "unloaded service time", CAPACITY: "time per request at capacity"}
"""Metrics of load tests, which no other run has."""

TITLES = {
    "total": "total time",
    "denoise": "denoise time",
    "wall": "wall-clock time of a request",
    LOAD: "time to load",
    "peak-memory": "peak memory",
    **SERVED,
}
OF_ENGINES = tuple(name for name in TITLES if name not in SERVED)
"""Those of any run but a load test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric by its word on the command line; ``title`` stands in the sentence. A word of none is a stage's name."""

    name: str
    title: str
    unit: str

    @property
    def is_served(self) -> bool:
        """Whether it is of load tests."""
        return self.name in SERVED

    @property
    def is_stage(self) -> bool:
        """Whether it is the time of a stage, which is right only where stages are synchronised."""
        return self.name not in TITLES

    def of_record(self, record: Mapping[str, Any]) -> float | None:
        """Return the median of a record that counts, None where it has none."""
        if self.is_served:
            return _of_load(record, self.name)
        timings = record["timings"]
        if self.name in KEYS:
            value = timings["metrics"].get(KEYS[self.name])
        elif self.name in OF_TIMINGS:
            key, factor = OF_TIMINGS[self.name]
            value = None if timings[key] is None else factor * timings[key]
        else:
            value = next((stage["ms"] for stage in _synchronised(record) if stage["name"] == self.name), None)
        return value or None

    def interval(self, record: Mapping[str, Any]) -> tuple[float, float] | None:
        """Return the interval of a record's median, None where none is known."""
        if self.name == SERVICE and (served := record["service_s"])["low"] is not None:
            return 1000 * served["low"], 1000 * served["high"]
        if self.is_served:
            return None
        summary = (record["timings"]["summary"] or {}).get(KEYS.get(self.name, ""))
        known = summary and summary["interval"]
        return (known["low"], known["high"]) if known else None

    def of_request(self, request: Mapping[str, Any]) -> float | None:
        """Return a request's value, None where it has none."""
        if self.name in KEYS:
            value = request["metrics"].get(KEYS[self.name])
        elif self.name == "wall":
            value = None if request["wall_s"] is None else 1000 * request["wall_s"]
        else:
            times = [stage["ms"] for stage in request["stages_ms"] if stage["name"] == self.name]
            value = sum(times) if times else None
        return value or None  # zero is a clock that was not read, or a stage that was skipped

    def of_launch(self, launch: Mapping[str, Any], requests: Sequence[Mapping[str, Any]]) -> float:
        """Return a launch's value: the median of its requests, or its own time to load.

        Raises:
            UsageError: it has none.
        """
        # records of before the load was measured have none
        loads = self.name == LOAD
        values = [launch.get("load_s")] if loads else [self.of_request(request) for request in requests]
        known = [value for value in values if value is not None]
        if not known or len(known) != len(values):
            # what the engine takes to hand a result over is not a stage that one compares
            all_stages = [stage for request in requests for stage in request["stages_ms"]]
            stages = sorted({stage["name"] for stage in all_stages if stage["kind"] != "transport"})
            raise UsageError(
                f"launch {launch['index']} has no {self.title} to compare",
                todo=f"a --metric is {', '.join(OF_ENGINES)},"
                f" or a stage: {', '.join(stages) or 'this record has none'}",
            )
        return float(statistics.median(known))

    def of_dump(self, dump: Mapping[str, Any]) -> float:
        """Return a bare perf dump's value.

        Raises:
            UsageError: it has none.
        """
        stages = [{"name": step["name"], "ms": step["duration_ms"]} for step in dump["steps"]]
        value = self.of_request({"metrics": metrics.compute(dump), "stages_ms": stages, "wall_s": None})
        if value is None or self.name == LOAD:
            raise UsageError(f"the dump has no {self.title} to compare")
        return value


def _of_load(record: Mapping[str, Any], name: str) -> float | None:
    """Return the milliseconds of a load record that a word means, None where it has none."""
    served, capacity = record.get("service_s"), record.get("capacity_hz")
    if name == SERVICE:
        return None if served is None else 1000 * float(served["value"])
    return None if capacity is None else 1000 / float(capacity["value"])


def _synchronised(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the stage times of a record that were taken from synchronised stages."""
    if record["stages"] is not None:
        return list(record["stages"]["stages_ms"])
    return list(record["timings"]["stages_ms"]) if record["instrument"]["stage_sync"] else []


def named(name: str) -> Metric:
    """Return the metric of a word; any other word is taken for the name of a stage.

    Raises:
        UsageError: it is empty.
    """
    if not name.strip():
        raise UsageError(
            "the metric's name is empty", todo=f"one of {', '.join(TITLES)}, or a stage's name", field="metric"
        )
    unit = "MiB" if name == "peak-memory" else "s" if name == LOAD else "ms"
    return Metric(name=name, title=TITLES.get(name, f"time of {name}"), unit=unit)


def of_engine(name: str) -> Metric:
    """Return the metric of a word that an engine's requests have, before one is made.

    Raises:
        UsageError: it is of load tests, empty, or neither a metric nor like a stage's name: those are names of classes.
    """
    metric = named(name)
    if metric.is_served:
        raise UsageError(
            f"{name} is a metric of servers under load",
            todo="`invoke loadtest --baseline A --candidate B` compares two servers; of an engine:"
            f" {', '.join(OF_ENGINES)}, or a stage's name",
        )
    if metric.is_stage and "stage" not in name.lower():
        close = difflib.get_close_matches(name.lower(), OF_ENGINES, n=1)
        known = f"--metric takes {', '.join(OF_ENGINES)}, or a stage's name such as DenoisingStage"
        raise UsageError(f"no metric is called {name!r}", todo=f"did you mean {close[0]}?" if close else known)
    return metric
