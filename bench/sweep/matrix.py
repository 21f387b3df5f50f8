"""Eager against CUDA graphs at every quality: each combination a cell, each warmed alike, with its pictures beside.

Left to itself the engine warms a graph cell with a synthetic request at the start and an eager cell with the request
itself, so their first numbers are not of one state. Here every launch of every cell warms up at the start, at the size
of the request, and then serves one request that is not counted. The cells are launched in order and then in reverse, so
that a steady drift of the machine falls on all of them alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from bench import schema
from bench.compare import records
from bench.engine import code
from bench.errors import BenchError, ThresholdMissed, worst
from bench.fidelity import frames
from bench.record import campaign, store
from bench.run import benchmark, document, plan
from bench.run.options import QUALITIES, Options, restored
from bench.run.session import Course
from bench.stats import comparison
from bench.stats.unpaired import WELCH_MINIMUM

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.process import Observer
    from bench.record.campaign import Campaign
    from bench.record.types import Record
    from bench.run.state import Run
    from bench.sweep.display import Display

DEFAULT_QUALITY = "lossless"
"""The engine's own default: its eager cell is what the others are compared with."""

METRIC = "denoise"
"""What CUDA graphs and qualities change, and what a cell shows."""

KIND = "matrix"
DOCUMENT = "matrix.json"
REFUSED, NOT_RUN = "refused", "not run"


@dataclass(slots=True)
class Cell:
    """One combination and how far it has come; ``failure`` ends it."""

    quality: str | None
    cuda_graph: bool
    options: Options
    run: Run | None = None
    record: Record | None = None
    failure: BenchError | None = None
    launched: int = 0
    """How many launches have ended."""
    path: Path | None = None
    """Where its record is."""
    compared: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The cell's name, which is also that of its folder."""
        return f"{self.quality or 'default'}-{'graphs' if self.cuda_graph else 'eager'}"

    @property
    def counts(self) -> bool:
        """Whether the cell has numbers."""
        return self.record is not None and self.record["timings"] is not None

    @property
    def settled(self) -> bool:
        """Whether no launch of it is missing, or none can be added."""
        return self.failure is not None or self.launched == self.options.launches

    @property
    def complete(self) -> bool:
        """Whether it has all the numbers that were asked for."""
        return self.counts and self.record is not None and bool(self.record["complete"])


def cells(options: Options, along: Sequence[str]) -> list[Cell]:
    """Return the cells of a matrix in order; everything else stays as the options say."""
    qualities = tuple(QUALITIES) if "quality" in along else (options.quality,)
    graphs = (False, True) if "cuda-graph" in along else (options.cuda_graph,)
    common = replace(options, warmup_at_start=True)
    return [
        Cell(quality=quality, cuda_graph=graph, options=replace(common, quality=quality, cuda_graph=graph))
        for quality, graph in product(qualities, graphs)
    ]


def measure(
    options: Options,
    along: Sequence[str],
    display: Display,
) -> tuple[dict[str, Any], Path, BenchError | None]:
    """Measure every cell and return the matrix, where it was written, and the error to end with (None: none).

    A cell that does not count is not launched again and stops no other. Ctrl-C writes what there is and re-raises.

    Raises:
        UsageError: the folder cannot be made.
    """
    name = "-".join(filter(None, (options.model, options.label)))
    folder = store.new_run("matrix", name, options.output_dir)
    asked = {"options": options.document(), "axes": list(along), "started": store.now().isoformat()}
    with campaign.begin(KIND, folder, asked) as state:
        return _measured(state, cells(options, along), display)


def resume(folder: Path, now: Options, display: Display) -> tuple[dict[str, Any], Path, BenchError | None]:
    """Make the launches that a matrix lacks which was cut off; return as `measure` does.

    Raises:
        UsageError: it has ended or is going on elsewhere, engine or machine have changed, or a secret is not given
            ``now``.
        RecordEdited: a file of it has changed.
    """
    with campaign.resume(folder, KIND) as state:
        matrix = cells(restored(Options.from_document(state.asked["options"]), now), state.asked["axes"])
        for cell in matrix:
            _take_up(cell, state)
        return _measured(state, matrix, display)


def _take_up(cell: Cell, state: Campaign) -> None:
    """Give a cell what it had when the matrix was cut off."""
    results = [result for part, result in state.finished.items() if part.rpartition(" ")[0] == cell.name]
    folder = state.folder / cell.name
    cell.launched = len(results)
    if results and results[-1] is not None:
        failure = results[-1]
        cell.failure = worst([failure["exit_code"]])(failure["what"], todo=failure["todo"])
    if cell.settled:
        cell.path = next((folder / name for name in (store.PARTIAL, store.RECORD) if (folder / name).exists()), None)
        cell.record = None if cell.path is None else store.read(cell.path)
        if cell.record is not None:
            planned = plan.plan(cell.options, in_session=True)
            document.check_unchanged(planned, code.read(planned.engine.code), cell.record, folder)
    elif cell.launched:
        cell.run = benchmark.begin(plan.plan(cell.options, in_session=True), folder, launches=cell.launched)


def _measured(state: Campaign, matrix: list[Cell], display: Display) -> tuple[dict[str, Any], Path, BenchError | None]:
    """Make the launches that are missing and write the matrix, also if this is interrupted."""
    folder = state.folder
    try:
        rounds = matrix[0].options.launches
        for index in range(rounds):
            for number, cell in enumerate(matrix if index % 2 == 0 else reversed(matrix), 1):
                if cell.failure is None and cell.launched == index:
                    left = sum(rounds - other.launched for other in matrix if other.failure is None)
                    place = f"round {index + 1}/{rounds}, cell {number}/{len(matrix)}"
                    with display(cell.name, place, left) as observer:
                        _launch(cell, folder / cell.name, observer)
                    state.finish(f"{cell.name} {index + 1}", _failure(cell))
    finally:
        for cell in matrix:
            if not cell.settled:
                _write(cell)
        _compare(matrix, folder)
        known = {
            "schema": "matrix",
            "schema_version": 1,
            "methodology": store.METHODOLOGY,
            "id": folder.name,
            "started": state.asked["started"],
            "finished": store.now().isoformat(),
            "model": matrix[0].options.model,
            "axes": state.asked["axes"],
            "cells": [_document(cell) for cell in matrix],
        }
        schema.write(known, "matrix", folder / DOCUMENT, replace=state.resumed)
    state.end()
    return known, folder / DOCUMENT, _error(known, folder / DOCUMENT)


def _failure(cell: Cell) -> dict[str, Any] | None:
    """Return what a cell failed with, as the state keeps it."""
    error = cell.failure
    return None if error is None else {"exit_code": error.exit_code, "what": error.what, "todo": error.todo}


def _launch(cell: Cell, folder: Path, observer: Observer) -> None:
    """Make one more launch of a cell; its first request warms up and is not counted."""
    try:
        if cell.run is None:
            planned = plan.plan(cell.options, in_session=True)
            folder.mkdir(exist_ok=True)
            cell.run = benchmark.begin(planned, folder, launches=0)
        run = cell.run
        launch = len(run.launches) + 1

        def enough(_engine: int) -> str | None:
            done = sum(request["launch"] == launch for request in run.requests)
            return f"{cell.options.repeats} requests a launch were asked for" if done >= cell.options.repeats else None

        cell.failure = benchmark.session(run, Course(enough=enough), observer)
    except BenchError as error:
        cell.failure = error
    cell.launched += 1
    _write(cell)


def _write(cell: Cell) -> None:
    """Write a cell's record as far as it has come, if anything of it is known that counts or ended it."""
    run = cell.run
    if run is not None and run.launches and (run.requests or cell.failure is not None):
        complete = cell.settled and cell.failure is None
        cell.record, cell.path = document.write(run, complete=complete, failure=cell.failure)


def _compare(matrix: Sequence[Cell], folder: Path) -> None:
    """Set each cell beside the eager one of its quality and beside the default one."""
    eager = {cell.quality: cell for cell in matrix if cell.counts and not cell.cuda_graph}
    reference = eager.get(DEFAULT_QUALITY) or next(iter(eager.values()), None)
    for cell in matrix:
        if not cell.counts:
            continue
        partner = eager.get(cell.quality)
        if cell.cuda_graph and partner is not None:
            if cell.complete and partner.complete and cell.options.launches >= WELCH_MINIMUM:
                told = records.compare(
                    records.read(folder / partner.name, METRIC), records.read(folder / cell.name, METRIC)
                )
                cell.compared["graphs"] = comparison.to_document(told)
            cell.compared["same_pixels"] = _pixels(cell) == _pixels(partner)
        if reference is not None and cell is not reference:
            cell.compared["reference"] = reference.name
            likeness = frames.compare(_output(cell, folder), _output(reference, folder))
            cell.compared["likeness"] = asdict(likeness)


def _pixels(cell: Cell) -> set[tuple[str, ...]]:
    """Return the hashes of the pictures that the requests of a cell made: one, if all made the same."""
    assert cell.record is not None
    return {
        tuple(output["pixels_sha256"] or output["sha256"] or "" for output in request["outputs"])
        for request in cell.record["requests"]
    }


def _output(cell: Cell, folder: Path) -> Path:
    assert cell.record is not None
    name: str = cell.record["requests"][0]["outputs"][0]["file"]
    return folder / cell.name / name


def _document(cell: Cell) -> dict[str, Any]:
    known = cell.record
    finding = None
    if known is not None:
        finding = next((entry for entry in known["verdict"]["findings"] if entry["severity"] != "info"), None)
    reason, todo = (None, None) if finding is None else (f"{finding['id']}: {finding['means']}", finding["todo"])
    if cell.failure is not None and known is None:
        reason, todo = cell.failure.what, cell.failure.todo
    outcome = known["verdict"]["outcome"] if known is not None else NOT_RUN if cell.failure is None else REFUSED
    timings = known["timings"] if known is not None else None
    summary = timings["summary"]["denoise_ms"] if timings and timings["summary"] else None
    return {
        "name": cell.name,
        "quality": cell.quality,
        "cuda_graph": cell.cuda_graph,
        "outcome": outcome,
        "exit_code": None if outcome == NOT_RUN else 0 if cell.failure is None else cell.failure.exit_code,
        "reason": reason,
        "todo": todo,
        "record": None if cell.path is None else f"{cell.name}/{cell.path.name}",
        "requests": timings["requests"] if timings else 0,
        "denoise_ms": timings["metrics"]["denoise_ms"] if timings else None,
        "denoise_interval_ms": None if summary is None else summary["interval"],
        "total_ms": timings["metrics"]["total_ms"] if timings else None,
        "outputs_identical": timings["outputs_identical"] if timings else None,
        "against_eager": cell.compared.get("graphs"),
        "same_pixels_as_eager": cell.compared.get("same_pixels"),
        "reference": cell.compared.get("reference"),
        "likeness": cell.compared.get("likeness"),
    }


def _error(known: dict[str, Any], path: Path) -> BenchError | None:
    """Return what a matrix ends with: a fallback is the gravest, then what could not run, then pictures that differ."""
    rows = known["cells"]
    bad = [row for row in rows if row["exit_code"] != 0]
    if bad:
        kind = worst(row["exit_code"] for row in bad if row["exit_code"] is not None)
        return kind(f"{len(bad)} of {len(rows)} cells do not count", where=path)
    different = [row["name"] for row in rows if row["same_pixels_as_eager"] is False]
    if different:
        return ThresholdMissed(
            f"not the pixels of the eager cell of the same quality: {', '.join(different)}",
            where=path,
            todo="CUDA graphs replay the same kernels: other pixels are a fault, not a quality",
        )
    return None
