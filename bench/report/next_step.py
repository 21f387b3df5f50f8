"""The line that a person would type after a report."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

from bench import paths, redact
from bench.accuracy.gates import CHECKS, GOLDEN
from bench.record import campaign, comparable, disturbance, names, store
from bench.run.timings import PRIMARY
from bench.stats.comparison import DEFAULT_MARGIN_PERCENT, INCONCLUSIVE, is_disturbed
from bench.stats.summary import PRECISION_MINIMUM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.accuracy.options import Options as AccuracyOptions
    from bench.run.options import Options
    from bench.serving.options import LoadOptions

FEWEST_PAIRS, MOST_PAIRS = 3, 60
"""Of starts: fewer decide nothing, more are not proposed."""
FEWEST_REQUESTS, MANY_REQUESTS, MOST_REQUESTS = 6, 10, 1000
"""Fewer give a median no interval; so many are proposed where it has none; more are not proposed."""

TYPED = (
    *("engine", "preset_file", "model_path", "steps", "seed", "width", "height", "attention_backend", "quality"),
    *("image", "model_cache_root", "seed_model_cache_root", "output_dir"),
)
SWITCHES = {
    "torch_compile": (True, "--torch-compile"),
    "cuda_graph": (True, "--cuda-graph"),
    "warmup": (False, "--no-warmup"),
    "precheck": (False, "--no-precheck"),
    "preflight": (False, "--no-preflight"),
    "cleanup_model_cache": (True, "--cleanup-model-cache"),
}
"""The options of a run that choose what it measures, those with a value and those without one."""

TIMED_OUT = "process.timeout"
"""The finding of a launch that its time limit ended."""

WHEN_QUIET = "when nothing else runs here: "
WHEN_ENDED = "when it has ended: "
"""Stand before a command, so that it ends its line and can be copied as it is."""


def after_bench(record: Mapping[str, Any], folder: Path) -> str:
    """Return the command after a run that counts: to measure it again where other work disturbed it."""
    asked = record["asked"]
    if not record["complete"] and record["kind"] != store.REFERENCE:
        timed_out = any(finding["id"] == TIMED_OUT for finding in record["verdict"]["findings"])
        longer = f" --timeout {_longer(record)}" if timed_out else ""
        return f"invoke bench --resume {_called(folder)}{longer}"
    quiet, needed = _quiet(record), _requests_for_precision(record)
    if needed is not None and needed > MOST_REQUESTS and not quiet:
        return _out_of_reach(record)
    counts = _more_to_measure(record)
    if counts is None and not quiet:
        return f"invoke history --model {record['preset']['key']}"
    again = _bench(
        record, **({"repeats": asked["repeats"], "launches": asked["launches"]} if counts is None else counts)
    )
    # a run is called by its digits in the default folder only
    compared = record["kind"] == store.REFERENCE and not asked["output_dir"]
    return f"{quiet}{again} && invoke compare {record['id'][-6:]} last" if compared else f"{quiet}{again}"


def _longer(record: Mapping[str, Any]) -> str:
    """Return twice the time limit of a run's launches, in seconds as it is typed."""
    return f"{2 * record['asked']['timeout_s']:g}"


def _quiet(*records: Mapping[str, Any]) -> str:
    """Return what stands before a command that measures again where one of these records was disturbed."""
    return WHEN_QUIET if any(map(disturbance.of, records)) else ""


def _more_to_measure(record: Mapping[str, Any]) -> dict[str, object] | None:
    """Return the counts of requests and launches that a run lacks to be compared, None if it lacks none."""
    asked = record["asked"]
    repeats, launches = asked["repeats"], asked["launches"]
    if record["kind"] == store.REFERENCE:
        return _counts(asked)
    if (more := _requests_for_precision(record)) is not None:
        most = asked["max_repeats"] if more > MOST_REQUESTS else more
        return {"precision": f"{100 * asked['precision']:g}%", "max_repeats": most}
    if asked["precision"] is not None:
        repeats = record["timings"]["requests"]
    if launches == 1 and repeats < FEWEST_REQUESTS:
        return {"repeats": MANY_REQUESTS}
    # what a later comparison needs of each side
    return {"repeats": repeats, "launches": FEWEST_PAIRS} if launches < FEWEST_PAIRS else None


def _requests_for_precision(record: Mapping[str, Any]) -> int | None:
    """Return how many requests would know the median as well as was asked for, None if it is known or unknowable.

    Fewer than the rule's least number know nothing, however close they lie.
    """
    wanted, requests, reached = record["asked"]["precision"], record["timings"]["requests"], _precision(record)
    if wanted is None:
        return None
    least = PRECISION_MINIMUM if requests < PRECISION_MINIMUM else None
    return (
        least
        if reached is None or reached <= wanted
        else max(least or 0, math.ceil(requests * (reached / wanted) ** 2))
    )


def _precision(record: Mapping[str, Any]) -> float | None:
    """Return half the width of the median's interval over the median, None without an interval."""
    timings = record["timings"]
    summary = None if timings["summary"] is None else timings["summary"][PRIMARY]
    if summary is None or summary["interval"] is None:
        return None
    width: float = summary["interval"]["high"] - summary["interval"]["low"]
    return width / 2 / float(timings["metrics"][PRIMARY])


def _out_of_reach(record: Mapping[str, Any]) -> str:
    """Return that this machine does not reach the precision that was asked for, and which it would."""
    percent = 100 * (_precision(record) or 0) * math.sqrt(record["timings"]["requests"] / MOST_REQUESTS)
    return (
        f"nothing to run: {100 * record['asked']['precision']:g} % takes over {MOST_REQUESTS} requests here;"
        f" {MOST_REQUESTS} reach about {percent:.2g} %; a quieter machine would need fewer"
    )


def after_invalid(record: Mapping[str, Any], path: Path) -> str:
    """Return the command after a run that does not count: with more time if it had too little, else its log.

    That shows all that the guard saw of its last launch.
    """
    asked = record["asked"]
    if record["verdict"]["findings"][0]["id"] == TIMED_OUT:
        return _bench(record, _verb(record), **_counts(asked), timeout=_longer(record))
    kept = record["launches"][-1]["log"]
    log = path.parent / (store.LOG if kept is None else kept["file"])
    return shlex.join(["invoke", "attest", "--log", paths.typed(log)])


def after_accuracy(report: Mapping[str, Any], asked: AccuracyOptions, log: Path) -> str:
    """Return the command after an accuracy check: keep its picture where nothing speaks against it, else its log."""
    lacks_golden = report["outcome"] == "void" and report["checks"] == [GOLDEN]
    if report["outcome"] != "passed" and not lacks_golden:
        return shlex.join(["invoke", "attest", "--log", paths.typed(log)])
    options = {"model": asked.model} | {name.replace("_", "-"): getattr(asked, name, None) for name in TYPED}
    options["dtype"] = None if asked.dtype == "fp32" else asked.dtype
    options["check"] = ",".join(asked.checks) if GOLDEN in asked.checks and set(asked.checks) != set(CHECKS) else None
    switches = ["--torch-compile"] if asked.torch_compile else []
    return shlex.join(["invoke", "accuracy", *_words(options), *switches, "--update-golden", "looked at"])


def after_arms(document: Mapping[str, Any], baseline: Mapping[str, Any], folder: Path) -> str:
    """Return the command after a comparison of two arms: what decides it where it is open, else its text for others.

    Pairs are proposed only where so many decide; else that this machine does not. ``baseline`` is the record of that
    arm.
    """
    comparison, measured = document["comparison"], len(document["pairs"])
    if not document["complete"] and (folder / campaign.STATE).is_file():
        going_on = campaign.is_going_on(folder)
        return f"{f'{WHEN_ENDED}invoke compare' if going_on else 'invoke ab --resume'} {_called(folder)}"
    if comparison["verdict"] != INCONCLUSIVE:
        return f"invoke compare {_called(folder)} --markdown"
    if is_disturbed(comparison):  # its noise is not this machine's own
        return f"{WHEN_QUIET}{ab(document, baseline, max(measured, FEWEST_PAIRS))}"
    if document.get("reach") and comparison["reason"].startswith(document["reach"]["means"]):
        return "nothing to run: this workload reaches no changed line; one that does would decide it"
    planning = comparison["planning"]
    likely = 0 if planning is None else planning["likely"]
    if likely is None or likely > MOST_PAIRS or measured >= MOST_PAIRS:
        return _undecidable(comparison, likely, measured, "pairs")
    return ab(document, baseline, min(MOST_PAIRS, max(likely, 2 * measured, FEWEST_PAIRS)))


def _undecidable(comparison: Mapping[str, Any], likely: int | None, measured: int, unit: str) -> str:
    """Return that this machine does not decide a comparison, and which effect it would show."""
    margin = comparison["margin_percent"]
    if likely is None:
        return (
            f"nothing to run: an effect of {margin:g} % takes over 2000 {unit} here; a quieter machine would decide it"
        )
    if likely <= MOST_PAIRS:
        return f"nothing to run: {measured} {unit} left it open; a quieter machine would decide it"
    shown = f"{MOST_PAIRS} show one of about {margin * math.sqrt(likely / MOST_PAIRS):.2g} %"
    return (
        f"nothing to run: an effect of {margin:g} % takes about {likely} {unit} here, {shown}; a quieter machine"
        " would decide it"
    )


def ab(document: Mapping[str, Any], baseline: Mapping[str, Any], pairs: int) -> str:
    """Return the command that measures two arms again, in so many pairs at most."""
    margin = document["comparison"]["margin_percent"]
    specs = {name: document["arms"][name]["spec"] for name in ("baseline", "candidate")}
    asked = baseline["asked"]
    engine = asked["engine"] or baseline["engine"]["name"]
    named = {engine, f"engine={engine}"} & {*shlex.split(specs["baseline"])}
    options = {
        "model": baseline["preset"]["key"],
        "engine": None if named else engine,
        "preset-file": asked["preset_file"],
        **{name: spec or None for name, spec in specs.items()},
        "metric": None if document["metric"] == "total" else document["metric"],
        "repeats": document["requests_per_start"],
        "output-dir": asked["output_dir"],
        "margin": None if margin == DEFAULT_MARGIN_PERCENT else f"{margin:g}%",
        "pairs": pairs,
    }
    switches = [] if document["together"] else ["--alternate"]
    switches += ["--same"] if specs["baseline"] == specs["candidate"] else []
    return shlex.join(["invoke", "ab", *_words(options), *switches])


def after_batch(rows: Sequence[Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the command after a batch: its first failure alone, else what was disturbed again, else its history.

    ``records`` has those of the presets that were launched; each says on which engine.
    """
    failed = next((row for row in rows if row["exit_code"] != 0), None)
    if failed is None:
        disturbed = next((record for record in records.values() if disturbance.of(record)), None)
        history = f"invoke history --model {rows[0]['preset']}"
        return history if disturbed is None else f"{WHEN_QUIET}{_bench(disturbed, **_counts(disturbed['asked']))}"
    if (record := records.get(failed["preset"])) is not None:
        return f"{_quiet(record)}{_bench(record, **_counts(record['asked']))}"
    if failed["outcome"] == "refused":
        return f"invoke doctor --model {failed['preset']}"
    return f"invoke bench --model {failed['preset']}"


def after_matrix(document: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the command after a matrix: the fastest cell against the default, decided by pairs of starts.

    A cell that was not of its quality is not proposed. ``records`` has those of its cells, which say on which engine
    and workload.
    """
    measured = [cell for cell in document["cells"] if cell["denoise_ms"] is not None]
    engaged = [cell for cell in measured if not str(cell["reason"]).startswith("receipt.quality: ")]
    fastest = min(engaged or measured, key=lambda cell: float(cell["denoise_ms"]), default=None)
    if fastest is None:
        return f"invoke doctor --model {document['model']}"
    record, quiet = records[fastest["name"]], _quiet(*records.values())
    workload = _arm(record["asked"])
    quality = [f"quality={fastest['quality']}"] if engaged and fastest["quality"] and fastest["reference"] else []
    changed = [*quality, *(["cuda-graph"] if fastest["cuda_graph"] else [])]
    if not changed:
        return f"{quiet}{shlex.join(['invoke', 'profile', *_words(_common(record))])}"
    arms = {"baseline": shlex.join(workload) or None, "candidate": shlex.join([*workload, *changed])}
    return f"{quiet}{shlex.join(['invoke', 'ab', *_words(_common(record) | {'metric': 'denoise'} | arms)])}"


def after_profile(record: Mapping[str, Any], proposed: str | None) -> str:
    """Return the command after a profile: try the arm that it proposes, or set two profiles side by side.

    A CPU's profile proposes nothing; the next thing to know is the time without the profiler.
    """
    asked, quiet = record["asked"], _quiet(record)
    if record["devices"]["kind"] == "cpu":
        return f"{quiet}{_bench(record, repeats=MANY_REQUESTS)}"
    if proposed is None and asked["torch_compile"]:
        return "invoke profile-diff last~1 last"
    workload = _arm(asked)
    candidate = [*workload, *shlex.split(proposed or "compile")]
    arms = {"baseline": shlex.join(workload) or None, "candidate": shlex.join(candidate)}
    return f"{quiet}{shlex.join(['invoke', 'ab', *_words(_common(record) | {'metric': 'denoise'} | arms)])}"


def after_served_profile(record: Mapping[str, Any], asked: Options, proposed: str | None) -> str:
    """Return the command after the profile of a server: two servers, the other with the arm that it proposes."""
    quiet = WHEN_QUIET if disturbance.of_load(record) else ""
    options: dict[str, object] = {"model": asked.model, "engine": asked.engine, "preset-file": asked.preset_file}
    if proposed is None:
        switches = ["--torch-compile"] if asked.torch_compile else []
        extra = ["--", *asked.extra] if asked.extra else []
        return f"{quiet}{shlex.join(['invoke', 'loadtest', *_words(options), *switches, *extra])}"
    workload = _arm_of_record(asked.document())
    arms = {"baseline": shlex.join(workload) or None, "candidate": shlex.join([*workload, *shlex.split(proposed)])}
    return f"{quiet}{shlex.join(['invoke', 'loadtest', *_words(options | arms)])}"


def after_records(
    baseline: tuple[Path, Mapping[str, Any]], candidate: tuple[Path, Mapping[str, Any]], comparison: Mapping[str, Any]
) -> str:
    """Return the command after a comparison of two records, each with its place: what would decide it if it is open."""
    if comparison["verdict"] != INCONCLUSIVE:
        return f"invoke compare {_called(baseline[0])} {_called(candidate[0])} --markdown"
    records = baseline[1], candidate[1]
    quiet = WHEN_QUIET if is_disturbed(comparison) else ""
    engines = [record["asked"]["engine"] or record["engine"]["name"] for record in records]
    arms = [[engine, *_arm_of_record(record["asked"])] for engine, record in zip(engines, records, strict=True)]
    if arms[0] != arms[1] and store.REFERENCE not in (records[0]["kind"], records[1]["kind"]):
        options = _common(records[0]) | {"engine": None}
        options |= {"baseline": shlex.join(arms[0]), "candidate": shlex.join(arms[1])}
        return f"{quiet}{shlex.join(['invoke', 'ab', *_words(options)])}"
    return _both_again(records, comparison, quiet)


def _both_again(records: tuple[Mapping[str, Any], Mapping[str, Any]], comparison: Mapping[str, Any], quiet: str) -> str:
    """Return how to measure again what two records of the same words cannot decide: each side that has too little."""
    counts = [comparison["baseline_launches"], comparison["candidate_launches"]]
    planning = comparison["planning"]
    likely = FEWEST_PAIRS if planning is None else planning["likely"]
    if likely is None or likely > MOST_PAIRS:
        return _undecidable(comparison, likely, min(counts), "launches of each side")
    wanted = max(FEWEST_PAIRS, likely)
    repeats = max(FEWEST_PAIRS, *(record["asked"]["repeats"] for record in records))
    sides = ("baseline", "candidate")
    # measured apart or under disturbance, neither side can be kept
    lacking = [place for place in (0, 1) if quiet or "measured apart" in comparison["reason"] or counts[place] < wanted]
    lacking = lacking or [0, 1]
    verbs = [_verb(record) for record in records]
    again = [_bench(records[place], verbs[place], repeats=repeats, launches=wanted) for place in lacking]
    if len(again) == 1:
        return f"the {sides[lacking[0]]} again: {again[0]}"
    if verbs[0] != verbs[1]:
        return f"{quiet}{' && '.join(again)}"
    return f"once for each side, {quiet or 'within an hour: '}{again[0]}"


def after_loads(
    baseline: Mapping[str, Any], candidate: tuple[Path, Mapping[str, Any]], comparison: Mapping[str, Any]
) -> str:
    """Return the command after a comparison of two load tests: both arms in pairs if it is open, else a page."""
    if comparison["verdict"] != INCONCLUSIVE:
        return f"invoke report {_called(candidate[0])}"
    quiet = WHEN_QUIET if is_disturbed(comparison) else ""
    sides, asked = (baseline, candidate[1]), baseline["asked"]
    arms = [shlex.join(_arm_of_load(*both)) for both in (sides, sides[::-1])]
    alike = arms[0] == arms[1]
    if asked["batching"] > 1 or (alike and comparable.circumstances(*sides)):  # not what two arms can differ in
        again = [_loadtest(side) for side in sides]
        return (
            f"once for each side, {quiet or 'within an hour: '}{again[0]}" if alike else f"{quiet}{' && '.join(again)}"
        )
    options = {"model": baseline["preset"]["key"], "baseline": arms[0], "candidate": arms[1]}
    options |= {"rate": asked["rate_hz"], "slo": asked["slo_s"], "duration": f"{asked['duration_s']:g}"}
    return f"{quiet}{shlex.join(['invoke', 'loadtest', *_words(options), *(['--same'] if alike else [])])}"


def _arm_of_load(record: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the words of an arm that serves what a load test served, with the variables that the other one lacks."""
    model = record["weights"]["model"]
    own, others = (side["launches"][0]["command"]["environment"] for side in (record, other))
    variables = [
        (name, value)
        for name, value in own.items()
        if value != others.get(name) and name not in comparable.TOLD_ELSEWHERE and redact.HIDDEN not in value
    ]
    path = None if model == record["preset"]["document"]["model"] else model
    words = _arm_of_record(record["workload"] | {"model_path": path, "environment": variables})
    return [record["asked"]["engine"] or record["engine"]["name"], *words]


def _loadtest(record: Mapping[str, Any]) -> str:
    """Return the command that loads a server as a load test did."""
    asked, workload = record["asked"], record["workload"]
    options = {"model": record["preset"]["key"], "engine": asked["engine"] or record["engine"]["name"]}
    options |= {"rate": asked["rate_hz"], "slo": asked["slo_s"], "duration": f"{asked['duration_s']:g}"}
    options |= {name: asked[name.replace("-", "_")] for name in ("concurrency", "trace", "batching", "arrival-seed")}
    options |= {name: workload[name] for name in ("steps", "seed", "width", "height")}
    options["attention-backend"] = workload["attention_backend"]
    on = {"--find-max": asked["find_max"], "--torch-compile": workload["torch_compile"]}
    extra = ["--", *workload["extra"]] if workload["extra"] else []
    return shlex.join(["invoke", "loadtest", *_words(options), *(name for name in on if on[name]), *extra])


def after_load(record: Mapping[str, Any], asked: LoadOptions, path: Path) -> str:
    """Return the command after a load test: the way on if it was cut off, its evidence where it does not count.

    Else the search for the highest rate within an SLO.
    The SLO that is proposed is twice the latency of a request that nothing delays.
    """
    if (path.parent / campaign.STATE).is_file():
        return f"invoke loadtest --resume {_called(path.parent)}"
    alone = next((phase["figures"]["p50_s"] for phase in record["phases"] if phase["name"] == "closed-1"), None)
    if record["failure"] is not None or any(check["exit_code"] for check in record["checks"]):
        log = path.parent / "engine.log"
        return (
            f"invoke attest --log {shlex.quote(paths.typed(log))}"
            if log.is_file()
            else f"invoke validate {_called(path.parent)}"
        )
    run, quiet = asked.run, WHEN_QUIET if disturbance.of_load(record) else ""
    options = {"model": run.model, "engine": run.engine, "model-path": run.model_path, "url": asked.url}
    if record["slo_s"] is None and alone is not None:
        options["slo"] = f"{2 * alone:.2g}"
    elif record["slo_s"] is not None:
        options["slo"] = f"{record['slo_s']:.3g}" if asked.slo_s is None else f"{asked.slo_s:g}"
    if record["highest_rate"] is not None or "slo" not in options:
        return f"{quiet}invoke profile --model {run.model}"
    return f"{quiet}{shlex.join(['invoke', 'loadtest', *_words(options), '--find-max'])}"


def after_servers(document: Mapping[str, Any], asked: LoadOptions, folder: Path) -> str:
    """Return the command after a comparison of two servers: the way on if it was cut off, more time, or its page."""
    if (folder / campaign.STATE).is_file():
        return f"invoke loadtest --resume {_called(folder)}"
    if document["comparison"]["verdict"] != "inconclusive":
        return f"invoke report {_called(folder)}"
    specs = {name: document["arms"][name]["spec"] or None for name in ("baseline", "candidate")}
    options = {"model": asked.run.model, "engine": asked.run.engine, **specs}
    options |= {"rate": asked.rate_hz, "slo": asked.slo_s, "duration": f"{2 * asked.duration_s:g}"}
    same = [] if any(specs.values()) else ["--same"]
    quiet = WHEN_QUIET if is_disturbed(document["comparison"]) else ""
    return f"{quiet}{shlex.join(['invoke', 'loadtest', *_words(options), *same])}"


def after_history(asked: Options) -> str:
    """Return the command after a history: the same with its plots, as a page."""
    return shlex.join(["invoke", "report", *_words({"model": asked.model, "output-dir": asked.output_dir})])


def after_calibration(asked: Options) -> str:
    """Return the commands after a calibration: a run that can now be compared with the calibration's own."""
    options = {"model": asked.model, "engine": asked.engine, "preset-file": asked.preset_file}
    repeats = {"repeats": asked.repeats, "label": "changed"}
    return f"{shlex.join(['invoke', 'bench', *_words(options | repeats)])} && invoke compare last~1 last"


def after_profile_diff(baseline: Path, candidate: Path) -> str:
    """Return the command after a diff of two traces: only times measured without a profiler say which is faster."""
    named = [_called(place.parent) for place in (baseline, candidate) if (place.parent / "run.json").is_file()]
    if len(set(named)) == 2:  # noqa: PLR2004 - A and B
        return f"invoke compare {' '.join(named)} --metric denoise"
    return "invoke ab --metric denoise --candidate compile"


def _called(place: Path) -> str:
    """Return the shortest name of a run: its six digits where they are looked up, else its place."""
    return shlex.quote(names.called(place))


def _bench(record: Mapping[str, Any], verb: str = "bench", **counts: object) -> str:
    """Return the command that measures again what a record did, with other counts of requests or launches."""
    asked = record["asked"]
    options = {"model": record["preset"]["key"]} | {name: asked.get(name) for name in TYPED} | counts
    words = _words({name.replace("_", "-"): value for name, value in options.items()})
    switches = [typed for name, (value, typed) in SWITCHES.items() if asked.get(name) is value]
    extra = ["--", *asked["extra"]] if asked["extra"] else []
    return shlex.join(["invoke", verb, *words, *switches, *extra])


def _verb(record: Mapping[str, Any]) -> str:
    """Return the verb that made a record."""
    return "reference" if record["kind"] == store.REFERENCE else "bench"


def _counts(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return how much a run was to measure, where it was not one request."""
    counts: dict[str, Any] = {name: asked[name] for name in ("repeats", "launches") if asked[name] > 1}
    if asked["precision"] is not None:
        counts |= {"precision": f"{100 * asked['precision']:g}%", "max_repeats": asked["max_repeats"]}
    return counts


def _common(record: Mapping[str, Any]) -> dict[str, object]:
    """Return the options that both arms of an A/B share, from a record of either."""
    names = ("engine", "preset_file", "output_dir")
    return {"model": record["preset"]["key"]} | {name.replace("_", "-"): record["asked"][name] for name in names}


def _arm(asked: Mapping[str, Any]) -> list[str]:
    """Return the words of an arm that runs the workload that was asked for."""
    names = ("model_path", "steps", "seed", "width", "height", "attention_backend")
    words = {name.replace("_", "-"): asked[name] for name in names}
    switches = ["compile"] if asked["torch_compile"] else []
    return [*(f"{name}={value}" for name, value in words.items() if value is not None), *switches]


def _arm_of_record(asked: Mapping[str, Any]) -> list[str]:
    """Return the words of an arm that runs all that a run asked for, flags and variables too."""
    quality = [f"quality={asked['quality']}"] if asked["quality"] else []
    graphs = ["cuda-graph"] if asked["cuda_graph"] else []
    variables = [f"{name}={value}" for name, value in asked["environment"]]
    return [*_arm(asked), *quality, *graphs, *variables, *_flags(asked["extra"])]


def _flags(extra: Sequence[str]) -> list[str]:
    """Return the engine's flags as words of an arm: each in one word with its value."""
    flags: list[str] = []
    for word in extra:
        if word.startswith("--") or not flags or "=" in flags[-1]:
            flags.append(word)
        else:
            flags[-1] += f"={word}"
    return flags


def _words(options: Mapping[str, object]) -> list[str]:
    return [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
