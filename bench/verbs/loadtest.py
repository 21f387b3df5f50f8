"""`invoke loadtest`: served numbers with proof."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.errors import UsageError
from bench.options import OUTPUT, nested, option
from bench.serving.options import LoadOptions
from bench.task import Context, extra_arguments, task


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadtestOptions:
    """What `invoke loadtest` takes."""

    load: LoadOptions = nested(LoadOptions)
    dry_run: bool = option(False, help="print the server's command and environment, run nothing")
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the record as JSON on stdout")


@task(LoadtestOptions, example="loadtest --model flux-tiny --rate 0.5 --slo 5")
def loadtest(c: Context, options: LoadtestOptions) -> None:
    """Load a guarded server at rates that follow its measured capacity, and prove every answer."""
    asked = replace(options.load, run=replace(options.load.run, extra=extra_arguments(c)))
    if sum(way is not None for way in (asked.rate_hz, asked.concurrency, asked.trace)) + asked.find_max > 1:
        raise UsageError("--rate, --concurrency, --trace and --find-max exclude each other", todo="choose one")
    if asked.golden is not None and asked.batching > 1:
        raise UsageError("--golden and --batching exclude each other", todo="merging changes pixels")
    if options.dry_run:
        _show_command(asked)
    else:
        _run(asked, as_json=options.as_json)


def _show_command(asked: LoadOptions) -> None:
    from pathlib import Path

    from bench.engine import command
    from bench.machine import gpus
    from bench.report import text
    from bench.run import plan
    from bench.serving import command as servers
    from bench.serving import local
    from bench.verbs.bench import engine_to_spell_for

    workload = plan.workload(asked.run)
    local.request_of(workload)
    engine, on_cpu = engine_to_spell_for(asked.run.engine), gpus.machine().kind == "cpu"
    directory = Path("RUN_DIRECTORY").absolute()
    server = servers.build(engine, workload, directory, most_merged=asked.batching, on_cpu=on_cpu)
    text.write(command.shown(server.command))


def _run(asked: LoadOptions, *, as_json: bool) -> None:
    from bench.report import live, load, next_step, text
    from bench.run import plan
    from bench.serving import local

    if asked.url is not None:
        request = local.request_of(plan.workload(asked.run))
        record, path, error = local.loadtest_elsewhere(asked.url, request, asked)
    else:
        planned = plan.plan(asked.run)
        with plan.private_model_cache(planned) as isolated, live.Live(text.stderr()) as display:
            record, path, error = local.loadtest(isolated, asked, display)
    if as_json:
        text.write_json(record)
    else:
        load.show(record, path, text.stdout(), next_step.after_load(record, asked, path))
    if error is not None:
        raise error
