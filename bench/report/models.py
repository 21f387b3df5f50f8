"""The list of presets on the terminal, and where upstream's differ."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from bench.engine import find, interpreter
from bench.errors import ThresholdMissed, UsageError
from bench.upstream import preset_diff

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.catalog.presets import Preset
    from bench.upstream.preset_diff import Difference


def show(presets: Mapping[str, Preset]) -> None:
    """Print one row for each preset."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("preset", "size", "steps", "GPUs", "weights", "what"):
        table.add_column(title, justify="right" if title in ("steps", "GPUs") else "left", overflow="fold")
    for key, preset in presets.items():
        size = f"{preset.width}x{preset.height}" if preset.width else "default"
        if preset.frames:
            size += f"x{preset.frames}"
        gated = ", gated" if preset.gated else ""
        table.add_row(
            key, size, str(preset.steps or "default"), str(preset.gpus), preset.weights, preset.description + gated
        )
    Console().print(table)


def check_upstream(engine: str | None, source: Path | None, *, as_json: bool) -> None:
    """Compare our presets with those of an engine's, or a checkout's, benchmark helper and print what differs.

    Raises:
        ThresholdMissed: something differs.
        UsageError: there is no helper, or both an engine and a checkout were named.
    """
    if engine is not None and source is not None:
        raise UsageError("--engine and --source exclude each other", todo="a checkout is compared by itself")
    if source is None:
        package, checkout = interpreter.package(find.find(engine)), None
    else:
        checkout = source.expanduser().absolute()
        package = checkout / "python" / "sglang"
        if not package.is_dir():
            raise UsageError("no python/sglang in this folder", where=checkout, todo="give a checkout of SGLang")
    read, found = preset_diff.check(package, checkout)
    counts = Counter(difference.kind for difference in found)
    if as_json:
        document = {"read": {name: str(path) for name, path in read.items()}, "differences": [*map(asdict, found)]}
        print(json.dumps(document, indent=2, ensure_ascii=False, default=list))  # noqa: T201 - it is for a program
    else:
        _show_drift(read, found)
    if found:
        text = ", ".join(f"{counts[kind]} {kind}" for kind in ("added", "removed", "changed") if counts[kind])
        raise ThresholdMissed(
            f"presets differ from upstream: {text}",
            where=read["helper"],
            todo="mend bench/catalog/presets/ if this is the version that it shall follow",
        )


def _show_drift(read: Mapping[str, Path], found: Sequence[Difference]) -> None:
    console = Console()
    for name, path in read.items():
        console.print(f"{name}: {path}", highlight=False, soft_wrap=True)
    if not found:
        console.print("no difference", highlight=False)
        return
    for difference in found:
        values = f"ours {_short(difference.ours)}, upstream {_short(difference.upstream)}"
        where = difference.key if difference.field is None else f"{difference.key} {difference.field}"
        console.print(f"{difference.kind:<8} {where}: {values}", highlight=False, markup=False, soft_wrap=True)


def _short(value: object) -> str:
    return "-" if value is None else str(value)
