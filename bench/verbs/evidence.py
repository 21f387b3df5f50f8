"""`invoke evidence`: what a pull request needs, measured, written down and judged again."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError
from bench.options import MEASURING, OUTPUT, Kind, nested, option
from bench.run.options import Options
from bench.task import Context, task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.report.dossier import Arms

ARCHIVE, TEXT = "evidence.zip", "pull-request.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceOptions:
    """What `invoke evidence` takes."""

    base: str | None = option(None, help="revision of SGLang that the change is measured against, e.g. main")
    head: str = option(".", help="revision with the change (default: . the checkout as it is)")
    source: Path = option(Path(), kind=Kind.PATH, help="the checkout of SGLang (default: the working directory)")
    models: tuple[str, ...] = option(("flux",), kind=Kind.NAMES, completes="presets", help="presets (default flux)")
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
        *("engine", "repeats", "timeout_s", "output_dir", "preset_file"),
        engine={"help": "built configuration under the checkout (default: what `--engine` of bench would take)"},
        repeats={"default": 4, "help": "requests of each start that count (default 4)"},
    )
    output: Path | None = option(
        None, kind=Kind.PATH, group=OUTPUT, help="folder for the dossier (default: a new one in runs/)"
    )


@task(EvidenceOptions, example="evidence --base main --head . --source ../sglang --models flux,wan-t2v")
def evidence(c: Context, options: EvidenceOptions) -> None:
    """Measure a change of SGLang by A/B, and write the pull request's text and an archive that proves it."""
    from bench.catalog import presets
    from bench.compare import archive
    from bench.engine import source
    from bench.record import store
    from bench.report import dossier, text

    for model in options.models:
        presets.get(model, options.run.preset_file)
    if bool(options.runs) == (options.base is not None):
        raise UsageError("--base and --from exclude each other, and one is needed", todo="--base main --head .")
    directory = options.output or store.new_run("evidence", "-".join(options.models), options.run.output_dir)
    directory.mkdir(parents=True, exist_ok=True)
    if options.base is None:
        folders = _named(options.runs)
        subject: dict[str, Any] = {"base": "baseline", "head": "candidate", "changes": []}
    else:
        changes = source.changes(options.source, options.base, options.head)
        if not changes:
            raise UsageError(f"nothing differs between {options.base} and {options.head}", where=options.source)
        subject = {"base": options.base, "head": options.head, "changes": changes}
        folders = _measured(options, options.base, directory)
    for folder in folders.values():
        archive.refuse_unproven(folder)
    written = dossier.text(subject, {model: _arms(folder) for model, folder in folders.items()})
    digest = archive.write(directory / ARCHIVE, folders, subject, written)
    (directory / TEXT).write_text(f"{written}\nArchive: sha256 `{digest}`\n", encoding="utf-8")
    text.line(text.stdout(), (directory / TEXT).read_text(encoding="utf-8"))
    text.line(text.stdout(), f"archive: {directory / ARCHIVE}")


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
    """Measure every model, base against head, and return the folders of the A/Bs."""
    from bench.compare import ab
    from bench.report import live, text

    design = ab.Design() if options.pairs is None else ab.Design(pairs=options.pairs)
    configuration = f"@{options.run.engine}" if options.run.engine else ""
    messages = text.stderr()
    with contextlib.ExitStack() as stack:
        places = [stack.enter_context(_checkout(options, revision, directory)) for revision in (base, options.head)]
        arms = dict(
            zip(("baseline", "candidate"), (f"'source:{place}{configuration}'" for place in places), strict=True)
        )
        folders = {}
        for model in options.models:
            asked = replace(options.run, model=model, engine=None, output_dir=directory)
            text.line(messages, f"{model}: {' against '.join(arms.values())}")
            with live.Pairs(messages, pairs=design.pairs, requests=asked.repeats) as display:
                result = ab.measure(asked, arms, design, display=display)
            if result.error is not None:
                raise result.error
            folders[model] = result.path.parent
    return folders


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

    from bench import paths, schema
    from bench.compare import archive
    from bench.errors import RecordEdited
    from bench.report import dossier, text

    console = text.stdout()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive.unpack(options.archive, folder)
        lines, faults = archive.judge(folder)
        if not faults:
            arms = {model: _arms(folder / model) for model in archive.models(folder)}
            subject = schema.read(folder / archive.SUBJECT)
            if dossier.text(subject, arms) != (folder / archive.TEXT).read_text(encoding="utf-8"):
                faults.append(RecordEdited(f"{archive.TEXT} does not follow from the records"))
    for line in lines:
        text.line(console, line)
    for fault in faults[1:]:
        text.line(text.stderr(), f"error: {fault.what}")
    if faults:
        raise faults[0]
    text.line(console, f"archive: sha256 {paths.sha256(options.archive)}, nothing was edited")
