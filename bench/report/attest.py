"""The self-test of the guard on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from bench.run.selftest import FaultResult


def self_test_line(result: FaultResult) -> Text:
    """Return how one fault ended."""
    mark = Text("caught", style="green") if result.right else Text("WRONG", style="bold red")
    mark = Text("passed", style="green") if result.right and result.fault.exit_code == 0 else mark
    why = f" ({result.finding})" if result.finding else ""
    expected = "" if result.right else f", expected {result.fault.exit_code}"
    ended = f"{result.outcome}{why}, exit {result.exit_code}{expected}"
    return Text.assemble(mark, f"  {result.fault.name}: {result.fault.done} -> {ended}")
