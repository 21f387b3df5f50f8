"""The self-test of the guard on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.run.selftest import Caught


def self_test_line(caught: Caught) -> str:
    """Return one fault's end as console markup."""
    mark = "[green]caught[/]" if caught.right else "[bold red]WRONG[/]"
    mark = "[green]passed[/]" if caught.right and caught.loss.exit_code == 0 else mark
    why = f" ({caught.finding})" if caught.finding else ""
    expected = "" if caught.right else f", expected {caught.loss.exit_code}"
    ended = f"{caught.outcome}{why}, exit {caught.exit_code}{expected}"
    return f"{mark}  {caught.loss.name}: {caught.loss.done} -> {ended}"
