"""The named baselines: which run a new run of the same workload on such devices is held against."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from bench import files, schema
from bench.errors import BenchError, UsageError
from bench.record import names, store
from bench.record.comparable import family

if TYPE_CHECKING:
    from pathlib import Path

BASELINES = "baselines.json"


def baselines(root: Path) -> dict[str, str]:
    """Return the baselines that were named: what for -> run directory below ``root``."""
    try:
        named = dict(schema.read(root / BASELINES))
    except (BenchError, ValueError, TypeError):
        return {}
    return {family: place for family, place in named.items() if isinstance(place, str)}


def is_baseline_of(root: Path, preset_sha256: str) -> bool:
    """Tell whether a baseline was named for a workload of this preset; one that cannot be read may be."""
    for place in baselines(root).values():
        try:
            if store.read(root / place)["preset"]["sha256"] == preset_sha256:
                return True
        except BenchError:
            return True
    return False


def name_baseline(root: Path, path: Path) -> tuple[str, str | None]:
    """Make a record the baseline of its workload and devices.

    Return its place below ``root``, and that of the baseline that it replaces, None if it replaces no other.

    Raises:
        UsageError: the record lies elsewhere, or does not count.
    """
    document = store.read(path)
    if document["timings"] is None or not document["complete"]:
        raise UsageError(
            "an invalid or incomplete run cannot be a baseline",
            where=path,
            todo=f"name one that counts: `invoke history --model {document['preset']['key']}` shows them",
        )
    if document["instrument"]["profiler"]:
        raise UsageError(
            "a profile is not a timing, so it cannot be a baseline", where=path, todo="name an `invoke bench` run"
        )
    if document["kind"] == store.REFERENCE:
        raise UsageError(
            "a reference ran on diffusers: it cannot be a baseline",
            where=path,
            todo=f"`invoke compare {shlex.quote(str(path))} RUN` shows the speed-up of a native run",
        )
    folder = (path if path.is_dir() else path.parent).resolve()
    if not folder.is_relative_to(root.resolve()):
        raise UsageError("only a run below the runs folder can be a baseline", where=folder, todo=f"runs are in {root}")
    place = str(folder.relative_to(root.resolve()))
    named = baselines(root)
    before = named.get(family(document))
    files.write_text(root / BASELINES, json.dumps(named | {family(document): place}, indent=2) + "\n", replace=True)
    return place, None if before == place else before


def unname_baseline(root: Path, word: Path) -> str:
    """Let a run be the baseline of nothing, even if it is gone, and return its place below ``root``.

    Raises:
        UsageError: no run is called so, or it is not a baseline.
    """
    named = baselines(root)
    place = str(word)
    if place not in named.values():
        run = names.resolve(word, root=root, passing=names.UNTIMED)
        folder = (run.parent if run.is_file() else run).resolve()
        place = str(folder.relative_to(root.resolve())) if folder.is_relative_to(root.resolve()) else place
    kept = {family: other for family, other in named.items() if other != place}
    if kept == named:
        raise UsageError("this run is not a baseline", where=word, todo="`invoke baseline.show` lists those that are")
    files.write_text(root / BASELINES, json.dumps(kept, indent=2) + "\n", replace=True)
    return place


def baseline_of(root: Path, path: Path) -> Path:
    """Return the run directory of the baseline for a record.

    Raises:
        UsageError: none was named, or one outside ``root``.
    """
    place = baselines(root).get(family(store.read(path)))
    if place is None:
        raise UsageError(
            "no baseline is named for this workload on these devices",
            where=path,
            todo="name both runs (`invoke compare last~1 last`), or a baseline (`invoke baseline.set RECORD`)",
        )
    return files.below(root, [place])
