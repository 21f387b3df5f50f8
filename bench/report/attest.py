"""The self-test of the guard on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.run.selftest import FaultResult


def self_test_line(result: FaultResult) -> str:
    """Return one fault's end as console markup."""
    mark = "[green]caught[/]" if result.right else "[bold red]WRONG[/]"
    mark = "[green]passed[/]" if result.right and result.fault.exit_code == 0 else mark
    why = f" ({result.finding})" if result.finding else ""
    expected = "" if result.right else f", expected {result.fault.exit_code}"
    ended = f"{result.outcome}{why}, exit {result.exit_code}{expected}"
    return f"{mark}  {result.fault.name}: {result.fault.done} -> {ended}"
