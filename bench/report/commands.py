"""Shows the commands of runs that are not made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.engine import command
from bench.errors import BenchError, UsageError
from bench.run import plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.run.options import Options


def show(asked: Mapping[str, Options]) -> None:
    """Print the command that each named run would use; one that is refused is a comment and stops no other.

    Raises:
        BenchError: of the one run that was asked for, or that some of several are refused.
    """
    if len(asked) == 1:
        (options,) = asked.values()
        print(command.shown(plan.dry_run(options)))  # noqa: T201 - it is for a shell
        return
    refused = []
    for name, options in asked.items():
        try:
            shown = command.shown(plan.dry_run(options))
        except BenchError as error:
            refused.append(name)
            shown = f"# refused: {error.what}; {error.todo}"
        print(f"# {name}\n{shown}")  # noqa: T201 - it is for a shell
    if refused:
        raise UsageError(f"{len(refused)} of {len(asked)} runs are refused: {', '.join(refused)}")
