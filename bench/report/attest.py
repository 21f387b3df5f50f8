"""`invoke attest` before a person's eyes: a verdict on a run made elsewhere, or the judge's own test."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from rich.console import Console, Group

from bench import schema
from bench.errors import FallbackDetected
from bench.fallback import attest
from bench.report import verdict as report
from bench.run import selftest
from bench.run.options import Options

if TYPE_CHECKING:
    from pathlib import Path

SELF_TEST_PRESET = "flux-tiny"


def judge(log: str, dump: Path | None, expect: str, version: str | None, *, as_json: bool) -> None:
    """Print the verdict on a log and its dump.

    Raises:
        BenchError: the run does not count, with the exit code that our own run would have had.
    """
    verdict = attest.attest(log, dump=dump, expect=expect, version=version)
    document = verdict.document()
    schema.check(document, "verdict", log)
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    else:
        Console().print(Group(*report.parts(document, everything=True)))
    if not verdict.counts:
        raise type(verdict.error(log) or FallbackDetected(""))(
            f"{verdict.reasons()[0].id}: this run does not count", where=log
        )


def self_test(engine: str | None, output_dir: Path | None) -> None:
    """Run the losses on the real engine and print how each ended.

    Raises:
        FallbackDetected: one was not caught, or the clean run was not let through.
    """
    console = Console(highlight=False)
    options = Options(model=SELF_TEST_PRESET, engine=engine, output_dir=output_dir)

    def tell(caught: selftest.Caught) -> None:
        mark = "[green]caught[/]" if caught.right else "[bold red]WRONG[/]"
        mark = "[green]passed[/]" if caught.right and caught.loss.exit_code == 0 else mark
        why = f" ({caught.finding})" if caught.finding else ""
        wanted = "" if caught.right else f", wanted {caught.loss.exit_code}"
        console.print(
            f"{mark}  {caught.loss.name}: {caught.loss.done} -> {caught.outcome}{why}, exit {caught.exit_code}{wanted}"
        )

    results = selftest.run(options, tell)
    wrong = [caught for caught in results if not caught.right]
    if wrong:
        raise FallbackDetected(
            f"the guard is blind to: {', '.join(caught.loss.name for caught in wrong)}",
            where=", ".join(str(caught.record) for caught in wrong),
            todo="read the log there, and mend bench/catalog/signals or evidence.toml",
        )
    console.print(f"{len(results)} of {len(results)} as they had to be")
