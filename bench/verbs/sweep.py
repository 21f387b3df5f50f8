"""`invoke sweep` and its like: many measurements on the devices of this machine or of a Slurm cluster."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import (
    BenchError,
    Inconclusive,
    Interrupted,
    InvalidDocument,
    ThresholdMissed,
    TimedOut,
    UsageError,
    worst,
)
from bench.options import MEASURING, OUTPUT, Kind, nested, option
from bench.run.options import Options
from bench.task import Context, extra_arguments, task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.record.sweep import Row
    from bench.sweep.cells import Cell, Refused
    from bench.sweep.executor import Executor, Seen
    from bench.sweep.folder import Folder
    from bench.sweep.hosts import Measured
    from bench.sweep.measures import Measure

LOCAL, SLURM = "local", "slurm"
EXECUTORS = {LOCAL: "idle devices of this machine, one cell on each", SLURM: "job arrays"}
KINDS = {
    "bench": "a benchmark",
    "ab": "two arms, never parted",
    "loadtest": "served numbers",
    "accuracy": "against diffusers",
    "profile": "a trace",
}
RETRY = "--retry-failed"
FORMS = {"k8s": "Kubernetes Jobs"}
DEFAULT_RETRIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """What `invoke sweep` takes."""

    file: tuple[Path, ...] = option(
        (), many=True, optional=True, kind=Kind.PATH, help="TOML file that says what is measured (docs/sweeps.md)"
    )
    models: tuple[str, ...] = option(
        (), name="model", kind=Kind.NAMES, completes="presets", help="without a file: presets, a,b or tag:NAME"
    )
    engines: tuple[str, ...] = option(
        (), name="engine", kind=Kind.NAMES, completes="engines", help="without a file: engines, x,y"
    )
    kinds: tuple[str, ...] = option(
        ("bench",), name="kind", kind=Kind.NAMES, choices=KINDS, help="without a file: what measures a cell"
    )
    settings: tuple[str, ...] = option(
        (),
        name="set",
        repeated=True,
        help="without a file: a further axis, NAME=A,B of the verb's options; again for each",
    )
    repeats: int | None = option(None, kind=Kind.WHOLE, help="without a file: requests of each cell that count")
    on: str = option(LOCAL, choices=EXECUTORS, help="where cells run: local or slurm (default local)")
    name: str | None = option(
        None, group=OUTPUT, help="what the sweep is called: the same name goes on with it (default: the file's)"
    )
    dry_run: bool = option(False, help="print the cells, their GPUs and an estimate from history; run nothing")
    parallel: int | None = option(None, kind=Kind.WHOLE, group=MEASURING, help="cells at once, at most (on Slurm)")
    retries: int = option(
        DEFAULT_RETRIES,
        kind=Kind.WHOLE,
        least=0,
        group=MEASURING,
        help=f"how many times a lost cell is started again (default {DEFAULT_RETRIES})",
    )
    limit: float | None = option(
        None,
        kind=Kind.NUMBER,
        least=0.01,
        group=MEASURING,
        help="minutes a cell may take (default: 3 times its history)",
    )
    replicate_hosts: int = option(
        1, kind=Kind.WHOLE, group=MEASURING, help="run each cell on this many hosts, to see the spread between them"
    )
    retry_failed: bool = option(False, group=MEASURING, help="measure failed cells again")
    engine_setup: str | None = option(
        None, group=MEASURING, help="shell command that provides the engine on each node, before the cell"
    )
    emit: str | None = option(
        None, group=OUTPUT, choices=FORMS, help="print the cells as Kubernetes Jobs for kubectl; nothing is run"
    )
    image: str | None = option(
        None,
        group=OUTPUT,
        help="with --emit: container image whose working directory is this checkout, with the engine",
    )
    volume_claim: str | None = option(
        None, group=OUTPUT, help="with --emit: claim of the volume that holds the folder of the runs"
    )
    run: Options = nested(Options, "preset_file", "output_dir")
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the rows as a JSON list on stdout")


@task(SweepOptions, example="sweep --model flux-tiny --set quality=exact,lossless --dry-run")
def sweep(c: Context, options: SweepOptions) -> None:
    """Measure every combination of models, engines and settings, on this machine or on Slurm; go on if cut off."""
    from bench.sweep import measures
    from bench.sweep.folder import Folder

    if options.dry_run and options.as_json:
        raise UsageError("--dry-run lists the cells as text only", todo="leave --json out")
    asked, of_file = _measures(options, extra_arguments(c))
    settings = measures.slurm_settings(of_file)
    folder = Folder.of(_name(options, asked), options.run.output_dir)
    cells, refused = planned(asked, options, folder, listed=options.dry_run)
    if options.emit is not None:
        _emit(folder, cells, options)
    elif not options.dry_run:
        _show(
            finished(folder, cells, options, settings, typed=command("sweep", options.run, options.file)),
            folder,
            options,
        )
    if refused:
        raise UsageError(f"{len(refused)} combinations are refused", todo="exclude them; the reasons are above")


def _measures(options: SweepOptions, extra: tuple[str, ...]) -> tuple[tuple[Measure, ...], dict[str, Any]]:
    """Return what is to be measured, of the file or of the command line, and the file's settings for Slurm."""
    from bench.sweep import measures

    if len(options.file) > 1:
        raise UsageError("a sweep has one file", todo="put all measures into it")
    if options.file:
        typed = options.models or options.engines or options.settings or options.repeats or options.kinds != ("bench",)
        if typed or extra:
            raise UsageError(
                "the file says what is measured: --model, --engine, --kind, --set, --repeats and -- go without one",
                where=options.file[0],
                todo="write it into the file",
            )
        return measures.read(options.file[0])
    if not options.models:
        raise UsageError("nothing says what is measured", todo="name a sweep file, or --model")
    axes: dict[str, tuple[str, ...]] = {"model": options.models}
    if options.engines:
        axes["engine"] = options.engines
    if options.repeats is not None:
        axes["repeats"] = (str(options.repeats),)
    return measures.typed(options.kinds, axes, options.settings, extra), {}


def _name(options: SweepOptions, asked: Sequence[Measure]) -> str:
    """Return what the sweep is called: as asked, as its file, or by a hash of what was typed."""
    import hashlib

    if options.name is not None:
        return options.name
    return options.file[0].stem if options.file else hashlib.sha256(repr(asked).encode()).hexdigest()[:8]


def _kinds() -> dict[str, type]:
    from bench.verbs.accuracy import AccuracyOptions
    from bench.verbs.bench import BenchOptions
    from bench.verbs.compare import AbOptions
    from bench.verbs.loadtest import LoadtestOptions
    from bench.verbs.profile import ProfileOptions

    verbs = (BenchOptions, AbOptions, LoadtestOptions, AccuracyOptions, ProfileOptions)
    return dict(zip(KINDS, verbs, strict=True))


def planned(
    asked: Sequence[Measure],
    options: SweepOptions,
    folder: Folder,
    *,
    listed: bool = False,
    hosts: Mapping[str, str] | None = None,
) -> tuple[list[Cell], list[Refused]]:
    """Return the cells and the combinations that are refused, which are printed; ``listed`` prints each cell instead.

    ``hosts`` are those that presets have to run on.
    """
    from bench import paths
    from bench.machine import gpus
    from bench.report import sweep as report
    from bench.report import text
    from bench.sweep.cells import Planner, Refused, Wanted

    wanted = Wanted(
        kinds=_kinds(),
        preset_file=options.run.preset_file,
        runs=options.run.output_dir or paths.runs(),
        limit_s=None if options.limit is None else 60 * options.limit,
        setup=options.engine_setup,
        replicas=options.replicate_hosts,
        hosts=hosts or {},
    )
    cells: list[Cell] = []
    refused: list[Refused] = []
    minutes = gpu_hours = 0.0
    on_cpu = options.on == LOCAL and gpus.machine().kind == "cpu"
    count = unknown = finished = 0
    for made in Planner(wanted).cells(asked):
        if isinstance(made, Refused):
            refused.append(made)
            text.line(text.stderr(), f"refused: {made.label}: {made.reason}")
        elif not listed:
            cells.append(made)
        else:
            took = None if made.estimate_s is None else made.estimate_s / 60
            count, unknown = count + 1, unknown + (took is None)
            minutes += took or 0
            gpu_hours += 0 if on_cpu else (took or 0) * made.gpus / 60
            is_finished = (folder.of_cell(made.id) / "result.json").exists()
            finished += is_finished
            text.write(report.planned_line(made.id, made.label, made.gpus, took, is_finished=is_finished))
    if listed:
        text.write(report.planned(count, minutes, unknown, gpu_hours, finished))
    return cells, refused


def _emit(folder: Folder, cells: Sequence[Cell], options: SweepOptions) -> None:
    """Make the sweep's folder and print its cells as Kubernetes Jobs.

    Raises:
        UsageError: image or volume are not named, or the cells are wanted in another way as well.
    """
    from bench.record import campaign
    from bench.report import text
    from bench.sweep import kubernetes
    from bench.sweep.folder import KUBERNETES, SWEEP

    if options.dry_run or options.on != LOCAL or options.replicate_hosts > 1:
        raise UsageError("--emit runs nothing: --dry-run, --on and --replicate-hosts do not go with it")
    if options.image is None or options.volume_claim is None:
        raise UsageError("Kubernetes Jobs need an image and a volume", todo="--image NAME --volume-claim NAME")
    folder.prepare()
    with campaign.hold(folder.path):
        is_new = not (folder.path / SWEEP).exists()
        document = _begun(folder, cells, KUBERNETES, command("sweep", options.run, options.file), options)
    text.write_json(
        kubernetes.jobs(folder.path, document, image=options.image, claim=options.volume_claim, retries=options.retries)
    )
    note = (
        f"{len(cells)} Jobs for `kubectl apply -f -`; checked against the API's schema, never run by this tool's tests"
    )
    text.line(text.stderr(), note)
    if not is_new:
        text.line(text.stderr(), kubernetes.again(document["name"]))


def command(verb: str, run: Options, files: Sequence[Path] = ()) -> str:
    """Return what was typed of a verb with ``files``, for any folder of the checkout."""
    import sys

    from bench import redact

    given = {"--preset-file": run.preset_file, "--output-dir": run.output_dir}

    def placed(name: str, text: str) -> str:
        if (path := given.get(name)) is not None:
            return str(path.absolute())
        if name == "--set":
            axis, equals, values = text.partition("=")
            return f"{axis}{equals}{_placed(axis, values)}"
        return _placed("engine", text) if name == "--engine" else text

    words = redact.arguments(sys.argv[sys.argv.index(verb) :])
    end = words.index("--") if "--" in words else len(words)
    typed = ["invoke"]
    for before, word in pairwise(["", *words[:end]]):
        name, equals, value = word.partition("=")
        if equals and word.startswith("--"):
            typed.append(f"{name}={placed(name, value)}")
        else:
            typed.append(str(Path(word).absolute()) if Path(word) in files else placed(before, word))
    return shlex.join([*typed, *words[end:]])


def _placed(name: str, values: str) -> str:
    """Return the values of an axis, A,B, as they mean the same in any working directory."""
    from bench import options as declarations
    from bench.sweep import cells

    known = {one.name: one for its in _kinds().values() for one in declarations.declared(its)}
    if name not in known:
        return values  # a secret was taken out of it
    return ",".join(cells.placed(known[name], value.strip()) for value in values.split(",") if value.strip())


def _begun(folder: Folder, cells: Sequence[Cell], on: str, typed: str, options: SweepOptions) -> dict[str, Any]:
    """Begin the sweep or take it up, without what failed if that is asked for; return its document, under its lock.

    Raises:
        UsageError: it cannot be written, or is still in Slurm or on Kubernetes and is to go on elsewhere.
    """
    from bench.sweep import kubernetes, slurm
    from bench.sweep.folder import KUBERNETES

    if on != SLURM:
        slurm.leave(folder)
    if on != KUBERNETES:
        kubernetes.leave(folder)
    document = folder.begin(folder.path.name, on, typed, cells)
    if options.retry_failed:
        folder.forget_failed(cell["id"] for cell in document["cells"])
    return document


def finished(
    folder: Folder, cells: Sequence[Cell], options: SweepOptions, settings: Mapping[str, Any], *, typed: str
) -> list[Row]:
    """Bring the sweep to its end and return its rows; ``typed`` is what to type to go on with it.

    Raises:
        UsageError: it cannot be run here, or another controller is at work on it.
        Interrupted: it was interrupted or cancelled.
    """
    import os

    from bench.engine import find
    from bench.record import campaign
    from bench.report import sweep as report
    from bench.report import text
    from bench.sweep.controller import Controller

    if options.replicate_hosts > 1 and options.on == LOCAL:
        raise UsageError("this machine is one host: --replicate-hosts needs several", todo="--on slurm")
    if (engine := os.environ.get(find.VARIABLE)) is not None:
        os.environ[find.VARIABLE] = find.placed(engine)  # cells inherit it, and run in the checkout's root
    folder.prepare()
    with campaign.hold(folder.path):
        document = _begun(folder, cells, options.on, typed, options)
        executor = _executor(folder, options, settings)
        controller = Controller(folder, document["cells"], executor, retries=options.retries)
        try:
            with report.Progress(text.stderr()) as display:
                return controller.run(display)
        except KeyboardInterrupt as interrupt:
            raise _interrupted(folder, options, executor, typed) from interrupt


def _show(rows: Sequence[Row], folder: Folder, options: SweepOptions) -> None:
    """Show how each cell ended.

    Raises:
        BenchError: some are not done.
    """
    from bench.report import sweep as report
    from bench.report import text

    if options.as_json:
        text.write_json([asdict(row) for row in rows])
    else:
        step = _next_step(rows, folder, is_going_on=False)
        report.show(rows, str(folder.path), text.stdout(), next_step=step, hosts=_hosts(rows))
    if (error := error_of(rows, folder, longer="; --limit gives each more minutes")) is not None:
        raise error


def _hosts(rows: Sequence[Row]) -> list[str]:
    """Return what cells that several hosts measured say of the hosts."""
    from bench.sweep import hosts

    return hosts.told(hosts.effects(measured(rows)))


def measured(rows: Sequence[Row]) -> list[Measured]:
    """Return the times of cells by their hosts; replicas are of one cell."""
    from bench.sweep import hosts

    return [
        hosts.Measured(cell=row.id.partition("-")[0], host=row.where, total_ms=row.total_ms)
        for row in rows
        if row.where is not None and row.total_ms
    ]


def _executor(folder: Folder, options: SweepOptions, settings: Mapping[str, Any]) -> Executor:
    if options.on == SLURM:
        from bench.sweep.slurm import Slurm

        return Slurm(folder, settings, throttle=options.parallel, retries=options.retries, setup=options.engine_setup)
    if options.engine_setup is not None or options.parallel is not None:
        raise UsageError("--engine-setup and --parallel are for --on slurm", todo="leave them out")
    from bench.sweep.local import Local

    return Local(folder)


def _interrupted(folder: Folder, options: SweepOptions, executor: Executor, typed: str) -> Interrupted:
    """Return what an interrupted controller ends with: cells on this machine end with it, jobs of Slurm go on."""
    if options.on == LOCAL:
        executor.stop()
        return Interrupted(
            "interrupted: the cells that ran were stopped, what is finished is kept",
            where=folder.path,
            todo=f"`{typed}` goes on",
        )
    return Interrupted(
        "the controller was interrupted; the jobs go on in Slurm",
        where=folder.path,
        todo=f"`{typed}` follows them again; `invoke sweep-cancel {folder.path}` stops them",
    )


def error_of(
    rows: Sequence[Row], folder: Folder, *, longer: str = "", typed: str = "the same command"
) -> BenchError | None:
    """Return what a sweep ends with, None if all is well; ``longer`` is how the verb gives cells more time.

    ``typed`` goes on with it.
    Cells that are not done come first, a fallback before the others; then those with an unwelcome result.
    """
    missing = [row for row in rows if row.state != "done"]
    if missing:
        kind = worst(row.exit_code or BenchError.exit_code for row in missing)
        again = f"{typed}{f' with {RETRY}' if any(row.state == 'failed' for row in missing) else ''}"
        more = longer if any(row.exit_code == TimedOut.exit_code for row in missing) else ""
        return kind(
            f"{len(missing)} of {len(rows)} cells are not done",
            where=folder.path,
            todo=f"the reasons are above; {again} measures them again{more}",
        )
    for kind, told in ((ThresholdMissed, "slower, or short of what was required"), (Inconclusive, "inconclusive")):
        if found := [row for row in rows if row.exit_code == kind.exit_code]:
            return kind(f"{told}: {len(found)} of {len(rows)} cells", where=folder.path)
    return None


# --- looking at one and stopping it -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOptions:
    """What the verbs take that look at a sweep or stop it."""

    folder: Path = option(kind=Kind.PATH, help="folder of a sweep, runs/sweep-NAME, or its NAME")
    run: Options = nested(Options, "output_dir")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusOptions(PlaceOptions):
    """What `invoke sweep-status` takes."""

    as_json: bool = option(False, name="json", group=OUTPUT, help="print the rows as a JSON list on stdout")


@task(StatusOptions, example="sweep-status runs/sweep-NAME")
def sweep_status(c: Context, options: StatusOptions) -> None:
    """Show how far a sweep is, from any machine that sees its folder."""
    from bench.report import sweep as report
    from bench.report import text

    folder = found(options)
    going_on = _is_going_on(folder)
    rows = rows_of(folder, is_going_on=going_on)
    if options.as_json:
        text.write_json([asdict(row) for row in rows])
        return
    step = _next_step(rows, folder, is_going_on=going_on)
    report.show(rows, str(folder.path), text.stdout(), next_step=step, hosts=_hosts(rows))


def rows_of(folder: Folder, *, is_going_on: bool | None = None) -> list[Row]:
    """Return the rows of a sweep as its folder and Slurm tell them.

    Raises:
        UsageError: this is not the folder of a sweep.
        InvalidDocument: a document of it violates its schema.
    """
    from bench.sweep import controller

    going_on = _is_going_on(folder) if is_going_on is None else is_going_on
    return controller.on_disk(folder, is_going_on=going_on, alive=_alive(folder))


def _alive(folder: Folder) -> Mapping[str, Seen] | None:
    """Return the cells whose jobs wait or run in Slurm; None where the sweep has none, or Slurm cannot be asked."""
    from bench.machine import slurm as machine
    from bench.report import text
    from bench.sweep import slurm

    if not folder.may_have_jobs():
        return None
    try:
        machine.require()
        return slurm.alive(folder)
    except BenchError as error:
        text.line(text.stderr(), f"note: {error.what}; what is shown is what the folder says")
        return None


def _next_step(rows: Sequence[Row], folder: Folder, *, is_going_on: bool) -> str:
    """Return the command after a look at a sweep: look again, go on with what is missing, or all that is known.

    Raises:
        InvalidDocument: what to type to go on cannot be read.
    """
    from bench.sweep.folder import KUBERNETES

    look = ["invoke", "sweep-status", str(folder.path)]
    if is_going_on:
        return shlex.join(look)
    if all(row.state == "done" for row in rows):
        return shlex.join([*look, "--json"])
    document = folder.read()
    has_jobs = document["executor"] == KUBERNETES and not folder.is_cancelled()
    if has_jobs and any(row.state in ("running", "waiting") for row in rows):
        return shlex.join(look)
    typed = document.get("command")
    if typed is None:
        return shlex.join(look)
    try:
        words = shlex.split(typed)
    except ValueError as error:
        raise InvalidDocument(f"its command cannot be split into words: {error}", where=folder.path) from error
    missing = any(row.state not in ("done", "failed") for row in rows)
    return shlex.join(words) if missing or RETRY in words else with_option(typed, RETRY)


def with_option(typed: str, word: str) -> str:
    """Return a command with one more option, before what is the engine's own."""
    words = shlex.split(typed)
    words.insert(words.index("--") if "--" in words else len(words), word)
    return shlex.join(words)


@task(PlaceOptions, example="sweep-cancel runs/sweep-NAME")
def sweep_cancel(c: Context, options: PlaceOptions) -> None:
    """Stop a sweep wherever it runs, and leave no job and no process of it."""
    from bench.report import text
    from bench.sweep import cancel

    folder = found(options)
    stopped = cancel.everything(folder)
    told = f"cancelled: {stopped}" if stopped else "nothing to cancel: nothing of this sweep runs"
    text.line(text.stdout(), f"{told}; finished cells are kept")
    text.line(text.stdout(), f"sweep: {folder.path}")


def found(options: PlaceOptions) -> Folder:
    """Return the folder of the sweep that is named; it need not be there."""
    from bench.sweep.folder import SWEEP, Folder

    given = options.folder
    is_path = given.is_dir() and given.name != str(given)
    if is_path or (given / SWEEP).is_file():  # a folder that is called like a sweep is none by itself
        return Folder(given.absolute())
    return Folder.of(options.folder.name.removeprefix("sweep-"), options.run.output_dir)


def _is_going_on(folder: Folder) -> bool:
    """Tell whether a controller is at work on a sweep."""
    from bench.record import campaign

    try:
        with campaign.hold(folder.path):
            return False
    except UsageError:
        return True
