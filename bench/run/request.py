"""One finished request: its perf dump, its outputs, and what they say against it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from bench.engine import command as commands
from bench.errors import InvalidPerfDump
from bench.fallback import dump as dumps
from bench.fallback import finding as f
from bench.fallback import outputs as files
from bench.record import store
from bench.run import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from bench.fallback.finding import Finding
    from bench.fallback.guard import Guard
    from bench.fallback.outputs import Output
    from bench.record.types import Output as OutputDocument
    from bench.record.types import Request as RequestDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that the engine says it has finished; numbers are 1-based, ``wall_s`` is the client's, in seconds."""

    index: int
    launch: int
    wall_s: float | None
    dump_file: Path
    dump: Mapping[str, Any] | InvalidPerfDump
    outputs: tuple[Output, ...]
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> bool:
        """Whether dump and outputs say nothing against it."""
        return not any(finding.severity == f.INVALID for finding in self.findings)


def read(
    folder: Path,
    outputs: Path,
    guard: Guard,
    window: tuple[datetime, datetime],
    *,
    index: int = 1,
    launch: int = 1,
    wall_s: float | None = None,
) -> Request:
    """Return the request whose dump lies in ``folder`` and whose files lie in ``outputs``, checked.

    It is the last one that ``guard`` saw in the log.
    """
    path = folder / commands.PERF_DUMP
    dump: Mapping[str, Any] | InvalidPerfDump
    try:
        dump = dumps.load(path)
        against = dumps.check(dump, guard.expectation, *window, list(guard.facts.requests)[-1:])
        guard.facts.learn_steps(dump)
    except InvalidPerfDump as error:
        dump, against = error, [dumps.unreadable(error)]
    made = tuple(files.read(outputs))
    return Request(
        index=index,
        launch=launch,
        wall_s=wall_s,
        dump_file=path,
        dump=dump,
        outputs=made,
        findings=(*against, *files.check(made, guard.expectation)),
    )


def document(request: Request, directory: Path) -> RequestDocument:
    """Return a request that counts as a record holds it; its files are named from the run's ``directory``."""
    dump = request.dump
    assert not isinstance(dump, InvalidPerfDump)
    known = {
        "index": request.index,
        "launch": request.launch,
        "wall_s": request.wall_s,
        **figures(dump),
        "outputs": outputs(request, directory),
        "perf_dump": store.file_entry(request.dump_file, directory),
    }
    return cast("RequestDocument", known)


def figures(dump: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says of a request in numbers: all of it comes from the perf dump."""
    return {
        "metrics": metrics.compute(dump),
        "steps_ms": metrics.steps_ms(dump),
        "stages_ms": [
            {"name": step["name"], "ms": step["duration_ms"], "kind": metrics.stage_kind(step["name"])}
            for step in dump["steps"]
        ],
        "memory": dump["memory_checkpoints"],
    }


def outputs(request: Request, directory: Path) -> list[OutputDocument]:
    """Return a request's outputs as a record holds them, named from the run's ``directory``."""
    made = [
        asdict(output) | {"file": str((request.dump_file.parent / output.file).relative_to(directory))}
        for output in request.outputs
    ]
    return cast("list[OutputDocument]", made)
