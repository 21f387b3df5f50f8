"""Two arms as servers under load: what their SPECs mean, and the comparison as a document."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bench import redact, schema
from bench.compare import ab as offline
from bench.compare import arms
from bench.compare.ab import ARM, BASELINE, CANDIDATE
from bench.engine import code
from bench.errors import EngineFailed, FallbackDetected, UsageError
from bench.record import campaign, comparable, store
from bench.run import document as documents
from bench.run import plan as plans
from bench.run.options import restored
from bench.serving import command, local, review, versus
from bench.serving.options import LoadOptions
from bench.serving.versus import CAPACITY, Session
from bench.stats import comparison

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bench.compare.ab import Display
    from bench.errors import BenchError
    from bench.record.campaign import Campaign
    from bench.run.options import Options
    from bench.run.plan import Plan
    from bench.serving.versus import Design, Pair

KIND, CAMPAIGN = "load-comparison", "load-ab"
DOCUMENT = store.SERVERS
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished comparison: its document, where it is, and what cut it off (None: nothing)."""

    document: dict[str, Any]
    path: Path
    error: BenchError | None


def refuse(options: LoadOptions) -> None:
    """Refuse what two servers are not compared by.

    Raises:
        UsageError: with what to leave out.
    """
    given = {
        "--url": options.url is not None,
        "--concurrency": options.concurrency is not None,
        "--trace": options.trace is not None,
        "--find-max": options.find_max,
        "--batching": options.batching > 1,
        "--golden": options.golden is not None,
        "--model-cache-root": options.run.model_cache_root is not None,
    }
    if named := [name for name, is_given in given.items() if is_given]:
        raise UsageError(
            f"{' and '.join(named)} cannot be combined with --baseline and --candidate",
            todo="leave it out: two servers are compared unloaded, at capacity, and at --rate or at shares of the"
            " baseline's capacity",
        )


def measure(options: LoadOptions, specs: Mapping[str, str], design: Design, display: Display) -> Result:
    """Measure two servers and return their comparison.

    Raises:
        UsageError: a SPEC or the design is wrong.
        BenchError: not one pair counts, with what that came from.
    """
    planned = {name: plans.plan(arms.options_of(spec, options.run)) for name, spec in specs.items()}
    for settled in planned.values():
        local.request_of(settled.workload)
    name = "-".join(filter(None, (options.run.model, options.run.label)))
    directory = store.new_run(CAMPAIGN, name, options.run.output_dir)
    asked = {
        "options": options.document(),
        "arms": {arm: redact.text(spec) for arm, spec in specs.items()},
        "design": asdict(design),
        "started": store.now().isoformat(),
    }
    with campaign.begin(CAMPAIGN, directory, asked) as state:
        return compared(options, specs, design, display, host=_host(planned, options, display), state=state)


def resume(folder: Path, given: Mapping[str, str], now: Options, display: Display) -> Result:
    """Measure the pairs that a comparison lacks which was cut off; ``given`` are SPECs as `bench.compare.ab.resume`.

    Raises:
        UsageError: it has ended or is going on elsewhere; an arm, its engine or this machine has changed.
        RecordEdited: a file of it has changed.
        BenchError: as `measure`.
    """
    with campaign.resume(folder, CAMPAIGN) as state:
        then = LoadOptions.from_document(state.asked["options"])
        options = replace(then, run=restored(then.run, now))
        specs = {
            name: offline.same_arm(name, spec, given[name], options.run) for name, spec in state.asked["arms"].items()
        }
        planned = {name: plans.plan(arms.options_of(spec, options.run)) for name, spec in specs.items()}
        if state.finished:
            for name, settled in planned.items():
                _refuse_changed(settled, state.folder / "pair-1" / name)
        design = versus.Design(**state.asked["design"])
        return compared(options, specs, design, display, host=_host(planned, options, display), state=state)


def _refuse_changed(planned: Plan, place: Path) -> None:
    """Hold a start that is finished against what the next one of its arm would be.

    Raises:
        UsageError: one of engine, machine, workload and variables is another.
    """
    earlier = review.read(place).record
    served = command.build(planned.engine, planned.workload, place, on_cpu=planned.machine.kind == "cpu")
    environment = dict(served.command.environment) | command.places(earlier["launches"][-1])
    documents.refuse_changed(planned, code.read(planned.engine.code), earlier, place, environment)


def _host(planned: Mapping[str, Plan], options: LoadOptions, display: Display) -> Callable[[str, Path], local.Hosted]:
    """Return what makes an arm by its name that writes into a folder."""

    def host(name: str, folder: Path) -> local.Hosted:
        asked = replace(options, run=planned[name].options)
        return local.Hosted(planned[name], asked, display, directory=folder)

    return host


def compared(
    options: LoadOptions,
    specs: Mapping[str, str],
    design: Design,
    display: Display,
    *,
    host: Callable[[str, Path], local.Hosted],
    state: Campaign,
) -> Result:
    """Measure two servers that ``host`` starts, and write and return their comparison.

    Raises:
        UsageError: the design is wrong, or nothing can be written.
        BenchError: not one pair counts, with what that came from.
    """
    versus.check(design)
    session = Session(options=options, design=design, host=host, state=state, display=display)
    session.keep_finished()
    directory = state.folder
    error = versus.measure(session)
    ends = error is None or error.exit_code == FallbackDetected.exit_code
    if not session.pairs:
        if ends:
            state.end()
        raise error or EngineFailed("no pair was finished", where=directory)
    written = redact.document(
        {
            "schema": KIND,
            "schema_version": SCHEMA_VERSION,
            "methodology": store.METHODOLOGY,
            "id": directory.name,
            "label": options.run.label,
            "complete": error is None,
            "failure": None if error is None else {"exit_code": error.exit_code, "what": error.what},
            "started": state.asked["started"],
            "finished": store.now().isoformat(),
            "model": options.run.model,
            "duration_s": options.duration_s,
            "seed": design.seed,
            "arms": {name: {"spec": spec} for name, spec in specs.items()},
            "pairs": [_pair(pair, directory) for pair in session.pairs],
            **_concluded(session),
        }
    )
    path = directory / DOCUMENT
    schema.write(written, KIND, path, replace=state.resumed)
    if ends:
        state.end()
    return Result(document=written, path=path, error=error)


def _concluded(session: Session) -> dict[str, Any]:
    """Return what the pairs come to."""
    decision = session.decide()
    rates = versus.rates(session)
    records = [session.pairs[0].finished[name].record for name in (BASELINE, CANDIDATE)]
    ours = all(record["engine"] is not None for record in records)
    return {
        "differences": comparable.differences(records[0], records[1]) if ours else [],
        "circumstances": comparable.circumstances(records[0], records[1]) if ours else [],
        "disturbed": {name: list(phrases) for name, phrases in session.disturbed().items()},
        "slo_s": session.slo_s,
        "why": decision.why,
        "comparison": comparison.to_document(decision.comparison),
        "capacity": comparison.to_document(session.decide(CAPACITY).comparison),
        "rates": [asdict(rate) for rate in rates],
        "highest_rate_hz": {name: versus.highest_rate(rates, name) for name in ARM.values()},
        "pictures": asdict(versus.pictures(session)),
    }


def _pair(pair: Pair, directory: Path) -> dict[str, Any]:
    return {
        "order": pair.order,
        "service_log_ratio": pair.service,
        "capacity_log_ratio": pair.capacity,
        **{
            name: {
                "record": store.file_entry(pair.finished[name].path, directory),
                "verdict": (pair.finished[name].record["verdict"] or {}).get("outcome"),
                "service_s": list(pair.service_s[name]),
                "capacity_hz": pair.measured[name][versus.BUSY].level.achieved_hz,
                "waiting_cpu_percent": pair.waiting_cpu_percent[name],
            }
            for name in ARM.values()
        },
    }
