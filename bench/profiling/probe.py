"""What the card that is there does at best: measured once with the engine's own torch, kept by card and driver.

A figure of a benchmark is not a limit: it is the best median of a few shapes, and a shape of a trace may be faster.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench import paths, schema
from bench.catalog.devices import MEASURED, MEMORY, Ceiling, find
from bench.engine import find as engines
from bench.engine import interpreter
from bench.errors import BenchError, EngineFailed
from bench.machine import gpus, host
from bench.record import disturbance, store
from bench.run.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.engine.find import Engine
    from bench.machine.gpus import Machine

PROGRAM = "probe.py"
DOCUMENT = "probe.json"
SECONDS = 11.0
"""For measuring; importing torch comes on top, which takes longer where other work shares the CPU."""

USUAL_S = 20.0
"""For the whole, on a machine that does nothing else."""
KEPT = "probes"


def measure(engine: Engine, root: Path | None = None) -> tuple[dict[str, Any], Path]:
    """Measure the first device that the engine sees, keep what was found, and return it and its path.

    Raises:
        EngineFailed: the engine's torch does not run on it, or measured nothing.
        UsageError: no run directory can be made.
    """
    machine = seen()
    began = time.monotonic()
    started = store.now().isoformat()
    with Watch([device.uuid for device in machine.devices[:1]], during="measurement") as watch:
        told = interpreter.run_program(engine, PROGRAM, [f"{SECONDS:g}"]).strip().splitlines()[-1]
    seen_by_watch = {"preflight": None, "verdict": {"findings": [asdict(found) for found in watch.findings()]}}
    found: dict[str, Any] = json.loads(told)
    device = _device(machine, found)
    document = {
        "schema": "probe",
        "schema_version": 1,
        "started": started,
        "seconds": round(time.monotonic() - began, 3),
        "engine": engine.for_record(),
        "torch": found["torch"],
        "device": device,
        "threads": found["threads"],
        "gemm": [one | {"tflops": 2e-9 * one["m"] * one["n"] * one["k"] / one["median_ms"]} for one in found["gemm"]],
        "copy": [one | {"tb_s": 2e-9 * one["bytes"] / one["median_ms"]} for one in found["copy"]],
        "attention": [one | {"tflops": _attention_tflop(one) / (one["median_ms"] / 1e3)} for one in found["attention"]],
        "left_out": found["left_out"],
        "disturbed": list(disturbance.of(seen_by_watch)),
    }
    if not document["gemm"] and not document["copy"]:
        why = found["left_out"][0]["why"] if found["left_out"] else "it said nothing"
        raise EngineFailed(f"nothing could be measured on {device['name']}: {why}")
    directory = store.new_run("probe", device["name"], root)
    path = directory / DOCUMENT
    schema.write(document, "probe", path)
    _keep(document)
    return document, path


def seen() -> Machine:
    """Return the devices that an engine's process sees."""
    return gpus.visible(gpus.machine(), engines.interpreter_environment().get(gpus.VISIBLE))


def kept(machine: Machine) -> dict[str, Any] | None:
    """Return what was measured on the first device of a machine with its present driver, None if nothing was."""
    path = _place(_device(machine, {"name": None}))
    try:
        document: dict[str, Any] = schema.read(path)
        schema.check(document, "probe", path)
    except BenchError:  # absent, or of another version of this file
        return None
    return document


def ceilings(document: Mapping[str, Any]) -> tuple[Ceiling, ...]:
    """Return the best rate of each data type and of memory."""
    when = document["started"][:10]
    best: dict[str, Mapping[str, Any]] = {}
    for one in document["gemm"]:
        if one["tflops"] > best.get(one["data_type"], {"tflops": 0.0})["tflops"]:
            best[one["data_type"]] = one
    found = [
        Ceiling(
            of=data_type,
            kind=MEASURED,
            rate=one["tflops"],
            source=f"{one['m']}x{one['n']}x{one['k']} product, median of {one['runs']}, on this card by probe, {when}",
        )
        for data_type, one in best.items()
    ]
    copy = max(document["copy"], key=lambda one: float(one["tb_s"]), default=None)
    if copy is not None:
        source = f"copy of {copy['bytes'] >> 20} MiB, read + written, median of {copy['runs']}, on this card by probe"
        found.append(Ceiling(of=MEMORY, kind=MEASURED, rate=copy["tb_s"], source=f"{source}, {when}"))
    return tuple(found)


def specified(document: Mapping[str, Any]) -> dict[str, float]:
    """Return the maker's rates of the device by data type and for memory; empty for one that the table lacks."""
    device = find(document["device"]["name"])
    known = device.ceilings if device else ()
    return {ceiling.of: ceiling.rate for ceiling in known if ceiling.kind != MEASURED}


def _attention_tflop(one: Mapping[str, Any]) -> float:
    """Return the work of self-attention without a mask: two products of sequence x sequence x size for each head."""
    return 4e-12 * float(one["heads"]) * float(one["sequence"]) ** 2 * float(one["head_size"])


def _device(machine: Machine, found: Mapping[str, Any]) -> dict[str, Any]:
    if machine.devices:
        first = machine.devices[0]
        return {"kind": machine.kind, "name": first.name, "uuid": first.uuid, "driver": machine.driver}
    if found["name"] is not None:  # a GPU that NVML does not know
        return {"kind": "other", "name": found["name"], "uuid": None, "driver": None}
    return {"kind": "cpu", "name": host.as_document()["cpu"], "uuid": host.identity(), "driver": None}


def _place(device: Mapping[str, Any]) -> Path:
    identity = paths.sha256_of(json.dumps(device, sort_keys=True).encode())
    return paths.cache() / KEPT / f"{identity[:16]}.json"


def _keep(document: Mapping[str, Any]) -> None:
    """Keep a document for later profiles; it replaces an earlier one in one step."""
    place = _place(document["device"])
    place.parent.mkdir(parents=True, exist_ok=True)
    schema.write(document, "probe", place, replace=True)
