"""What the tests of sweeps share: a sweep file over a replay engine, and what a sweep's folder holds."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from helpers import NATIVE

from bench.sweep.cells import Cell
from bench.sweep.folder import Folder

FIRST_CELL = Cell(
    id="0" * 16, kind="bench", label="a cell", words=("bench",), extra=(), priority=0, gpus=1, limit_s=60.0,
    estimate_s=None,
)  # fmt: skip


def write_sweep(folder, times, *, failed=(), waiting=(), outcomes=None):
    """Write a sweep's folder as its cells would have; ``times`` is the time in ms by (cell, host).

    ``outcomes`` are those of cells that are not just native.
    """
    ids = [f"{cell:016x}-{number}" for number, (cell, _) in enumerate(times, 1)]
    further = {label: f"{1000 + number:016x}" for number, label in enumerate((*failed, *waiting))}
    named = {name: f"cell {cell}" for name, (cell, _) in zip(ids, times, strict=True)}
    named |= {name: label for label, name in further.items()}
    cells = [replace(FIRST_CELL, id=name, label=label) for name, label in named.items()]
    sweep = Folder(folder)
    sweep.prepare()
    sweep.begin("sweep-mine", "local", "invoke sweep mine.toml", cells)
    known = {"schema": "cell-status", "schema_version": 1, "attempt": 1, "process": 1, "job": None, "log": "cell.log"}
    known |= dict.fromkeys(("started", "finished"), "2026-01-01T00:00:00+00:00")

    def write(name, host, **result):
        sweep.of_cell(name).mkdir()
        status = known | {"cell": name, "host": {"node": host, "identity": None}, "state": "finished", **result}
        (sweep.of_cell(name) / "result.json").write_text(json.dumps(status))

    done = {"exit_code": 0, "reason": None, "record": "run.json"}
    for name, ((cell, host), total_ms) in zip(ids, times.items(), strict=True):
        write(name, host, total_ms=total_ms, outcome=(outcomes or {}).get(cell, "native"), **done)
    lost = {"exit_code": 4, "reason": "it fell back", "record": None, "outcome": "invalid"}
    for label in failed:
        write(further[label], "a", total_ms=None, **lost)


FILE = """
[[measure]]
axes = {{ model = ["flux-tiny"], seed = {seeds} }}
options = {{ engine = "{engine}", model-path = "{model}" }}
{more}
"""


def write_file(path, engine, model, *, seeds=12, more=""):
    """Write a sweep file whose cells differ by their seed."""
    path.write_text(FILE.format(seeds=list(range(1, seeds + 1)), engine=engine, model=model, more=more))
    return path


@pytest.fixture
def file(replay, model, tmp_path):
    """Write a sweep file over a replay engine."""

    def make(*, scenario=None, **more):
        return write_file(tmp_path / "mine.toml", replay(**(scenario or NATIVE)), model(), **more)

    return make


@pytest.fixture
def place(home):
    """The folder of the sweep that such a file has."""
    return home / "runs" / "sweep-mine"


def document(folder):
    return json.loads((folder / "sweep.json").read_text())


def results(folder):
    """Return the result of each cell by its id."""
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("cells/*/result.json")}


def states(folder):
    return Counter((result["state"], result["exit_code"]) for result in results(folder).values())


def seeds_measured(folder):
    """Return the seeds that the records of the results are of, each as often as there is a record of it."""
    records = [json.loads((folder / result["record"]).read_text()) for result in results(folder).values()]
    return sorted(record["workload"]["seed"] for record in records)


def sweep_of_one(place, executor="local", typed="invoke sweep mine.toml"):
    """Make a sweep of one cell, and return its folder and its document."""
    folder = Folder(place)
    folder.prepare()
    return folder, folder.begin("mine", executor, typed, [FIRST_CELL])
