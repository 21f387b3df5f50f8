"""The preflight on the terminal: each line's state, what it means, what to do; and which presets run here."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bench.preflight.state import FAIL, OK, UNKNOWN, WARN
from bench.report import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

from bench.preflight.state import CheckResult

STYLES = {OK: "green", WARN: "yellow", FAIL: "bold red", UNKNOWN: "dim"}


def show(lines: Sequence[CheckResult], console: Console) -> None:
    """Print lines; one that is ok takes one row, any other also says what it means and what to do."""
    for line in lines:
        text.line(console, f"{line.id}: {line.saw}", head=f"{line.state:<8}", style=STYLES[line.state])
        for title, told in (("means", line.means), ("to do", line.todo)):
            if told is not None:
                text.line(console, f"          {title}: {told}")


def show_runnable(can: Sequence[str], cannot: Mapping[str, str], console: Console) -> None:
    """Print the presets that run here, and by reason those that do not."""
    console.print(f"\ncan run here ({len(can)}): {', '.join(can) or 'nothing'}")
    for reason, count in Counter(cannot.values()).most_common():
        keys = ", ".join(key for key, why in cannot.items() if why == reason)
        console.print(f"cannot, {reason} ({count}): {keys}")
