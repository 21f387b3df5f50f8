"""`invoke evidence`: what a pull request needs, measured, written down and judged again."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.options import MEASURING, OUTPUT, Kind, changed, nested, option
from bench.run.options import Options
from bench.task import Context, task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.compare.ab import Design, Session
    from bench.report.dossier import Arms

ARCHIVE, TEXT = "evidence.zip", "pull-request.md"
DEFAULT_MODELS = ("flux",)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceOptions:
    """What `invoke evidence` takes."""

    base: str | None = option(None, help="revision of SGLang that the change is measured against, e.g. main")
    head: str = option(".", help="revision with the change (default: . the checkout as it is)")
    source: Path = option(Path(), kind=Kind.PATH, help="the checkout of SGLang (default: the working directory)")
    models: tuple[str, ...] = option((), kind=Kind.NAMES, completes="presets", help="presets (default flux)")
    runs: tuple[Path, ...] = option(
        (),
        name="from",
        kind=Kind.PATH,
        repeated=True,
        help="measure nothing: take this folder of `invoke ab`; again for each",
    )
    pairs: int | None = option(
        None, kind=Kind.WHOLE, group=MEASURING, help="pairs of engine starts at most (default 8)"
    )
    run: Options = nested(
        Options,
        *("engine", "repeats", "timeout_s", "output_dir", "preset_file", "prove_kernels"),
        engine={"help": "built configuration under the checkout (default: what `--engine` of bench would take)"},
        repeats={"default": 4, "help": "requests of each start that count (default 4)"},
        prove_kernels={"help": "add the profile diff of both sides, by an untimed launch of each"},
    )
    output: Path | None = option(
        None, kind=Kind.PATH, group=OUTPUT, help="folder for the dossier (default: a new one in runs/)"
    )


@task(EvidenceOptions, example="evidence --base main --head . --source ../sglang --models flux,wan-t2v")
def evidence(c: Context, options: EvidenceOptions) -> None:
    """Measure a change of SGLang by A/B, and write the pull request's text and an archive that proves it."""
    from bench import files
    from bench.compare import archive
    from bench.engine import source
    from bench.report import dossier, text

    _refuse_contradictions(options)
    if options.base is None:
        folders, known = _named(options.runs), archive.subject()
    else:
        changes = source.changes(options.source, options.base, options.head)
        if not changes:
            raise UsageError(f"nothing differs between {options.base} and {options.head}", where=options.source)
        folders, known = {}, archive.subject(options.base, options.head, changes)
    with _folder(options) as directory:
        if options.base is not None:
            folders = _measured(options, options.base, directory)
            for folder in folders.values():
                archive.refuse_unproven(folder)
        written = dossier.text(known, {model: _arms(folder) for model, folder in folders.items()})
        profiles = {model: told for model, folder in folders.items() if (told := _profile(folder)) is not None}
        digest = archive.write(directory / ARCHIVE, folders, known, written, profiles)
        shown = f"{written}\nArchive: sha256 `{digest}`\n"
        files.write_text(directory / TEXT, shown)
    text.write(shown)
    text.line(text.stderr(), f"archive: {directory / ARCHIVE}")


def _refuse_contradictions(options: EvidenceOptions) -> None:
    """Refuse options that exclude each other or would be ignored, an unknown preset, and a folder that is there.

    Raises:
        UsageError: as it says.
    """
    from bench.catalog import presets
    from bench.compare import ab
    from bench.stats import sequential

    if options.runs and options.base is not None:
        raise UsageError("--base and --from exclude each other", todo="leave one out")
    if not options.runs and options.base is None:
        raise UsageError(
            "evidence needs --base, the revision to measure against, or --from, an A/B that was measured",
            todo="--base main --head . --source ../sglang",
        )
    if not options.source.is_dir():
        raise UsageError("no such folder", where=options.source, todo="name the checkout of SGLang", field="source")
    ignored = [name for name in changed(options) if name not in ("--from", "--output", "--output-dir")]
    if options.runs and ignored:
        raise UsageError(f"--from measures nothing, so {', '.join(ignored)} would be ignored", todo="leave it out")
    for model in options.models or DEFAULT_MODELS:
        presets.get(model, options.run.preset_file)
    if len(set(options.models)) < len(options.models):
        raise UsageError("a preset is named twice", where=",".join(options.models))
    sequential.check(sequential.Plan(max_pairs=options.pairs or ab.Design().pairs))
    if options.output is not None and options.output.exists():
        raise UsageError(
            "the output folder exists already, and nothing is overwritten", where=options.output, todo="name another"
        )


@contextlib.contextmanager
def _folder(options: EvidenceOptions) -> Iterator[Path]:
    """Yield a new folder for the dossier; one that stays empty is taken away.

    Raises:
        UsageError: it cannot be made.
    """
    from bench.record import store

    if options.output is None:
        directory = store.new_run("evidence", "-".join(options.models or DEFAULT_MODELS), options.run.output_dir)
    else:
        directory = options.output
        try:
            directory.mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"cannot be made: {error.strerror}", where=directory, todo="another --output") from error
    try:
        yield directory
    finally:
        with contextlib.suppress(OSError):
            directory.rmdir()


def _named(runs: Sequence[Path]) -> dict[str, Path]:
    """Return folders of A/Bs by their model.

    Raises:
        UsageError: one holds no A/B, or two are of one model.
    """
    from bench.compare import archive
    from bench.record import names, store

    folders: dict[str, Path] = {}
    for word in runs:
        folder = names.resolve(word, ("comparison.json",))
        archive.refuse_unproven(folder)
        model = store.read(folder / "baseline")["preset"]["key"]
        if model in folders:
            raise UsageError(f"two A/Bs of {model}", where=folder, todo="name one of them")
        folders[model] = folder
    return folders


def _measured(options: EvidenceOptions, base: str, directory: Path) -> dict[str, Path]:
    """Measure every model, base against head, and return the folders of the A/Bs; none is left to go on with."""
    from bench.compare import ab
    from bench.record import campaign

    design = ab.Design() if options.pairs is None else ab.Design(pairs=options.pairs)
    configuration = f"@{options.run.engine}" if options.run.engine else ""
    folders: dict[str, Path] = {}
    try:
        with contextlib.ExitStack() as stack:
            places = [stack.enter_context(_checkout(options, revision, directory)) for revision in (base, options.head)]
            arms = dict(
                zip(
                    (ab.BASELINE, ab.CANDIDATE),
                    (shlex.quote(f"source:{place}{configuration}") for place in places),
                    strict=True,
                )
            )
            sessions = _prepared(options, arms, design, directory, stack)
            for model, session in sessions.items():
                session.display.tell(f"{model}: {' against '.join(arms.values())}")
                result = ab.measured(session)
                if result.error is not None:
                    raise result.error
                folders[model] = result.path.parent
    except KeyboardInterrupt:
        # not the A/B's own advice: the checkouts are gone, and it cannot go on without them
        stopped = KeyboardInterrupt()
        stopped.add_note(f"kept: {directory}, complete A/Bs: {', '.join(folders) or 'none'}")
        stopped.add_note("to do: `invoke evidence` again, which measures anew")
        raise stopped from None
    finally:
        for state in directory.glob(f"*/{campaign.STATE}"):
            state.unlink()
    return folders


def _prepared(
    options: EvidenceOptions, arms: dict[str, str], design: Design, directory: Path, stack: contextlib.ExitStack
) -> dict[str, Session]:
    """Return the A/B of each model, none of which can be refused any more: a later one costs no earlier one's pairs.

    Raises:
        BenchError: one is refused; nothing was measured.
    """
    from bench.compare import ab
    from bench.report import live, text

    display = stack.enter_context(live.Pairs(text.stderr(), pairs=design.pairs, requests=options.run.repeats))
    sessions = {}
    for model in options.models or DEFAULT_MODELS:
        asked = replace(options.run, model=model, engine=None, output_dir=directory)
        display.tell(f"{model}: can it be measured?")
        sessions[model] = stack.enter_context(ab.prepared(asked, arms, design, display=display, must_run=True))
    return sessions


@contextlib.contextmanager
def _checkout(options: EvidenceOptions, revision: str, directory: Path) -> Iterator[Path]:
    """Yield where a revision is checked out: the user's own checkout for ``.``, a worktree for any other."""
    from bench.engine import source
    from bench.record import store

    if revision == ".":
        yield options.source.absolute()
        return
    place = directory.absolute() / f"checkout-{store.safe(revision)}"
    with source.worktree(options.source, revision, place) as made:
        yield made


def _profile(folder: Path) -> str | None:
    """Return what the traces of an A/B's sides come to: the kernels that differ, on a GPU with times; None without."""
    from bench import schema
    from bench.compare import archive
    from bench.profiling import analysis, load
    from bench.profiling.diff import diff
    from bench.report import page, profile_diff
    from bench.report import reach as report

    traces = archive.traces(folder)
    if not traces:
        return None
    document = schema.read(folder / "comparison.json")
    told = report.markdown(document["reach"]["kernels"])
    a, b = (analysis.analyse([folder / names[0]]) for names in (traces["base"], traces["head"]))
    sides = load.pair(a, b)
    if any(side["gpu"] is None for side in sides):
        return told
    return f"{told}\n{page.markdown(profile_diff.view(diff(*sides, force=True)))}"


def _arms(folder: Path) -> Arms:
    from bench import schema
    from bench.record import store

    return schema.read(folder / "comparison.json"), store.read(folder / "baseline"), store.read(folder / "candidate")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceCheckOptions:
    """What `invoke evidence-check` takes."""

    archive: Path = option(kind=Kind.PATH, help="archive that `invoke evidence` wrote")


@task(EvidenceCheckOptions, example="evidence-check evidence.zip")
def evidence_check(c: Context, options: EvidenceCheckOptions) -> None:
    """Judge the archive of a pull request again: an edited dump, log, picture, record or text is named."""
    import tempfile

    from bench import paths
    from bench.compare import archive
    from bench.errors import RecordEdited
    from bench.report import dossier, text

    console = text.stdout()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive.unpack(options.archive, folder)
        lines, faults = archive.judge(folder)
        told = "nothing was edited"
        if not faults and (subject := archive.read_subject(folder))["schema_version"] != archive.WORDING:
            told = "no record was edited; its texts are of an earlier workbench and were not judged"
        elif not faults:
            arms = {model: _arms(folder / model) for model in archive.models(folder)}
            written = dossier.text(subject, arms)
            if written.encode() != (folder / archive.TEXT).read_bytes():
                faults.append(RecordEdited(f"{archive.TEXT} does not follow from the records"))
            for model in arms:
                profile, place = _profile(folder / model), folder / model / archive.PROFILE
                if (profile or "").encode() != (place.read_bytes() if place.is_file() else b""):
                    faults.append(RecordEdited(f"{model}/{archive.PROFILE} does not follow from the traces"))
    for line in lines:
        text.line(console, line)
    for fault in faults[1:]:
        text.line(text.stderr(), f"error: {fault.what}")
    if faults:
        raise faults[0]
    text.line(console, f"archive: sha256 {paths.sha256(options.archive)}, {told}")
