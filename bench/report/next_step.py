"""The line that a person would type after a report."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

from bench import paths
from bench.record import campaign, store
from bench.run.timings import PRIMARY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.run.options import Options
    from bench.serving.options import LoadOptions

FEWEST_PAIRS, MOST_PAIRS = 3, 60
"""Fewer decide nothing, more are not proposed."""


def after_bench(record: Mapping[str, Any]) -> str:
    """Return the command after a run that counts."""
    asked = _asked(record)
    if record["kind"] == store.REFERENCE:
        counts = {"repeats": record["asked"]["repeats"], "launches": record["asked"]["launches"]}
        native = shlex.join(_words({name: count for name, count in counts.items() if count > 1}))
        bench = f"invoke bench {asked} {native}".rstrip()
        # a run is called by its digits in the default folder only
        return bench if record["asked"]["output_dir"] else f"{bench} && invoke compare {record['id'][-6:]} last"
    if not record["complete"]:
        return f"invoke bench --resume {record['id'][-6:]}"
    if (more := _requests_for_precision(record)) is not None:
        return f"invoke bench {asked} --precision {100 * record['asked']['precision']:g}% --max-repeats {more}"
    if record["timings"]["requests"] == 1:
        return f"invoke bench {asked} --repeats 10"
    if len(record["launches"]) < 3:  # noqa: PLR2004 - what a later comparison needs of each side
        return f"invoke bench {asked} --repeats {record['timings']['requests']} --launches 3"
    return f"invoke history --model {record['preset']['key']}"


def _requests_for_precision(record: Mapping[str, Any]) -> int | None:
    """Return how many requests would know the median as well as was asked for, None if it is known or unknowable."""
    wanted, timings = record["asked"]["precision"], record["timings"]
    summary = None if timings["summary"] is None else timings["summary"][PRIMARY]
    if wanted is None or summary is None or summary["interval"] is None:
        return None
    interval = summary["interval"]
    reached = (interval["high"] - interval["low"]) / 2 / timings["metrics"][PRIMARY]
    return None if reached <= wanted else math.ceil(timings["requests"] * (reached / wanted) ** 2)


def after_invalid(path: Path) -> str:
    """Return the command that shows all that the guard saw of a run that does not count."""
    return shlex.join(["invoke", "attest", "--log", str(path.parent / "engine.log")])


def after_arms(document: Mapping[str, Any], baseline: Mapping[str, Any], folder: Path) -> str:
    """Return the command after a comparison of two arms: more pairs where it is open, else its text for a pull request.

    ``baseline`` is the record of that arm.
    """
    if document["comparison"]["verdict"] != "inconclusive":
        return f"invoke compare {_called(folder)} --markdown"
    planning = document["comparison"]["planning"]
    wanted = None if planning is None else planning["likely"]
    pairs = min(MOST_PAIRS, max(wanted or 0, 2 * len(document["pairs"]), FEWEST_PAIRS))
    specs = {name: document["arms"][name]["spec"] for name in ("baseline", "candidate")}
    asked = baseline["asked"]
    engine = asked["engine"] if asked["engine"] and asked["engine"] not in specs["baseline"] else None
    options = {
        "model": baseline["preset"]["key"],
        "engine": engine,
        "preset-file": asked["preset_file"],
        **{name: spec or None for name, spec in specs.items()},
        "metric": None if document["metric"] == "total" else document["metric"],
        "repeats": document["requests_per_start"],
        "output-dir": asked["output_dir"],
        "pairs": pairs,
    }
    alone = [] if document["together"] else ["--alternate"]
    return shlex.join(["invoke", "ab", *_words(options), *alone])


def after_batch(rows: Sequence[Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the command after a batch: its first failure alone, else the history of its first preset.

    ``records`` has those of the presets that were launched; each says on which engine.
    """
    failed = next((row for row in rows if row["exit_code"] != 0), None)
    if failed is None:
        return f"invoke history --model {rows[0]['preset']}"
    if failed["preset"] in records:
        return f"invoke bench {_asked(records[failed['preset']])}"
    if failed["outcome"] == "refused":
        return f"invoke doctor --model {failed['preset']}"
    return f"invoke bench --model {failed['preset']}"


def after_matrix(document: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the command after a matrix: the fastest cell against the default, decided by pairs of starts.

    ``records`` has those of its cells, which say on which engine and workload.
    """
    eager = [cell for cell in document["cells"] if cell["denoise_ms"] is not None]
    fastest = min(eager, key=lambda cell: float(cell["denoise_ms"]), default=None)
    if fastest is None:
        return f"invoke doctor --model {document['model']}"
    record = records[fastest["name"]]
    workload = _arm(record["asked"])
    quality = [f"quality={fastest['quality']}"] if fastest["quality"] and fastest["reference"] else []
    changed = [*quality, *(["cuda-graph"] if fastest["cuda_graph"] else [])]
    if not changed:
        return shlex.join(["invoke", "profile", *_words(_common(record))])
    arms = {"baseline": shlex.join(workload) or None, "candidate": shlex.join([*workload, *changed])}
    return shlex.join(["invoke", "ab", *_words(_common(record) | {"metric": "denoise"} | arms)])


def after_profile(record: Mapping[str, Any], proposed: str | None) -> str:
    """Return the command after a profile: try the arm that it proposes, or set two profiles side by side."""
    asked = record["asked"]
    if proposed is None and asked["torch_compile"]:
        return "invoke profile-diff last~1 last"
    workload = _arm(asked)
    candidate = [*workload, *shlex.split(proposed or "compile")]
    arms = {"baseline": shlex.join(workload) or None, "candidate": shlex.join(candidate)}
    return shlex.join(["invoke", "ab", *_words(_common(record) | {"metric": "denoise"} | arms)])


def after_served_profile(asked: Options, proposed: str | None) -> str:
    """Return the command after the profile of a server: two servers, the other with the arm that it proposes."""
    options = {"model": asked.model, "engine": asked.engine, "preset-file": asked.preset_file}
    return shlex.join(["invoke", "loadtest", *_words(options | {"candidate": proposed})])


def after_records(
    baseline: tuple[Path, Mapping[str, Any]], candidate: tuple[Path, Mapping[str, Any]], comparison: Mapping[str, Any]
) -> str:
    """Return the command after a comparison of two records, each with its place: what would decide it if it is open."""
    if comparison["verdict"] != "inconclusive":
        return f"invoke compare {_called(baseline[0])} {_called(candidate[0])} --markdown"
    records = baseline[1], candidate[1]
    engines = [record["asked"]["engine"] or record["engine"]["name"] for record in records]
    if engines[0] != engines[1]:
        arms = [shlex.join([engine, *_arm(record["asked"])]) for engine, record in zip(engines, records, strict=True)]
        options = _common(records[0]) | {"engine": None, "baseline": arms[0], "candidate": arms[1]}
        return shlex.join(["invoke", "ab", *_words(options)])
    repeats = max(FEWEST_PAIRS, records[0]["timings"]["requests"])
    return f"invoke bench {_asked(records[0])} --repeats {repeats} --launches 3"


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
            f"invoke attest --log {shlex.quote(str(log))}"
            if log.is_file()
            else shlex.join(["invoke", "validate", str(path.parent)])
        )
    run = asked.run
    options = {"model": run.model, "engine": run.engine, "model-path": run.model_path, "url": asked.url}
    if record["slo_s"] is None and alone is not None:
        options["slo"] = f"{2 * alone:.2g}"
    elif record["slo_s"] is not None:
        options["slo"] = f"{record['slo_s']:g}"
    if record["highest_rate"] is not None or "slo" not in options:
        return f"invoke profile --model {run.model}"
    return shlex.join(["invoke", "loadtest", *_words(options), "--find-max"])


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
    return shlex.join(["invoke", "loadtest", *_words(options), *same])


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
    folder = (place if place.is_dir() else place.parent).resolve()
    return folder.name[-6:] if folder.parent == paths.runs().resolve() else shlex.quote(str(place))


def _asked(record: Mapping[str, Any]) -> str:
    """Return the words that choose what a record measured, as they are typed behind `invoke bench`."""
    asked = record["asked"]
    names = ("engine", "preset_file", "model_path", "steps", "width", "height", "quality", "output_dir")
    options = {"model": record["preset"]["key"]} | {name.replace("_", "-"): asked.get(name) for name in names}
    return shlex.join(_words(options))


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


def _words(options: Mapping[str, object]) -> list[str]:
    return [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
