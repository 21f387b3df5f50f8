"""Receipts of a launch: which optional features were asked for, and what shows that each engaged.

A receipt has one of three results. What no line, argument or dump of the engine shows has no evidence: that is told as
such and never counted as engaged.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import re2

from bench.catalog import fast_paths
from bench.catalog import receipts as catalog
from bench.catalog.signals import applies
from bench.fallback import finding as f
from bench.fallback import settings
from bench.fallback.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.catalog.receipts import Feature, Sign
    from bench.fallback.facts import Facts, Traced

ENGAGED = "engaged"
NOT_ENGAGED = "asked, not engaged"
NO_EVIDENCE = "no evidence"

CACHES = frozenset({"cache-dit", "teacache"})
SHOWN_CHARACTERS = 100
KEPT_LINES = 100
"""Of a sign: a component says its attention once, and a server could name each batch."""
FEWEST_STEPS = 8
"""With fewer, one hiccup looks like a pattern."""
REUSED_BELOW = 0.5
"""A step that takes less than this share of a computed one was reused: a cache computes one block in some twenty."""
COMPUTED_ABOVE = 0.8
COMPUTED_PLACE = 5
"""Caches leave a fifth of the steps to compute, or more: so the step at a fifth of the longest first is one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A feature that was asked for, and whether it engaged: ``text`` is the line, or what speaks for the result."""

    id: str
    feature: str
    asked: str
    result: str
    text: str
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A feature that was asked for, the setting that asks for it, and its value."""

    feature: Feature
    setting: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A line that a sign was found in."""

    line: int
    text: str
    groups: Mapping[str, str]

    def falls_short(self) -> bool:
        """Tell whether the line gives a number that shows that nothing came of it."""
        have = self.groups.get("have")
        return have is not None and int(have) <= int(self.groups.get("over", 0))


def wanted(argv: Sequence[str], environment: Mapping[str, str]) -> list[Asked]:
    """Return what arguments and variables ask for; the last value of a flag counts, as it does to the engine."""
    arguments = list(settings.of_arguments(argv))
    derived = [("sequence-gpus", str(_sequence_gpus(dict(arguments))))]
    return _wanted({"argument": arguments, "environment": list(environment.items()), "derived": derived})


def _sequence_gpus(arguments: Mapping[str, str]) -> int:
    """Return how many GPUs share a sequence: those that tensor and CFG parallelism leave."""
    halves = 2 if arguments.get("--enable-cfg-parallel", "false").lower() not in settings.FALSE_WORDS else 1
    try:
        split = int(arguments.get("--tp-size", 1)) * int(arguments.get("--cfg-parallel-size", halves))
        return int(arguments.get("--num-gpus", 1)) // max(1, split)
    except ValueError:
        return 1


def wanted_by_resolved(resolved: Mapping[str, object]) -> list[Asked]:
    """Return what an engine's own resolved arguments ask for, where the command is not known."""
    return _wanted({"resolved": [(name, _word(value)) for name, value in resolved.items() if value is not None]})


def asks_for_cache(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Tell whether settings ask for a cache that reuses denoise steps."""
    return any(one.feature.id in CACHES for one in wanted(argv, environment))


def _wanted(said: Mapping[str, Sequence[tuple[str, str]]]) -> list[Asked]:
    flags = {name for name, _ in said.get("argument", ())}
    asked = []
    for feature in catalog.features():
        if flags.isdisjoint(feature.unless):
            asked += _of_feature(feature, said)
    return asked


def _of_feature(feature: Feature, said: Mapping[str, Sequence[tuple[str, str]]]) -> list[Asked]:
    for ask in feature.asked:
        pairs = [(name, value) for name, value in said.get(ask.on, ()) if name in ask.names]
        if pairs and settings.holds(ask, pairs[-1][1]):
            # one flag with a value for each component asks for each of them
            counting = pairs if any("=" in value for _, value in pairs) else pairs[-1:]
            return [
                Asked(feature=feature, setting=f"{name}={value}" if value else name, value=value)
                for name, value in counting
            ]
    return []


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Signs:
    """Collects the lines of one log that show or deny a feature."""

    def __init__(self) -> None:
        self._lines: dict[Sign, deque[_Seen]] = {}

    def see(self, sign: Sign, number: int, line: str, groups: Mapping[str, str]) -> None:
        """Take a line that a sign was found in."""
        seen = self._lines.setdefault(sign, deque(maxlen=KEPT_LINES))
        if not seen or seen[-1].text != line:
            seen.append(_Seen(line=number, text=line.strip(), groups=groups))

    def of(self, sign: Sign) -> list[_Seen]:
        """Return the lines of a sign, in order."""
        return list(self._lines.get(sign, ()))


def signs_of(version: str | None) -> list[Sign]:
    """Return the signs of a version that are lines, each once."""
    every = [sign for feature in catalog.features() for sign in (*feature.shown, *feature.denied)]
    return list(dict.fromkeys(sign for sign in every if sign.pattern and applies(sign.versions, version)))


# --- judging ---------------------------------------------------------------------------------------------------------


def judge(asked: Iterable[Asked], signs: Signs, facts: Facts, version: str | None, *, is_whole: bool) -> list[Receipt]:
    """Return a receipt for each feature that was asked for; a launch that is not whole may not have come to it."""
    features = list(asked)
    given = [_Judge(signs, facts, version, is_whole).receipt(one) for one in features]
    if sum(one.id in CACHES and one.result == ENGAGED for one in given) > 1:
        text = "two caches were asked for, and the steps that were reused do not tell by which"
        return [replace(one, result=NO_EVIDENCE, text=text) if one.id in CACHES else one for one in given]
    return given


def findings(asked: Sequence[Asked], receipts: Sequence[Receipt], known: Iterable[Finding]) -> list[Finding]:
    """Return a finding for each feature that did not engage, unless one of the ``known`` findings says so."""
    told = {finding.id for finding in known if finding.severity != f.INFO}
    return [
        Finding(
            id=f"receipt.{one.id.replace('-', '_')}",
            category="receipt",
            severity=feature.kind,
            source="log",
            text=f"{one.asked}: {one.text}",
            means=feature.means,
            todo=feature.todo,
            line=one.line,
        )
        for one, feature in zip(receipts, (each.feature for each in asked), strict=True)
        if one.result == NOT_ENGAGED and told.isdisjoint(feature.told_by)
    ]


@dataclass(frozen=True, slots=True)
class _Judge:
    """What is known of a launch."""

    signs: Signs
    facts: Facts
    version: str | None
    is_whole: bool

    def receipt(self, asked: Asked) -> Receipt:
        feature = asked.feature
        for sign in feature.denied:
            if seen := self.signs.of(sign):
                return _receipt(asked, NOT_ENGAGED, seen[0].text, seen[0].line)
        signs = [sign for sign in feature.shown if applies(sign.versions, self.version)]
        traced = list(filter(None, (_of_trace(sign, asked, self.facts) for sign in signs)))
        results = traced + [self._result(sign, asked) for sign in signs if not sign.kernels and not sign.quality_paths]
        if any(result != NO_EVIDENCE for result, *_ in traced):
            results = [each for each in results if each[0] != NO_EVIDENCE]
        if not results:
            return _receipt(asked, NO_EVIDENCE, "this version of the engine does not report it")
        for result, text, line in sorted(results, key=lambda each: RESULTS.index(each[0])):
            if result != ENGAGED:
                return _receipt(asked, result, text, line)
        texts, lines = [text for _, text, _ in results], [line for *_, line in results if line is not None]
        return _receipt(asked, ENGAGED, "; ".join(texts), next(iter(lines), None))

    def _result(self, sign: Sign, asked: Asked) -> tuple[str, str, int | None]:
        if sign.reuses_steps:
            return _reuse(self.facts)
        if sign.resolved:
            return self._resolved(sign.resolved, asked)
        component, _, value = asked.value.rpartition("=") if "(?P<component>" in sign.pattern else ("", "", asked.value)
        seen = [line for line in self.signs.of(sign) if not component or line.groups.get("component") == component]
        for line in seen:
            if line.falls_short() or ("value" in line.groups and value not in words(line.groups["value"])):
                return NOT_ENGAGED, line.text, line.line
        if seen:
            return ENGAGED, seen[0].text, seen[0].line
        silence = asked.feature.silence
        if self.is_whole and silence and self.version is not None and applies(silence, self.version):
            return NOT_ENGAGED, "the engine logs a line when it engages, and the log has none", None
        return NO_EVIDENCE, "no line of the engine says so", None

    def _resolved(self, name: str, asked: Asked) -> tuple[str, str, int | None]:
        said = self.facts.server_args or {}
        if name not in said:
            return NO_EVIDENCE, f"the engine does not report its {name}", None
        text = f"the engine resolved {name} = {_word(said[name])}"
        if _word(said[name]) != (asked.value.lower() or "true"):
            return NOT_ENGAGED, text, None
        if not self.facts.requests:
            return NO_EVIDENCE, f"{text}, and served no request", None
        return ENGAGED, text, None


RESULTS = (NOT_ENGAGED, NO_EVIDENCE, ENGAGED)
"""The first of several signs' results in this order is a feature's."""


def _receipt(asked: Asked, result: str, text: str, line: int | None = None) -> Receipt:
    feature = asked.feature
    return Receipt(id=feature.id, feature=feature.feature, asked=asked.setting, result=result, text=text, line=line)


def words(text: str) -> list[str]:
    """Return the words of a value such as ``fa, torch_sdpa`` or ``self=fa;cross=fa3``."""
    return text.replace(",", " ").replace(";", " ").replace("=", " ").split()


# --- what a traced request shows -------------------------------------------------------------------------------------


def _of_trace(sign: Sign, asked: Asked, facts: Facts) -> tuple[str, str, int | None] | None:
    """Return what a traced request says of a sign; None if none was traced, or the sign is not of that kind."""
    if facts.traced is None:
        return None
    if sign.reuses_steps:
        return _reused_blocks(facts.traced)
    if sign.quality_paths:
        return _quality_paths(facts.traced, asked.value.lower())
    return _kernels(dict(sign.kernels), facts.traced, asked.value.lower() or "true") if sign.kernels else None


def _kernels(patterns: Mapping[str, str], traced: Traced, value: str) -> tuple[str, str, int | None]:
    """Judge by the kernels of each value: those of the one that was asked for, or of others alone."""
    if value not in patterns:
        return NO_EVIDENCE, f"the kernels of {value} are not known", None
    ran = {name: _ran(traced, pattern) for name, pattern in patterns.items()}
    if ran[value]:
        return ENGAGED, f"a traced request ran {ran[value]}", None
    if others := next(filter(None, ran.values()), None):
        return NOT_ENGAGED, f"a traced request ran {others}, and no kernel of {value}", None
    return NO_EVIDENCE, f"a traced request ran no kernel of {' or '.join(patterns)}", None


def _ran(traced: Traced, pattern: str) -> str:
    """Return the kernel or operator that a pattern finds most often, with how often it ran; empty if it finds none."""
    found = {name: count for name, count in traced.kernels.items() if re2.search(pattern, name)}
    if not found:
        return ""
    name = max(found, key=lambda each: found[each])
    return f"{name[:SHOWN_CHARACTERS]} {found[name]} times"


def _quality_paths(traced: Traced, quality: str) -> tuple[str, str, int | None]:
    """Judge by the fast paths that only a quality turns on."""
    for path in fast_paths.fast_paths():
        mounted_by = path.quality or ()
        # extra-high is newer than the table, and at least as exact as lossless
        if path.stage == "denoise" and (
            quality in mounted_by or (quality == "extra-high" and "lossless" in mounted_by)
        ):
            for name, count in traced.kernels.items():
                if any(pattern and pattern.search(name) for pattern in (path.on.kernel, path.on.operator)):
                    return ENGAGED, f"{path.title}: a traced request ran {name[:SHOWN_CHARACTERS]} {count} times", None
    return NO_EVIDENCE, "a traced request ran no kernel that is known to be of a quality", None


def _reused_blocks(traced: Traced) -> tuple[str, str, int | None]:
    """Judge by the transformer blocks that each step ran a forward pass: a cache leaves some out, or all.

    A step without the pass of classifier-free guidance runs half of them, and reuses none.
    """
    blocks = [Fraction(*counts) for counts in zip(traced.blocks, traced.forwards, strict=True)]
    most = max(blocks, default=Fraction())
    if most <= 1:
        return NO_EVIDENCE, "the trace does not tell the transformer blocks of each step", None
    reused = sum(count < most for count in blocks)
    text = f"{reused} of {len(blocks)} traced steps ran fewer than {float(most):g} transformer blocks a forward pass"
    return (ENGAGED if reused else NOT_ENGAGED), text, None


# --- what the times of steps show ------------------------------------------------------------------------------------


def _reuse(facts: Facts) -> tuple[str, str, int | None]:
    """Judge the steps of each request: that with the fewest reused steps decides."""
    if facts.device == "cpu":
        # on a busy one, steps that were all computed differed by a factor of four
        return NO_EVIDENCE, "on a CPU a step's time does not tell a reused one from a computed one", None
    counts = [(reused_steps(steps), len(steps)) for steps in facts.steps_ms]
    known = [(reused, of) for reused, of in counts if reused is not None]
    if not counts or len(known) < len(counts):
        return NO_EVIDENCE, "the perf dump's steps do not tell reused ones from computed ones", None
    reused, of = min(known)
    text = f"{reused} of {of} steps took less than half the time of a computed one"
    return (ENGAGED if reused else NOT_ENGAGED), text, None


def reused_steps(steps_ms: Sequence[float]) -> int | None:
    """Return how many steps took so little time that they reused earlier ones; None if their times do not tell."""
    if len(steps_ms) < FEWEST_STEPS:
        return None
    longest_first = sorted(steps_ms, reverse=True)
    computed = longest_first[len(steps_ms) // COMPUTED_PLACE]
    if longest_first[1] * REUSED_BELOW > computed:
        return None  # several kinds of steps, or hiccups
    if any(REUSED_BELOW * computed <= step < COMPUTED_ABOVE * computed for step in steps_ms):
        return None  # neither the one nor the other
    return sum(step < REUSED_BELOW * computed for step in steps_ms)
