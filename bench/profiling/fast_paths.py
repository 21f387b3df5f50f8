"""Which fused kernel families are on, and what those that are off would save.

``off`` depends on the engine's version: a path that this version lacks is not a miss, and looking for the guard that
failed would waste a day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from bench.catalog.fast_paths import FastPath, Rule, fast_paths
from bench.profiling.categories import operands
from bench.profiling.savings import is_square_projection, saving

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.profiling.roofline import Ceilings
    from bench.profiling.table import Row

LAUNCH_BOUND_PERCENT = 10.0
"""Host wait above this share of a step's time makes it launch-bound (a rule of thumb)."""

LEAST_SPLIT_PROJECTIONS = 3
"""Query, key and value: fewer equal square projections in a step are not a split QKV."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a path's conditions are judged by; None is unknown, and nothing is then held against the path."""

    family: str | None = None
    engine_version: str | None = None
    quality: str | None = None
    compute_capability: int | None = None
    gpus: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A kernel that shows the state of a path: how often and how long in a step."""

    kernel: str
    operator: str
    module: str
    per_step: float
    ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The state of one path. ``saving_ms`` is what turning it on would save in a step at most; None: no model.

    ``arm`` turns it on (`bench.compare.arms`); None: no flag does.
    """

    id: str
    title: str
    stage: str
    state: str
    why: str
    action: str
    confidence: str
    on_ms: float
    off_ms: float
    saving_ms: float | None
    since: str | None
    shown_by: tuple[Sighting, ...]
    arm: str | None = None


STATES = {
    "on": "on",
    "partly-on": "on in some places, off in others",
    "miss": "off, and should be on",
    "not-in-version": "off: not in this engine version",
    "version-unknown": "off: a miss, or not in this engine version (which is not known)",
    "needs-quality": "off: another request quality turns it on",
    "opportunity": "off: an opportunity",
    "not-needed": "off, and would gain nothing here",
    "info": "off: for information",
    "superseded": "off: a better alternative is reported",
    "not-seen": "neither the path nor what it replaces is in the trace",
    "not-applicable": "not for this model or device",
}
"""The states of a path, most telling first, in words."""

ON, ACTIONABLE = ("on", "partly-on"), ("miss", "not-in-version", "version-unknown", "needs-quality", "opportunity")
SHOWN_SIGHTINGS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a trace shows: the rows of its denoise steps, and of what was launched outside of them (``decode``).

    ``calls`` are the names of its runtime and driver calls, ``metrics`` the values that rules may ask for by name
    (``schemas/fast-path.json``).
    """

    denoise: Sequence[Row]
    decode: Sequence[Row]
    calls: Sequence[str]
    metrics: Mapping[str, float]

    def rows(self, path: FastPath) -> Sequence[Row]:
        """Return the rows in which a path of its stage would be seen."""
        return self.denoise if path.stage == "denoise" else self.decode


def judge(evidence: Evidence, situation: Situation, limits: Ceilings) -> tuple[Finding, ...]:
    """Return the state of every path of the table, most telling first, then by saving at these ceilings."""
    found = [(path, _judge(path, evidence, situation, limits)) for path in fast_paths()]
    best: dict[str, int] = {}
    for path, finding in found:
        if path.group and finding.state in (*ON, *ACTIONABLE):
            best[path.group] = min(best.get(path.group, path.rank), path.rank)
    findings = [
        _superseded(finding) if path.group and path.rank > best.get(path.group, path.rank) else finding
        for path, finding in found
    ]
    order = list(STATES)
    return tuple(
        sorted(findings, key=lambda one: (order.index(one.state), -(one.saving_ms or 0.0), -one.off_ms, one.id))
    )


def _superseded(finding: Finding) -> Finding:
    if finding.state not in ACTIONABLE:
        return finding
    return replace(
        finding, state="superseded", why="a better alternative of its group is on or reported", saving_ms=None
    )


def _judge(path: FastPath, evidence: Evidence, situation: Situation, limits: Ceilings) -> Finding:
    rows, metrics = evidence.rows(path), evidence.metrics
    on = [row for row in rows if _shows(path, row)]
    launched = path.on.launch is not None and any(map(path.on.launch.search, evidence.calls))
    matches = [_matches(rule, rows, metrics) for rule in path.off]
    is_off = bool(matches) and all(matched for matched, _ in matches)
    replaced = list({id(row): row for _, found in matches for row in found}.values()) if is_off else []
    refused = _inapplicable(path, situation)
    if on or launched:
        state, why = (
            ("partly-on", "both it and what it replaces run") if is_off and replaced else ("on", "its kernels run")
        )
    elif refused:
        state, why = "not-applicable", refused
    elif is_off:
        state, why = _off(path, situation, metrics)
    else:
        state, why = "not-seen", "neither it nor what it replaces runs"
    shown = on if state == "on" else on + replaced
    return Finding(
        id=path.id,
        title=path.title,
        stage=path.stage,
        state=state,
        why=why,
        action=_action(path, state, path.since_for(situation.family)),
        confidence=path.confidence,
        on_ms=sum(row.ms for row in on),
        off_ms=sum(row.ms for row in replaced),
        saving_ms=saving(path, replaced, matches, rows, limits) if state in (*ACTIONABLE, "partly-on") else None,
        since=path.since_for(situation.family),
        arm=_arm(path, state),
        shown_by=tuple(
            Sighting(kernel=row.kernel, operator=row.operator, module=row.module, per_step=row.per_step, ms=row.ms)
            for row in sorted(shown, key=lambda row: -row.ms)[:SHOWN_SIGHTINGS]
            if state not in {"not-applicable", "not-seen"}
        ),
    )


def _action(path: FastPath, state: str, since: str | None) -> str:
    """Return what to do about a path in this state; nothing when it is on."""
    quality = " or ".join(path.quality or ())
    if state == "on":
        return ""
    if state == "not-in-version":
        return f"upgrade SGLang to {since} or later" + (f", then ask for quality {quality}" if quality else "")
    if state == "version-unknown":
        return f"upgrade SGLang if this is older than {since}; else: {path.action}"
    return path.action


def _arm(path: FastPath, state: str) -> str | None:
    """Return the arm that turns a path on which is off; None where no flag does."""
    if state == "needs-quality" and path.quality:
        return f"quality={path.quality[-1]}"
    return path.arm if state in {"miss", "opportunity"} else None


def _shows(path: FastPath, row: Row) -> bool:
    kernel, operator = path.on.kernel, path.on.operator
    return bool((kernel and kernel.search(row.kernel)) or (operator and operator.search(row.operator)))


def _inapplicable(path: FastPath, situation: Situation) -> str | None:
    if "*" not in path.models and situation.family is not None and situation.family not in path.models:
        return f"for {', '.join(path.models)}"
    if "*" not in path.models and situation.family is None:
        return f"for {', '.join(path.models)}; the model of the trace is not known"
    if path.least_sm and situation.compute_capability and situation.compute_capability < path.least_sm:
        return f"for compute capability {path.least_sm / 10:.1f} and later"
    if path.least_gpus and situation.gpus is not None and situation.gpus < path.least_gpus:
        return f"for {path.least_gpus} GPUs and more"
    return None


def _off(path: FastPath, situation: Situation, metrics: Mapping[str, float]) -> tuple[str, str]:
    """Return the state of a path that is off, and why."""
    if path.when_off == "info":
        return "info", "what it replaces runs"
    if path.when_off == "opportunity":
        return "opportunity", path.conditions
    percent = metrics["host_wait_percent"]
    if path.when_off == "miss-if-launch-bound" and percent <= LAUNCH_BOUND_PERCENT:
        return "not-needed", f"host wait is {percent:.1f} % of the step: not launch-bound"
    missed = ("miss", f"what it replaces runs; its conditions: {path.conditions}")
    return _by_version(path, situation) or _by_quality(path, situation) or missed


def _by_version(path: FastPath, situation: Situation) -> tuple[str, str] | None:
    since = path.since_for(situation.family)
    if since is None:
        return None
    if situation.engine_version is None:
        return "version-unknown", f"SGLang has it since {since}; the trace does not say which version made it"
    if _older(situation.engine_version, since):
        return "not-in-version", f"SGLang has it since {since}; this is {situation.engine_version}"
    return None


def _by_quality(path: FastPath, situation: Situation) -> tuple[str, str] | None:
    if path.quality is None or situation.quality in path.quality:
        return None
    had = "that of this request is not known" if situation.quality is None else f"this request had {situation.quality}"
    return "needs-quality", f"request quality {' or '.join(path.quality)} mounts it; {had}"


def _older(version: str, since: str) -> bool:
    try:
        return Version(version) < Version(since)
    except InvalidVersion:
        return False


def _matches(rule: Rule, rows: Sequence[Row], metrics: Mapping[str, float]) -> tuple[bool, list[Row]]:
    """Return whether what a rule describes is there, and the rows that show it."""
    if rule.metric is not None:
        value = metrics[rule.metric]
        return (value > rule.above if rule.above is not None else value == rule.equals), []
    if rule.structure == "split-qkv":
        found = [row for row in rows if is_square_projection(row)]
        return any(row.per_step >= LEAST_SPLIT_PROJECTIONS for row in found), found
    found = [row for row in rows if _fits(rule, row)]
    count = sum(row.per_step for row in found)
    return count > 0 and count >= (rule.least_per_step or 0), found


def _fits(rule: Rule, row: Row) -> bool:
    for pattern, text in ((rule.kernel, row.kernel), (rule.operator, row.operator), (rule.module, row.module)):
        if pattern is not None and not pattern.search(text):
            return False
    if rule.operands is not None:
        how = operands(row.signature) if row.signature else None
        broadcast = ("tensor-then-vector", "vector-then-tensor")
        if how not in (broadcast if rule.operands == "broadcast" else (rule.operands,)):
            return False
        # a residual of a few elements is bookkeeping, not the site of a fusion
        if how == "same-shape" and row.category != "residual":
            return False
    return rule.least_bytes is None or (row.work.moved_bytes or 0.0) >= rule.least_bytes
