"""The list of presets on the terminal, and where upstream's differ."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench.report import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from bench.catalog.presets import Preset
    from bench.upstream.preset_diff import Difference


UNSAID = "-"
MOVING = ("video", "audio-video")
SAID_ELSEWHERE = re.compile(r"\d+x\d+|\d+ frames|\w+ GPUs?")
"""Parts of a description that a column of its own shows."""


def show(presets: Mapping[str, Preset], console: Console) -> None:
    """Print one line for each preset, the key first; a terminal that is too narrow ends lines with an ellipsis."""
    rows = [("preset", "size", "frames", "steps", "GPUs", "what [tags]")]
    rows += [
        (key, _size(preset), _frames(preset), str(preset.steps or UNSAID), str(preset.gpus), _what(preset))
        for key, preset in presets.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    limit = console.width if console.is_terminal else max(map(len, lines))
    for line in lines:
        text.line(console, line if len(line) <= limit else f"{line[: limit - 1]}…")
    if any(len(line) > limit for line in lines):
        text.line(
            console, f"cut at {limit} columns: --tag and --search show fewer, `invoke models | less -S` shows all"
        )
    if any(UNSAID in row[1:-1] for row in rows):
        text.line(console, f"{UNSAID}: the preset does not set it")


def _size(preset: Preset) -> str:
    return f"{preset.width}x{preset.height}" if preset.width else "" if preset.modality == "3d" else UNSAID


def _frames(preset: Preset) -> str:
    """Return a number of frames; nothing for a picture."""
    if preset.frames == 1 or (preset.frames is None and preset.modality not in MOVING):
        return ""
    return str(preset.frames or UNSAID)


def _what(preset: Preset) -> str:
    """Return what a preset is, without what stands in the other columns."""
    parts = [part for part in preset.description.split(", ") if not SAID_ELSEWHERE.fullmatch(part)]
    return f"{', '.join([*parts, *(['gated'] if preset.gated else [])])} [{', '.join(preset.tags)}]"


def show_receipts(wanted: Sequence[Mapping[str, str]], console: Console) -> None:
    """Print the optional features whose engagement a run of a preset will show or miss."""
    if not wanted:
        text.line(console, "receipts: none, it asks for no optional feature")
    for receipt in wanted:
        text.line(console, f"receipt {receipt['id']}: {receipt['asked']} ({receipt['feature']})")


def show_differences(read: Mapping[str, Path], differences: Sequence[Difference], console: Console) -> None:
    """Print which files were read and one row for each difference."""
    for name, path in read.items():
        text.line(console, f"{name}: {path}")
    if not differences:
        console.print("no difference")
    for difference in differences:
        values = f"ours {_short(difference.ours)}, upstream {_short(difference.upstream)}"
        where = difference.key if difference.field is None else f"{difference.key} {difference.field}"
        text.line(console, f"{difference.kind:<8} {where}: {values}")


def _short(value: object) -> str:
    return "-" if value is None else str(value)
