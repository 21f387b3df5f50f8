"""Runs a benchmark before a person's eyes: progress on stderr, the report or the record on stdout."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bench.fidelity import score
from bench.record import store
from bench.report import live, run
from bench.run import benchmark, plan
from bench.run.options import Options
from bench.run.private_cache import model_cache_of

if TYPE_CHECKING:
    from pathlib import Path

    from bench.errors import BenchError
    from bench.run.benchmark import Result


def run_and_show(options: Options, *, as_json: bool, resume: Path | None = None) -> dict[str, Any]:
    """Run, print and return the record; with ``as_json`` stdout holds the record and nothing else.

    Raises:
        BenchError: the run does not count (its record is written and shown first), or it could not be made.
    """
    messages = Console(stderr=True)
    if resume is not None:
        options = _taken_up(options, Options.from_document(store.read(resume)["asked"]))
    planned = plan.plan(options)
    if planned.made_checkpoint is not None:
        messages.print(f"made a synthetic checkpoint: {planned.made_checkpoint}", soft_wrap=True, highlight=False)
    with model_cache_of(planned) as isolated, live.Live(messages) as display:
        result = benchmark.run(isolated, display, resume, score=score.score)
    _warn(result, messages)
    if as_json:
        sys.stdout.write(json.dumps(result.record, indent=2, ensure_ascii=False) + "\n")
    else:
        run.show(result.record, result.path, Console())
    if result.error is not None:
        raise _short(result)
    return result.record


def _taken_up(now: Options, then: Options) -> Options:
    """Return the options of a run that goes on: as it was begun, and scored if either asks for it."""
    return replace(
        then,
        timeout_s=now.timeout_s,
        check_accuracy=now.check_accuracy or then.check_accuracy,
        require=now.require or then.require,
        update_golden=now.update_golden or then.update_golden,
    )


def _warn(result: Result, messages: Console) -> None:
    """Print what was not quite well with the machine: it does not change the verdict, and a reader wants to know."""
    for line in result.record["preflight"]:
        if line["state"] == "warn":
            messages.print(f"warning: {line['id']}: {line['saw']}: {line['means']}", markup=False, soft_wrap=True)
    for finding in result.record["verdict"]["findings"]:
        if finding["source"] == "device" and finding["severity"] == "info":
            messages.print(f"warning: {finding['id']}: {finding['text']}", markup=False, soft_wrap=True)


def _short(result: Result) -> BenchError:
    """Return the error of a run whose record says it all: which finding decided, and where to read more."""
    assert result.error is not None
    if result.record["complete"] and result.record["fidelity"] is not None:
        return result.error
    if result.record["requests"]:
        done = len(result.record["requests"])
        todo = f"`invoke bench --resume {result.path.parent}` goes on with what is missing"
        return type(result.error)(f"cut off after {done} request(s): {result.error.what}", where=result.path, todo=todo)
    decisive = result.record["verdict"]["findings"][0]
    return type(result.error)(f"{decisive['id']}: no number of this run counts", where=result.path)
