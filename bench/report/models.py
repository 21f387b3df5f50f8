"""The list of presets on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.catalog.presets import Preset


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
