"""The pictures of an offline run, as what the served ones must equal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError
from bench.record import names, store
from bench.serving import outputs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.serving.request import ImageRequest

COMPARED = ("prompt", "steps", "width", "height")
TODO = "measure it with `invoke bench` and the same engine, --model, --steps, --width and --height"


def pictures(run: Path, request: ImageRequest, version: str | None) -> Mapping[tuple[str, ...], tuple[str, ...]]:
    """Return the pixels' hashes of an offline run's picture by `outputs.asked` of the request that it answers.

    ``version`` None: the server's is not known beforehand.

    Raises:
        UsageError: the run is not native, of another engine or workload, or its requests brought different pictures.
    """
    path = names.resolve(run)
    record = store.read(path)
    if record["verdict"]["outcome"] != "native":
        raise UsageError(f"the offline run is {record['verdict']['outcome']}", where=path, todo=TODO)
    if version is not None and record["engine"]["version"] != version:
        raise UsageError(f"the offline run is of sglang {record['engine']['version']}", where=path, todo=TODO)
    workload: Mapping[str, Any] = record["workload"]
    for name in COMPARED:
        if workload[name] != getattr(request, name):
            says = f"the offline run has {name} {workload[name]!r}, the load test {getattr(request, name)!r}"
            raise UsageError(says, where=path, todo=TODO)
    hashes = {output["pixels_sha256"] or "" for served in record["requests"] for output in served["outputs"]}
    if len(hashes) != 1 or "" in hashes:
        raise UsageError(f"the offline run brought {len(hashes)} different pictures, not one", where=path, todo=TODO)
    return {outputs.asked(replace(request, seed=workload["seed"])): tuple(hashes)}
