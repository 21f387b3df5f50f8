"""The verbs about what is run: presets, checkpoints and input images."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError, PreflightFailed, ThresholdMissed, UnknownName, UsageError
from bench.options import OUTPUT, Kind, nested, option
from bench.run.options import Options
from bench.task import Context, task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.catalog.assets import Asset
    from bench.catalog.presets import Preset

RECIPES = {"flux": "tiny and full", "flux2-klein": "tiny", "sd3": "tiny", "zimage": "tiny"}
SIZES = {"tiny": "runs on a CPU", "full": "the real shapes; tens of GB"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsOptions:
    """What `invoke models` takes."""

    search: str | None = option(None, help="only presets with this word in key, model or description")
    tag: str | None = option(None, completes="tags", help="only presets with this tag, e.g. tiny")
    runnable: bool = option(False, help="only presets for which this machine has enough accelerators")
    names: tuple[str, ...] = option(
        (),
        name="model",
        kind=Kind.NAMES,
        completes="presets",
        help="only these presets, each with the optional features that it asks for and a run has to show",
    )
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the presets as JSON on stdout")
    check_upstream: bool = option(
        False, help="compare our presets with those of an engine's own helper script; exit code 7 if any differs"
    )
    source: Path | None = option(
        None,
        kind=Kind.PATH,
        help="a checkout of SGLang instead of an engine: its nightly comparison is compared too",
    )
    run: Options = nested(Options, "engine", "preset_file")


@task(ModelsOptions, example="models")
def models(c: Context, options: ModelsOptions) -> None:
    """List the presets that --model takes, show some, or find where upstream's have moved on."""
    from bench.catalog import presets
    from bench.report import models as report
    from bench.report import text

    if options.check_upstream:
        _check_upstream(options)
        return
    if options.run.engine or options.source:
        raise UsageError("--engine and --source are for --check-upstream")
    known = presets.listed(options.run.preset_file)
    if options.names:
        known = {name: presets.get(name, options.run.preset_file) for name in options.names}
    known = _filtered(known, options)
    if options.as_json:
        text.write_json({key: dict(preset.document) | {"receipts": _receipts(preset)} for key, preset in known.items()})
        return
    report.show(known, text.stdout())
    for name in options.names:
        report.show_receipts(_receipts(known[name]), text.stdout())


def _receipts(preset: Preset) -> list[dict[str, str]]:
    """Return the optional features that a preset asks for, each with the setting that asks, for the newest version."""
    from bench.catalog import flags
    from bench.engine import spelling, workload
    from bench.fallback import receipts

    wanted = receipts.wanted(spelling.spell(workload.of_preset(preset), flags.table().versions[-1]), preset.environment)
    return [{"id": one.feature.id, "asked": one.setting, "feature": one.feature.feature} for one in wanted]


def _filtered(known: Mapping[str, Preset], options: ModelsOptions) -> dict[str, Preset]:
    """Return the presets that were asked for.

    Raises:
        UnknownName: no preset has this tag.
        UsageError: nothing is left.
    """
    from bench import mistakes
    from bench.machine import gpus
    from bench.preflight import model

    chosen = dict(known)
    if options.tag is not None:
        tags = {tag for preset in known.values() for tag in preset.tags}
        if options.tag not in tags:
            raise UnknownName("tag", options.tag, tags)
        chosen = {key: preset for key, preset in chosen.items() if options.tag in preset.tags}
    if options.search is not None:
        word = options.search.lower()
        chosen = {
            key: preset
            for key, preset in chosen.items()
            if any(word in place.lower() for place in (key, preset.model, preset.description))
        }
    if options.runnable:
        count = len(gpus.visible(gpus.machine(), os.environ.get(gpus.VISIBLE)).devices)
        chosen = {key: preset for key, preset in chosen.items() if model.runs_with(preset, count)}
    if not chosen:
        close = None if options.search is None else mistakes.closest(options.search, _words(known))
        meant = f"did you mean --search {close}? " if close else ""
        raise UsageError(
            "no preset matches", todo=f"{meant}`invoke models` lists all; `invoke doctor` says what runs here"
        )
    return chosen


def _words(known: Mapping[str, Preset]) -> set[str]:
    """Return what a search may be for: the presets' keys, the names of their models, and the parts of both."""
    names = {name for key, preset in known.items() for name in (key, preset.model.rpartition("/")[2])}
    return names | {part for name in names for part in name.split("-")}


def _check_upstream(options: ModelsOptions) -> None:
    """Compare our presets with those of an engine's, or a checkout's, benchmark helper and show what differs.

    Raises:
        ThresholdMissed: something differs.
        UsageError: the helper is missing, or both an engine and a checkout were named.
    """
    from bench.engine import find, interpreter
    from bench.report import models as report
    from bench.report import text
    from bench.upstream import preset_diff

    if options.run.engine is not None and options.source is not None:
        raise UsageError("--engine and --source exclude each other", todo="a checkout is compared by itself")
    if options.source is None:
        package, checkout = interpreter.package(find.find(options.run.engine)), None
    else:
        checkout = options.source.expanduser().absolute()
        package = checkout / "python" / "sglang"
        if not package.is_dir():
            raise UsageError("no python/sglang in this folder", where=checkout, todo="give a checkout of SGLang")
    read, differences = preset_diff.check(package, checkout)
    if options.as_json:
        files = {name: str(path) for name, path in read.items()}
        text.write_json({"read": files, "differences": [*map(asdict, differences)]}, default=list)
    else:
        report.show_differences(read, differences, text.stdout())
    if differences:
        counts = Counter(difference.kind for difference in differences)
        told = ", ".join(f"{counts[kind]} {kind}" for kind in ("added", "removed", "changed") if counts[kind])
        raise ThresholdMissed(
            f"presets differ from upstream: {told}",
            where=read["helper"],
            todo="update bench/catalog/presets/ if it should follow this version",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointOptions:
    """What `invoke checkpoint` takes."""

    model: str = option("flux", choices=RECIPES, help="family to make (default flux)")
    size: str = option("tiny", choices=SIZES, help="tiny (default; runs on a CPU) or full (real shapes; tens of GB)")
    out: Path | None = option(
        None,
        kind=Kind.PATH,
        help="folder to make; keep the family in its name, the engine resolves a model by it",
    )
    seed: int = option(0, kind=Kind.WHOLE, least=0, help="seed of the random weights (default 0)")
    run: Options = nested(Options, "engine")


@task(CheckpointOptions, example="checkpoint --model flux --size tiny --out models/FLUX.1-dev-tiny")
def checkpoint(c: Context, options: CheckpointOptions) -> None:
    """Make a random-weight checkpoint in diffusers layout, offline."""
    from bench.engine import find
    from bench.models import checkpoint as checkpoints
    from bench.report import text

    if options.out is None:
        raise UsageError("--out is missing", todo="name the folder to make, e.g. --out models/FLUX.1-dev-tiny")
    engine = find.find(options.run.engine)
    made = checkpoints.make(engine, options.model, options.size, options.out, options.seed)
    text.write(f"checkpoint: {made}")


# --- input images -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetsOptions:
    """What `invoke assets` takes."""

    only: str | None = option(None, help="only this image, e.g. cat.png")
    own: str | None = option(None, help="take a file of yours as one of the images: NAME=FILE")
    mirror: str | None = option(
        None, help="address of a server that has the images under their names, to use instead of their own addresses"
    )
    again: bool = option(False, help="fetch it even if it is here")
    list: bool = option(False, help="only show what is here and which presets need it")
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the list as JSON on stdout")


@task(AssetsOptions, example="assets --list")
def assets(c: Context, options: AssetsOptions) -> None:
    """Fetch the input images of the presets, checked by hash."""
    from bench.catalog import assets as catalog
    from bench.report import text

    if options.list or options.as_json:
        _list_images(as_json=options.as_json)
    elif options.own is not None:
        from bench.models import images

        name, _, file = options.own.partition("=")
        if not file:
            raise UsageError("--own takes NAME=FILE", todo=f"names: {', '.join(catalog.listed())}")
        stored = images.own(_asset(name), Path(file).expanduser().absolute())
        text.line(text.stdout(), f"{name}: {stored}")
    else:
        wanted = [_asset(options.only)] if options.only is not None else list(catalog.listed().values())
        _fetch_images(wanted, mirror=options.mirror, again=options.again)


def _asset(name: str) -> Asset:
    from bench.catalog import assets as catalog

    known = catalog.listed()
    if name not in known:
        raise UnknownName("image", name, known)
    return known[name]


def _users(name: str) -> list[str]:
    """Return the presets that need an image."""
    from bench.catalog import presets

    return [key for key, preset in presets.built_in().items() if preset.image == name]


def _fetch_images(wanted: list[Asset], *, mirror: str | None, again: bool) -> None:
    """Fetch images and show how it went for each.

    Raises:
        PreflightFailed: not all could be had; the message names the presets that cannot run without them.
    """
    from bench.models import images
    from bench.report import text

    failed = []
    for asset in wanted:
        try:
            place, is_new = images.fetch(asset, mirror=mirror, again=again)
        except BenchError as error:
            failed.append(asset)
            needed = ", ".join(_users(asset.name))
            told = f"{asset.name}: {error.what}\n    where: {error.where}\n    needed by: {needed}"
            told += f"\n    to do: {error.todo}" if error.todo else ""
        else:
            told = f"{asset.name}: {'fetched' if is_new else 'here'}, {place}"
        text.line(text.stdout(), told)
    if failed:
        keys = sorted({key for asset in failed for key in _users(asset.name)})
        raise PreflightFailed(
            f"could not fetch {len(failed)} of {len(wanted)} images; {len(keys)} presets need them: {', '.join(keys)}",
            todo="with a file of your own: invoke assets --own NAME=FILE, or bench --image FILE; "
            "from a server that has them by name: --mirror ADDRESS",
        )


def _list_images(*, as_json: bool) -> None:
    """Show each image: whether it is here, its address, and the presets that need it; nothing is fetched."""
    from bench.catalog import assets as catalog
    from bench.models import images
    from bench.report import text

    rows = []
    for asset in catalog.listed().values():
        path = catalog.path(asset.name)
        try:
            state = images.check(path)
        except UsageError as error:
            state = error.what
        row = {"name": asset.name, "here": path.is_file(), "state": state, "path": str(path), "url": asset.url}
        rows.append({**row, "needed_by": _users(asset.name)})
    if as_json:
        text.write_json(rows)
        return
    for row in rows:
        told = f"{row['name']}: {row['state']}\n    path: {row['path']}\n    from: {row['url']}"
        text.line(text.stdout(), f"{told}\n    needed by: {', '.join(_users(str(row['name'])))}")
