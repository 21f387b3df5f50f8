"""This machine's own noise for a cell (preset, engine, devices): measured A against A, kept, and used by `compare`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import files, paths, schema
from bench.compare import metric as metrics
from bench.errors import BenchError, UsageError
from bench.record import comparable, disturbance
from bench.run import evidence
from bench.stats import comparison, planning
from bench.stats.sequential import LaunchNoise
from bench.stats.spread import launch_spread
from bench.stats.unpaired import DayNoise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FEWEST_DAYS = 3
"""Two records know the spread between days too badly to be worth keeping: t at one degree of freedom is 12.7."""


def _file(record: Mapping[str, Any]) -> Path:
    return paths.cache() / "noise" / f"{comparable.cell(record)}.json"


def _file_of_days(record: Mapping[str, Any]) -> Path:
    """Return where the spread between days and hosts is kept: for one version of the engine, whatever the host."""
    return paths.cache() / "noise" / "days" / f"{comparable.family(record)}-{record['engine']['version']}.json"


def store(record: Mapping[str, Any], metric: str = metrics.DEFAULT) -> Path:
    """Keep the spread between a record's launches for its cell and metric and return where.

    Raises:
        UsageError: one launch, which has no spread.
    """
    spread = launch_spread(by_launch(record, metrics.named(metric)))
    if spread.sd_percent is None:
        raise UsageError("the spread between launches needs at least two", todo="--launches 4 at least")
    return _keep(
        _file(record),
        metric,
        {
            "sd_percent": spread.sd_percent,
            "within_percent": spread.within_percent,
            "launches": spread.launches,
            "requests": min(spread.requests),
            "record": record["id"],
            "preset": record["preset"]["key"],
            "engine": record["engine"]["name"],
            "disturbed": list(disturbance.of(record)),
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A spread that is kept: of which cell and metric, from which record, and what disturbed it."""

    cell: str
    metric: str
    preset: str
    engine: str
    record: str
    sd_percent: float
    launches: int
    disturbed: tuple[str, ...]


UNKNOWN = "unknown"
"""Of which preset and engine a spread is that was kept before that was written down."""


def kept() -> list[Kept]:
    """Return every spread between launches that is kept, by cell and metric."""
    spreads = []
    for path in sorted((paths.cache() / "noise").glob("*.json")):
        spreads += [
            Kept(
                cell=path.stem,
                metric=metric,
                preset=value.get("preset", UNKNOWN),
                engine=value.get("engine", UNKNOWN),
                record=value["record"],
                sd_percent=value["sd_percent"],
                launches=value["launches"],
                disturbed=tuple(value.get("disturbed", ())),
            )
            for metric, value in _kept(path).items()
        ]
    return spreads


def forget(cell: str) -> list[Kept]:
    """Remove the spreads of the cell whose key begins so, and return them.

    Raises:
        UsageError: no cell's key begins so, or several do.
    """
    gone = [known for known in kept() if known.cell.startswith(cell)]
    if not cell or len({known.cell for known in gone}) != 1:
        many = "several calibrations begin" if gone and cell else "no calibration begins"
        raise UsageError(f"{many} with {cell!r}", todo="`invoke calibrate --list` shows them")
    (paths.cache() / "noise" / f"{gone[0].cell}.json").unlink()
    return gone


def disturbed(record: Mapping[str, Any], metric: str = metrics.DEFAULT) -> tuple[str, ...]:
    """Return what disturbed the calibration of a record's cell; empty where nothing did or nothing is kept."""
    told = _kept(_file(record)).get(metric, {}).get("disturbed")
    return tuple(map(str, told)) if isinstance(told, list) else ()


def store_days(paths_of_records: Sequence[Path], metric: str = metrics.DEFAULT) -> tuple[Path, DayNoise]:
    """Keep the spread between records of one workload from several days or hosts; return where, and the spread.

    Raises:
        UsageError: fewer than three records, one that does not count, or records of different cells.
    """
    documents = [evidence.read(path).record for path in paths_of_records]
    if len({document["id"] for document in documents}) < FEWEST_DAYS:
        raise UsageError(f"the spread between days and hosts takes at least {FEWEST_DAYS} records of one workload")
    for path, document in zip(paths_of_records, documents, strict=True):
        if document["timings"] is None or not document["complete"]:
            raise UsageError("an invalid or incomplete run cannot stand for a day", where=path)
    if len({_file_of_days(document) for document in documents}) > 1:
        raise UsageError("the records are of different workloads, devices or versions of the engine")
    values = [
        [float(np.median(launch)) for launch in by_launch(document, metrics.named(metric))] for document in documents
    ]
    sd = launch_spread(values).sd_percent
    assert sd is not None
    known = DayNoise(sd_percent=sd, records=len(documents))
    return _keep(_file_of_days(documents[0]), metric, asdict(known)), known


def by_launch(record: Mapping[str, Any], metric: metrics.Metric) -> list[list[float]]:
    """Return the values of each launch's requests (for the time to load: of the launch).

    The time of a stage comes from requests whose stages are synchronised: where the others' are not, it is the median
    of the launch that `--stages` adds.

    Raises:
        UsageError: a request has none.
    """
    if metric.is_stage and not record["instrument"]["stage_sync"]:
        return [[_of_stage_table(record, metric)]]
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for request in record["requests"]:
        groups.setdefault(request["launch"], []).append(request)
    launches = {launch["index"]: launch for launch in record["launches"]}
    if metric.name == metrics.LOAD:
        return [[metric.of_launch(launches[index], group)] for index, group in groups.items()]
    return [[metric.of_launch(launches[index], [request]) for request in group] for index, group in groups.items()]


def _of_stage_table(record: Mapping[str, Any], metric: metrics.Metric) -> float:
    value = metric.of_record(record)
    if value is None:
        stages = [] if record["stages"] is None else [stage["name"] for stage in record["stages"]["stages_ms"]]
        raise UsageError(
            f"record {record['id']} has no {metric.title} to compare",
            todo=f"a --metric is {', '.join(metrics.OF_ENGINES)}, or a stage of a run with --stages"
            + (f": {', '.join(stages)}" if stages else ""),
        )
    return value


def _kept(path: Path) -> dict[str, dict[str, Any]]:
    """Return what a file of the cache keeps, by metric; what is broken was never measured."""
    try:
        content = schema.read(path)
    except BenchError:
        return {}
    metrics_kept = content.get("metrics") if isinstance(content, dict) else None
    if not isinstance(metrics_kept, dict):
        return {}
    return {name: values for name, values in metrics_kept.items() if isinstance(values, dict)}


def _keep(path: Path, metric: str, values: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = _kept(path)
    kept[metric] = {**kept.get(metric, {}), **values}
    files.write_text(path, json.dumps({"metrics": kept}, indent=2) + "\n", replace=True)
    return path


def noise(record: Mapping[str, Any], metric: str = metrics.DEFAULT) -> LaunchNoise | None:
    """Return the kept spread between launches of a record's cell, None if it was never calibrated."""
    kept = _kept(_file(record)).get(metric, {})
    within = kept.get("within_percent")
    if not (
        _is_spread(kept.get("sd_percent"))
        and (within is None or _is_spread(within))
        and _is_count(kept.get("launches"), 2)
        and _is_count(kept.get("requests"), 1)
    ):
        return None
    return LaunchNoise(
        sd_percent=kept["sd_percent"], within_percent=within, launches=kept["launches"], requests=kept["requests"]
    )


def days(record: Mapping[str, Any], metric: str = metrics.DEFAULT) -> DayNoise | None:
    """Return the kept spread between days and hosts of a record's workload, None if it was never calibrated."""
    kept = _kept(_file_of_days(record)).get(metric, {})
    if not (_is_spread(kept.get("sd_percent")) and _is_count(kept.get("records"), FEWEST_DAYS)):
        return None
    return DayNoise(sd_percent=kept["sd_percent"], records=kept["records"])


def _is_spread(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and value >= 0


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def pairs_for(noise: LaunchNoise, requests: int = 1) -> comparison.Planning | None:
    """Return how many pairs of starts with so many requests show an effect of the margin; None where sd is zero.

    A pair's difference of logarithms has the square root of two times the standard deviation of one launch.
    """
    per_pair = math.sqrt(2) * noise.sd_of_launch(requests)
    return planning.plan(comparison.DEFAULT_MARGIN_PERCENT, per_pair, noise.freedom, groups=1)
