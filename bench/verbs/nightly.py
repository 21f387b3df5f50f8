"""`invoke nightly`: a sweep of a tag, compared with the nights before, each slow preset traced to its cause by rule."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from bench.errors import Inconclusive, PreflightFailed, ThresholdMissed, UsageError
from bench.options import MEASURING, OUTPUT, Kind, nested, option
from bench.run.options import Options
from bench.task import Context, extra_arguments, task
from bench.verbs import sweep

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.compare.history import Point
    from bench.errors import BenchError
    from bench.sweep.cells import Cell
    from bench.sweep.folder import Folder
    from bench.sweep.triage import Finding

NIGHTLY_REPEATS = 5
TAKE = {"bench": ("--preset-file",), "calibrate": ("--preset-file", "--output-dir"), "history": ("--output-dir",)}
"""Which of a night's own options the commands take that a finding names."""
METRICS = {"total": "end to end", "denoise": "the denoising loop", "wall": "of the request, by the clock"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NightlyOptions:
    """What `invoke nightly` takes."""

    tag: str = option("nightly", completes="tags", help="presets with this tag are measured (default nightly)")
    engine: str | None = option(None, completes="engines", help="engine that is measured (default as for bench)")
    repeats: int = option(NIGHTLY_REPEATS, kind=Kind.WHOLE, help=f"requests that count (default {NIGHTLY_REPEATS})")
    on: str = option(sweep.LOCAL, choices=sweep.EXECUTORS, help="where cells run: local or slurm (default local)")
    night: str | None = option(None, help="measure nothing: judge the records of this day, e.g. 2026-11-24")
    resume: str | None = option(
        None, group=MEASURING, help="go on with the night of this day, e.g. 2026-11-24 (default: today's)"
    )
    again: bool = option(
        True, group=MEASURING, help="do not measure slow presets again, on their own host and on another"
    )
    metric: str = option("total", choices=METRICS, help="what is judged: total, denoise or wall (default total)")
    retry_failed: bool = option(
        False, group=MEASURING, help="measure this night's cells again that ended with an error"
    )
    parallel: int | None = option(None, kind=Kind.WHOLE, group=MEASURING, help="cells at once, at most (on Slurm)")
    run: Options = nested(Options, "preset_file", "output_dir")
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the findings as a JSON list on stdout")


@task(NightlyOptions, example="nightly --night 2026-11-24")
def nightly(c: Context, options: NightlyOptions) -> None:
    """Measure the presets of a tag, compare them with the nights before, and say what each slow one is due to."""
    from bench.report import text
    from bench.sweep import triage

    if options.night is not None and options.resume is not None:
        raise UsageError("--night measures nothing and --resume goes on: one of them")
    night = _Night(options, extra_arguments(c))
    if options.night is None:
        night.measure()
    presets = night.presets()
    findings = [found for preset in presets if (found := night.judge(preset)) is not None]
    judged = len(presets) - sum(found.kind in triage.NOT_JUDGED for found in findings)
    counted = f"{len(findings)} finding{'' if len(findings) == 1 else 's'}"
    told = f"{judged} of {len(presets)} presets judged, {counted}, night of {night.day}"
    if options.as_json:
        text.write_json([asdict(found) for found in findings])
    else:
        for found in findings:
            text.line(text.stdout(), f"{found.preset}: {found.kind}: {found.says}; next: {found.next_step}")
        text.line(text.stdout(), told)
    if regressions := [found.preset for found in findings if found.kind in triage.REGRESSIONS]:
        raise ThresholdMissed(f"slower than in the nights before: {', '.join(regressions)}")
    if night.failed is not None:
        raise night.failed
    if findings:
        raise Inconclusive(told, todo="run the commands shown above")


class _Night:
    """One night: its sweeps, and the records of it and of the nights before."""

    def __init__(self, options: NightlyOptions, extra: tuple[str, ...]) -> None:
        from bench import paths
        from bench.compare import metric
        from bench.record import store
        from bench.sweep import triage

        self._options = options
        self._extra = extra
        self._root = (options.run.output_dir or paths.runs()).absolute()
        self._metric = metric.named(options.metric)
        given = {"--night": options.night, "--resume": options.resume}
        days = [_day(name, text) for name, text in given.items() if text is not None]
        self.day = days[0] if days else store.now().date().isoformat()
        self._names = (f"{triage.SWEEP}{self.day}", f"{triage.SWEEP}{self.day}-again")
        """Of the night's sweeps: each preset once, and again what is slow."""
        self.failed: BenchError | None = None
        """What the night's sweep ended with, None if every cell was measured."""
        self._hosts: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        """Why presets are not measured tonight."""

    def presets(self) -> list[str]:
        """Return the presets of the tag."""
        from bench.catalog import presets

        return presets.chosen((), self._options.tag, everything=False, preset_file=self._options.run.preset_file)

    def measure(self) -> None:
        """Measure each preset, and those that are slow again: on the same host, and on another where there is one.

        Raises:
            PreflightFailed: this machine has too few GPUs for every preset.
            BenchError: no cell can be planned, or the sweep was interrupted.
        """
        self._sweep(self._names[0], self.presets(), replicas=1)
        suspects = [preset for preset in self.presets() if self._is_suspect(preset)]
        if suspects and self._options.again:
            self._sweep(self._names[1], suspects, replicas=2 if self._options.on == sweep.SLURM else 1)

    def _check_machine(self, planned: Sequence[str]) -> None:
        """Raise PreflightFailed if none of these presets would be launched here: each would be refused by itself."""
        import os

        from bench import paths
        from bench.machine import gpus, vendors
        from bench.preflight import gpus as checks
        from bench.preflight.state import FAIL, MachineState
        from bench.run import plan

        asked = [Options(model=preset, preset_file=self._options.run.preset_file) for preset in planned]
        workloads = [plan.workload(options) for options in asked]
        state = MachineState(
            engine=None,
            workload=None,
            machine=gpus.visible(gpus.machine(), os.environ.get(gpus.VISIBLE)),
            samples=(),
            vendors=vendors.devices(),
            environment=os.environ,
            output=self._options.run.output_dir or paths.runs(),
        )
        found = [line for workload in workloads for line in checks.enough(replace(state, workload=workload))]
        counted = [line for line in found if line.id == "gpu.count"]
        if all(line.state == FAIL for line in counted):
            gpus_each = [workload.preset.gpus for workload in workloads]
            needed = " to ".join(dict.fromkeys((str(min(gpus_each)), str(max(gpus_each)))))
            raise PreflightFailed(
                f"{counted[0].saw.partition(',')[0]}; the presets tagged {self._options.tag} need {needed}",
                todo="measure on a cluster (--on slurm), or presets that run here, e.g. --tag tiny",
            )

    def _sweep(self, name: str, presets: Sequence[str], *, replicas: int) -> None:
        from bench.report import text
        from bench.sweep import measures
        from bench.sweep.folder import Folder

        options = sweep.SweepOptions(
            name=name,
            on=self._options.on,
            parallel=self._options.parallel,
            replicate_hosts=replicas,
            retry_failed=self._options.retry_failed,
            run=self._options.run,
        )
        engine = {"engine": (self._options.engine,)} if self._options.engine else {}
        axes = {"model": tuple(presets), "repeats": (str(self._options.repeats),), **engine}
        folder = Folder.of(name, self._options.run.output_dir)
        pinned = {preset: self._hosts[preset] for preset in presets if preset in self._hosts}
        cells, refused = sweep.planned(measures.typed(("bench",), axes, (), self._extra), options, folder, hosts=pinned)
        self._refused |= {one.model: one.reason for one in refused}
        if self._options.resume is not None and name == self._names[0]:
            self._check_same(folder, cells)
        if self._options.on == sweep.LOCAL:
            self._check_machine([preset for preset in presets if preset not in self._refused])
        typed = sweep.command("nightly", self._options.run)
        if self._options.resume is None:  # tomorrow, the same words begin another night
            typed = sweep.with_option(typed, f"--resume={self.day}")
        rows = sweep.finished(folder, cells, options, measures.slurm_settings({}), typed=typed)
        for row in rows:
            if row.state != "done":
                text.line(text.stderr(), f"{row.label}: {row.state}: {row.why}")
        self.failed = self.failed or sweep.error_of(rows, folder, typed=f"`{typed}`")
        if self._options.on == sweep.SLURM:
            models = {cell.id: cell.words[1].partition("=")[2] for cell in cells}
            self._hosts |= {models[row.id]: row.where for row in rows if row.where is not None}

    def _check_same(self, folder: Folder, cells: Sequence[Cell]) -> None:
        """Check that the night that is gone on with was begun, and is of these cells.

        Raises:
            UsageError: it was not, or has others: today's numbers would be filed under it.
        """
        from bench.sweep.folder import SWEEP

        if not (folder.path / SWEEP).is_file():
            todo = "--resume takes the day on which a night began"
            raise UsageError(f"no night of {self.day} was begun", where=folder.path, todo=todo)
        if not {cell.id for cell in cells} <= {cell["id"] for cell in folder.read()["cells"]}:
            raise UsageError(
                f"the engine, the presets or the options are not those of the night of {self.day} any more",
                where=folder.path,
                todo="begin a new night, without --resume",
            )

    def _points(self, preset: str) -> tuple[list[Point], list[Point]]:
        """Return the records of the nights before, and those of this night."""
        from bench.compare import history
        from bench.sweep import triage

        points, _ = history.read(self._root, preset, self._metric)
        cells = self._cells()
        before = [point for point in points if triage.night_of(point) < self.day]
        return before, [point for point in points if not cells.isdisjoint(point.path.parents)]

    def _cells(self) -> set[Path]:
        """Return the folders of this night's cells: of its sweep, and of what was measured again."""
        from bench.sweep import folder

        sweeps = [folder.Folder.of(name, self._root) for name in self._names]
        there = [one for one in sweeps if (one.path / folder.SWEEP).is_file()]
        return {one.of_cell(cell["id"]) for one in there for cell in one.read()["cells"]}

    def _is_suspect(self, preset: str) -> bool:
        from bench.sweep import triage

        return triage.is_suspect(*self._points(preset))

    def judge(self, preset: str) -> Finding | None:
        """Return what is to be said of a preset tonight, None if nothing is."""
        from bench.sweep import triage

        found: Finding | None
        if preset in self._refused:
            step = f"invoke bench --model {preset} --dry-run"
            found = triage.Finding(preset=preset, kind=triage.REFUSED, says=self._refused[preset], next_step=step)
        else:
            found = triage.judge(preset, *self._points(preset))
        return None if found is None else replace(found, next_step=self._as_here(found.next_step))

    def _as_here(self, command: str) -> str:
        """Return a command with the preset file and the folder of the runs that this night was given."""
        import shlex

        run, takes = self._options.run, TAKE.get(command.split()[1], ())
        given = {"--preset-file": run.preset_file, "--output-dir": run.output_dir}
        more = [f"{name}={value}" for name, value in given.items() if value is not None and name in takes]
        return " ".join([command, *map(shlex.quote, more)])


def _day(name: str, text: str) -> str:
    """Return a day as its sweeps are called.

    Raises:
        UsageError: the word is not a day.
    """
    import datetime as dt

    try:
        return dt.date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise UsageError(f"{name} takes a day, not {text!r}", todo=f"for example {name} 2026-11-24") from error
