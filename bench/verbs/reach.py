"""`invoke reach`: whether a change of the engine is on the measured path at all."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.errors import Inconclusive, UsageError
from bench.options import OUTPUT, nested, option
from bench.run.options import COMMON, Options
from bench.task import Context, extra_arguments, task

KERNELS = "compare the kernels of both sides too, by an untimed launch of each (default: where no line can tell)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachOptions:
    """What `invoke reach` takes."""

    diff: str | None = option(
        None, help="what the commits changed: BASE...HEAD (since they went apart), BASE..HEAD, or BASE"
    )
    uncommitted: bool = option(False, help="what is changed in the checkout and not committed (default)")
    run: Options = nested(
        Options,
        *("model", *COMMON, "model_path", "steps", "quality", "torch_compile", "cuda_graph", "attention_backend"),
        "prove_kernels",
        engine={"help": "the changed checkout: source:PATH, or source:PATH@CONFIGURATION"},
        prove_kernels={"help": KERNELS},
    )
    as_json: bool = option(False, name="json", group=OUTPUT, help="print what ran as JSON on stdout")


@task(ReachOptions, example='reach --model flux --engine "source:../sglang" --diff main...HEAD')
def reach(c: Context, options: ReachOptions) -> None:
    """Say which changed lines of a checkout run in a request: one untimed launch under line tracing."""
    from bench.reach import judge, run
    from bench.record import store
    from bench.report import live, text
    from bench.report import reach as report

    if options.uncommitted and options.diff is not None:
        raise UsageError("--diff and --uncommitted exclude each other")
    asked = replace(options.run, extra=extra_arguments(c))
    question = run.of_checkout(asked, options.diff)
    directory = store.new_run("reach", "-".join(filter(None, (asked.model, asked.label))), asked.output_dir)
    with live.Live(text.stderr()) as display:
        document = run.measure(asked, question, directory, display)
    if options.as_json:
        text.write_json(document)
    else:
        report.show(document, text.stdout())
        text.line(text.stdout(), f"record: {directory / run.DOCUMENT}")
    if document["outcome"] != judge.REACHED:
        raise Inconclusive(document["means"], where=directory / run.DOCUMENT)
