"""Which records may be compared: the one place that says so.

``differences`` are the fields that must agree between two records; ``cell`` is the key of records that share their
noise (one preset, engine, workload and machine); ``family`` is that of a trend, across engine versions and hosts.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    Record = Mapping[str, Any]

MEANING = "workload.quality_meaning"

FIELDS = (
    ("methodology", "methodology"),
    ("synchronised stages", "instrument.stage_sync"),
    ("profiler", "instrument.profiler"),
    ("preset", "preset.sha256"),
    ("weights", "weights.kind"),
    ("device kind", "devices.kind"),
    ("width", "workload.width"),
    ("height", "workload.height"),
    ("frames", "workload.frames"),
    ("steps", "workload.steps"),
    ("input image", "workload.image"),
    ("seed", "workload.seed"),
    ("number of GPUs", "workload.gpus"),
    ("warm-up", "workload.warmup"),
    ("quality", "workload.quality"),
    ("meaning of the quality", MEANING),
)
"""What must agree between two records, by name and place. Engine, flags and compile are the question."""

FLAGS = {
    "width": "--width",
    "height": "--height",
    "frames": "--num-frames",
    "steps": "--num-inference-steps",
    "seed": "--seed",
    "quality": "--quality",
}
"""The engine's flags for some of these: whoever is told of the field need not be told of its flag."""

DELIVERED = {
    "infer_steps": "steps",
    "width": "width",
    "height": "height",
    "num_frames": "frames",
    "guidance_scale": "guidance",
}
"""What the engine's log says of the request that ran; versions have other defaults for what a preset leaves open."""

REQUEST = ("prompt", "seed", "width", "height", "frames", "image")
"""What makes two requests the same one: outputs of others are never compared. Steps are what an arm may change."""

VERSION_OF_THE_ENGINE = ("quality_meaning",)
"""Fields of the workload that a new version of the engine may change by itself: a trend goes across them."""


def at(record: Record, place: str) -> Any:
    """Return what is at a dotted place of a record."""
    value: Any = record
    for name in place.split("."):
        value = value[name]
    return value


def differences(baseline: Record, candidate: Record) -> list[str]:
    """Return one line for each field in which two records differ and must not; empty: they are comparable."""
    lines = [
        f"{name}: {' against '.join(_in_words(place, side) for side in (baseline, candidate))}"
        f"{_why(place, baseline, candidate)}"
        for name, place in FIELDS
        if at(baseline, place) != at(candidate, place)
    ]
    if not same_weights(baseline["weights"], candidate["weights"]):
        first, second = (_weights(record["weights"]) for record in (baseline, candidate))
        lines.append(f"weights: {first} against {second}")
    lines += _delivered(baseline, candidate)
    names, others = device_names(baseline), device_names(candidate)
    if names != others:
        lines.append(f"devices: {', '.join(names)} against {', '.join(others)}")
    elif not baseline["devices"]["items"] and baseline["host"]["cores"] != candidate["host"]["cores"]:
        lines.append(f"CPU cores: {baseline['host']['cores']} against {candidate['host']['cores']}")
    return lines


def way_on(baseline: Record, candidate: Record) -> str:
    """Return what to do about two records that are not comparable."""
    if baseline["instrument"]["profiler"] != candidate["instrument"]["profiler"]:
        return "name two benchmarks or two profiles: a profile is not a timing"
    if baseline["preset"]["key"] != candidate["preset"]["key"]:
        return "name two runs of one preset: `invoke history` shows those of each"
    verb = "loadtest" if baseline["schema"] == "load-record" else "ab"
    return f"measure both on one workload and machine: `invoke {verb}`"


def same_weights(first: Mapping[str, str | None], second: Mapping[str, str | None]) -> bool:
    """Tell whether two models are one: by the hash of what they hold, else by name where one has no hash."""
    if first["sha256"] is None or second["sha256"] is None:
        return first["model"] == second["model"]
    return first["sha256"] == second["sha256"]


def _weights(weights: Mapping[str, str | None]) -> str:
    return f"{weights['model']} ({(weights['sha256'] or 'no hash')[:12]})"


def _delivered(baseline: Record, candidate: Record) -> list[str]:
    """Return a line for each value that was left to the engine and that two launches resolved differently."""
    first, second = (
        record["launches"][0]["delivered"] if record["launches"] else {} for record in (baseline, candidate)
    )
    return [
        f"{title}, as delivered: {first[name]!r} against {second[name]!r}"
        for name, title in DELIVERED.items()
        if first.get(name) is not None
        and second.get(name) is not None
        and first[name] != second[name]
        and baseline["workload"].get(title) == candidate["workload"].get(title)
    ]


TOLD_ELSEWHERE = frozenset(
    {"SGLANG_GIT_COMMIT", "PYTHONPATH", "SGLANG_PERF_LOG_DIR", "SGLANG_DIFFUSION_TORCH_PROFILER_DIR"}
)
"""Variables that only repeat which engine it is, or where the files of one run go."""


def unlike_variables(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """Return in words the variables that two environments do not share, without those that are told elsewhere."""
    return [
        f"{name}: {_set(first.get(name))} against {_set(second.get(name))}"
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name) and name not in TOLD_ELSEWHERE
    ]


def _set(value: str | None) -> str:
    return "not set" if value is None else repr(value)


def _in_words(place: str, record: Record) -> str:
    if place == "preset.sha256":
        return str(record["preset"]["key"])
    value = at(record, place)
    return ("off", "on")[value] if isinstance(value, bool) else repr(value)


def _why(place: str, baseline: Record, candidate: Record) -> str:
    """Return what explains a difference that nobody asked for, as the rest of its line."""
    if place == "preset.sha256" and baseline["preset"]["key"] == candidate["preset"]["key"]:
        return " (its content differs)"
    quality = baseline["workload"]["quality"]
    if place != MEANING or quality != candidate["workload"]["quality"]:
        return ""
    return f" ({changed_meaning(quality, baseline['engine']['version'], candidate['engine']['version'])})"


def changed_meaning(quality: str | None, first: str, second: str) -> str:
    """Return the sentence about a quality (None: the default) that two versions of the engine take differently."""
    name = "the default quality" if quality is None else f"the quality {quality!r}"
    return f"{name} changed its meaning between sglang {first} and {second}"


CIRCUMSTANCES = (
    ("engine", "engine.name"),
    ("sglang", "engine.version"),
    ("engine's Python", "engine.python"),
    ("driver", "devices.driver"),
    ("host", "host.identity"),
    ("CPU", "host.cpu"),
    ("CPU cores", "host.cores"),
    ("system", "host.system"),
)
"""What two comparable records may differ in beside their arms, by name and place."""

OF_ONE_RUN = (
    *("--master-port", "--scheduler-port", "--port", "--served-model-name"),
    *("--output-path", "--output-file-name", "--perf-dump-path", "--log-requests-target"),
)
"""Arguments that are different in every launch."""

OWN_CLOCKS = 0.98
"""GPUs whose highest clocks under load differ by more than this share ran at different clocks."""


def circumstances(baseline: Record, candidate: Record) -> list[str]:
    """Return one phrase for everything that differs beside `differences`: versions, host, clocks, variables, flags."""
    lines = [
        _against(name, at(baseline, place), at(candidate, place))
        for name, place in CIRCUMSTANCES
        if at(baseline, place) != at(candidate, place)
    ]
    lines += _unlike(baseline["engine"]["packages"], candidate["engine"]["packages"])
    if (first := _commit(baseline)) != (second := _commit(candidate)):
        lines.append(_against("commit", first, second))
    clocks = _highest_mhz(baseline), _highest_mhz(candidate)
    if all(clocks) and min(clocks) < OWN_CLOCKS * max(clocks):
        lines.append(_against("highest GPU clock under load", *(f"{mhz} MHz" for mhz in clocks)))
    if not (baseline["launches"] and candidate["launches"]):
        return lines
    one, other = baseline["launches"][0]["command"], candidate["launches"][0]["command"]
    if variables := unlike_variables(one["environment"], other["environment"]):
        lines.append(f"environment: {', '.join(variables)}")
    told = {FLAGS[name] for name, place in FIELDS if name in FLAGS and at(baseline, place) != at(candidate, place)}
    for name, words, others in (("baseline", one, other), ("candidate", other, one)):
        own = [word for word in _own(words) if word not in _own(others)]
        only = [word for word in own if word.partition("=")[0] not in told]
        lines += [f"only the {name} has {' '.join(only)}"] if only else []
    return lines


def _against(name: str, first: Any, second: Any) -> str:
    def shown(value: Any) -> str:
        return "unknown" if value is None else str(value)

    return f"{name} {shown(first)} against {shown(second)}"


def _unlike(packages: Mapping[str, str], others: Mapping[str, str]) -> list[str]:
    names = sorted(name for name in {*packages, *others} if packages.get(name) != others.get(name))
    return [_against(name, packages.get(name), others.get(name)) for name in names if name != "sglang"]


def _commit(record: Record) -> str | None:
    source = record["engine"]["source"]
    return None if source is None else str(source["commit"])[:12]


def _highest_mhz(record: Record) -> int:
    """Return the highest clock that a GPU had under load, 0 if that was not seen."""
    seen = [gpu["working_mhz"] for launch in record["launches"] for gpu in launch["gpus_during"]]
    return max((high for low_high in seen if low_high for high in low_high[1:]), default=0)


def _own(command: Mapping[str, Any]) -> list[str]:
    """Return the flags of a command that say what is run, not where its files go."""
    return [word for word in command["argv"] if word.startswith("--") and word.partition("=")[0] not in OF_ONE_RUN]


def other_requests(baseline: Record, candidate: Record) -> list[str]:
    """Return one line for each field in which the requests of two records are not the same one."""
    first, second = baseline["workload"], candidate["workload"]
    return [f"{name}: {first[name]!r} against {second[name]!r}" for name in REQUEST if first[name] != second[name]]


def device_names(record: Record) -> list[str]:
    """Return the names of the devices that a launch used: its GPUs, or the CPU."""
    items = record["devices"]["items"][: record["workload"]["gpus"]]
    return [device["name"] for device in items] or [record["host"]["cpu"]]


def machine(record: Record) -> list[str | None]:
    """Return what names the machine: its host's identity and the UUIDs of the GPUs that a launch used."""
    items = record["devices"]["items"][: record["workload"]["gpus"]]
    return [record["host"]["identity"], *(device["uuid"] for device in items)]


def same_machine(baseline: Record, candidate: Record) -> bool | None:
    """Tell whether two records are of one machine; None where a record of version 1 does not say."""
    first, second = machine(baseline), machine(candidate)
    if first[1:] != second[1:]:
        return False
    return None if first[0] is None or second[0] is None else first[0] == second[0]


def cell(record: Record) -> str:
    """Return the key of records that share their noise: one preset, engine, code, workload, machine and methodology."""
    engine = [record["engine"], record["code"]]
    return _key([*_question(record, record["workload"]), engine, machine(record), record["host"]["cores"]])


def family(record: Record) -> str:
    """Return the key of a trend, and of what a baseline is for: the workload on such devices, whatever the version."""
    workload = {name: value for name, value in record["workload"].items() if name not in VERSION_OF_THE_ENGINE}
    return _key(_question(record, workload))


def _question(record: Record, workload: Mapping[str, Any]) -> list[Any]:
    return [record["preset"]["sha256"], workload, device_names(record), record["instrument"], record["methodology"]]


def _key(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
