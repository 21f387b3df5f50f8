"""One accuracy run, from a plan to a report: the reference first, then the engine under guard, then the judgement."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import redact, schema
from bench.accuracy import document, judge, plan, reasons
from bench.accuracy.gates import COMPONENT, GOLDEN, TRAJECTORY
from bench.engine import code, interpreter, launch
from bench.engine import command as commands
from bench.errors import (
    BenchError,
    EngineFailed,
    EvidenceMissing,
    FallbackDetected,
    Inconclusive,
    PreflightFailed,
    ThresholdMissed,
)
from bench.fallback import outputs as files
from bench.fallback.guard import Guard
from bench.fidelity import goldens
from bench.fidelity.key import golden_key, machine_id
from bench.record import store
from bench.run.benchmark import Result

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bench.accuracy.plan import Plan
    from bench.fallback.verdict import Verdict
    from bench.process import Observer

    Arrays = dict[str, NDArray[Any]]

REPORT = "accuracy.json"
REQUEST = "request.json"
MANIFEST = "manifest.json"
REFERENCE, NATIVE, OUTPUTS = "reference", "native", "outputs"
REFERENCE_MODULES = ("diffusers.", "transformers.")


def run(planned: Plan, display: Observer | None = None) -> Result:
    """Run every check of the plan and return the finished report, whatever it says; Ctrl-C tells what was kept.

    Raises:
        PreflightFailed: this device or these libraries cannot do what was asked (a dtype, a reference class).
        EngineFailed: the reference or the engine's program broke.
        EvidenceMissing: nothing shows that the reference is diffusers.
        UsageError: the run directory or the report cannot be written.
    """
    options = planned.options
    name = "-".join(filter(None, (options.model, options.label)))
    directory = store.new_run("accuracy", name, options.output_dir)
    for folder in (REFERENCE, NATIVE, OUTPUTS):
        (directory / folder).mkdir()
    try:
        return _run(planned, directory, display)
    except KeyboardInterrupt as interrupt:
        sides = [folder for folder in (REFERENCE, NATIVE) if (directory / folder / MANIFEST).is_file()]
        interrupt.add_note(f"kept: {' and '.join(sides) or 'no'} results, no report, {directory}")
        interrupt.add_note(f"to do: `invoke accuracy --model {options.model}` checks it again")
        raise


def _run(planned: Plan, directory: Path, display: Observer | None) -> Result:
    options = planned.options
    request = plan.request(planned, directory / REFERENCE, directory / OUTPUTS)
    (directory / REQUEST).write_text(json.dumps(request, indent=2) + "\n", encoding="utf-8")
    guard = Guard(planned.expectation)
    arguments = [str(directory / REQUEST), str(directory / NATIVE)]
    command = commands.build_program(
        planned.engine, "accuracy_native.py", arguments, directory, planned.preset.environment
    )
    # the program takes the model from a file: the guard's signals on arguments are to see it all the same
    guard.precheck([*command.argv, f"--model-path={planned.model}"], command.added)

    started = store.now()
    known_code = code.read(planned.engine.code)
    found = judge.Findings()
    theirs: Arrays = {}
    if plan.needs_reference(options):
        found.reference, theirs = _reference(planned, directory)
    attempt = launch.guarded(
        command, guard=guard, log=directory / store.LOG, timeout_s=options.timeout_s, display=display
    )
    stopped = attempt.ended.stopped_by
    about_outputs = files.check(files.read(directory / OUTPUTS), planned.expectation)
    verdict = attempt.conclude([*about_outputs, *code.against(known_code, guard.facts.components.values())])
    why = reasons.by_component(guard, directory / store.LOG)
    if stopped is None and (directory / NATIVE / MANIFEST).is_file():
        manifest, arrays = _read(directory / NATIVE, "native.npz", directory / store.LOG)
        _judge(planned, found, manifest, arrays, theirs, why)
        if GOLDEN in options.checks and verdict.counts:
            found.golden = _golden(planned, guard, arrays, found, verdict, directory.name)
    elif found.reference is not None:
        found.components = _unreached(found.reference, why)
    outcome, because = document.outcome(planned, found, verdict)
    known = document.document(planned, command, found, verdict, (started, store.now()), directory, (outcome, because))
    report = redact.document(known)
    path = directory / REPORT
    schema.write(report, "accuracy-report", path)
    return Result(record=report, path=path, error=stopped or _error(outcome, because, verdict, path))


def _reference(planned: Plan, directory: Path) -> tuple[dict[str, Any], Arrays]:
    """Run diffusers on the request and return its manifest and arrays; what is not shown to be diffusers is refused."""
    arguments = [str(directory / REQUEST), str(directory / REFERENCE)]
    interpreter.run_program(planned.engine, "accuracy_reference.py", arguments)
    manifest, arrays = _read(directory / REFERENCE, "reference.npz", directory / REFERENCE)
    strange = {name: cls for name, cls in manifest["classes"].items() if not cls.startswith(REFERENCE_MODULES)}
    if not manifest["pipeline"].startswith(REFERENCE_MODULES):
        strange["pipeline"] = manifest["pipeline"]
    if strange or manifest["native_imported"]:
        shown = ", ".join(f"{name}: {cls}" for name, cls in strange.items()) or "sglang was imported"
        raise EvidenceMissing(
            f"nothing shows that the reference is diffusers: {shown}",
            where=directory / REFERENCE / MANIFEST,
            todo="find out what replaces diffusers in this engine environment",
        )
    return manifest, arrays


def _read(folder: Path, name: str, log: Path) -> tuple[dict[str, Any], Arrays]:
    """Return a program's manifest and arrays.

    Raises:
        PreflightFailed: the program says that it cannot do this here.
        EngineFailed: it broke, or left no manifest.
    """
    if not (folder / MANIFEST).is_file():
        raise EngineFailed("the program ended without a result", where=log, todo="read the log's last lines")
    manifest = dict(schema.read(folder / MANIFEST, EngineFailed))
    schema.check(manifest, "accuracy-manifest", folder / MANIFEST, EngineFailed)
    error = manifest["error"]
    if error is not None and error["kind"] == "refused":
        raise PreflightFailed(
            error["text"], where=folder / MANIFEST, todo="choose another dtype, engine or model folder"
        )
    if error is not None:
        raise EngineFailed(
            f"the {folder.name} program failed: {error['kind']}: {error['text']}", where=folder / "error.txt"
        )
    with np.load(folder / name, allow_pickle=False) as file:
        return manifest, {key: file[key] for key in file.files}


def _judge(
    planned: Plan, found: judge.Findings, manifest: dict[str, Any], arrays: Arrays, theirs: Arrays, why: dict[str, str]
) -> None:
    checks = planned.options.checks
    if COMPONENT in checks and found.reference is not None:
        found.components, controls = judge.components(planned, arrays, theirs, (manifest, found.reference), why)
        found.controls += controls
    if TRAJECTORY in checks:
        found.trajectory, controls = judge.trajectory(planned, arrays, theirs, manifest)
        found.controls += controls


def _unreached(reference: dict[str, Any], why: dict[str, str]) -> list[judge.Component]:
    """Return the components of a run that was stopped: known not to be native by the line, or never reached."""
    return [
        judge.Component(
            name=name,
            native_class=None,
            reference_class=cls,
            native=False if name in why else None,
            reason=why.get(name, "the launch was stopped before it could be compared"),
            outputs=(),
        )
        for name, cls in reference["classes"].items()
    ]


def _golden(
    planned: Plan, guard: Guard, arrays: Arrays, found: judge.Findings, verdict: Verdict, run_id: str
) -> goldens.Golden:
    picture, again = arrays["trajectory/plain/image"], arrays["trajectory/again/image"]
    request = {
        "dtype": planned.options.dtype,
        "torch_compile": planned.options.torch_compile,
        "quality": None,
        "sampling": dict(planned.sampling),
        "family_arguments": dict(planned.family.native_arguments),
    }
    key = golden_key(planned.engine, planned.machine, planned.model, guard.facts.attention, request)
    machine = machine_id(planned.machine)
    compared = goldens.compare(planned.model.name, key, machine, picture)
    stored = None
    repeatable = bool(np.array_equal(picture, again))
    reason = planned.options.update_golden
    if reason is not None:
        outcome, because = document.outcome(planned, found, verdict)
        if outcome != document.PASSED:
            raise ThresholdMissed(f"a golden requires a passing run: {because[0]}")
        if not repeatable:
            raise ThresholdMissed("a golden requires two identical outputs in one launch")
        stored = goldens.keep(planned.model.name, key, machine, picture, reason, run_id)
    return replace(compared, repeatable=repeatable, stored=stored)


def _error(outcome: str, because: list[str], verdict: Verdict, path: Path) -> BenchError | None:
    """Return the error of an outcome, None for a run that passed."""
    if outcome == document.PASSED:
        return None
    if outcome == document.INVALID:
        return verdict.error(path)
    if because[0] == document.NO_GOLDEN:
        todo = "look at the picture, then keep it with the reason"
        return Inconclusive(f"{outcome}: {because[0]}", where=path, todo=todo, field="update_golden")
    kind: type[BenchError] = {
        document.NOT_NATIVE: FallbackDetected,
        document.FAILED: ThresholdMissed,
        document.VOID: Inconclusive,
    }[outcome]
    return kind(f"{outcome}: {because[0]}", where=path)
