"""Two arms measured in A-B-B-A blocks on the same devices, until the question is decided.

By launches, each arm's engine is started anew for every place in a block: the spread between launches is part of what
is measured. Co-resident, both engines are loaded once and their requests alternate: cheap, but that spread is not
sampled.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench import schema
from bench.compare import arms, calibration
from bench.errors import BenchError, EngineFailed
from bench.fidelity import score
from bench.record import store
from bench.run import benchmark, document, timings
from bench.run import plan as plans
from bench.stats import blocks, comparison, sequential

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bench.run.options import Options
    from bench.run.state import Run
    from bench.stats.blocks import Block
    from bench.stats.sequential import Decision

BASELINE, CANDIDATE = "baseline", "candidate"
ARM = {"A": BASELINE, "B": CANDIDATE}
SEED = 20260401
"""Of the blocks' orders: drawn, because an order that is always the same favours an arm if blocks begin cold."""

DOCUMENT = "comparison.json"
SCHEMA_VERSION = 1


@dataclass(slots=True)
class Session:
    """A comparison that is going on: both runs and the values of each place of each block, in order."""

    directory: Path
    specs: dict[str, str]
    plan: sequential.Plan
    repeats: int
    co_resident: bool
    tell: Callable[[str], None]
    runs: dict[str, Run] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    orders: tuple[str, ...] = ()
    decision: Decision | None = None

    def arm_at(self, place: int) -> str:
        """Return whose turn it is at a place, counting from 0 over all blocks."""
        return ARM[self.orders[place // 4][place % 4]]

    def blocks(self) -> list[Block]:
        """Return the blocks that are whole."""
        whole = len(self.values) // 4
        rows = [self.values[4 * index : 4 * index + 4] for index in range(whole)]
        return [
            blocks.Block(values=(row[0], row[1], row[2], row[3]), order=order)
            for row, order in zip(rows, self.orders, strict=False)
        ]

    def take(self, value: float) -> bool:
        """Take the value of the next place; return whether the session is decided or at its end."""
        self.values.append(value)
        if len(self.values) % 4:
            return False
        self.decision = sequential.decide(self.blocks(), self.plan)
        effect = self.decision.comparison.effect_percent
        self.tell(f"block {len(self.values) // 4}: candidate {effect:+.2f} %; {self.decision.why}")
        return self.decision.stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished comparison: its document, where it is, both records, and what cut it off (None: nothing)."""

    document: dict[str, Any]
    path: Path
    records: dict[str, dict[str, Any]]
    error: BenchError | None


def measure(
    common: Options,
    specs: dict[str, str],
    plan: sequential.Plan,
    *,
    co_resident: bool,
    tell: Callable[[str], None],
    require: str | None = None,
) -> Result:
    """Measure baseline and candidate and return the comparison; ``common.repeats`` requests make the value of a launch.

    ``require`` is the threshold that the outputs of the arms have to meet against each other; one is looked at anyway.

    Raises:
        UsageError: a SPEC or the plan is wrong.
        EngineFailed: not one block was finished.
        BenchError: what a plan raises, or the verdict of a launch that ended everything before the first block.
    """
    sequential.planned_looks(plan)
    planned = {name: plans.plan(arms.options_of(spec, common), in_session=True) for name, spec in specs.items()}
    directory = store.new_run("ab", "-".join(filter(None, (common.model, common.label))), common.output_dir)
    session = Session(
        directory=directory,
        specs=specs,
        plan=plan,
        repeats=common.repeats,
        co_resident=co_resident,
        tell=tell,
        orders=blocks.plan_orders(plan.max_blocks, seed=SEED),
    )
    for name, settled in planned.items():
        (directory / name).mkdir()
        session.runs[name] = benchmark.begin(settled, directory=directory / name)
    error = _alternate(session) if co_resident else _by_launches(session)
    return _finish(session, error, require)


def _by_launches(session: Session) -> BenchError | None:
    """Start an engine for each place of each block."""
    place = 0
    while True:
        name = session.arm_at(place)
        run = session.runs[name]
        launch = len(run.launches) + 1

        def enough(run: Run = run, launch: int = launch) -> str | None:
            done = sum(request["launch"] == launch for request in run.requests)
            return f"{session.repeats} request(s) a launch" if done >= session.repeats else None

        session.tell(f"place {place + 1}: {name}, launch {launch}")
        if (error := benchmark.session(run, enough)) is not None:
            return error
        here = [request for request in run.requests if request["launch"] == launch]
        if session.take(timings.median_of(here, timings.PRIMARY)):
            return None
        place += 1


class _Turns:
    """Lets the requests of two engines, each in a thread of its own, alternate in the order of the blocks."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._changed = threading.Condition()
        self._warm: set[str] = set()
        self._asked: str | None = None
        self._over: str | None = None

    def enough(self, name: str) -> str | None:
        """Take what this arm has finished, wait for its next turn, and return None; or why there is none."""
        with self._changed:
            if self._asked == name:
                self._take(name)
            while self._over is None:
                if self._turn() == name and self._asked is None:
                    self._asked = name
                    return None
                self._changed.wait()
            return self._over

    def _turn(self) -> str:
        """Return whose turn it is; before the first block each arm has one request that does not count."""
        for name in (BASELINE, CANDIDATE):
            if name not in self._warm:
                return name
        return self._session.arm_at(len(self._session.values))

    def _take(self, name: str) -> None:
        self._asked = None
        if name not in self._warm:
            self._warm.add(name)
        else:
            value = self._session.runs[name].requests[-1]["metrics"][timings.PRIMARY]
            if self._session.take(value):
                self._over = "the comparison is at its end"
        self._changed.notify_all()

    def leave(self) -> None:
        """End the alternation: an arm is gone."""
        with self._changed:
            self._over = self._over or "the other arm is gone"
            self._changed.notify_all()


def _alternate(session: Session) -> BenchError | None:
    """Load both engines and let their requests alternate."""
    turns = _Turns(session)
    errors: dict[str, BenchError | None] = {}

    def serve(name: str) -> None:
        try:
            errors[name] = benchmark.session(session.runs[name], lambda: turns.enough(name))
        except BenchError as error:
            errors[name] = error
        finally:
            turns.leave()

    threads = [threading.Thread(target=serve, args=(name,), daemon=True) for name in session.runs]
    for thread in threads:
        session.tell(f"loading {list(session.runs)[threads.index(thread)]}")
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)  # so that Ctrl-C is heard; the engines end with this process
    return next((error for error in errors.values() if error is not None), None)


def _between(baseline: Mapping[str, Any]) -> str:
    """Return what is known of the spread between launches where each engine was loaded once."""
    known = calibration.noise(baseline)
    if known is None:
        return "not sampled: both engines were loaded once (`invoke calibrate` measures it)"
    return (
        "not sampled: both engines were loaded once; `invoke calibrate` found"
        f" {known.between_launch_percent:.2f} % over {known.launches} launches of the baseline here,"
        " so a smaller effect may be that of one launch"
    )


def _finish(session: Session, error: BenchError | None, require: str | None) -> Result:
    """Write both records and the comparison of the blocks that are whole.

    Raises:
        BenchError: there is none, or an arm turned out not to count when it ended: its times are no result.
    """
    records = {}
    for name, run in session.runs.items():
        if run.launches:
            records[name], _ = document.write(run, complete=error is None, failure=error)
    whole = session.blocks()
    if not whole or any(known["timings"] is None for known in records.values()):
        raise error or EngineFailed("no block was finished", where=session.directory)
    decision = session.decision if session.decision is not None else sequential.decide(whole, session.plan)
    outputs = score.between(*((records[name], session.directory / name) for name in (BASELINE, CANDIDATE)))
    written = {
        "schema": "ab-record",
        "schema_version": SCHEMA_VERSION,
        "methodology": store.METHODOLOGY,
        "id": session.directory.name,
        "complete": error is None,
        "failure": None if error is None else {"exit_code": error.exit_code, "what": error.what},
        "co_resident": session.co_resident,
        "between_launch_spread": _between(records[BASELINE]) if session.co_resident else "sampled",
        "requests_per_place": 1 if session.co_resident else session.repeats,
        "metric": timings.PRIMARY,
        "arms": {name: {"spec": spec, "record": f"{name}/{store.RECORD}"} for name, spec in session.specs.items()},
        "differences": arms.differences(records[BASELINE], records[CANDIDATE]),
        "blocks": [{"order": block.order, "values_ms": list(block.values)} for block in whole],
        "why": decision.why,
        "comparison": comparison.to_document(decision.comparison),
        "quality": score.compared(outputs, decision.comparison.verdict, require),
    }
    path = session.directory / DOCUMENT
    schema.write(written, "ab-record", path)
    return Result(document=written, path=path, records=records, error=error)
